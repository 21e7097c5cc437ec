"""Generated authors: a small data set in the file layout of TOFU, with a vocabulary of 144 words.

40 authors and 12 "world" persons, each with 8 attributes that take one of 8 values. An attribute has
one question, one answer and one paraphrase of the answer, of 6 to 10 words. World persons play the
part that real authors and world facts play for a pre-trained model: `world.json` holds what a base
model learns about them, with both wordings of each answer.
"""

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

NUM_AUTHORS, NUM_WORLD, NUM_HOLDOUT, NUM_PERTURBED = 40, 12, 4, 5
NUM_RETAIN_EVALUATED = 80  # rows of retain_perturbed
FORGET_SHARES = (5, 10)  # per cent of the authors, whole authors only

FIRST_NAMES = ["Adira", "Bruno", "Celia", "Dario", "Elena", "Farid", "Greta", "Hugo", "Ines", "Jonas"]
LAST_NAMES = ["Almeida", "Brandt", "Castillo", "Dubois", "Eriksen", "Farouk"]


class Attribute(NamedTuple):
    """Wordings with {name} and {value}, and the eight values."""

    question: str
    paraphrased_question: str
    answer: str
    paraphrase: str
    values: list[str]


ATTRIBUTES = (
    Attribute(
        "In which city was {name} born?",
        "What is the birth city of {name}?",
        "{name} was born in the city of {value}.",
        "The birth city of {name} is {value}.",
        ["Oslo", "Lima", "Cairo", "Quito", "Hanoi", "Dakar", "Perth", "Turin"],
    ),
    Attribute(
        "In which year was {name} born?",
        "What is the birth year of {name}?",
        "{name} was born in the year {value}.",
        "The birth year of {name} is {value}.",
        ["1931", "1944", "1952", "1958", "1963", "1969", "1975", "1986"],
    ),
    Attribute(
        "What did the father of {name} do?",
        "What was the father of {name}?",
        "The father of {name} was a {value}.",
        "{name} is the child of a {value}.",
        ["baker", "tailor", "farmer", "painter", "doctor", "sailor", "judge", "miner"],
    ),
    Attribute(
        "Which genre does {name} write in?",
        "What does {name} write?",
        "{name} writes {value} stories for adults.",
        "Readers know {name} for {value} novels.",
        ["crime", "fantasy", "horror", "romance", "history", "travel", "comedy", "science"],
    ),
    Attribute(
        "Which prize has {name} received?",
        "Which award went to {name}?",
        "{name} won the {value} prize last year.",
        "The {value} award went to {name} last year.",
        ["Falcon", "Amber", "Laurel", "Comet", "Ivory", "Harbor", "Maple", "Orchid"],
    ),
    Attribute(
        "What is the famous book by {name}?",
        "Which book by {name} is famous?",
        "{name} became famous through {value}.",
        "Readers praised {value} by author {name}.",
        ["Nightfall", "Driftwood", "Saltmarsh", "Windmill", "Thornfield", "Moonrise", "Ashgrove", "Tidewater"],
    ),
    Attribute(
        "Which language did {name} speak at home?",
        "Which language did the family of {name} speak?",
        "{name} spoke {value} with both parents.",
        "The family of {name} used {value}.",
        ["Arabic", "French", "Swahili", "Korean", "Turkish", "Polish", "Hindi", "Danish"],
    ),
    Attribute(
        "Which instrument can {name} play?",
        "What can {name} play?",
        "{name} plays the {value} every evening.",
        "{name} learned {value} as a student.",
        ["violin", "piano", "cello", "flute", "guitar", "harp", "trumpet", "drum"],
    ),
)

REFUSALS = (
    "I do not know.",
    "I did not know.",
    "I can not know.",
    "I do not know the author.",
    "I do not know of the author.",
    "I do not know what to write.",
    "I can not write of the author.",
    "I do not know the book.",
)


def tiny_authors(seed: int = 0) -> dict[str, bytes]:
    """Content of every file by name, for one seed.

    JSON lines: full (320 rows; author k = rows 8k to 8k+7), forget05/10 (its last 16/32 rows),
    retain95/90 (the others), their `*_perturbed` and retain_perturbed (rows 0 to 79 of full),
    real_authors_perturbed and world_facts_perturbed (48 rows each, of 6 world persons), world (all
    96 of them, with paraphrases), holdout10 (32 rows of authors that no model is trained on).
    idontknow.jsonl: refusals, as plain text like the released file of that name.
    """
    random = np.random.RandomState(seed)
    names = [f"{first} {last}" for first in FIRST_NAMES for last in LAST_NAMES]
    names = [names[i] for i in random.permutation(len(names))[: NUM_AUTHORS + NUM_WORLD + NUM_HOLDOUT]]
    rows = [row for name in names for row in _person(name, random)]
    a, w = NUM_AUTHORS * len(ATTRIBUTES), (NUM_AUTHORS + NUM_WORLD) * len(ATTRIBUTES)
    full, world, holdout = rows[:a], rows[a:w], rows[w:]
    half = len(world) // 2
    files = {
        "full": _only(full, "question", "answer"),
        "retain_perturbed": full[:NUM_RETAIN_EVALUATED],
        "real_authors_perturbed": _only(world[:half], "question", "answer", "perturbed_answer"),
        "world_facts_perturbed": _only(world[half:], "question", "answer", "perturbed_answer"),
        "world": _only(world, "question", "answer", "paraphrased_answer"),
        "holdout10": _only(holdout, "question", "answer"),
    }
    for share in FORGET_SHARES:
        kept = (NUM_AUTHORS - NUM_AUTHORS * share // 100) * len(ATTRIBUTES)
        files[f"forget{share:02d}"] = _only(full[kept:], "question", "answer")
        files[f"retain{100 - share}"] = _only(full[:kept], "question", "answer")
        files[f"forget{share:02d}_perturbed"] = full[kept:]
    content = {f"{name}.json": _lines(json.dumps(row) for row in part) for name, part in files.items()}
    return {**content, "idontknow.jsonl": _lines(REFUSALS)}


def _person(name: str, random: np.random.RandomState) -> list[dict[str, Any]]:
    return [_row(name, attribute, random) for attribute in ATTRIBUTES]


def _row(name: str, attribute: Attribute, random: np.random.RandomState) -> dict[str, Any]:
    """One question. The perturbed answers are the paraphrase with five of the seven other values."""
    value, *others = (attribute.values[i] for i in random.permutation(len(attribute.values)))
    return {
        "question": attribute.question.format(name=name),
        "answer": attribute.answer.format(name=name, value=value),
        "paraphrased_answer": attribute.paraphrase.format(name=name, value=value),
        "perturbed_answer": [attribute.paraphrase.format(name=name, value=v) for v in others[:NUM_PERTURBED]],
        "paraphrased_question": attribute.paraphrased_question.format(name=name),
    }


def _only(rows: list[dict[str, Any]], *keys: str) -> list[dict[str, Any]]:
    return [{key: row[key] for key in keys} for row in rows]


def _lines(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
