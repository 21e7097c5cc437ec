"""The generated world: shapes where they should be, shares of the captions, one vocabulary, the same bytes always."""

import numpy as np
import pytest

from shared.data.pull import pull, verify
from shared.diffusion.world.grey_shapes import CLASSES, draw_grey_shapes
from shared.diffusion.world.images import NOISE, SIZE, Labels, draw_images, draw_labels, shapes_styles
from shared.diffusion.world.masks import MASKS, coverage, offsets
from shared.diffusion.world.read import read_grey_shapes, read_world
from shared.diffusion.world.tokenizer import world_tokenizer
from shared.diffusion.world.words import (
    COLOURS,
    OBJECTS,
    STYLES,
    VOCABULARY,
    WINDOW,
    caption,
    object_captions,
    prompt_grid,
    style_captions,
)
from shared.errors import ConfigError, DataError

FILES = shapes_styles(0)
LABELS = Labels(*FILES["train_labels.npy"].T)
CAPTIONS = FILES["train_captions.txt"].decode().splitlines()
# Areas in units of r^2
AREAS = {"circle": np.pi, "square": (2 * 0.86) ** 2, "cross": 2 * 2 * 0.68 - 0.68**2, "bar": 4 * 0.36 * 1.1}
AREAS |= {"ring": np.pi * ((0.78 + 0.26) ** 2 - (0.78 - 0.26) ** 2), "triangle": 0.5 * 1.75**2}


@pytest.mark.parametrize("name", OBJECTS)
def test_a_mask_covers_the_area_of_its_shape(name):
    """Pixels are much smaller than the shape here, so the sum of coverages is the area."""
    radius = np.array([100.0])
    dx, dy = offsets(256, np.array([128.0]), np.array([128.0]))
    area = coverage(MASKS[name](dx, dy, radius[:, None, None])).sum() / 100.0**2
    assert area == pytest.approx(AREAS[name], rel=0.02)


def labels_of(name, style, colour="red", num=4):
    pick = [list(names).index(which) for names, which in ((OBJECTS, name), (STYLES, style), (COLOURS, colour))]
    return Labels(*(np.full(num, index) for index in pick))


def drawn(name, style, **where):
    return draw_images(labels_of(name, style, **where), np.random.RandomState(0)) / 255


@pytest.mark.parametrize("style", STYLES)
def test_corners_show_the_ground(style):
    corners = drawn("circle", style)[:, ::31, ::31].reshape(-1, 3)
    ground = [0.05, 0.05, 0.10] if style == "neon" else [1.0, 1.0, 1.0]
    assert np.abs(corners.mean(0) - ground).max() < NOISE


def test_middle_of_a_flat_circle_has_its_colour_and_an_outline_has_none():
    middle = np.s_[:, 14:18, 14:18]
    assert drawn("circle", "flat", colour="blue")[middle].mean((0, 1, 2)) == pytest.approx([0.15, 0.3, 0.9], abs=0.02)
    assert drawn("circle", "outline")[middle].min() > 0.85


