"""UCE: the closed form against the regression's normal equations, its limits, and the alignment of prompts."""

import copy

import numpy as np
import pytest
import torch

from shared.diffusion.erasers.linear_edit import Regression, key_value_maps
from shared.diffusion.erasers.uce import Edit, UceOptions, aligned, edit_unet, uce
from shared.errors import ConfigError


def maps(unet):
    return {name: layer.weight.detach().double() for name, layer in key_value_maps(unet)}


def by_least_squares(weight, inputs, targets, scales, lam):
    """argmin sum_i s_i |W k_i - v_i|^2 + lam |W - W0|^2 as one stacked least-squares problem."""
    roots = scales.sqrt()[:, None]
    design = torch.cat([roots * inputs, lam**0.5 * torch.eye(inputs.shape[1], dtype=torch.float64)])
    wanted = torch.cat([roots * targets, lam**0.5 * weight.T])
    solution = np.linalg.lstsq(design.numpy(), wanted.numpy(), rcond=None)[0]
    return torch.from_numpy(solution).T


@pytest.fixture
def edits(states, words):
    pairs = [("a circle", "a square"), ("a red circle", "square")]
    return [
        aligned(*states([a, b]), len(words(a)), len(words(b)))
        for a, b in pairs
    ]  # fmt: skip


@pytest.mark.parametrize("technique", ["replace", "tensor"])
@pytest.mark.parametrize(("erase", "preserve", "lam"), [(1.0, None, 0.5), (0.05, 0.3, 1.0), (2.0, 0.1, 10.0)])
def test_closed_form_solves_the_regression(technique, erase, preserve, lam, unet, edits, states):
    before = maps(unet)
    kept = states(["a blue square", "a photo", ""]).flatten(0, 1)
    options = UceOptions(technique=technique, erase_scale=erase, preserve_scale=preserve, lam=lam)
    edit_unet(unet, edits, kept, 3, options)
    scale = preserve if preserve is not None else 1 / 3
    for name, weight in before.items():
        targets = [targets_of(weight, edit, technique) for edit in edits]
        inputs = torch.cat([edit.old.double() for edit in edits] + [kept.double()])
        values = torch.cat([*targets, kept.double() @ weight.T])
        scales = torch.full((len(inputs),), erase, dtype=torch.float64)
        scales[-len(kept) :] = scale
        expected = by_least_squares(weight, inputs, values, scales, lam)
        torch.testing.assert_close(maps(unet)[name], expected, atol=2e-6, rtol=1e-4)


def targets_of(weight, edit, technique):
    new = edit.new.double() @ weight.T
    if technique == "replace":
        return new
    old = edit.old.double() @ weight.T
    unit = old / old.norm()
    return new - (unit * new).sum() * unit


def test_tensor_targets_have_no_component_along_the_concept(unet, edits):
    for weight in maps(unet).values():
        for edit in edits:
            old = edit.old.double() @ weight.T
            assert abs((targets_of(weight, edit, "tensor") * old).sum()) < 1e-9 * old.norm() ** 2


def test_a_strong_edit_maps_the_concept_to_the_anchor(unet, edits):
    before = maps(unet)
    one = edits[:1]
    edit_unet(unet, one, None, 0, UceOptions(erase_scale=1e4))
    for name, weight in maps(unet).items():
        old, new = one[0].old.double(), one[0].new.double()
        torch.testing.assert_close(old @ weight.T, new @ before[name].T, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("change", [{"erase_scale": 0.0}, {"lam": 1e9}])
def test_nothing_happens_without_weight(change, unet, edits, states):
    before = maps(unet)
    edit_unet(unet, edits, states(["a photo"])[0], 1, UceOptions(**change))
    for name, weight in maps(unet).items():
        torch.testing.assert_close(weight, before[name], atol=1e-6, rtol=1e-5)


def test_a_concept_that_becomes_itself_changes_nothing(unet, edits):
    before = maps(unet)
    edit_unet(unet, [Edit(edit.old, edit.old) for edit in edits], None, 0, UceOptions())
    for name, weight in maps(unet).items():
        torch.testing.assert_close(weight, before[name], atol=1e-6, rtol=1e-5)


def test_preservation_keeps_what_it_names(unet, edits, states):
    kept = states(["a photo"])[0]
    drift = {}
    for scale in (0.0, 1e4):
        edited = copy.deepcopy(unet)
        edit_unet(edited, edits, kept, 1, UceOptions(preserve_scale=scale))
        changes = [(kept.double() @ (maps(edited)[n] - w).T).norm() for n, w in maps(unet).items()]
        drift[scale] = sum(changes)
    assert drift[1e4] < 0.02 * drift[0.0]


def test_only_keys_and_values_of_cross_attention_change(unet, concept, context):
    before = {name: p.detach().clone() for name, p in unet.named_parameters()}
    uce(unet, concept, UceOptions(), context)
    moved = {name for name, p in unet.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {f"{name}.weight" for name, _ in key_value_maps(unet)}


def test_prompts_are_aligned_from_their_last_tokens(states, words):
    old, new = states(["a red circle", "square"])
    edit = aligned(old, new, 3, 1)
    # 8 positions: the long prompt has 5 from its last token on, the short one 7
    assert torch.equal(edit.old, old[3:])
    assert torch.equal(edit.new, new[1:6])
    reverse = aligned(new, old, 1, 3)
    assert torch.equal(reverse.old, edit.new)


def test_an_edit_needs_anchors(unet, concept, context):
    from dataclasses import replace

    with pytest.raises(ConfigError, match="concept 'circle': this eraser needs anchor prompts"):
        uce(unet, replace(concept, anchors=()), UceOptions(), context)
    with pytest.raises(ConfigError, match="1 anchors for 2 prompts"):
        replace(concept, anchors=("a square",))


def test_regression_without_observations_is_the_old_weight():
    weight = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    solved = Regression(3, 0.5).solve(weight, torch.zeros(5, 3))
    torch.testing.assert_close(solved, weight)
