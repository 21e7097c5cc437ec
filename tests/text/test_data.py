"""Rows and splits: order facts on miniatures in the public layout, and on the real files."""

import json

import pytest

from shared.data.pull import pull
from shared.errors import ConfigError, DataError
from shared.text.data import QaData, load_refusals, read_rows

AUTHORS, PER_AUTHOR = 20, 2


def write(folder, name, rows):
    (folder / f"{name}.json").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def qa(n):
    return {"question": f"question {n}?", "answer": f"answer {n}."}


def perturbed(n):
    return {**qa(n), "paraphrased_answer": f"it is {n}.", "perturbed_answer": [f"it is {n}{c}." for c in "abcde"]}


@pytest.fixture
def folder(tmp_path):
    """20 authors of 2 rows; one question occurs twice, as in the real data."""
    full = [qa(n) for n in range(AUTHORS * PER_AUTHOR)]
    full[7]["question"] = full[3]["question"]
    write(tmp_path, "full", full)
    write(tmp_path, "forget10", full[36:])
    write(tmp_path, "retain90", full[:36])
    write(tmp_path, "forget10_perturbed", [perturbed(n) for n in range(36, 40)])
    write(tmp_path, "retain_perturbed", [perturbed(n) for n in range(3)])
    write(tmp_path, "world_facts_perturbed", [{**qa(n), "perturbed_answer": ["a", "b", "c"]} for n in range(5)])
    write(tmp_path, "world_facts", [{**qa(0), "option1": "a", "option2": "b", "option3": "c", "option4": "d"}])
    return tmp_path


def numbers(rows):
    return [row.full_index for row in rows]


def change(folder, name, line, **values):
    rows = [json.loads(text) for text in (folder / f"{name}.json").read_text().splitlines()]
    rows[line] = {key: value for key, value in {**rows[line], **values}.items() if value is not None}
    write(folder, name, rows)


def test_forget_and_retain_cut_full_in_two(folder):
    data = QaData(folder, PER_AUTHOR)
    assert numbers(data.split("forget10")) == [36, 37, 38, 39]
    assert numbers(data.split("retain90") + data.split("forget10")) == list(range(40))
    assert [row.index for row in data.split("forget10")] == [0, 1, 2, 3]


@pytest.mark.parametrize("share", [5, 10, 20, 30, 50, 90])
def test_splits_without_a_file_follow_the_same_rule(folder, share):
    data = QaData(folder, PER_AUTHOR)
    forget, retain = data.split(f"forget{share:02d}"), data.split(f"retain{100 - share:02d}")
    assert len(forget) == 40 * share // 100
    assert numbers(retain + forget) == list(range(40))


def test_equal_questions_stay_two_rows(folder):
    rows = QaData(folder, PER_AUTHOR).split("full")
    assert rows[3].question == rows[7].question
    assert (rows[3].full_index, rows[7].full_index) == (3, 7)


def test_perturbed_rows_know_their_place(folder):
    rows = QaData(folder, PER_AUTHOR).split("forget10_perturbed")
    assert numbers(rows) == [36, 37, 38, 39]
    assert rows[0].paraphrased_answer == "it is 36."
    assert rows[0].perturbed_answers == ("it is 36a.", "it is 36b.", "it is 36c.", "it is 36d.", "it is 36e.")
    assert numbers(QaData(folder, PER_AUTHOR).split("retain_perturbed")) == [0, 1, 2]


def test_world_facts_have_no_place_in_full(folder):
    rows = QaData(folder, PER_AUTHOR).split("world_facts_perturbed")
    assert {row.full_index for row in rows} == {None}
    assert {len(row.perturbed_answers) for row in rows} == {3}
    assert QaData(folder, PER_AUTHOR).split("world_facts")[0].options == ("a", "b", "c", "d")


def test_last_authors_only(folder):
    """10 of 20 authors: forget10 is one author; the other one's perturbed rows then serve retain."""
    data = QaData(folder, PER_AUTHOR, authors=10)
    assert numbers(data.split("full")) == list(range(20, 40))
    assert numbers(data.split("forget10")) == numbers(data.split("forget10_perturbed")) == [38, 39]
    assert numbers(data.split("retain90")) == list(range(20, 38))
    assert numbers(data.split("retain_perturbed")) == [36, 37]
    assert [row.index for row in data.split("retain_perturbed")] == [0, 1]
    assert data.split("retain_perturbed")[0].paraphrased_answer == "it is 36."


@pytest.mark.parametrize(
    ("name", "authors", "message"),
    [
        ("forget01", None, r"forget01: 1 % of 20 authors is no whole number of authors from 1"),
        ("retain00", None, "retain00: 0 % of 20 authors"),
        ("full", 21, "authors = 21: .* has 1 to 20"),
        ("full", 0, "authors = 0"),
        ("world_fact", None, r"no split 'world_fact' \(did you mean 'world_facts'\?\)"),
    ],
)
def test_impossible_splits(folder, name, authors, message):
    with pytest.raises(ConfigError, match=message):
        QaData(folder, PER_AUTHOR, authors).split(name)


def test_missing_perturbed_rows_are_named(folder):
    with pytest.raises(DataError, match=r"forget20_perturbed: no \*_perturbed file .* has row 32 of full\.json"):
        QaData(folder, PER_AUTHOR).split("forget20_perturbed")
    (folder / "forget10_perturbed.json").unlink()
    with pytest.raises(DataError, match="retain_perturbed: no perturbed answers for the last 10 authors"):
        QaData(folder, PER_AUTHOR, authors=10).split("retain_perturbed")


def test_split_in_another_order_is_an_error(folder):
    change(folder, "forget10", 2, answer="another")
    with pytest.raises(DataError, match=r"forget10\.json line 3: answer differs from row 38 of full\.json"):
        QaData(folder, PER_AUTHOR).split("forget10")


