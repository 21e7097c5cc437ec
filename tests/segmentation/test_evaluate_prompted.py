"""Prompted evaluation: exact values, a plain loop as oracle, and what must not change a result."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import binary_erosion

from shared.errors import DataError
from shared.segmentation.context import Context
from shared.segmentation.evaluate.evaluated import ahead
from shared.segmentation.evaluate.prompted import CURVE, THRESHOLDS, evaluate_prompted
from shared.segmentation.evaluate.spec import PromptedSpec
from shared.segmentation.predictors import Prompted
from shared.segmentation.sam.model import build_sam
from shared.segmentation.sam.options import SIZES
from shared.segmentation.sam.predictor import Predictor
from shared.segmentation.sam.prompts import Prompts
from shared.segmentation.samples import Instances, Objects, Sample

DATA = {"kind": "generated", "manifest": "thin_shapes", "part": "in_family", "labels": "fine"}


class Listed:
    """A source of given samples."""

    def __init__(self, samples):
        self.samples = samples
        self.names = [sample.name for sample in samples]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


class Boxes:
    """Fills a share of each box from the left, and remembers what it was asked."""

    def __init__(self, share=1.0):
        self.share, self.asked = share, []

    def masks(self, image, prompts):
        self.asked.append(prompts)
        found = np.zeros((len(prompts), *image.shape[:2]), bool)
        for mask, prompt in zip(found, prompts, strict=True):
            x0, y0, x1, y1 = np.round(prompt.box).astype(int)
            mask[y0 : y1 + 1, x0 : x0 + round(self.share * (x1 - x0 + 1))] = True
        return found


def spec(**values):
    return PromptedSpec(data=DATA, **values)


def context(seed=1, threads=1):
    return Context(torch.device("cpu"), seed, threads)


def rectangle(shape, top, left, height, width):
    mask = np.zeros(shape, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def soft_sample(name, shape, *place, seed=0):
    image = np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)
    return Sample(name, image, rectangle(shape, *place).astype(np.uint8) * np.uint8(255))


@pytest.fixture(scope="module")
def model():
    """A small SAM whose masks are neither empty nor full."""
    sam = build_sam(SIZES["small_patch8"], seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in sam.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return sam.eval()


@pytest.fixture(scope="module")
def pictures():
    """Seven images of three sizes with a blob each."""
    samples = []
    for index in range(7):
        rng = np.random.default_rng(index)
        shape = [(64, 64), (90, 50), (40, 130)][index % 3]
        rows, columns = np.mgrid[: shape[0], : shape[1]]
        blob = (rows - shape[0] / 2) ** 2 + (columns - shape[1] * rng.uniform(0.3, 0.7)) ** 2 < (shape[0] / 4) ** 2
        image = (rng.integers(0, 90, (*shape, 3)) + 150 * blob[..., None]).astype(np.uint8)
        samples.append(Sample(f"p{index}", image, (blob * 200 + rng.integers(0, 40, shape)).astype(np.uint8)))
    return Listed(samples)


def test_a_perfect_prediction_scores_100():
    samples = [soft_sample(f"s{i}", (40, 60), 5 + i, 6, 20, 30 + i) for i in range(4)]
    found = evaluate_prompted(Boxes(), Listed(samples), spec(batch=3), context())
    assert found.metrics == {"mIoU": 100, "mBIoU": 100, **{f"BIoU_{t}": 100 for t in THRESHOLDS}}
    assert found.per_image["IoU"] == [1] * 4
    assert np.isnan(found.per_image["AJI"]).all()
    assert [case.score for case in found.cases] == [1] * 4
    np.testing.assert_array_equal(found.cases[2].truth, found.cases[2].found)


def test_half_of_an_object_has_half_of_the_iou_and_the_boundary_by_hand():
    """20x30 in 40x60: the boundary is 1 pixel wide (0.02 of the diagonal); 15 of 30 columns are found."""
    found = evaluate_prompted(Boxes(0.5), Listed([soft_sample("a", (40, 60), 10, 10, 20, 30)]), spec(), context())
    assert found.metrics["mIoU"] == pytest.approx(50)
    ring, half = 20 * 30 - 18 * 28, 20 * 15 - 18 * 13
    common = 15 + 15 + 18  # top, bottom and left side
    assert found.metrics["mBIoU"] == pytest.approx(100 * common / (ring + half - common))
    assert [found.metrics[f"BIoU_{t}"] for t in THRESHOLDS] == [0] * 5
    shares = dict(zip(CURVE, found.extras["boundary_recall"]["share"], strict=True))
    assert (shares[0.0], shares[0.42], shares[0.44]) == (1, 1, 0)


def test_every_object_counts_alike_and_crowds_do_not():
    shape = (40, 60)
    masks = np.stack([rectangle(shape, 2, 2, 10, 10), rectangle(shape, 5, 5, 20, 40), rectangle(shape, 30, 2, 8, 20)])
    image = np.zeros((*shape, 3), np.uint8)
    crowd = Objects(masks, np.zeros(3, int), np.array([False, False, True]), np.arange(3))
    single = Sample("b", image, rectangle(shape, 0, 0, 30, 30).astype(np.uint8) * np.uint8(255))
    found = evaluate_prompted(
        _Only({0: 1.0, 1: 0.5, 2: 0.0}), Listed([Sample("a", image, crowd), single]), spec(), context()
    )
    assert found.metrics["mIoU"] == pytest.approx(100 * (1 + 0.5 + 0) / 3)
    assert found.per_image["IoU"] == [0.75, 0]


class _Only(Boxes):
    """Another share for the i-th box it is ever asked."""

    def masks(self, image, prompts):
        found = []
        for prompt in prompts:
            self.asked.append(prompt)
            found.append(Boxes(self.share[len(self.asked) - 1]).masks(image, [prompt])[0])
        return np.stack(found)


def test_label_maps_have_aji_and_pq_of_the_painted_masks():
    labels = np.zeros((20, 40), np.int32)
    labels[2:12, 2:12], labels[2:12, 12:22] = 1, 2
    sample = Sample("a", np.zeros((20, 40, 3), np.uint8), Instances(labels, np.zeros(2, int)))
    empty = Sample("b", sample.image, Instances(labels * 0, np.zeros(0, int)))
    found = evaluate_prompted(Boxes(), Listed([sample, empty]), spec(), context())
    assert (found.metrics["AJI"], found.metrics["PQ"]) == (1, pytest.approx(1, abs=1e-6))
    assert found.score == "AJI"
    assert np.isnan(found.per_image["IoU"][1])
    half = evaluate_prompted(Boxes(0.6), Listed([sample, empty]), spec(), context())
    assert half.metrics["AJI"] == pytest.approx(0.6)
    assert half.metrics["PQ"] == pytest.approx(0.6, abs=1e-6)


def naive_boundary(mask, distance):
    return mask & ~binary_erosion(np.pad(mask, 1), np.ones((3, 3)), distance)[1:-1, 1:-1]


def naive(sam, source, multimask=False):
    """The paper's rule, image by image, with torch's own resizing."""
    ious, boundaries = [], []
    for sample in source.samples:
        truth = sample.truth > 128
        pixels = torch.from_numpy(sample.image).permute(2, 0, 1)[None].float()
        square = F.interpolate(pixels, (64, 64), mode="bilinear", align_corners=False).to(torch.uint8)
        label = torch.from_numpy(sample.truth)[None, None].float()
        seen = F.interpolate(label, (64, 64), mode="bilinear", align_corners=False)[0, 0].numpy() > 128
        rows, columns = np.nonzero(seen)
        box = torch.tensor([[columns.min(), rows.min(), columns.max(), rows.max()]]).float()
        with torch.no_grad():
            masks = sam(square, Prompts(torch.zeros(1, dtype=torch.long), boxes=box), multimask=multimask)
        logits = masks.logits[:, masks.iou[0].argmax()][:, None]
        found = F.interpolate(logits, truth.shape, mode="bilinear", align_corners=False)[0, 0].numpy() > 0
        distance = max(1, round(0.02 * np.hypot(*truth.shape)))
        pair = naive_boundary(found, distance), naive_boundary(truth, distance)
        ious.append((found & truth).sum() / (found | truth).sum())
        boundaries.append((pair[0] & pair[1]).sum() / (pair[0] | pair[1]).sum())
    return np.array(ious), np.array(boundaries)


@pytest.mark.parametrize("multimask", [False, True])
def test_a_batch_of_sizes_equals_the_loop_over_images(model, pictures, multimask):
    found = evaluate_prompted(Prompted(model, multimask=multimask), pictures, spec(batch=3), context())
    ious, boundaries = naive(model, pictures, multimask)
    assert ious.std() > 0.01
    np.testing.assert_allclose(found.per_image["IoU"], ious, atol=2e-3)  # a logit of 1e-6 may fall on either side
    np.testing.assert_allclose(found.per_image["BIoU"], boundaries, atol=5e-3)
    assert found.metrics["mIoU"] == pytest.approx(100 * ious.mean(), abs=0.1)


@pytest.mark.parametrize(
    "prompt", [{"kind": "points_and_background", "num": 5, "negatives": 3}, {"kind": "box", "noise": 0.4}]
)
def test_neither_batches_nor_threads_nor_the_order_change_a_number(model, pictures, prompt):
    values = {"prompt": prompt, "trials": 2}
    expected = evaluate_prompted(Prompted(model), pictures, spec(batch=1, **values), context())
    for batch, threads in ((4, 1), (3, 3)):
        found = evaluate_prompted(Prompted(model), pictures, spec(batch=batch, **values), context(threads=threads))
        np.testing.assert_allclose(found.per_image["IoU"], expected.per_image["IoU"], atol=2e-3)
    backwards = evaluate_prompted(Prompted(model), Listed(pictures.samples[::-1]), spec(batch=1, **values), context())
    np.testing.assert_allclose(backwards.per_image["IoU"][::-1], expected.per_image["IoU"], atol=1e-6)
    assert {case.name for case in backwards.cases} == {case.name for case in expected.cases}
    other = evaluate_prompted(Prompted(model), pictures, spec(batch=1, **values), context(seed=2))
    assert other.metrics["mIoU"] != expected.metrics["mIoU"]


def test_trials_are_averaged_and_draw_prompts_anew():
    sample = soft_sample("a", (40, 60), 10, 10, 20, 30)
    boxes = Boxes()
    found = evaluate_prompted(boxes, Listed([sample]), spec(prompt={"kind": "box", "noise": 0.3}, trials=5), context())
    (asked,) = boxes.asked
    assert len({tuple(prompt.box) for prompt in asked}) == 5
    truth = sample.truth > 128
    masks = boxes.masks(sample.image, asked)
    values = [(mask & truth).sum() / (mask | truth).sum() for mask in masks]
    assert found.metrics["mIoU"] == pytest.approx(100 * np.mean(values))
    once = Boxes()
    evaluate_prompted(once, Listed([sample]), spec(trials=5), context())
    assert len(once.asked[0]) == 1  # without chance there is nothing to repeat


def test_keeping_the_aspect_is_the_predictors_way(model, pictures):
    """Boxes of the resized label, given to the predictor in the picture's own pixels."""
    found = evaluate_prompted(Prompted(model), pictures, spec(batch=3, keep_aspect=True), context())
    predictor, values = Predictor(model), []
    for sample in pictures.samples:
        picture = predictor.embed(sample.image)
        label = torch.from_numpy(sample.truth)[None, None].float()
        seen = F.interpolate(label, picture.scaled, mode="bilinear", align_corners=False)[0, 0].numpy() > 128
        rows, columns = np.nonzero(seen)
        factors = np.array(picture.size)[::-1] / np.array(picture.scaled)[::-1]
        box = np.array([columns.min(), rows.min(), columns.max(), rows.max()]) * np.tile(factors, 2)
        mask, truth = predictor.predict(picture, boxes=box[None]).masks[0, 0], sample.truth > 128
        values.append((mask & truth).sum() / (mask | truth).sum())
    np.testing.assert_allclose(found.per_image["IoU"], values, atol=2e-3)
    stretched = evaluate_prompted(Prompted(model), pictures, spec(), context())
    assert not np.allclose(stretched.per_image["IoU"], values, atol=2e-3)


