"""Concepts with their images in the latent space of a small pipeline."""

import pytest
import torch
from PIL import Image

from shared.diffusion.concepts.build import build_concept
from shared.diffusion.concepts.folders import image_batches, image_files
from shared.diffusion.concepts.spec import ClassConcept, FoldersConcept, PromptsConcept, WorldConcept
from shared.diffusion.erasers.context import erase_context
from shared.errors import ConfigError, DataError
from shared.training.seeds import stream

DRAWN = {"per_prompt": 2, "sample": {"num_steps": 2, "guidance": 1.0}}


def build(pipe, spec, data=None):
    return build_concept(spec, pipe, erase_context(pipe, lambda name: stream(0, name)), data, seed=0)


def test_images_of_the_world_are_encoded_with_their_prompts(pipe):
    concept = build(pipe, WorldConcept(kind="world", of="object", name="circle", anchor="square"), "shapes_styles")
    forget, retained = concept.images("forget"), concept.images("retained")
    assert len(forget) + len(retained) == 3000
    assert forget.states.shape[0] == len(concept.prompts) == len(concept.anchor_prompts())
    assert torch.equal(forget.anchors, pipe.encode(list(concept.anchors)))
    assert forget.mean.shape[1:] == pipe.latent_shape
    assert int(forget.prompt.max()) < len(concept.prompts)


def test_pairs_of_prompts_draw_their_own_images(pipe):
    texts, safe = ["a red circle", "a red bar"], ["a blue circle", "a blue bar"]
    spec = PromptsConcept(kind="prompts", name="red", prompts=texts, anchors=safe, drawn=DRAWN)
    concept = build(pipe, spec)
    assert len(concept.images("forget")) == len(concept.images("retained")) == 4
    assert concept.images("forget").prompt.tolist() == [0, 0, 1, 1]
    again = build(pipe, spec)
    assert torch.equal(concept.images("forget").mean, again.images("forget").mean)
    assert not torch.equal(concept.images("forget").mean, concept.images("retained").mean)


def test_without_drawing_there_are_no_images(pipe):
    concept = build(pipe, PromptsConcept(kind="prompts", name="red", prompts=["a red bar"], anchors=["a blue bar"]))
    with pytest.raises(ConfigError, match="needs images, 'forget'"):
        concept.images("forget")


@pytest.fixture
def folders(tmp_path, monkeypatch):
    for number, name in enumerate(("n1", "n2", "n3")):
        (tmp_path / "train" / name).mkdir(parents=True)
        for index in range(2 + number):
            picture = Image.new("RGB", (48, 40), (40 * number, 10 * index, 0))
            picture.save(tmp_path / "train" / name / f"{index}.png")
    monkeypatch.setattr("shared.diffusion.concepts.build.pull", lambda name: tmp_path)
    return tmp_path


def test_a_class_of_folders(pipe, folders):
    classes = {"n1": "circle", "n2": "bar", "n3": "ring"}
    spec = FoldersConcept(
        kind="folders",
        manifest="shapes",
        folder="train",
        classes=classes,
        target="circle",
        template="a {name}",
        size=32,
    )
    concept = build(pipe, spec)
    assert (concept.prompts, concept.anchors, concept.retain) == (["a circle"], ["a bar"], ["a bar", "a ring"])
    assert [len(concept.images(which)) for which in ("forget", "anchor", "retained")] == [2, 3, 7]
    assert concept.images("retained").prompt.tolist() == [0, 0, 0, 1, 1, 1, 1]


def test_images_are_scaled_to_the_shorter_side_and_cut(tmp_path):
    picture = Image.new("RGB", (60, 30), (255, 0, 0))
    picture.paste((0, 0, 255), (0, 0, 10, 30))  # the left sixth is cut off
    picture.save(tmp_path / "a.png")
    (batch,) = image_batches(image_files(tmp_path), 30, batch=4)
    assert batch.shape == (1, 3, 30, 30)
    assert torch.equal(batch[0, :, 0, 0], torch.tensor([1.0, 0.0, 0.0]))


def test_a_missing_or_empty_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        image_files(tmp_path / "absent")
    with pytest.raises(DataError, match="holds no image"):
        image_files(tmp_path)


def test_a_class_index_is_no_concept_of_words(pipe):
    with pytest.raises(ConfigError, match="no concept of a text-to-image model"):
        build(pipe, ClassConcept(kind="class", label=0))
