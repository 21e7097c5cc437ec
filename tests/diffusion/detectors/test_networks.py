"""The classifiers behind the interface, from miniatures in the public layouts."""

import pickle

import numpy as np
import pytest
import torch
import torchvision
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    ConvNextImageProcessor,
    ResNetConfig,
    ResNetForImageClassification,
)

from shared.diffusion.detectors.load import load_detector
from shared.diffusion.detectors.networks import NetworkDetector, as_bytes
from shared.diffusion.detectors.nudenet import CLASSES, NudeNet, best_boxes
from shared.diffusion.detectors.options import DetectorOptions
from shared.diffusion.detectors.q16 import read_prompts
from shared.diffusion.zoo.classifier import ShapeClassifier
from shared.errors import ConfigError, DataError, UserError


@pytest.fixture
def images():
    return torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def assert_probabilities(scores, num, classes):
    assert scores.shape == (num, classes)
    torch.testing.assert_close(scores.sum(1), torch.ones(num))
    assert not scores.requires_grad


def test_batches_change_nothing(images):
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    results = [
        NetworkDetector(lambda x: x @ weight, "abcd", lambda x: x.mean((2, 3)), batch).scores(images)
        for batch in (1, 2, 64)
    ]
    for scores in results:
        torch.testing.assert_close(scores, results[0])
    assert_probabilities(results[0], 5, 4)
    none = NetworkDetector(lambda x: x, "abcd", lambda x: x).scores(images[:0])
    assert none.shape == (0, 4)


def test_images_are_seen_as_they_are_saved():
    values = torch.tensor([-0.1, 0.0, 0.5, 1.0, 1.3]).view(1, 1, 1, 5)
    assert as_bytes(values).flatten().tolist() == [0, 0, 128, 255, 255]


def test_shapes(images, tmp_path):
    heads = {"object": ["circle", "square", "ring"], "style": ["flat", "neon"]}
    model = ShapeClassifier(heads=heads).eval()
    model.save_pretrained(tmp_path)
    detector = load_detector(DetectorOptions(kind="shapes", checkpoint=str(tmp_path), head="style"))
    assert detector.classes == ["flat", "neon"]
    with torch.no_grad():
        expected = model(images)["style"].softmax(1)
    torch.testing.assert_close(detector.scores(images), expected)
    assert_probabilities(detector.scores(images), 5, 2)
    with pytest.raises(ConfigError, match="'styles' is no head of the classifier"):
        load_detector(DetectorOptions(kind="shapes", checkpoint=str(tmp_path), head="styles"))


def test_transformers(images, tmp_path):
    """ResNet-50's layout, small: config.json with id2label, preprocessor_config.json, model.safetensors."""
    labels = {0: "tench", 1: "church", 2: "parachute"}
    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", id2label=labels,
        label2id={v: k for k, v in labels.items()},
    )  # fmt: skip
    model = ResNetForImageClassification(config).eval()
    model.save_pretrained(tmp_path)
    processor = ConvNextImageProcessor(size={"shortest_edge": 48}, crop_pct=0.875)
    processor.save_pretrained(tmp_path)
    detector = load_detector(DetectorOptions(kind="transformers", checkpoint=str(tmp_path), batch=2))
    assert detector.classes == ["tench", "church", "parachute"]
    scores = detector.scores(images)
    assert_probabilities(scores, 5, 3)
    arrays = [image.permute(1, 2, 0).numpy() for image in as_bytes(images)]
    with torch.no_grad():
        expected = model(**processor(images=arrays, return_tensors="pt")).logits.softmax(1)
    torch.testing.assert_close(scores, expected, atol=1e-4, rtol=1e-3)


def test_torchvision(images, tmp_path):
    """The file of a published network, with its names; the transform and the classes are the library's."""
    torch.manual_seed(0)
    network = torchvision.models.resnet18()
    file = tmp_path / "resnet18.pth"
    torch.save(network.state_dict(), file)
    weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    options = DetectorOptions(kind="torchvision", checkpoint=str(file), architecture="ResNet18_Weights.IMAGENET1K_V1")
    detector = load_detector(options)
    assert [detector.classes[i] for i in (497, 701, 0, 569)] == ["church", "parachute", "tench", "garbage truck"]
    scores = detector.scores(images[:2])
    with torch.no_grad():
        expected = network.eval()(weights.transforms()(as_bytes(images[:2]))).softmax(1)
    torch.testing.assert_close(scores, expected)
    with pytest.raises(ConfigError, match=r"torchvision has no weights 'ResNet18_Weights\.V9'"):
        load_detector(options.model_copy(update={"architecture": "ResNet18_Weights.V9"}))
    with pytest.raises(DataError, match="not the weights of ResNet34"):
        load_detector(options.model_copy(update={"architecture": "ResNet34_Weights.IMAGENET1K_V1"}))


@pytest.fixture
def clip_folder(tmp_path):
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8,
        projection_dim=6,
    )  # fmt: skip
    CLIPVisionModelWithProjection(config).save_pretrained(tmp_path / "clip")
    size = {"height": 32, "width": 32}
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size).save_pretrained(tmp_path / "clip")
    return tmp_path / "clip"