def test_masks_can_be_compared_in_the_models_square(model, pictures):
    found = evaluate_prompted(Prompted(model), pictures, spec(resolution="input"), context())
    original = evaluate_prompted(Prompted(model), pictures, spec(), context())
    assert found.per_image["IoU"][0] == pytest.approx(original.per_image["IoU"][0], abs=0.01)  # 64x64 is the input
    assert all(case.image.shape == (64, 64, 3) for case in found.cases)


def test_the_threshold_is_of_logits(model, pictures):
    masks = [evaluate_prompted(Prompted(model), pictures, spec(threshold=t), context()).cases for t in (-1e9, 1e9)]
    assert all((case.found == 1).all() for case in masks[0])
    assert not any(case.found.any() for case in masks[1])


def test_options_reach_the_decoder(model, pictures):
    with pytest.raises(TypeError, match="no_such_option"):
        evaluate_prompted(Prompted(model, {"no_such_option": 1}), pictures, spec(), context())


def test_what_a_record_keeps_is_small_json(model, pictures):
    extras = evaluate_prompted(Prompted(model), pictures, spec(), context()).extras
    assert extras["score"] == "Boundary IoU"
    assert len(extras["cases"]) == 7
    assert len(json.dumps(extras, allow_nan=False)) < 40_000


