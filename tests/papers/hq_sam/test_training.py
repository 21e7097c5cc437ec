"""Tuning: what moves and what stays, which mask the loss reads, kept embeddings, workers, and a killed run."""

from functools import partial

import numpy as np
import pytest
import torch

from papers.hq_sam import training
from papers.hq_sam.models import new_names
from papers.hq_sam.options import AdaptedTraining, HqOptions, HqTraining
from papers.hq_sam.training import TuningLoss, adapted_names, build_adapted, build_hq_sam, train_adapted, train_hq_sam
from shared.errors import UserError
from shared.segmentation import context as context_module
from shared.segmentation.context import Context
from shared.segmentation.losses import point_loss
from shared.segmentation.prompted_batches import PromptedBatchMaker, ReadPictures
from shared.segmentation.sam.model import build_sam, count
from shared.segmentation.sam.options import SIZES
from shared.segmentation.samples import Sample
from shared.segmentation.steps import plan_epoch
from shared.training.checkpoint import Checkpoint

SMALL = SIZES["small_patch8"]
RECIPE = {
    "epochs": 2,
    "steps_per_epoch": 2,
    "batch": 3,
    "milestones": [1],
    "jitter": False,
    "loss_points": 64,
    "prompt_points": 3,
}


class InMemory(Context):
    """Data sets are lists."""

    def open(self, spec):
        return spec


def ring(number):
    random = np.random.default_rng(number)
    rows, columns = np.mgrid[:64, :64]
    distance = np.hypot(rows - random.integers(24, 40), columns - random.integers(24, 40))
    mask = (distance < 18) & (distance > 15)
    image = random.integers(0, 90, (64, 64, 3), np.uint8)
    image[mask] += 120
    return Sample(f"ring{number}", image, mask.astype(np.uint8) * 255)


SOURCE = [ring(number) for number in range(10)]


@pytest.fixture(scope="module")
def sam(spread):
    return spread(build_sam(SMALL, seed=0)).requires_grad_(False)


def context(**more):
    return InMemory(torch.device("cpu"), seed=2, data={"train": SOURCE, "other": SOURCE[:4]}, **more)


def hq_trained(sam, run=None, **options):
    chosen = HqTraining(**{**RECIPE, **options})
    model = build_hq_sam(sam, chosen, seed=7)
    train_hq_sam(model, sam, chosen, run or context())
    return model


def adapted_trained(sam, run=None, **options):
    chosen = AdaptedTraining(**{**RECIPE, **options})
    model = build_adapted(sam, chosen, seed=7)
    train_adapted(model, sam, chosen, run or context())
    return model


def moved(model, before):
    """Names of the tensors that are not those of `before`, to the bit."""
    return {name for name, value in model.state_dict().items() if not same(value, before.state_dict().get(name))}


def same(value, other):
    return other is not None and torch.equal(value, other)


def one_batch(model, source=SOURCE, kinds=("box", "points", "mask"), batch=6):
    maker = PromptedBatchMaker(ReadPictures(source, 64, jitter=False), model.size.low_res, kinds, 3)
    return maker(plan_epoch(len(source), batch, 1, torch.Generator().manual_seed(1))[0])


def test_a_fresh_model_is_sam_with_25_new_tensors(sam):
    options = HqTraining(**RECIPE)
    model = build_hq_sam(sam, options, seed=7)
    assert moved(model, sam) == set(new_names(model))
    assert len(new_names(model)) == 25
    again = build_hq_sam(sam, options, seed=7)
    assert not moved(again, model)
    assert moved(build_hq_sam(sam, options, seed=8), model) == {
        name for name in new_names(model) if not name.endswith(("1.weight", "1.bias")) or "hf_mlp" in name
    }  # all but the norms, which start at one and zero


