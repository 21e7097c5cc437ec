"""Fine-tuning: what moves, what does not, what the loss is, and that it is learnt."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from papers.promptnucseg.segmentor import training
from papers.promptnucseg.segmentor.crops import Crops, epoch_batches
from papers.promptnucseg.segmentor.options import InferenceOptions, SegmentorTraining
from papers.promptnucseg.segmentor.predict import segment
from papers.promptnucseg.segmentor.training import Judge, build, class_planes, schedule_of, segmentor_loss, train
from shared.errors import ConfigError, DataError
from shared.metrics.segmentation.instances import aji, overlaps
from shared.segmentation.context import Context
from shared.segmentation.nucleus_prompts import centroids
from shared.segmentation.sam.model import build_sam
from shared.segmentation.sam.options import SamSize, VitSize
from shared.segmentation.sam.prompts import Prompts
from shared.segmentation.samples import Instances, Sample
from shared.training.best import BestWeights
from shared.training.schedule import Schedule
from shared.training.state import LoopState

SIZE = SamSize(
    image=32, encoder=VitSize(patch=4, dim=32, depth=2, heads=2, window=0), width=32, heads=2, mlp=64, iou_hidden=32
)


def sample(number, num=3, shape=(32, 32)):
    """Bright squares that do not touch, on a dark ground with noise."""
    rng = np.random.default_rng(number)
    labels = np.zeros(shape, np.int32)
    for index, place in enumerate(rng.permutation(9)[:num]):
        y, x = 10 * (place // 3) + rng.integers(0, 4), 10 * (place % 3) + rng.integers(0, 4)
        labels[y : y + 8, x : x + 8] = index + 1
    image = np.where(labels > 0, 200, 60) + rng.normal(0, 10, shape)
    return Sample(
        f"s{number}", np.repeat(image[..., None].astype(np.uint8), 3, 2), Instances(labels, np.zeros(num, int))
    )


def sources(**sets):
    """A context on the CPU, with training sets in memory."""
    context = Context(torch.device("cpu"), 0)
    context._opened.update(sets)
    return context


def options(**changes):
    return SegmentorTraining(**{"batch": 4, "max_targets": 3, "epochs": 1, "lr": 2e-3, "max_grad_norm": 0.1, **changes})


@pytest.fixture(scope="module")
def sam():
    return build_sam(SIZE, seed=0).requires_grad_(False).eval()


def batch_of(samples, side=32, **changes):
    (batch,) = epoch_batches(samples, options(batch=len(samples), **changes), side, torch.Generator().manual_seed(0))
    return batch


def test_the_prompt_encoder_is_identical_to_the_bit_after_training(sam):
    before = {name: value.clone() for name, value in sam.state_dict().items()}
    model = build(sam, options(), 0)
    train(model, sam, options(num_negatives=1), sources(train=[sample(k) for k in range(12)]))
    after = model.state_dict()
    frozen = {name for name in before if torch.equal(before[name], after[name])}
    assert {name for name in before if name.startswith("prompt_encoder.")} <= frozen
    unread = tuple(f"mask_decoder.output_hypernetworks_mlps.{k}." for k in (1, 2, 3))
    # a key's bias shifts all scores of a softmax alike: its gradient is rounding, and may be nothing
    moved = {n for n in before if not n.startswith(("prompt_encoder.", *unread)) and not n.endswith("k_proj.bias")}
    assert moved.isdisjoint(frozen)
    assert {name for name in before if name.startswith(unread)} <= frozen
    assert all(torch.equal(before[name], value) for name, value in sam.state_dict().items())


def test_every_parameter_that_trains_has_a_gradient(sam):
    model = build(sam, options(), 0)
    segmentor_loss(model, batch_of([sample(k) for k in range(2)], num_negatives=1), options(), 32).backward()
    missing = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []
    assert not any(p.grad is not None for p in model.prompt_encoder.parameters())


def test_the_loss_is_that_of_the_paper_mask_by_mask(sam):
    batch = batch_of([sample(0, 3), sample(1, 1)])
    model = build(sam, options(), 0)
    logits, ious, truths = [], [], []
    for crop in range(2):
        for slot in range(3):
            if batch.ids[crop, slot] == 0:
                continue
            prompt = Prompts(torch.tensor([0]), batch.points[crop, slot][None], batch.point_labels[crop, slot][None])
            found = model(batch.images[crop][None], prompt)
            logits.append(found.logits[0, 0])
            ious.append(found.iou[0, 0])
            truths.append((batch.labels[crop] == batch.ids[crop, slot]).float())
    x, y, iou = torch.stack(logits), torch.stack(truths), torch.stack(ious)
    assert len(x) == 4
    p = x.sigmoid()
    p_true = torch.where(y > 0, p, 1 - p)
    focal = (-((1 - p_true) ** 2) * p_true.log()).mean()
    dice = 1 - 2 * (p * y).sum() / (p.sum() + y.sum())
    soft = (p * y).sum((1, 2)) / (p + y - p * y).sum((1, 2))
    expected = 20 * focal + dice + ((iou - soft) ** 2).mean()
    torch.testing.assert_close(segmentor_loss(model, batch, options(), 32), expected, rtol=1e-4, atol=1e-5)
    only_dice = options(focal_weight=0.0, iou_weight=0.0)
    torch.testing.assert_close(segmentor_loss(model, batch, only_dice, 32), dice, rtol=1e-4, atol=1e-5)


def test_logits_are_enlarged_to_the_crop_and_what_is_padded_does_not_count():
    """A model with tokens of 8 pixels has logits at half the resolution."""
    coarse = SIZE.model_copy(update={"encoder": VitSize(patch=8, dim=32, depth=1, heads=2, window=0)})
    model = build(build_sam(coarse, seed=0), options(), 0)
    batch = batch_of([sample(0, shape=(32, 40))], augment=[{"kind": "random_crop", "size": 24}])
    crop, slot = batch.ids.nonzero(as_tuple=True)
    found = model(batch.images, Prompts(crop, batch.points[crop, slot], batch.point_labels[crop, slot]))
    assert found.logits.shape[-1] == 16
    enlarged = F.interpolate(found.logits, (32, 32), mode="bilinear")[:, 0, :24, :24]
    truth = (batch.labels[crop] == batch.ids[crop, slot][:, None, None]).float()
    dice = 1 - 2 * (enlarged.sigmoid() * truth).sum() / (enlarged.sigmoid().sum() + truth.sum())
    loss = segmentor_loss(model, batch, options(focal_weight=0.0, iou_weight=0.0), 32)
    torch.testing.assert_close(loss, dice)


def test_a_batch_without_nuclei_has_no_loss_and_no_gradient(sam):
    model = build(sam, options(), 0)
    loss = segmentor_loss(model, batch_of([sample(0, 0), sample(1, 0)]), options(), 32)
    loss.backward()
    assert loss == 0
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters() if p.requires_grad)


def test_crops_without_nuclei_change_nothing_for_the_others(sam):
    model = build(sam, options(), 0)
    full = batch_of([sample(0), sample(1)])
    empty = batch_of([sample(2, 0)])
    padding = Crops(*(value.new_zeros(1, *other.shape[1:]) for value, other in zip(empty, full, strict=True)))
    both = Crops(*(torch.cat(pair) for pair in zip(padding, full, strict=True)))
    torch.testing.assert_close(segmentor_loss(model, both, options(), 32), segmentor_loss(model, full, options(), 32))


def quality(model, samples):
    scores = []
    for one in samples:
        found = segment(
            model, one.image, centroids(one.truth), one.truth.classes, 1, InferenceOptions(window=32, overlap=8)
        )
        scores.append(aji(overlaps(one.truth.labels, found.labels)))
    return float(np.mean(scores))


def test_it_learns(sam):
    chosen = options(epochs=5, schedule="cosine", warmup=0.5, lr=3e-3)
    context, test = sources(train=[sample(k, 1) for k in range(24)]), [sample(k, 1) for k in range(100, 106)]
    model = build(sam, chosen, 0)
    before = quality(model.eval(), test)
    train(model, sam, chosen, context)
    losses = [row["loss"] for row in context.fits[0].history]
    assert losses[-1] < 0.6 * losses[0]
    assert quality(model.eval(), test) > before + 0.3


def test_the_same_seed_gives_the_same_weights(sam):
    models = [build(sam, options(), 0) for _ in range(2)]
    for model in models:
        train(model, sam, options(), sources(train=[sample(k) for k in range(8)]))
    first, second = (model.state_dict() for model in models)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_best_epoch_on_validation_is_kept(sam, monkeypatch):
    chosen = options(epochs=4, select={"data": "held", "first": 2, "every": 1})
    assert chosen.sets() == ["train", "held"]
    context = sources(train=[sample(k) for k in range(8)], held=[sample(50)])
    scores, weights = iter([0.2, 0.7, 0.1]), []

    def quality(self, model):
        weights.append({name: value.clone() for name, value in model.state_dict().items()})
        return next(scores)

    monkeypatch.setattr(Judge, "quality", quality)
    model = build(sam, chosen, 0)
    train(model, sam, chosen, context)
    assert [row.get("validation_mPQ") for row in context.fits[0].history] == [None, 0.2, 0.7, 0.1]
    assert all(torch.equal(value, weights[1][name]) for name, value in model.state_dict().items())


def test_validation_is_the_mean_pq_of_classes_with_true_centroids(sam, reading):
    labels = np.zeros((32, 32), np.int32)
    labels[2:9, 2:9], labels[12:19, 2:9], labels[2:9, 12:19] = 1, 2, 3
    image = np.repeat(labels[..., None], 3, 2).astype(np.uint8)
    source = [Sample("a", image, Instances(labels, np.array([0, 2, 2]))), sample(0, 0)]
    selection = options(epochs=1, select={"first": 1, "num_classes": 3}).select
    assert Judge(source, selection, BestWeights()).quality(reading()) == pytest.approx(1.0, abs=1e-5)
    blind = [Sample("b", np.zeros_like(image), source[0].truth), sample(0, 0)]
    assert Judge(blind, selection, BestWeights()).quality(reading()) == 0
    with pytest.raises(DataError, match="validation set 'validation': no image has a nucleus"):
        Judge([sample(0, 0)], selection, BestWeights()).quality(reading())


def test_looks_at_the_validation_set_when_it_is_time(sam):
    judge = Judge([], options(epochs=100, select={"first": 60, "every": 10}).select, BestWeights())
    looks = []
    judge.quality = lambda model: looks.append(1) or 0.5
    state = LoopState(build(sam, options(), 0), None, 100, torch.Generator())
    for state.epoch in range(100):
        judge(state)
    assert len(looks) == 5  # epochs 60, 70, 80, 90, 100


def test_planes_of_classes():
    labels = np.array([[1, 1, 0], [2, 3, 3]], np.int32)
    planes = class_planes(Instances(labels, np.array([1, 0, 1])), 2)
    assert planes.tolist() == [[[0, 0, 0], [2, 0, 0]], [[1, 1, 0], [0, 3, 3]]]
    assert class_planes(Instances(labels * 0, np.zeros(0, int)), 2).shape == (2, 2, 3)


def test_learning_rates():
    steps = Schedule(schedule_of(SegmentorTraining(schedule="multistep", milestones=[100])), 200)
    assert [steps.factor(epoch) for epoch in (0, 99, 100, 199)] == pytest.approx([1, 1, 0.1, 0.1])
    smooth = Schedule(schedule_of(SegmentorTraining(schedule="cosine", warmup=1.0)), 5)
    assert smooth.per_step
    assert smooth.factor(0, 0, 10) == pytest.approx(0.1)
    assert smooth.factor(4, 9, 10) < 0.01
    assert Schedule(schedule_of(SegmentorTraining()), 5).factor(4) == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"schedule": "multistep"}, "milestones belong to the schedule 'multistep'"),
        ({"milestones": [3]}, "milestones belong to the schedule 'multistep'"),
        ({"warmup": 1.0}, "warmup is read by the schedule 'cosine' only"),
        ({"epochs": 10, "select": {"first": 60}}, "select.first is 60, but there are 10 epochs"),
    ],
)
def test_settings_that_contradict_each_other(values, message):
    with pytest.raises(ValueError, match=message):
        SegmentorTraining(**values)


def test_options_survive_a_job_file():
    chosen = options(schedule="multistep", milestones=[1], select={"first": 1}, augment=[{"kind": "elastic"}])
    assert SegmentorTraining(**chosen.model_dump(mode="json")) == chosen


def test_a_task_without_sam_is_refused():
    with pytest.raises(ConfigError, match="the segmentor starts from SAM"):
        training.build(None, options(), 0)


def test_normalisation_is_imagenet_s():
    published = SamSize(encoder=VitSize(patch=16, dim=768, depth=12, heads=12, window=0))
    np.testing.assert_allclose(np.array(published.pixel_mean) / 255, [0.485, 0.456, 0.406])
    np.testing.assert_allclose(np.array(published.pixel_std) / 255, [0.229, 0.224, 0.225])