def test_nothing_to_prompt_for_is_one_line():
    empty = Sample("a", np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8))
    with pytest.raises(DataError, match="none of the 2 images has an object"):
        evaluate_prompted(Boxes(), Listed([empty, empty]), spec(), context())


def test_an_image_without_objects_is_left_out(model, pictures):
    empty = Sample("e", pictures.samples[0].image, np.zeros((64, 64), np.uint8))
    with_empty = Listed([empty, *pictures.samples, empty])
    for batch in (1, 4):
        found = evaluate_prompted(Prompted(model), with_empty, spec(batch=batch), context())
        assert np.isnan([found.per_image["IoU"][0], found.per_image["IoU"][-1]]).all()
        expected = evaluate_prompted(Prompted(model), pictures, spec(batch=batch), context())
        assert found.metrics["mIoU"] == pytest.approx(expected.metrics["mIoU"], abs=0.05)


def test_a_methods_fault_is_not_hidden():
    class Wrong:
        def masks(self, image, prompts):
            return np.zeros((1, 3, 3), bool)

    with pytest.raises(ValueError, match="reshape"):
        evaluate_prompted(Wrong(), Listed([soft_sample("a", (40, 60), 10, 10, 20, 30)]), spec(), context())


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_reading_ahead_keeps_the_order_and_passes_errors_on(threads):
    assert list(ahead(lambda x: x * x, range(40), threads)) == [x * x for x in range(40)]
    with pytest.raises(ZeroDivisionError):
        list(ahead(lambda x: 1 // (20 - x), range(40), threads))
