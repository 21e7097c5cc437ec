"""Pruning masks: exact counts, nesting, and agreement with torch.nn.utils.prune and SynFlow written out."""

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from shared.classification.pruning import (
    apply_mask,
    conv_weights,
    exponential_sparsities,
    imp_mask,
    omp_mask,
    sparsity,
    synflow_mask,
)
from shared.errors import UserError

NUM = 16 * 9 + 32 * 16 * 9 + 32 * 32 * 9  # convolution weights of tiny_cnn with one channel


def flat(mask):
    return torch.cat([part.flatten() for part in mask.values()])


def test_only_convolutions_are_pruned(model):
    names = set(omp_mask(model, 0.5))
    assert names == {name for name, p in model.named_parameters() if p.ndim == 4}
    assert sum(weight.numel() for weight in conv_weights(model).values()) == NUM


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.8, 0.95, 0.9999])
def test_counts_are_exact(rate, model):
    for mask in (omp_mask(model, rate), synflow_mask(model, rate, 10, (1, 8, 8))):
        assert int((~flat(mask)).sum()) == round(rate * NUM)
        assert sparsity(mask) == round(rate * NUM) / NUM


def test_one_shot_agrees_with_torch_prune(model):
    reference = copy.deepcopy(model).to(memory_format=torch.contiguous_format)  # torch.nn.utils.prune needs that
    layers = [(m, "weight") for m in reference.modules() if isinstance(m, nn.Conv2d)]
    prune.global_unstructured(layers, pruning_method=prune.L1Unstructured, amount=0.9)
    expected = torch.cat([layer.weight_mask.flatten().bool() for layer, _ in layers])
    assert torch.equal(flat(omp_mask(model, 0.9)), expected)


def test_masks_of_one_network_nest_even_with_ties(model):
    with torch.no_grad():
        for weight in conv_weights(model).values():
            weight.copy_((weight * 20).round() / 20)
    masks = [flat(omp_mask(model, rate)) for rate in (0.0, 0.3, 0.31, 0.75, 0.9, 0.99)]
    assert masks[0].all()
    for dense, sparse in itertools.pairwise(masks):
        assert not (sparse & ~dense).any()


def test_iterative_rounds_keep_what_is_gone_and_rank_the_rest(model):
    first = imp_mask(model, 0.5, None)
    with torch.no_grad():
        for name, weight in conv_weights(model).items():  # pruned weights grow large: they stay pruned
            weight.add_(100.0 * ~first[name])
    second = imp_mask(model, 0.8, first)
    assert not (flat(second) & ~flat(first)).any()
    magnitudes = flat(conv_weights(model)).abs()
    removed = flat(first) & ~flat(second)
    assert magnitudes[removed].max() <= magnitudes[flat(second)].min()
    with pytest.raises(ValueError, match="already prunes"):
        imp_mask(model, 0.4, first)


def test_exponential_schedule_removes_the_same_share_each_step():
    reached = exponential_sparsities(0.95, 14)
    left = [1.0] + [1 - s for s in reached]
    ratios = [b / a for a, b in itertools.pairwise(left)]
    assert len(reached) == 14
    assert reached[-1] == 0.95
    assert ratios == pytest.approx([0.05 ** (1 / 14)] * 14)
    assert exponential_sparsities(1 - 0.8**14, 14)[0] == pytest.approx(0.2)


def test_synflow_conserves_flow_and_equals_the_score_by_hand():
    """Linear chain: R = 1' |W2| |W1| 1, so the score of an entry of W1 is its size times |W2|'s column sum."""
    torch.manual_seed(0)
    chain = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.ReLU(), nn.Conv2d(4, 2, 1, bias=False))
    w_1, w_2 = (chain[i].weight.detach().abs()[:, :, 0, 0].double() for i in (0, 2))
    scores = torch.cat([(w_1 * w_2.sum(0)[:, None]).flatten(), (w_2 * w_1.sum(1)).flatten()])
    torch.testing.assert_close(scores[:12].sum(), scores[12:].sum())  # what a layer passes on is what it got
    mask = synflow_mask(chain, 0.35, 1, (3, 1, 1))
    expected = torch.ones(20, dtype=torch.bool)
    expected[scores.argsort()[:7]] = False
    assert torch.equal(flat(mask), expected)


def test_synflow_does_not_cut_a_layer_off_and_leaves_the_model_alone(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    mask = synflow_mask(model, 0.98, 100, (1, 8, 8))
    assert all(part.any() for part in mask.values())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training == model.body.training


def test_apply_mask_makes_the_sparsity(model):
    mask = omp_mask(model, 0.9)
    dense = dict(copy.deepcopy(model).named_parameters())
    assert apply_mask(model, mask) is model
    assert sparsity(model) == sparsity(mask)
    for name, parameter in model.named_parameters():
        kept = mask.get(name, torch.ones_like(parameter, dtype=torch.bool))
        assert torch.equal(parameter[kept], dense[name][kept])


def test_bad_input(model):
    with pytest.raises(ValueError, match=r"in \[0, 1\), not 1.0"):
        omp_mask(model, 1.0)
    with pytest.raises(UserError, match="Linear has no convolution"):
        omp_mask(nn.Linear(2, 2), 0.5)
    with torch.no_grad():
        next(iter(conv_weights(model).values()))[0, 0, 0, 0] = float("nan")
    with pytest.raises(UserError, match="diverged"):
        omp_mask(model, 0.5)
