"""Training on a few small scenes: what is learnt, averaged, selected, and resumed."""

import numpy as np
import pytest
import torch

from papers.promptnucseg.prompter import training
from papers.promptnucseg.prompter.options import PointOptions, PrompterTraining, SmallNet
from papers.promptnucseg.prompter.training import (
    build,
    class_f1,
    collate,
    epoch_batches,
    scenes,
    train,
    visible_nuclei,
)
from shared.errors import ConfigError, DataError
from shared.options import parse_options
from shared.segmentation.augment.view import View
from shared.segmentation.context import Context
from shared.segmentation.samples import Instances, Sample


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def scene(seed, size=32, num=3):
    """Bright discs on dark noise; the class is the brightness."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices((size, size))
    image, labels, classes = rng.integers(0, 60, (size, size)), np.zeros((size, size), np.int32), []
    places = rng.permutation([(8, 8), (8, 24), (24, 8), (24, 24)])[:num]
    for number, (y, x) in enumerate(places + rng.integers(-2, 3, (num, 2)), 1):
        disc = (rows - y) ** 2 + (columns - x) ** 2 <= 16
        classes.append(int(rng.integers(2)))
        labels[disc], image[disc] = number, 130 + 100 * classes[-1]
    pixels = np.repeat(image[..., None], 3, 2).astype(np.uint8)
    return Sample(f"scene{seed}", pixels, Instances(labels, np.array(classes, np.int64)))


DATA = {"train": [scene(i, num=i % 4) for i in range(12)], "held": [scene(i) for i in range(50, 54)]}


def options(**change):
    small = {
        "backbone": SmallNet(widths=[8, 12]),
        "width": 16,
        "levels": 2,
        "num_classes": 2,
        "background_weight": 0.3,
        "batch": 4,
        "epochs": 2,
        "lr": 3e-3,
        "ema_from": 1,
        "ema": 0.9,
        "points": PointOptions(filter=True, radius=4.0),
        "hit_radius": 3.0,
        "augment": [{"kind": "rotate90"}, {"kind": "horizontal_flip", "p": 0.5}],
    }
    return PrompterTraining.model_validate({**small, **change})


def context(seed=0, threads=1, workdir=None):
    return Context(torch.device("cpu"), seed, threads, workdir=workdir, key="test", _opened=dict(DATA))


def trained(chosen, **more):
    run = context(**more)
    model = build(None, chosen, 1)
    train(model, None, chosen, run)
    return model, run.fits[0]


def equal(first, second):
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_it_finds_and_classifies_the_nuclei_of_new_images():
    chosen = options(epochs=25)
    model, fitted = trained(chosen)
    history = [row["loss"] for row in fitted.history]
    assert history[-1] < 0.5 * history[0]
    assert class_f1(model, scenes(DATA["held"], 2), chosen) > 0.8
    assert not model.training


def test_the_same_seed_gives_the_same_weights_whatever_else_is_drawn():
    first, _ = trained(options())
    torch.rand(5)
    state = torch.get_rng_state()
    second, _ = trained(options())
    assert torch.equal(torch.get_rng_state(), state)
    assert equal(first, second)
    assert not equal(first, trained(options(), seed=1)[0])


def test_the_average_is_a_copy_at_first():
    plain, _ = trained(options(ema=0.0))
    assert equal(plain, trained(options(ema=0.9, ema_from=2))[0])
    averaged, _ = trained(options(ema=0.9, ema_from=1))
    assert not equal(plain, averaged)
    # buffers are never averaged
    for (name, mine), theirs in zip(averaged.named_buffers(), plain.buffers(), strict=True):
        assert torch.equal(mine, theirs), name


def test_the_best_epoch_of_the_validation_set_is_kept(monkeypatch):
    scores = iter([0.2, 0.9, 0.1])
    monkeypatch.setattr(training, "class_f1", lambda *_: next(scores))
    chosen, fitted = trained(options(epochs=3, validation="held"))
    assert [row["class_F1"] for row in fitted.history] == [0.2, 0.9, 0.1]
    monkeypatch.undo()
    assert equal(chosen, trained(options(epochs=2))[0])


def test_a_killed_run_ends_in_the_same_weights(monkeypatch, tmp_path):
    chosen = options(epochs=4, validation="held", ema_from=2)
    whole, fitted = trained(chosen)
    calls = []

    def killed(*arguments):
        calls.append(class_f1(*arguments))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return calls[-1]

    monkeypatch.setattr(training, "class_f1", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(chosen, workdir=tmp_path)
    monkeypatch.undo()
    resumed, again = trained(chosen, workdir=tmp_path)
    assert equal(whole, resumed)
    assert again.history == fitted.history


def test_threads_change_nothing():
    data, chosen = scenes(DATA["train"], 2), options()
    one, three = (
        list(epoch_batches(data, chosen, torch.Generator().manual_seed(0), threads=threads)) for threads in (1, 3)
    )
    for mine, theirs in zip(one, three, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


def test_batches_hold_what_belongs_together():
    data, chosen = scenes(DATA["train"], 2), options(batch=12)
    (batch,) = epoch_batches(data, chosen, torch.Generator().manual_seed(0))
    assert batch.images.shape == (12, 3, 32, 32)
    assert batch.images.dtype == torch.uint8
    assert batch.foreground.dtype == torch.bool
    assert batch.nuclei.shape == (12, 3, 2)
    assert batch.mean_nuclei.tolist() == [1.5] * 12
    for image, foreground, nuclei, classes in zip(*batch[:4], strict=True):
        assert torch.equal(image[0] >= 130, foreground)
        present = classes >= 0
        x, y = nuclei[present].long().T
        assert torch.equal(image[0, y, x] == 230, classes[present] == 1)
    assert sorted((batch.classes >= 0).sum(1).tolist()) == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3


def test_a_batch_without_nuclei():
    view = View(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8), np.zeros((0, 3), np.float32))
    batch = collate([view, view])
    assert batch.classes.tolist() == [[-1], [-1]]
    assert batch.mean_nuclei.tolist() == [0, 0]


def test_images_of_two_sizes_are_one_line():
    views = [View(np.zeros((8, side, 3), np.uint8), np.zeros((8, side), np.uint8), np.zeros((0, 3))) for side in (8, 9)]
    with pytest.raises(DataError, match=r"images of 8x8 and 9x8 in one batch; add \{kind: random_crop\}"):
        collate(views)


def test_points_are_centroids_with_their_class():
    (found,) = scenes([scene(3)], 2)
    truth = scene(3).truth
    for (x, y, number), identity in zip(found.nuclei, (1, 2, 3), strict=True):
        ys, xs = np.nonzero(truth.labels == identity)
        assert (x, y) == (int(xs.mean()), int(ys.mean()))
        assert number == truth.classes[identity - 1]
    assert np.array_equal(found.labels, truth.labels)


def test_what_a_crop_shows_of_a_nucleus_has_its_point_there():
    labels = np.zeros((10, 12), np.int32)
    labels[2:5, 0:4], labels[0, 8:10], labels[6:9, 8:12] = 1, 2, 4  # the third was cropped away, the second all but
    classes = np.array([1, 0, 1, 0], np.float32)
    assert visible_nuclei(labels, classes, 1).tolist() == [[1, 3, 1], [8, 0, 0], [9, 7, 0]]
    assert visible_nuclei(labels, classes, 3).tolist() == [[1, 3, 1], [9, 7, 0]]
    assert visible_nuclei(np.zeros_like(labels), classes, 1).shape == (0, 3)
    assert visible_nuclei(labels * 0 + 3, classes, 1).tolist() == [[5, 4, 1]]


def test_batches_ask_for_the_visible_part_of_cut_nuclei_where_told_to():
    image, labels = np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16), np.int32)
    labels[:, 4:] = 1  # centroid (9, 7); a crop of 4 pixels shows a part of it, and mostly not the centroid
    data = scenes([Sample("wide", image, Instances(labels, np.zeros(1, np.int64)))] * 40, 1)
    crop = {"augment": [{"kind": "random_crop", "size": 4}], "num_classes": 1, "batch": 40}
    (whole,), (visible,) = (
        epoch_batches(data, options(**crop, **more), torch.Generator().manual_seed(0))
        for more in ({}, {"min_visible": 5})
    )
    assert torch.equal(whole.images, visible.images)
    seen = visible.foreground.flatten(1).sum(1)
    assert torch.equal((visible.classes >= 0).sum(1), (seen >= 5).long())
    assert (whole.classes >= 0).sum() < (visible.classes >= 0).sum()
    for foreground, nucleus in zip(visible.foreground[seen >= 5], visible.nuclei[seen >= 5, 0], strict=True):
        ys, xs = foreground.nonzero(as_tuple=True)
        assert nucleus.tolist() == [int(xs.float().mean()), int(ys.float().mean())]


def test_data_that_does_not_fit_is_one_line():
    with pytest.raises(DataError, match="scene3: a nucleus of class 1, the prompter has 1 classes"):
        scenes(
            [scene(0, num=0), Sample("scene3", scene(3).image, Instances(scene(3).truth.labels, np.ones(3, int)))], 1
        )
    with pytest.raises(DataError, match="soft: the prompter learns from instance maps"):
        scenes([Sample("soft", np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8))], 1)


def test_f1_counts_over_images_and_averages_over_classes(monkeypatch):
    """Two images; class 0 found once of twice, class 1 found with one false alarm."""
    data = scenes([scene(1), scene(2)], 2)
    data = [
        training.Scene("a", data[0].image, data[0].labels, np.array([[5, 5, 0], [20, 20, 1]], np.float32)),
        training.Scene("b", data[1].image, data[1].labels, np.array([[9, 9, 0]], np.float32)),
    ]

    def found(_model, images):
        for xy, classes in (([[5, 6], [20, 20]], [0, 1]), ([[30, 30]], [1])):
            yield training_points(xy, classes)

    def training_points(xy, classes):
        from papers.promptnucseg.prompter.predict import Points

        return Points(np.array(xy, np.float32), np.ones(len(xy), np.float32), np.array(classes), np.ones((32, 32)))

    monkeypatch.setattr(training, "all_candidates", found)
    assert class_f1(None, data, options()) == pytest.approx((2 / 3 + 2 / 3) / 2)


def test_options_are_read_from_source_and_come_back_from_json():
    chosen = options(validation="held", backbone={"kind": "small", "widths": [8, 12]})
    again = parse_options("papers.promptnucseg.prompter.training:train", chosen.model_dump(mode="json"))
    assert again == chosen
    assert chosen.sets() == ["train", "held"]
    assert chosen.manifests() == []
    assert PrompterTraining().manifests() == ["timm_convnext_small"]
    assert PrompterTraining().sets() == ["train"]
    assert PrompterTraining.model_validate({"backbone": {"kind": "convnext_small", "weights": None}}).manifests() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"levels": 3}, "levels is 3, but the backbone has 2 maps"),
        ({"aux_weight": 0.0}, "points.filter needs the foreground map"),
        ({"backbonee": {}}, r"backbonee: unknown key \(did you mean 'backbone'\?\)"),
        ({"ema": 1.0}, "ema"),
        ({"augment": [{"kind": "blurr"}]}, "augment"),
    ],
)
def test_options_that_make_no_sense(change, message):
    values = {**options().model_dump(mode="json"), **change}
    with pytest.raises(ConfigError, match=message):
        parse_options("papers.promptnucseg.prompter.training:train", values)
