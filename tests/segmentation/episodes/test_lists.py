"""Drawn lists: HSNet's stream, each rule, and the file that keeps them."""

import json
import shutil

import numpy as np
import pytest

from shared.data.pull import pull
from shared.errors import ConfigError, DataError
from shared.segmentation.data import open_source
from shared.segmentation.episodes import lists
from shared.segmentation.episodes.lists import draw_episodes, kept_episodes
from shared.segmentation.episodes.open import class_source
from shared.segmentation.episodes.spec import DrawSpec, EpisodesSpec


def reference_draw(members, number, shots, seed):
    """COCO-20i as HSNet samples it, written with numpy's global generator."""
    np.random.seed(seed)
    found = []
    for _ in range(number):
        label = np.random.choice(list(members), 1, replace=False)[0]
        query = np.random.choice(members[label], 1, replace=False)[0]
        examples = []
        while len(examples) < shots:
            example = np.random.choice(members[label], 1, replace=False)[0]
            if example != query:
                examples.append(example)
        found.append((label, query, tuple(examples)))
    return found


@pytest.mark.parametrize(("shots", "seed"), [(1, 0), (5, 0), (1, 7)])
def test_episodes_are_those_of_hsnet(toy, shots, seed):
    spec = DrawSpec(number=50, shots=shots, seed=seed, repeat_examples=True)
    drawn = draw_episodes(toy, spec)
    members = {label: images for label, images in enumerate(toy.members) if len(images) > 1}
    assert [tuple(episode) for episode in drawn] == reference_draw(members, 50, shots, seed)
    if shots == 5:
        assert any(len(set(episode.examples)) < 5 for episode in drawn)


@pytest.mark.parametrize("rule", ["class", "class_cycle", "image"])
def test_examples_are_other_images_of_the_class_and_all_different(toy, rule):
    for label, query, examples in draw_episodes(toy, DrawSpec(rule=rule, number=60, shots=3)):
        assert toy.classes[label] in "ab"
        assert len({query, *examples}) == 4
        assert {query, *examples} <= set(toy.members[label])


def test_classes_take_turns(toy):
    drawn = draw_episodes(toy, DrawSpec(rule="class_cycle", number=7))
    assert [toy.classes[episode.label] for episode in drawn] == list("abcabca")


def test_queries_come_in_the_sets_order_and_from_the_start_again(toy):
    toy.queries = [(4, 1), (0, 2), (11, 0), (3, 3)]
    drawn = draw_episodes(toy, DrawSpec(rule="query", number=5))
    assert [(e.query, e.label) for e in drawn] == [(4, 1), (0, 2), (11, 0), (4, 1), (0, 2)]
    assert len(draw_episodes(toy, DrawSpec(rule="query"))) == 3
    only_b = draw_episodes(toy, DrawSpec(rule="query"), ["b"])
    assert [(e.query, e.label) for e in only_b] == [(4, 1)]


def test_an_image_and_then_one_of_its_classes(toy):
    drawn = draw_episodes(toy, DrawSpec(rule="image", number=600))
    queries = np.bincount([e.query for e in drawn], minlength=12)
    assert queries.min() > 25
    assert {toy.classes[e.label] for e in drawn if e.query == 1} == set("abc")
    assert {toy.classes[e.label] for e in drawn if e.query == 8} == {"a"}


def test_one_draw_of_examples_serves_all_other_images_of_its_class(toy):
    drawn = draw_episodes(toy, DrawSpec(rule="example", shots=2))
    for label, number in ((0, 12), (1, 6)):
        own = [e for e in drawn if e.label == label]
        assert len({e.examples for e in own}) == 1
        assert sorted([*own[0].examples, *(e.query for e in own)]) == list(range(number))
    assert {e.label for e in drawn} == {0, 1}


def test_a_class_with_one_other_image_shows_the_query_itself_where_segics_code_does(toy):
    spec = DrawSpec(rule="class", number=40, self_reference=True)
    drawn = draw_episodes(toy, spec, ["b", "c"])
    for episode in drawn:
        itself = episode.examples == (episode.query,)
        assert itself == (toy.classes[episode.label] == "c")
    honest = draw_episodes(toy, spec.model_copy(update={"self_reference": False}), ["b", "c"])
    assert all(e.query not in e.examples for e in honest)


def test_classes_without_enough_images_and_unknown_ones(toy):
    with pytest.raises(ConfigError, match="no class has 13 images: one query, and 12 examples"):
        draw_episodes(toy, DrawSpec(number=3, shots=12))
    toy.classes = ["cat", "dog", "bird", "cow"]
    with pytest.raises(ConfigError, match=r"class 'bidr' is not in the data .did you mean 'bird'"):
        draw_episodes(toy, DrawSpec(number=3), ["bidr"])


SPEC = {"data": {"kind": "generated", "manifest": "hue_triples", "part": "test"}, "classes": ["bar", "cut_disc"]}


@pytest.fixture(scope="module")
def drawn_once(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    pull("hue_triples", root)
    return root


@pytest.fixture
def root(drawn_once, tmp_path):
    """A folder of pulled data without any list."""
    return shutil.copytree(drawn_once, tmp_path / "data")


def opened(spec, root):
    return class_source(spec.data, open_source(spec.data, root))


def test_a_list_is_drawn_once_and_read_by_whoever_asks_for_the_same(root, monkeypatch):
    spec = EpisodesSpec(**SPEC, draw=DrawSpec(number=20))
    source = opened(spec, root)
    drawn = kept_episodes(source, spec, root)
    (path,) = (root / "hue_triples").rglob("episodes/*.json")
    kept = json.loads(path.read_text())["episodes"]
    assert len(kept) == 20
    assert {episode["class"] for episode in kept} == {"bar", "cut_disc"}
    monkeypatch.setattr(lists, "draw_episodes", lambda *_: pytest.fail("drawn again"))
    another = spec.model_copy(update={"text": False, "side": 16, "batch": 2, "classes": ["cut_disc", "bar"]})
    assert kept_episodes(opened(another, root), another, root) == drawn
    pull("hue_triples", root)  # what is kept beside the data does not spoil them


@pytest.mark.parametrize(
    "change", [{"draw": DrawSpec(number=20, seed=1)}, {"draw": DrawSpec(number=20, shots=2)}, {"classes": ["bar"]}]
)
def test_another_draw_is_another_list(root, change):
    spec = EpisodesSpec(**SPEC, draw=DrawSpec(number=20))
    source = opened(spec, root)
    first = kept_episodes(source, spec, root)
    assert kept_episodes(source, spec.model_copy(update=change), root) != first
    assert len(list((root / "hue_triples").rglob("episodes/*.json"))) == 2


@pytest.mark.parametrize("content", ["{", "{}", '{"episodes": [{"class": "bar", "query": "x", "examples": []}]}'])
def test_a_damaged_list_is_one_line(root, content):
    spec = EpisodesSpec(**SPEC, draw=DrawSpec(number=2))
    source = opened(spec, root)
    kept_episodes(source, spec, root)
    (path,) = (root / "hue_triples").rglob("episodes/*.json")
    path.write_text(content)
    with pytest.raises(DataError, match=r"no list of episodes of these data .*delete it"):
        kept_episodes(source, spec, root)