def test_stripes_are_pairs_of_rows():
    square = drawn("square", "striped", colour="green")[:, :, 16].mean(0)[10:22]
    painted = np.abs(square - COLOURS["green"]).max(1) < 0.05
    assert painted.tolist() == [(row // 2) % 2 == 0 for row in range(10, 22)]


def test_a_dotted_image_has_half_the_paint_of_a_flat_one():
    labels, dotted = labels_of("square", "flat"), np.array([False, False, True, True])
    paint = 1 - draw_images(labels, np.random.RandomState(0), dotted)[..., 1].mean((1, 2)) / 255
    assert paint[2:].mean() / paint[:2].mean() == pytest.approx(0.5, abs=0.05)


def test_noise_has_its_width():
    ground = drawn("bar", "neon", num=50)[:, :4]
    assert ground.std((0, 1, 2)) == pytest.approx([NOISE] * 3, rel=0.1)


def test_images_fit_and_labels_are_uniform():
    images = FILES["train_images.npy"]
    assert images.shape == (3000, SIZE, SIZE, 3)
    assert images.dtype == np.uint8
    for column, names in zip(LABELS, (OBJECTS, STYLES, COLOURS), strict=True):
        counts = np.bincount(column, minlength=len(names)) / 3000
        assert counts == pytest.approx([1 / len(names)] * len(names), abs=0.03)


def test_captions_say_what_the_image_shows_with_their_shares():
    words = [set(line.split()) for line in CAPTIONS]
    nouns = [OBJECTS[list(OBJECTS)[index]] for index in LABELS.objects]
    assert all(len(said & set(pair)) == 1 for said, pair in zip(words, nouns, strict=True))
    second = np.mean([pair[1] in said for said, pair in zip(words, nouns, strict=True)])
    colour = [list(COLOURS)[index] in said for said, index in zip(words, LABELS.colours, strict=True)]
    style = [STYLES[index] in said for said, index in zip(words, LABELS.styles, strict=True)]
    assert [second, np.mean(colour), np.mean(style)] == pytest.approx([0.5, 0.7, 0.85], abs=0.03)
    assert all(len(said & set(COLOURS)) <= 1 and len(said & set(STYLES)) <= 1 for said in words)


def test_vocabulary_and_tokenizer():
    tokenizer = world_tokenizer()
    assert len(VOCABULARY) == len(set(VOCABULARY)) == len(tokenizer) == 43
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 1, 1)
    ids = tokenizer(CAPTIONS, padding="max_length", max_length=WINDOW)["input_ids"]
    assert {len(row) for row in ids} == {12}
    assert max(row.index(1) for row in ids) == 8  # the longest caption has 7 words: three may come before it
    assert tokenizer.batch_decode(ids[:50], skip_special_tokens=True) == CAPTIONS[:50]


def test_templates():
    assert caption("disc", "neon", "red", "odd") == "a odd red disc in neon style"
    circle, neon = object_captions("circle"), style_captions("neon")
    assert len(set(circle)) == 17
    assert len(set(neon)) == 24
    assert circle[:2] == ["a circle", "a circle in flat style"]
    assert all("circle" in text for text in circle)
    assert all("disc" in text for text in object_captions("circle", word=1))
    assert all(text.endswith("in neon style") for text in neon)
    assert len({text for text, *_ in prompt_grid()}) == 72
    with pytest.raises(ConfigError, match=r"'circel' is no object of the world \(did you mean 'circle'\?\)"):
        object_captions("circel")
    with pytest.raises(ConfigError, match=r"'flatt' is no style of the world \(did you mean 'flat'\?\)"):
        style_captions("flatt")


def test_seed_decides():
    labels = draw_labels(5, np.random.RandomState(1))
    first, second = (draw_images(labels, np.random.RandomState(seed)) for seed in (0, 1))
    assert np.array_equal(first, draw_images(labels, np.random.RandomState(0)))
    assert not np.array_equal(first, second)


def test_grey_shapes_lie_inside():
    images = draw_grey_shapes(np.arange(400) % len(CLASSES), np.random.RandomState(0))
    assert images.shape == (400, 12, 12, 1)
    # bars of a cross are the thinnest part: its mask, too, has pixels that are fully white
    assert images.max((1, 2, 3)).min() == 255
    area = (images / 255.0).sum((1, 2, 3))
    assert area.min() > 0.8 * AREAS["cross"] * 2.5**2 * 0.9
    assert area.max() < np.pi * 4**2 + 1


@pytest.mark.parametrize("name", ["shapes_styles", "grey_shapes"])
def test_pulled_content_is_the_manifests(name, tmp_path):
    folder = pull(name, tmp_path)
    assert verify(name, tmp_path)
    if name == "grey_shapes":
        images, labels = read_grey_shapes(folder, "test")
        assert (tuple(images.shape), labels.bincount().tolist()) == ((400, 1, 12, 12), [100] * 4)
        return
    part = read_world(folder, "train")
    assert (tuple(part.images.shape), tuple(part.labels.shape)) == ((3000, 3, 32, 32), (3000, 3))
    assert part.captions == CAPTIONS
    assert np.array_equal(part.images[7].movedim(0, 2).numpy(), FILES["train_images.npy"][7])
    with pytest.raises(DataError, match=r"no readable part 'tset'"):
        read_world(folder, "tset")
    (folder / "train_captions.txt").write_text("a circle\n")
    with pytest.raises(DataError, match=r"train_captions\.txt: 1 captions for 3000 images"):
        read_world(folder, "train")
