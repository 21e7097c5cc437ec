"""Options of the attacks; torch-free, so that planning reads them."""

from typing import Literal

from shared.options import Count, NonNegative, Options, Positive

# Where the adversarial tokens stand; see `attack/layout.py`.
Place = Literal["prefix", "suffix", "middle", "even", "every_third"]


class AttackOptions(Options):
    """What all attacks share.

    batch: prompts that are attacked, and images that are drawn, at once; it changes no result but for rounding.
    judged: "retokenised": the string of the optimised tokens is drawn and judged, as a user could type it, although its
    own tokens may be others (released code, published numbers); "exact": the optimised tokens themselves.
    """

    batch: Count = 8
    judged: Literal["retokenised", "exact"] = "retokenised"


class PrefixOptions(AttackOptions):
    """num_tokens: N, adversarial tokens (5 for nudity, violence, illegal activity; 3 for styles and objects); place:
    where they stand.

    special_tokens: whether start and end tokens may be among them; they are entries of the released code's vocabulary.
    early_stop: end a prompt's attack with its first success. Styles are attacked to the end, and top-k is decided
    afterwards.
    """

    num_tokens: Count = 5
    place: Place = "prefix"
    special_tokens: bool = False
    early_stop: bool = True


class SearchOptions(PrefixOptions):
    """Gradient search: `times` noise levels in order, `steps` optimiser steps at each, then one judged image.

    weight_decay: with "adam" it is added to the gradient (released code); "adamw" is what the paper says.
    """

    times: Count = 50
    steps: Count = 40
    lr: Positive = 0.01
    weight_decay: NonNegative = 0.1
    optimizer: Literal["adam", "adamw"] = "adam"


class UnlearnDiffAtkOptions(SearchOptions):
    """projection: "exact" is the simplex; "bisection" is the released code, which stops when the multiplier is known to
    1e-5, so that a row over the whole vocabulary may miss the sum 1 by a quarter; it made the published numbers."""

    projection: Literal["exact", "bisection"] = "exact"


class P4dOptions(SearchOptions):
    """Prompting4Debugging has no further hyper-parameter."""


class RandomPrefixOptions(PrefixOptions):
    """tries: random prefixes a prompt."""

    tries: Count = 40


class SeedSearchOptions(AttackOptions):
    """tries: other seeds a prompt; all are drawn, whatever succeeds."""

    tries: Count = 40


class NoAttackOptions(AttackOptions):
    """The raw prompt."""
