"""A concept of the world, in words and in labels."""

import numpy as np
import pytest
import torch

from shared.diffusion.concepts.spec import FoldersConcept, PromptsConcept, WorldConcept
from shared.diffusion.concepts.world import captions_of, world_side, world_words
from shared.diffusion.world.words import HEADS

CIRCLE = WorldConcept(kind="world", of="object", name="circle", anchor="square")
KINDS = [("object", "circle", "square"), ("style", "neon", "flat"), ("colour", "red", "blue")]


def all_labels():
    """Every combination of object, style and colour once."""
    sizes = [len(names) for names in HEADS.values()]
    return torch.tensor(np.stack(np.meshgrid(*map(np.arange, sizes), indexing="ij"), -1).reshape(-1, 3))


@pytest.mark.parametrize(("of", "name", "anchor"), KINDS)
def test_prompts_and_anchors_differ_in_one_word(of, name, anchor):
    words = world_words(WorldConcept(kind="world", of=of, name=name, anchor=anchor))
    assert len(words.prompts) == len(words.anchors) == len(set(words.prompts))
    for prompt, other in zip(words.prompts, words.anchors, strict=True):
        assert prompt.split().count(name) == 1
        assert [anchor if word == name else word for word in prompt.split()] == other.split()


@pytest.mark.parametrize(("of", "name", "anchor"), KINDS)
def test_retained_prompts_never_name_the_concept(of, name, anchor):
    retain = world_words(WorldConcept(kind="world", of=of, name=name, anchor=anchor)).retain
    assert not any(name in text.split() for text in retain)
    assert set(captions_of(of, anchor)) <= set(retain)


@pytest.mark.parametrize(("of", "name", "anchor"), KINDS)
def test_every_image_is_on_one_side_and_its_prompt_describes_it(of, name, anchor):
    spec, labels = WorldConcept(kind="world", of=of, name=name, anchor=anchor), all_labels()
    forget, anchors, others = (world_side(spec, labels, side) for side in ("concept", "anchor", "others"))
    assert sorted(forget.rows + others.rows) == list(range(len(labels)))
    assert set(anchors.rows) <= set(others.rows)
    for side in (forget, anchors, others):
        for row, place in zip(side.rows, side.prompt, strict=True):
            words = side.prompts[place].split()
            assert all(names[index] in words for names, index in zip(HEADS.values(), labels[row], strict=True))


def test_anchor_prompts_are_those_of_the_anchors_images():
    assert world_side(CIRCLE, all_labels(), "anchor").prompts == world_words(CIRCLE).anchors


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "cirle"}, "circle"),
        ({"anchor": "circle"}, "its own place"),
        ({"of": "style"}, "is no style of the world"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(change, says):
    with pytest.raises(ValueError, match=says):
        WorldConcept(**{"kind": "world", "of": "object", "name": "circle", "anchor": "square", **change})


def test_pairs_of_prompts_must_be_pairs():
    with pytest.raises(ValueError, match="1 anchors for 2 prompts"):
        PromptsConcept(kind="prompts", name="red", prompts=["a red circle", "a red bar"], anchors=["a blue circle"])
    with pytest.raises(ValueError, match="either prompts or prompts_file"):
        PromptsConcept(kind="prompts", name="red")


def test_the_next_class_takes_the_targets_place():
    classes = {"n1": "tench", "n2": "church", "n3": "gas pump"}
    spec = {"kind": "folders", "manifest": "imagenette", "folder": "train", "classes": classes}
    assert FoldersConcept(**spec, target="tench").anchor == "church"
    assert FoldersConcept(**spec, target="gas pump").anchor == "tench"
    with pytest.raises(ValueError, match="did you mean 'church'"):
        FoldersConcept(**spec, target="churh")
