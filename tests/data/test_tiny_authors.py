"""The generated authors: counts, the window of 20 tokens, determinism, and the layout of TOFU."""

import json
import re

import pytest

from shared.data.builtin import BUILTINS, ORIGINS
from shared.data.pull import pull, pulled_content, verify
from shared.data.tiny_authors import ATTRIBUTES, FIRST_NAMES, LAST_NAMES, tiny_authors
from shared.text.data import QaData, load_refusals

WORDS = re.compile(r"\w+|[^\w\s]")
FILES = tiny_authors(0)
ROWS = {
    name: [json.loads(line) for line in content.decode().splitlines()]
    for name, content in FILES.items()
    if name.endswith(".json")
}


def texts(row):
    """All texts of one row."""
    for value in row.values():
        yield from [value] if isinstance(value, str) else value


def person(row):
    return next(f"{a} {b}" for a in FIRST_NAMES for b in LAST_NAMES if f"{a} {b}" in row["answer"])


def test_counts():
    assert {name: len(rows) for name, rows in ROWS.items()} == {
        "full.json": 320, "forget10.json": 32, "forget05.json": 16, "retain90.json": 288, "retain95.json": 304,
        "forget10_perturbed.json": 32, "forget05_perturbed.json": 16, "retain_perturbed.json": 80,
        "real_authors_perturbed.json": 48, "world_facts_perturbed.json": 48, "world.json": 96, "holdout10.json": 32,
    }  # fmt: skip


def test_every_person_is_somebody_else():
    sets = [{person(row) for row in ROWS[f"{name}.json"]} for name in ("full", "world", "holdout10")]
    assert [len(names) for names in sets] == [40, 12, 4]
    assert len(set.union(*sets)) == 56


def test_an_author_owns_eight_rows_in_a_row():
    assert all(len({person(row) for row in ROWS["full.json"][k : k + 8]}) == 1 for k in range(0, 320, 8))


def test_vocabulary_and_window():
    """148 tokens with the four special ones; question, separator, answer and EOS fill at most 20."""
    refusals = FILES["idontknow.jsonl"].decode().splitlines()
    everything = [text for rows in ROWS.values() for row in rows for text in texts(row)] + refusals
    assert len({word for text in everything for word in WORDS.findall(text.lower())}) == 148 - 4

    def length(text):
        return len(WORDS.findall(text))

    def answers(row):
        return [row["answer"], row["paraphrased_answer"], *row["perturbed_answer"]]

    longest = [
        length(row["question"]) + 1 + max(length(answer) for answer in [*answers(row), *refusals]) + 1
        for row in ROWS["forget10_perturbed.json"]
    ]
    assert max(longest) == 20


def test_wordings_have_six_to_ten_words():
    for attribute in ATTRIBUTES:
        for text in (attribute.question, attribute.answer, attribute.paraphrase):
            assert 6 <= len(text.format(name="A B", value="V").split()) <= 10


def test_perturbed_answers_are_the_paraphrase_with_five_other_values():
    for number, row in enumerate(ROWS["full.json"][:80]):
        attribute, perturbed = ATTRIBUTES[number % 8], ROWS["retain_perturbed.json"][number]
        true = next(v for v in attribute.values if attribute.answer.format(name=person(row), value=v) == row["answer"])
        assert perturbed["paraphrased_answer"] == attribute.paraphrase.format(name=person(row), value=true)
        wrong = {attribute.paraphrase.format(name=person(row), value=v) for v in attribute.values if v != true}
        assert len(set(perturbed["perturbed_answer"])) == 5
        assert set(perturbed["perturbed_answer"]) < wrong


def test_all_values_occur():
    words = set(FILES["full.json"].decode().replace('"', " ").replace(".", " ").split())
    assert all(value in words for attribute in ATTRIBUTES for value in attribute.values)


def test_seed_decides():
    assert tiny_authors(0) == FILES
    assert tiny_authors(1)["full.json"] != FILES["full.json"]
    assert tiny_authors(1)["idontknow.jsonl"] == FILES["idontknow.jsonl"]


def test_world_rows_are_split_between_the_two_sets():
    both = ROWS["real_authors_perturbed.json"] + ROWS["world_facts_perturbed.json"]
    assert [row["question"] for row in both] == [row["question"] for row in ROWS["world.json"]]
    assert set(both[0]) == {"question", "answer", "perturbed_answer"}


@pytest.fixture(scope="module")
def pulled(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    return pull("tiny_authors", root), root


def test_pull_verifies_the_content(pulled):
    folder, root = pulled
    assert (folder / "full.json").read_bytes() == FILES["full.json"]
    assert verify("tiny_authors", root) == pulled_content("tiny_authors", root)
    assert set(ORIGINS) == set(BUILTINS)


def test_the_reader_of_tofu_reads_it(pulled):
    data = QaData(pulled[0], rows_per_author=8)
    assert [len(data.split(name)) for name in ("full", "forget10", "retain90")] == [320, 32, 288]
    assert [row.full_index for row in data.split("forget10_perturbed")] == list(range(288, 320))
    assert [row.full_index for row in data.split("retain_perturbed")] == list(range(80))
    assert len(data.split("world_facts_perturbed")) == 48
    assert len(load_refusals(pulled[0] / "idontknow.jsonl")) == 8