def test_every_tensor_of_sam_is_bit_identical_after_tuning(sam):
    model = hq_trained(sam)
    fresh = build_hq_sam(sam, HqTraining(**RECIPE), seed=7)
    assert moved(model, sam) == set(new_names(model))
    assert moved(model, fresh) == set(new_names(model))
    assert not model.training


def test_exactly_the_new_tensors_have_a_gradient(sam):
    model = build_hq_sam(sam, HqTraining(**RECIPE), seed=7)
    model.freeze(new_names(model))
    TuningLoss(HqTraining(**RECIPE), None, {"hq_token_only": True})(model, one_batch(model)).backward()
    assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} == set(new_names(model))


def test_the_loss_reads_the_hq_tokens_mask_of_each_prompt(sam):
    model = build_hq_sam(sam, HqTraining(**RECIPE), seed=7)
    batch, options = one_batch(model), HqTraining(**{**RECIPE, "loss_points": 256})
    assert len(batch.kinds.unique()) == 3
    found = TuningLoss(options, None, {"hq_token_only": True})(model, batch)
    # one prompt after the other, in the order of the batch
    groups, order = batch.prompts()
    each = [group[i : i + 1] for group in groups for i in range(len(group))]
    with torch.no_grad():
        logits = torch.cat([model(batch.images, prompt).hq[:, 0] for prompt in each])
    terms = point_loss(logits, batch.labels[order] / 255, torch.Generator().manual_seed(batch.seed), 256)
    torch.testing.assert_close(found.detach(), sum(terms), atol=1e-4, rtol=1e-4)


def test_kept_embeddings_change_no_step(sam, monkeypatch):
    calls = []
    encoder_forward = type(sam.image_encoder).forward

    def counted(self, x):
        calls.append(len(x))
        return encoder_forward(self, x)

    monkeypatch.setattr(type(sam.image_encoder), "forward", counted)
    kept = hq_trained(sam)
    assert calls == [8, 2]  # ten pictures, once
    calls.clear()
    monkeypatch.setattr(training, "EMBEDDED_BYTES", 0)
    recomputed = hq_trained(sam)
    assert calls == [3, 3, 3, 3]
    for name, value in kept.state_dict().items():
        torch.testing.assert_close(value, recomputed.state_dict()[name], atol=1e-5, rtol=1e-4)


def test_an_encoder_that_learns_or_jittered_pictures_are_embedded_in_every_step(sam, monkeypatch):
    monkeypatch.setattr(training, "embed_all", None)  # it must not be called
    hq_trained(sam, jitter=True)
    adapted_trained(sam, tune="lora")
    with pytest.raises(TypeError):
        adapted_trained(sam, tune="decoder")


def test_workers_change_nothing(sam):
    alone = hq_trained(sam, jitter=True)
    helped = hq_trained(sam, context(threads=3), jitter=True)
    assert not moved(helped, alone)


def test_a_killed_run_ends_in_the_same_weights(sam, monkeypatch, tmp_path):
    monkeypatch.setattr(context_module, "Checkpoint", partial(Checkpoint, seconds=0.0))
    whole, calls, loss = hq_trained(sam), [], TuningLoss.__call__

    def killed(self, net, batch):
        calls.append(batch)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return loss(self, net, batch)

    monkeypatch.setattr(TuningLoss, "__call__", killed)
    with pytest.raises(KeyboardInterrupt):
        hq_trained(sam, context(workdir=tmp_path, key="k"))
    resumed = hq_trained(sam, context(workdir=tmp_path, key="k"))
    assert len(calls) == 4 + 1
    assert not moved(resumed, whole)


def test_the_rate_falls_at_the_milestone_and_the_loss_falls_too(sam):
    run = context()
    hq_trained(sam, run, epochs=6, steps_per_epoch=5, lr=1e-2, milestones=[5])
    history = run.fits[0].history
    assert [row["lr"] for row in history] == pytest.approx([1e-2] * 5 + [1e-3])
    assert run.fits[0].steps == 30
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]