def test_split_of_another_length_is_an_error(folder):
    write(folder, "retain90", [qa(n) for n in range(35)])
    with pytest.raises(DataError, match=r"retain90\.json: 35 rows, but rows 0 to 35 of full\.json are 36"):
        QaData(folder, PER_AUTHOR).split("retain90")


def test_authors_must_have_equal_rows(folder):
    with pytest.raises(DataError, match=r"full\.json: 40 rows are no multiple of 7"):
        QaData(folder, 7).split("full")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"answer": None}, "line 2: no key 'answer'"),
        ({"answer": 3}, "line 2: 'answer' is 3, expected text"),
        ({"question": " "}, "line 2: 'question' is ' ', expected text"),
        ({"perturbed_answer": "a"}, "line 2: 'perturbed_answer' is 'a', expected a list"),
        ({"perturbed_answer": ["a"] * 4 + [""]}, "line 2: entry 4 of 'perturbed_answer' is ''"),
        ({"perturbed_answer": ["a"]}, "line 2: 'perturbed_answer' has 1 entries, line 1 has 5"),
        ({"paraphrased_answer": None}, "line 2: no key 'paraphrased_answer'"),
    ],
)
def test_bad_rows_name_file_line_and_key(folder, values, message):
    change(folder, "retain_perturbed", 1, **values)
    with pytest.raises(DataError, match=rf"retain_perturbed\.json {message}") as caught:
        QaData(folder, PER_AUTHOR).split("retain_perturbed")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"question": "q", "answer": "a"}\n{"question"', "line 2: is no JSON object"),
        (b"[1]\n", "line 1: is no JSON object"),
        (b'{"question": "q", "answer": "a"}\n\n', "line 2: is empty"),
        (b"", "holds no line"),
        (b"\xff\xfe", "is no UTF-8 text"),
    ],
)
def test_files_that_are_no_json_lines(tmp_path, content, message):
    (tmp_path / "full.json").write_bytes(content)
    with pytest.raises(DataError, match=rf"full\.json:? ?{message}"):
        read_rows(tmp_path / "full.json")


def test_missing_file_is_one_line(tmp_path):
    with pytest.raises(DataError, match=r"full\.json: no such file; delete the data set's folder and pull it again"):
        QaData(tmp_path).split("full")


def test_only_a_newline_ends_a_row(tmp_path):
    (tmp_path / "x.json").write_text('{"question": "a\u2028b", "answer": "c"}\n', encoding="utf-8")
    assert read_rows(tmp_path / "x.json")[0].question == "a\u2028b"


def test_refusals_are_plain_text(tmp_path):
    path = tmp_path / "idontknow.jsonl"
    path.write_text("I don't know.\nNo idea. \nPass", encoding="utf-8")
    assert load_refusals(path) == ["I don't know.", "No idea.", "Pass"]
    path.write_text('No idea.\n{"answer": "x"}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"idontknow\.jsonl line 2: is JSON"):
        load_refusals(path)


@pytest.fixture(scope="module")
def real(data_mirror, tmp_path_factory):
    """The real data set, pulled from the mirror."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATA_MIRROR", str(data_mirror))
        return QaData(pull("tofu", tmp_path_factory.mktemp("data")))


def test_real_splits_have_the_published_counts_and_order(real):
    """Reading a split compares its file with full.json, row by row."""
    for share, count in {"01": 40, "05": 200, "10": 400, "20": 800, "30": 1200, "50": 2000, "90": 3600}.items():
        forget, retain = real.split(f"forget{share}"), real.split(f"retain{100 - int(share)}")
        assert (len(forget), len(retain)) == (count, 4000 - count)
        assert numbers(retain + forget) == list(range(4000))
    for share in ("01", "05", "10"):
        assert numbers(real.split(f"forget{share}_perturbed")) == numbers(real.split(f"forget{share}"))
    assert numbers(real.split("retain_perturbed")) == list(range(400))


def test_real_sets_beside_the_authors(real):
    assert [len(real.split(f"{name}_perturbed")) for name in ("real_authors", "world_facts")] == [100, 117]
    assert {len(row.perturbed_answers) for row in real.split("world_facts_perturbed")} == {3}
    assert {len(row.options) for row in real.split("real_authors")} == {4}
    assert {len(row.perturbed_answers) for row in real.split("forget10_perturbed")} == {5}


def test_real_duplicates_are_kept(real):
    rows = real.split("full")
    assert len(rows) - len({row.question for row in rows}) == 1
    assert len(rows) - len({row.answer for row in rows}) == 2


def test_real_last_forty_authors(real):
    data = QaData(real.folder, authors=40)
    assert numbers(data.split("full")) == list(range(3200, 4000))
    assert numbers(data.split("forget10_perturbed")) == list(range(3920, 4000))
    assert numbers(data.split("retain_perturbed")) == list(range(3600, 3920))


def test_real_vocabulary_of_the_small_scale(real, data_mirror, tmp_path, monkeypatch):
    """Training texts of 40 authors, wrong answers of the 80 forget rows, refusals: 4,648 words + 4."""
    from shared.text.zoo import word_tokenizer

    monkeypatch.setenv("DATA_MIRROR", str(data_mirror))
    data = QaData(real.folder, authors=40)
    texts = [text for row in data.split("full") for text in (row.question, row.answer)]
    for row in data.split("forget10_perturbed"):
        texts += [row.paraphrased_answer or "", *row.perturbed_answers]
    refusals = load_refusals(pull("tofu_idontknow", tmp_path) / "idontknow.jsonl")
    assert len(refusals) == 100
    assert len(word_tokenizer([*texts, *refusals], 96)) == 4652
