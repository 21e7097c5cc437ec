"""Fused self-attention: identities with plain attention, invariants, and what the bank is."""

import copy

import pytest
import torch
from torch.testing import assert_close

from papers.diffews.fusion import Entry, attention, grid_of, install, sampled, self_attentions
from papers.diffews.options import SmallUnet
from papers.diffews.pretraining import small_unet
from shared.errors import UserError


@pytest.fixture(scope="module")
def unets():
    """The same U-Net as it is, and with the processors."""
    plain = small_unet(SmallUnet(channels=[8, 16], groups=4), 4, 8, 0).eval().requires_grad_(False)
    fused = copy.deepcopy(plain)
    return plain, fused, install(fused)


def call(unet, rows):
    return unet(rows, torch.ones(len(rows), dtype=torch.long), torch.zeros(len(rows), 2, 16)).sample


def bank_of(fused, fusion, examples, shots, visible=None):
    with fusion.writing(shots, visible) as bank:
        call(fused, examples)
    return bank


def read(fused, fusion, bank, rows):
    with fusion.reading(bank):
        return call(fused, rows)


def test_without_a_bank_it_is_the_plain_attention_to_the_bit(unets, normal):
    plain, fused, fusion = unets
    rows = normal(2, 4, 8, 8)
    assert torch.equal(call(fused, rows), call(plain, rows))
    assert torch.equal(read(fused, fusion, {}, rows), call(plain, rows))


def test_writing_leaves_the_examples_pass_as_it_is(unets, normal):
    plain, fused, fusion = unets
    rows = normal(2, 4, 8, 8)
    with fusion.writing(1):
        assert torch.equal(call(fused, rows), call(plain, rows))


def test_an_example_equal_to_the_query_changes_nothing(unets, normal):
    """Duplicated keys leave a softmax average as it is, however often."""
    plain, fused, fusion = unets
    rows = normal(1, 4, 8, 8)
    for shots in (1, 3):
        bank = bank_of(fused, fusion, rows.expand(shots, -1, -1, -1), shots)
        assert_close(read(fused, fusion, bank, rows), call(plain, rows), rtol=1e-5, atol=1e-6)


def test_another_example_changes_the_answer(unets, normal):
    plain, fused, fusion = unets
    rows = normal(1, 4, 8, 8)
    bank = bank_of(fused, fusion, normal(1, 4, 8, 8, seed=1), 1)
    assert (read(fused, fusion, bank, rows) - call(plain, rows)).abs().max() > 1e-3


def test_the_order_of_examples_does_not_matter(unets, normal):
    _, fused, fusion = unets
    rows, examples = normal(1, 4, 8, 8), normal(3, 4, 8, 8, seed=1)
    found = [read(fused, fusion, bank_of(fused, fusion, examples[list(o)], 3), rows) for o in ((0, 1, 2), (2, 0, 1))]
    assert_close(*found, rtol=1e-5, atol=1e-6)


def test_a_doubled_example_counts_as_if_its_scores_were_larger_by_log_2(normal):
    q, k, v, other_k, other_v = (normal(1, 5, 4, seed=seed) for seed in range(5))
    doubled = attention(q, torch.cat([k, other_k, other_k], 1), torch.cat([v, other_v, other_v], 1), 1)
    scores = torch.cat([q @ k.mT, q @ other_k.mT + 2 * torch.log(torch.tensor(2.0))], 2) / 2
    assert_close(doubled, scores.softmax(2) @ torch.cat([v, other_v], 1))


def test_a_batch_is_answered_row_by_row_and_one_bank_serves_all_rows(unets, normal):
    _, fused, fusion = unets
    rows, examples = normal(2, 4, 8, 8), normal(4, 4, 8, 8, seed=1)
    together = read(fused, fusion, bank_of(fused, fusion, examples, 2), rows)
    for number in range(2):
        own = bank_of(fused, fusion, examples[2 * number : 2 * number + 2], 2)
        assert_close(together[number : number + 1], read(fused, fusion, own, rows[number : number + 1]))
    shared = bank_of(fused, fusion, examples[:2], 2)
    assert_close(read(fused, fusion, shared, rows)[0], together[0])


