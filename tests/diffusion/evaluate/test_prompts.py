"""Prompts that models are judged with."""

import pytest

from shared.diffusion.concepts.spec import FoldersConcept, PromptsConcept, WorldConcept
from shared.diffusion.evaluate.prompts import read_prompts
from shared.diffusion.evaluate.spec import ClassPrompts, FilePrompts, WorldPrompts
from shared.errors import ConfigError, DataError

CIRCLE = WorldConcept(kind="world", of="object", name="circle", anchor="square")


def words(text):
    return text.split()


def read(spec, concept=CIRCLE, seed=0):
    return read_prompts(spec, concept, 4.0, seed, words)


def test_all_captions_of_the_world_with_both_words():
    entries = read(WorldPrompts(kind="world", words=[0, 1], repeats=2))
    assert len(entries) == 2 * 72 * 2
    assert [entry.index for entry in entries] == list(range(len(entries)))
    assert len({entry.seed for entry in entries}) == len(entries)
    assert {entry.text.split()[2] for entry in entries if entry.target} == {"circle", "disc"}
    assert all(entry.word == ("disc" in entry.text.split()) for entry in entries if entry.target)


def test_only_the_concepts_captions():
    entries = read(WorldPrompts(kind="world", only="concept"))
    assert len(entries) == 12
    assert all(entry.target and entry.wanted["object"] == "circle" for entry in entries)


def test_seeds_of_a_run_differ_and_repeat():
    first, again, other = (read(WorldPrompts(kind="world"), seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert not {entry.seed for entry in first} & {entry.seed for entry in other}


def test_a_colour_that_is_given_by_prompts():
    red = PromptsConcept(kind="prompts", name="red", prompts=["a red bar"], anchors=["a blue bar"])
    entries = read(WorldPrompts(kind="world"), red)
    assert sum(entry.target for entry in entries) == 24
    unknown = PromptsConcept(kind="prompts", name="purple", prompts=["a red bar"], anchors=["a blue bar"])
    with pytest.raises(ConfigError, match="'purple'"):
        read(WorldPrompts(kind="world"), unknown)


def test_class_prompts_count_their_seeds_up():
    classes = {"n1": "tench", "n2": "church"}
    concept = FoldersConcept(kind="folders", manifest="x", folder="t", classes=classes, target="church")
    spec = ClassPrompts(
        kind="classes", seeds={"tench": 100, "church": 7}, labels={"church": "church, church building"}, count=3
    )
    entries = read(spec, concept)
    assert [entry.seed for entry in entries] == [100, 101, 102, 7, 8, 9]
    assert [entry.target for entry in entries] == [False] * 3 + [True] * 3
    assert entries[0].text == "Image of tench"
    assert entries[3].wanted == {"class": "church, church building"}
    with pytest.raises(ConfigError, match="none of the classes"):
        read(spec, CIRCLE)


@pytest.fixture
def csv_file(tmp_path, monkeypatch):
    monkeypatch.setattr("shared.diffusion.evaluate.prompts.pull", lambda name: tmp_path)

    def write(text):
        (tmp_path / "prompts.csv").write_text(text, encoding="utf-8")
        return FilePrompts(kind="file", manifest="x", file="prompts.csv", most_tokens=4)

    return write


def test_prompts_of_a_file_keep_their_row_number_seed_and_guidance(csv_file):
    spec = csv_file(
        "prompt,evaluation_seed,evaluation_guidance\na church,5,7\none two three four five,6,7\nold church,8,\n"
    )
    entries = read(spec)
    assert [(e.index, e.text, e.seed, e.guidance) for e in entries] == [
        (0, "a church", 5, 7.0),
        (2, "old church", 8, 7.5),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("text,evaluation_seed\na,1\n", "no column 'prompt'"),
        ("prompt,evaluation_seed\na,x\n", "row 0: no readable evaluation_seed"),
        ("prompt,evaluation_seed\n1 2 3 4 5,1\n", "no prompt of at most 4 tokens"),
        ("", "no column 'prompt'"),
    ],
)
def test_damaged_files_are_named(csv_file, text, says):
    with pytest.raises(DataError, match=says):
        read(csv_file(text))