def test_the_part_learns_from_the_set_that_it_names(sam):
    assert moved(hq_trained(sam, data="other"), hq_trained(sam))


@pytest.mark.parametrize(
    ("tune", "part"),
    [
        ("decoder", ("mask_decoder.",)),
        ("token", ("mask_decoder.mask_tokens.", "mask_decoder.output_hypernetworks_mlps.0.")),
        ("whole", ("image_encoder.", "prompt_encoder.", "mask_decoder.")),
    ],
)
def test_fine_tuned_sams_move_their_part_and_nothing_else(sam, tune, part):
    model = adapted_trained(sam, tune=tune)
    found = moved(model, sam)
    never_asked = {"prompt_encoder.point_embeddings.0.weight"}  # no prompt has background points
    assert found == set(adapted_names(model, AdaptedTraining(tune=tune))) - never_asked
    assert all(any(name.startswith(top) for name in found) for top in part)
    assert all(name.startswith(part) for name in found)
    unreached = ("mask_decoder.iou_prediction_head.", "mask_decoder.output_hypernetworks_mlps.2.")
    assert not any(name.startswith(unreached) for name in found)


def test_of_the_mask_tokens_only_that_of_the_single_mask_moves(sam):
    model = adapted_trained(sam, tune="token")
    before, after = (net.mask_decoder.mask_tokens.weight for net in (sam, model))
    assert torch.equal(before[1:], after[1:])
    assert not torch.equal(before[0], after[0])


def test_a_batch_without_some_kinds_gives_every_trained_parameter_a_gradient(sam):
    options = AdaptedTraining(**RECIPE, tune="whole")
    model = build_adapted(sam, options, seed=7)
    names = model.freeze(adapted_names(model, options))
    sometimes = tuple(p for p in model.prompt_encoder.parameters() if p.requires_grad)
    TuningLoss(options, None, {}, sometimes)(model, one_batch(model, kinds=("box",))).backward()
    assert all(model.get_parameter(name).grad is not None for name in names)
    # the kinds that were not asked move nothing
    assert model.prompt_encoder.mask_downscaling[0].weight.grad.abs().max() == 0


@pytest.mark.parametrize("tune", ["lora", "adapters"])
def test_additions_to_the_encoder_learn_and_files_hold_only_them(sam, tune):
    options = AdaptedTraining(**RECIPE, tune=tune, rank=5)
    fresh = build_adapted(sam, options, seed=7)
    model = adapted_trained(sam, tune=tune, rank=5)
    new = moved(model, sam)
    assert new == set(model.state_dict()) - set(sam.state_dict())
    assert moved(model, fresh) == new
    assert all((".lora_" if tune == "lora" else ".adapter.") in name for name in new)
    loaded = build_adapted(sam, options, seed=9)
    loaded.load_state_dict({**sam.state_dict(), **{name: model.state_dict()[name] for name in new}})
    assert not moved(loaded, model)
    images = torch.from_numpy(np.stack([sample.image for sample in SOURCE[:2]])).permute(0, 3, 1, 2)
    with torch.no_grad():
        assert torch.equal(loaded.eval().embed(images).image, model.embed(images).image)
        assert not torch.equal(loaded.embed(images).image, sam.embed(images).image)


def test_context_tokens_alone_are_trained_through_sams_mask(sam):
    model = hq_trained(sam, hq=HqOptions(features=[], context_tokens=3))
    assert moved(model, sam) == {"mask_decoder.context_tokens.weight"}
    assert count(model, trainable=True) == 3 * 64


def test_hq_sam_does_not_start_from_another_hq_sam(sam):
    hq = build_hq_sam(sam, HqTraining(), seed=0)
    with pytest.raises(UserError, match=r"starts from a plain SAM, but this model lacks or adds mask_decoder\."):
        build_hq_sam(hq, HqTraining(hq=HqOptions(features=["decoder"])), seed=0)
