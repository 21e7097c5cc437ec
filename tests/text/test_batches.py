"""Padding, order, pairing: invariants first, then an equivalence with the released padding."""

from collections import Counter

import pytest
import torch

from shared.errors import ConfigError, DataError
from shared.text.batches import (
    Padding,
    Refusals,
    TrainBatches,
    UnlearnBatches,
    collate,
    num_targets,
    padding_share,
    plan_batches,
    retain_rows,
)
from shared.text.encode import IGNORED, EncodedRow, Encoder
from shared.text.templates import TEMPLATES
from shared.text.zoo import TinyGptOptions, tiny_gpt, word_tokenizer

PAD = 9


def row(index, length, num_masked=1):
    ids = [index + 10] * length
    labels = [IGNORED] * num_masked + ids[num_masked:]
    return EncodedRow(index, ids, [1] * length, labels, num_masked, truncated=False)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def indices(batch):
    return (batch.input_ids[:, 0] - 10).tolist()


def test_collate_pads_to_the_longest_row():
    batch = collate([row(0, 2), row(1, 4)], PAD)
    assert batch.input_ids.tolist() == [[10, 10, PAD, PAD], [11, 11, 11, 11]]
    assert batch.attention_mask.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert batch.labels.tolist() == [[IGNORED, 10, IGNORED, IGNORED], [IGNORED, 11, 11, 11]]
    assert all(tensor.dtype == torch.int64 for tensor in batch)


@pytest.mark.parametrize(("options", "width"), [({}, 5), ({"multiple": 8}, 8), ({"pad_to": 12}, 12)])
def test_width(options, width):
    assert collate([row(0, 2), row(1, 5)], PAD, **options).input_ids.shape == (2, width)


def test_collate_refuses_what_it_cannot_hold():
    with pytest.raises(DataError, match="row 3 has 5 tokens, wider than pad_to = 4"):
        collate([row(3, 5)], PAD, pad_to=4)
    with pytest.raises(DataError, match="without rows"):
        collate([], PAD)


def test_num_targets_is_the_sum_over_rows_at_any_width():
    rows = [row(0, 2), row(1, 7, num_masked=3), row(2, 3, num_masked=0)]
    expected = sum(r.num_targets for r in rows)
    assert num_targets(collate(rows, PAD)) == num_targets(collate(rows, PAD, pad_to=40)) == expected == 1 + 4 + 2


def test_released_padding_changes_no_loss():
    """The rows of the released code are 500 wide, ours as long as they are: equal loss and gradient."""
    tokenizer = word_tokenizer(["who wrote it ? ann and bob did ."], context=40)
    encoder = Encoder(tokenizer, TEMPLATES["plain"], "legacy", 40)
    rows = encoder.rows([(0, "Who wrote it?", "Ann."), (1, "Who?", "Ann and Bob did.")])
    model = tiny_gpt(TinyGptOptions(width=16, context=40), tokenizer, seed=0).double()
    found = []
    for pad_to in (None, 40):
        batch = collate(rows, encoder.pad_id, pad_to=pad_to)
        model.zero_grad()
        loss = model(**batch._asdict()).loss
        loss.backward()
        found.append((loss.item(), model.transformer.wte.weight.grad.clone()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-12)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-12)


def test_loss_of_a_row_is_that_of_its_text_with_eos():
    """Independent of masks and padding: the legacy EOS label is predicted from the last answer token."""
    tokenizer = word_tokenizer(["who wrote it ? ann and bob did ."], context=40)
    encoder = Encoder(tokenizer, TEMPLATES["plain"], "legacy", 40)
    model = tiny_gpt(TinyGptOptions(width=16, context=40), tokenizer, seed=0).double()
    batch = collate(
        [encoder.row(0, "Who?", "Ann."), encoder.row(1, "Who wrote it?", "Ann and Bob did.")], encoder.pad_id
    )
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    text = tokenizer("who ? <sep> ann .", return_tensors="pt").input_ids
    direct = model(text).logits.log_softmax(-1)[0]
    expected = [direct[2, text[0, 3]], direct[3, text[0, 4]], direct[4, tokenizer.eos_token_id]]
    kept = batch.labels[0, 1:] != IGNORED
    labels = batch.labels[0, 1:][kept]
    scored = logits[0, :-1].log_softmax(-1)[kept].gather(1, labels[:, None])[:, 0]
    assert torch.allclose(scored, torch.stack(expected))


@pytest.mark.parametrize("bucket", [0, 3])
def test_every_row_once_an_epoch(bucket):
    lengths = [n % 7 for n in range(50)]
    plan = plan_batches(lengths, 8, seeded(), bucket=bucket)
    assert sorted(i for batch in plan for i in batch) == list(range(50))
    assert sorted(len(batch) for batch in plan) == [2, 8, 8, 8, 8, 8, 8]