@pytest.mark.parametrize("name", ["prompts.p", "prompts.npy"])
def test_q16(name, images, clip_folder, tmp_path):
    vectors = np.random.RandomState(0).randn(2, 6).astype(np.float16)
    path = tmp_path / name
    if name.endswith(".p"):
        path.write_bytes(pickle.dumps(vectors))
    else:
        np.save(path, vectors)
    detector = load_detector(DetectorOptions(kind="q16", checkpoint=str(clip_folder), prompts=str(path)))
    assert list(detector.classes) == ["benign", "harmful"]
    scores = detector.scores(images)
    assert_probabilities(scores, 5, 2)
    model = CLIPVisionModelWithProjection.from_pretrained(clip_folder).eval()
    processor = CLIPImageProcessor.from_pretrained(clip_folder)
    with torch.no_grad():
        features = model(**processor(list(as_bytes(images)), return_tensors="pt")).image_embeds
    cosines = torch.cosine_similarity(features[:, None], torch.from_numpy(vectors).float()[None], dim=-1)
    assert torch.equal(scores.argmax(1), cosines.argmax(1))
    torch.testing.assert_close(scores, (100 * cosines).softmax(1), atol=1e-4, rtol=1e-3)


class _Runs:
    def __reduce__(self):
        return print, ("run",)


def test_a_pickle_that_could_run_code_is_refused(tmp_path, capsys):
    path = tmp_path / "prompts.p"
    path.write_bytes(pickle.dumps(_Runs()))
    with pytest.raises(DataError, match=r"holds builtins\.print, which could run code; refused"):
        read_prompts(path)
    assert capsys.readouterr().out == ""
    path.write_bytes(pickle.dumps(np.zeros((3, 6))))
    with pytest.raises(DataError, match=r"an array of shape \(3, 6\), expected two vectors"):
        read_prompts(path)
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="no prompt vectors can be read"):
        read_prompts(path)


def test_vectors_of_another_clip_are_named(clip_folder, tmp_path):
    path = tmp_path / "prompts.npy"
    np.save(path, np.zeros((2, 7), np.float32))
    with pytest.raises(DataError, match="vectors of 7 numbers, CLIP's have 6"):
        load_detector(DetectorOptions(kind="q16", checkpoint=str(clip_folder), prompts=str(path)))


def boxes_of(*boxes):
    """Raw output (22, boxes) of (centre x, centre y, width, height, class, score)."""
    output = torch.zeros(22, len(boxes))
    for column, (x, y, width, height, name, score) in enumerate(boxes):
        output[:4, column] = torch.tensor([x, y, width, height], dtype=torch.float32)
        output[4 + CLASSES.index(name), column] = score
    return output


def test_boxes_below_the_threshold_are_dropped():
    found = best_boxes(boxes_of((50, 50, 20, 20, "FACE_MALE", 0.9), (150, 50, 20, 20, "FEET_EXPOSED", 0.49)))
    assert found[CLASSES.index("FACE_MALE")] == pytest.approx(0.9)
    assert found.count_nonzero() == 1


def test_a_better_box_of_any_class_suppresses_what_it_covers():
    covered = boxes_of((50, 50, 20, 20, "FEET_COVERED", 0.8), (51, 50, 20, 20, "FEET_EXPOSED", 0.7))
    assert best_boxes(covered).count_nonzero() == 1
    beside = boxes_of((50, 50, 20, 20, "FEET_COVERED", 0.8), (65, 50, 20, 20, "FEET_EXPOSED", 0.7))
    assert best_boxes(beside).count_nonzero() == 2


def test_a_class_has_its_best_box_s_score():
    twice = boxes_of((50, 50, 20, 20, "FACE_MALE", 0.6), (150, 50, 20, 20, "FACE_MALE", 0.8))
    assert best_boxes(twice)[CLASSES.index("FACE_MALE")] == pytest.approx(0.8)
    assert not best_boxes(boxes_of()).any()


class Session:
    """What the runtime offers; sees a box where the image is bright."""

    def __init__(self, size=64):
        self.seen, self._size = [], size

    def get_inputs(self):
        return [type("Input", (), {"name": "images", "shape": [1, 3, self._size, self._size]})()]

    def run(self, _names, feeds):
        image = feeds["images"]
        self.seen.append(image)
        bright = image.mean() > 0.4
        box = (32, 32, 10, 10, "BELLY_EXPOSED", 0.9 if bright else 0.1)
        return [boxes_of(box)[None].numpy()]


def test_nudenet_pads_to_a_square_and_gives_scores(images):
    session = Session()
    detector = NudeNet(session)
    wide = torch.cat([images[:1], torch.zeros(1, 3, 32, 32)])[..., :16, :]
    scores = detector.scores(wide)
    assert [s.shape for s in session.seen] == [(1, 3, 64, 64)] * 2
    assert session.seen[0][0, :, 34:].max() == 0  # below the image
    assert scores.shape == (2, 18)
    assert not scores[1].any()
    bright = detector.scores(torch.ones(1, 3, 32, 32))
    assert bright[0, CLASSES.index("BELLY_EXPOSED")] == pytest.approx(0.9)
    assert detector.scores(images[:0]).shape == (0, 18)
    assert NudeNet(Session(size="height"))._size == 320


def test_nudenet_without_its_runtime_says_what_to_install(tmp_path, monkeypatch):
    import sys

    file = tmp_path / "best.onnx"
    file.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match="needs the package onnxruntime"):
        load_detector(DetectorOptions(kind="nudenet", checkpoint=str(file)))