def test_gradients_reach_the_examples(unets, normal):
    _, fused, fusion = unets
    examples = normal(1, 4, 8, 8, seed=1).requires_grad_()
    read(fused, fusion, bank_of(fused, fusion, examples, 1), normal(1, 4, 8, 8)).sum().backward()
    assert examples.grad.abs().max() > 0


def test_examples_that_are_hidden_do_not_count(unets, normal):
    plain, fused, fusion = unets
    rows, examples = normal(1, 4, 8, 8), normal(2, 4, 8, 8, seed=1)
    nothing = torch.zeros(2, 8, 8, dtype=torch.bool)
    assert_close(read(fused, fusion, bank_of(fused, fusion, examples, 2, nothing), rows), call(plain, rows))
    second = nothing.clone()
    second[1] = True
    alone = bank_of(fused, fusion, examples[1:], 1)
    found = read(fused, fusion, bank_of(fused, fusion, examples, 2, second), rows)
    assert_close(found, read(fused, fusion, alone, rows), rtol=1e-5, atol=1e-6)


def test_with_hidden_examples_the_joint_pass_is_the_plain_one(unets, normal):
    plain, fused, fusion = unets
    rows = normal(3, 4, 8, 8)
    with fusion.joint(2, mutual=True, visible=torch.zeros(2, 8, 8, dtype=torch.bool)):
        assert_close(call(fused, rows)[:1], call(plain, rows[:1]))


def test_joint_queries_see_each_other(unets, normal):
    """Unlike in KV fusion, what an example becomes depends on the query."""
    _, fused, fusion = unets
    rows, other = normal(2, 4, 8, 8), normal(2, 4, 8, 8)
    other[0] += 1
    with fusion.joint(1, mutual=True):
        changed = (call(fused, rows)[1] - call(fused, other)[1]).abs().max()
    assert changed > 1e-3


def test_identical_pictures_in_the_joint_pass_are_the_plain_pass(unets, normal):
    plain, fused, fusion = unets
    row = normal(1, 4, 8, 8)
    with fusion.joint(2, mutual=True):
        assert_close(call(fused, row.expand(3, -1, -1, -1))[:1], call(plain, row), rtol=1e-5, atol=1e-6)


def test_the_bank_has_an_entry_for_each_self_attention_and_grows_linearly(unets, normal):
    _, fused, fusion = unets
    sizes = []
    for shots in (1, 2, 4):
        bank = bank_of(fused, fusion, normal(shots, 4, 8, 8), shots)
        assert set(bank) == set(self_attentions(fused))
        sizes.append(sum(entry.keys.numel() + entry.values.numel() for entry in bank.values()))
    assert sizes == [sizes[0], 2 * sizes[0], 4 * sizes[0]]


def test_sampling_keeps_as_many_tokens_as_one_example_has(normal):
    keys, visible = normal(1, 12, 4), torch.arange(12)[None] > 3
    kept = sampled({"a": Entry(keys, 2 * keys, visible)}, 3, torch.Generator().manual_seed(0))["a"]
    assert kept.keys.shape == (1, 4, 4)
    assert torch.equal(kept.values, 2 * kept.keys)
    places = [int((keys[0] == row).all(1).nonzero()) for row in kept.keys[0]]
    assert len(set(places)) == 4
    assert kept.visible[0].tolist() == [place > 3 for place in places]
    one = sampled({"a": Entry(keys, keys, None)}, 1, torch.Generator())["a"]
    assert torch.equal(one.keys, keys)


def test_the_grid_of_a_level():
    assert grid_of(64, (8, 8)) == (8, 8)
    assert grid_of(12, (8, 6)) == (4, 3)
    assert grid_of(6, (9, 5)) == (3, 2)
    with pytest.raises(UserError, match="no level"):
        grid_of(7, (8, 8))


def test_a_copy_does_not_share_what_a_pass_has_left_open(unets, normal):
    _, fused, fusion = unets
    with fusion.writing(1):
        twin = copy.deepcopy(fused)
        call(twin, normal(1, 4, 8, 8))
        assert fusion.bank == {}