def test_drop_last_gives_the_released_number_of_steps():
    assert [len(plan_batches([1] * n, 32, seeded(), drop_last=True)) for n in (40, 200, 400)] == [1, 6, 12]
    with pytest.raises(ConfigError, match="batch 32 is larger than the 20 rows"):
        plan_batches([1] * 20, 32, seeded(), drop_last=True)


def test_order_depends_on_the_generator_only():
    lengths = list(range(40))
    assert plan_batches(lengths, 4, seeded(1), bucket=2) == plan_batches(lengths, 4, seeded(1), bucket=2)
    assert plan_batches(lengths, 4, seeded(1), bucket=2) != plan_batches(lengths, 4, seeded(2), bucket=2)


def test_buckets_save_padding_and_keep_the_rows():
    rows = [row(n, 2 + (n * 37) % 61) for n in range(300)]
    plain, bucketed = (list(TrainBatches(rows, Padding(PAD), 10, bucket=bucket)(0, seeded())) for bucket in (0, 10))
    assert padding_share(bucketed) < padding_share(plain) / 3
    assert Counter(i for b in plain for i in indices(b)) == Counter(i for b in bucketed for i in indices(b))


def test_padding_share_counts_positions():
    assert padding_share([collate([row(0, 1), row(1, 3)], PAD)]) == pytest.approx(2 / 6)
    assert padding_share([]) == 0


def test_training_epochs_differ_and_skip_equals_drawing():
    batches = TrainBatches([row(n, 3) for n in range(12)], Padding(PAD), 4)
    generator = seeded()
    first, second = ([indices(b) for b in batches(epoch, generator)] for epoch in (0, 1))
    assert first != second
    skipped = batches(0, seeded())
    assert len(skipped) == 3
    skipped.skip(2)
    assert [indices(b) for b in skipped] == first[2:]


@pytest.mark.parametrize("pairing", ["legacy", "uniform"])
def test_pairs_are_uniform_over_the_retain_rows(pairing):
    generator = seeded()
    counts = Counter(i for _ in range(400) for i in retain_rows(list(range(10)), 8, pairing, generator))
    assert sorted(counts) == list(range(8))
    assert all(abs(count - 500) < 5 * (500 * 7 / 8) ** 0.5 for count in counts.values())


def test_legacy_pairing_adds_the_forget_index():
    uniform = retain_rows([0, 5, 7], 8, "uniform", seeded())
    legacy = retain_rows([0, 5, 7], 8, "legacy", seeded())
    assert legacy == [(i + offset) % 8 for i, offset in zip([0, 5, 7], uniform, strict=True)]


def test_unlearn_batches_visit_every_forget_row_once():
    forget, retain = [row(n, 2) for n in range(10)], [row(50 + n, 5) for n in range(3)]
    batches = list(UnlearnBatches(forget, retain, Padding(PAD), 4)(0, seeded()))
    assert sorted(i for b in batches for i in indices(b.forget)) == list(range(10))
    assert {i for b in batches for i in indices(b.retain)} <= {50, 51, 52}
    assert [len(b.forget.input_ids) for b in batches] == [len(b.retain.input_ids) for b in batches] == [4, 4, 2]
    assert all(b.refusal is None for b in batches)


def test_unlearning_needs_retain_rows():
    with pytest.raises(DataError, match="no retain rows"):
        UnlearnBatches([row(0, 2)], [], Padding(PAD), 1)(0, seeded())


def test_refusals_answer_the_forget_questions_anew_in_every_epoch():
    texts = ["no idea .", "not sure .", "pass ."]
    tokenizer = word_tokenizer(["who what where ? ann bob", *texts], context=12)
    encoder = Encoder(tokenizer, TEMPLATES["plain"], "legacy", 12)
    questions = [(0, "who ?"), (1, "what ?"), (2, "where ?")]
    forget = encoder.rows([(i, question, "ann") for i, question in questions])
    batches = UnlearnBatches(forget, forget, Padding(encoder.pad_id), 3, refusals=Refusals(encoder, questions, texts))
    generator, drawn = seeded(), []
    for epoch in range(20):
        (batch,) = list(batches(epoch, generator))
        asked = tokenizer.batch_decode(batch.refusal.input_ids[:, :2])
        assert asked == tokenizer.batch_decode(batch.forget.input_ids[:, :2])  # row by row the same question
        drawn += [tokenizer.decode(labels[labels > 1]) for labels in batch.refusal.labels]
    assert set(drawn) == set(texts)
