"""A concept of the world "shapes x styles" in words and in labels. Torch is not needed: labels are any (N, 3) array."""

from typing import Any, Literal, NamedTuple

from shared.diffusion.concepts.spec import WorldConcept
from shared.diffusion.world.words import HEADS, OBJECTS, STYLES, caption, object_captions, style_captions

Side = Literal["concept", "anchor", "others"]


class Words(NamedTuple):
    """prompts name the concept, anchors are the same with the anchor in its place, retain is everything else."""

    prompts: list[str]
    anchors: list[str]
    retain: list[str]


class WorldSide(NamedTuple):
    """Images of one side: rows of the data set, prompts, and which prompt each image has."""

    rows: list[int]
    prompt: list[int]
    prompts: list[str]


def colour_captions(name: str) -> list[str]:
    """The 30 templated captions of a colour: each object, plain and in each style."""
    return [caption(words[0], style, name) for words in OBJECTS.values() for style in (None, *STYLES)]


def captions_of(kind: str, name: str) -> list[str]:
    """Templated captions that name an object, style or colour, in an order that is the same for all of a kind."""
    makers = {"object": object_captions, "style": style_captions, "colour": colour_captions}
    return makers[kind](name)


def world_words(spec: WorldConcept) -> Words:
    """Captions of the concept, of its anchor, and of the other names of its kind (the anchor's own are among them)."""
    others = [name for name in HEADS[spec.of] if name != spec.name]
    retain = [text for name in others for text in captions_of(spec.of, name)]
    return Words(captions_of(spec.of, spec.name), captions_of(spec.of, spec.anchor), retain)


def world_side(spec: WorldConcept, labels: Any, side: Side) -> WorldSide:
    """Images of the concept or its anchor, with the prompts of `world_words`, or all images but the concept's, with
    captions of all that is in them. labels (N, 3): object, style, colour."""
    column = list(HEADS).index(spec.of)
    table = [[int(value) for value in row] for row in labels.tolist()]
    name = spec.anchor if side == "anchor" else spec.name
    wanted = HEADS[spec.of].index(name)
    rows = [i for i, row in enumerate(table) if (row[column] == wanted) != (side == "others")]
    texts = [_full_caption(table[i]) for i in rows]
    if side == "others":
        prompts = list(dict.fromkeys(texts))
    else:
        prompts = captions_of(spec.of, name)
    place = {text: index for index, text in enumerate(prompts)}
    return WorldSide(rows, [place[text] for text in texts], prompts)


def _full_caption(row: list[int]) -> str:
    """The caption that says object, style and colour."""
    name, style, colour = (names[index] for names, index in zip(HEADS.values(), row, strict=True))
    return caption(OBJECTS[name][0], style, colour)
