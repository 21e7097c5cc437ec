"""The shipped manifests against the real files (set DATA_MIRROR); counts, class order, known
values.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from shared.data.checkpoints import checkpoint_file, load_checkpoint
from shared.data.images import load_images
from shared.data.pull import pull, pulled_content, verify


def test_tofu_files(real_mirror: Path, tmp_path: Path) -> None:
    folder = pull("tofu", tmp_path)
    rows = {p.stem: [json.loads(line) for line in p.open()] for p in folder.glob("*.json") if p.name != "pulled.json"}
    assert len(rows) == 15
    assert (len(rows["full"]), len(rows["forget10"]), len(rows["retain90"])) == (4000, 400, 3600)
    assert rows["forget05"] == rows["full"][-200:]
    assert rows["retain99"] == rows["full"][:3960]
    assert len(rows["forget01_perturbed"][0]["perturbed_answer"]) == 5
    assert verify("tofu", tmp_path) == pulled_content("tofu", tmp_path)


def test_tofu_small_files(real_mirror: Path, tmp_path: Path) -> None:
    sentences = (pull("tofu_idontknow", tmp_path) / "idontknow.jsonl").read_text().split("\n")
    assert len(sentences) == 100
    logs = pull("tofu_eval_logs", tmp_path)
    log = json.loads((logs / "phi_full_wd0.01.json").read_text())
    assert set(log) >= {"eval_log.json", "eval_log_forget.json"}
    assert len(log["eval_log_forget.json"]["avg_gt_loss"]) == 300


@pytest.mark.parametrize(("name", "num_parameters"), [("resnet20_cifar10", 269_722), ("resnet56_cifar10", 853_018)])
def test_checkpoints(real_mirror: Path, tmp_path: Path, name: str, num_parameters: int) -> None:
    weights = load_checkpoint(checkpoint_file(name, tmp_path))
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    assert sum(w.numel() for key, w in weights.items() if not key.endswith(buffers)) == num_parameters
    assert weights["conv1.weight"].shape == (16, 3, 3, 3)
    assert weights["linear.weight"].shape == (10, 64)


@pytest.mark.slow
def test_dsb2018(real_mirror: Path, tmp_path: Path) -> None:
    from PIL import Image

    folder = pull("dsb2018", tmp_path) / "stage1_train"
    cases = sorted(folder.iterdir())
    assert len(cases) == 538
    image = Image.open(next((cases[0] / "images").iterdir()))
    mask = np.asarray(Image.open(next((cases[0] / "masks").iterdir())))
    assert max(image.size) <= 360
    assert mask.shape == image.size[::-1]
    assert set(np.unique(mask)) == {0, 255}


@pytest.mark.slow
def test_mnist_png(real_mirror: Path, tmp_path: Path) -> None:
    test = load_images("mnist_png", "test", tmp_path)
    assert test.images.shape == (10000, 28, 28, 1)
    # MNIST's published class counts of the test set
    assert np.bincount(test.labels).tolist() == [
        980,
        1135,
        1032,
        1010,
        982,
        892,
        958,
        1028,
        974,
        1009,
    ]
    assert test.class_names == list("0123456789")


@pytest.mark.slow
def test_cifar10_jpeg(real_mirror: Path, tmp_path: Path) -> None:
    train = load_images("cifar10_jpeg", "train", tmp_path)
    test = load_images("cifar10_jpeg", "test", tmp_path)
    assert train.images.shape == (50000, 32, 32, 3)
    assert test.images.shape == (10000, 32, 32, 3)
    assert np.bincount(train.labels).tolist() == [5000] * 10
    assert np.bincount(test.labels).tolist() == [1000] * 10
    assert train.class_names[::9] == ["airplane", "truck"]
    assert train.labels[:3].tolist() == [0, 0, 0]
    # CIFAR-10's channel means, .4914 .4822 .4465, survive the JPEG loss to two digits
    np.testing.assert_allclose(train.images.mean((0, 1, 2)) / 255, [0.4914, 0.4822, 0.4465], atol=0.005)
    assert isinstance(load_images("cifar10_jpeg", "train", tmp_path).images, np.memmap)
