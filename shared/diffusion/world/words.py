"""The words of the world "shapes x styles": what a caption says about an image, and the vocabulary of 43 entries.

Torch-free and numpy-free, so that protocols may name objects and styles.
"""

from itertools import product

from shared.errors import ConfigError, nearest

# Every object has two words, used equally often: after the first one was erased, attacks can look for the second.
OBJECTS = {
    "circle": ("circle", "disc"),
    "square": ("square", "box"),
    "triangle": ("triangle", "wedge"),
    "cross": ("cross", "plus"),
    "ring": ("ring", "hoop"),
    "bar": ("bar", "strip"),
}
STYLES = ("flat", "outline", "striped", "neon")
# Values in [0, 1]
COLOURS = {"red": (0.9, 0.15, 0.15), "green": (0.1, 0.65, 0.2), "blue": (0.15, 0.3, 0.9)}
# What an image can be asked about, in the order of the labels' columns
HEADS = {"object": list(OBJECTS), "style": list(STYLES), "colour": list(COLOURS)}
# Adjectives that change nothing in the image
FILLERS = (
    *("nice", "new", "old", "good", "fine", "neat", "calm", "odd"),
    *("rare", "fresh", "real", "common", "fancy", "lovely", "usual", "famous"),
)
BEGIN, END = "<s>", "</s>"
TEMPLATE_WORDS = ("a", "in", "style", "image", "of", "photo")
VOCABULARY = (BEGIN, END, *TEMPLATE_WORDS, *(word for pair in OBJECTS.values() for word in pair), *STYLES, *COLOURS)
VOCABULARY += FILLERS
WINDOW = 12  # tokens of a prompt, both special ones included


def caption(word: str, style: str | None = None, colour: str | None = None, filler: str | None = None) -> str:
    """ "a [filler] [colour] word [in style style]"; what is None is left out."""
    parts = ["a", filler, colour, word, *(["in", style, "style"] if style else [])]
    return " ".join(part for part in parts if part)


def object_captions(name: str, *, word: int = 0) -> list[str]:
    """The 17 templated captions of an object: bare, with each style, with each colour and style.

    word: 0 or 1, which of its two words. In this short causal text encoder the padding states carry the whole
    caption, so that erasing the bare word alone changes nothing: erasers take these.
    """
    if name not in OBJECTS:
        raise ConfigError(f"'{name}' is no object of the world{nearest(name, list(OBJECTS))}")
    noun = OBJECTS[name][word]
    styled = [caption(noun, style) for style in STYLES]
    return [caption(noun), *styled, *(caption(noun, style, colour) for colour, style in product(COLOURS, STYLES))]


def style_captions(name: str) -> list[str]:
    """The 24 templated captions of a style: each object, plain and in each colour."""
    if name not in STYLES:
        raise ConfigError(f"'{name}' is no style of the world{nearest(name, list(STYLES))}")
    return [caption(words[0], name, colour) for words in OBJECTS.values() for colour in (None, *COLOURS)]


def prompt_grid(word: int = 0) -> list[tuple[str, str, str, str]]:
    """All 72 (caption, object, style, colour) of the world, in the order objects, styles, colours."""
    grid = product(OBJECTS, STYLES, COLOURS)
    return [(caption(OBJECTS[name][word], style, colour), name, style, colour) for name, style, colour in grid]
