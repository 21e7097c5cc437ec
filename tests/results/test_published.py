import pytest

from shared.errors import ConfigError
from shared.results.published import HEADER, read_published

GOOD = "Table 1,CIFAR-10,SalUn,UA,2.85,0.43,%,closest_to_retrain,arXiv:2310.12508 Table 1,read"


FIRST = ",".join(HEADER)


def write(tmp_path, *lines, header=FIRST):
    path = tmp_path / "published.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def test_a_line_becomes_a_number(tmp_path):
    numbers = read_published(write(tmp_path, GOOD))
    number = numbers["Table 1", "CIFAR-10", "SalUn", "UA"]
    assert (number.value, number.spread, number.unit, number.checked, number.line) == (
        2.85,
        0.43,
        "%",
        "read",
        2,
    )
    assert number.mark == ""


def test_header_only_is_an_empty_table(tmp_path):
    assert read_published(write(tmp_path)) == {}


@pytest.mark.parametrize(
    ("source", "checked", "mark"),
    [
        ("paper, Table 1", "recalled", "recalled"),
        ("third-party reading notes of a paper", "read", "third-party"),
        ("static/images/results.png (points read off the figure)", "read", "figure"),
        ("slides.pdf (vector figure, read from the plotted coordinates)", "read", "figure"),
        ("arXiv:2309.14054 Table 3 (figure on the project page of the paper)", "read", ""),
    ],
)
def test_origin_is_marked(tmp_path, source, checked, mark):
    numbers = read_published(write(tmp_path, f'T,S,R,M,1,,%,higher,"{source}",{checked}'))
    assert numbers["T", "S", "R", "M"].mark == mark


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            GOOD.replace("2.85", '"2,85"'),
            r"published\.csv, line 3, column 'value': '2,85' is not a number",
        ),
        (GOOD.replace("2.85", "nan"), "column 'value': 'nan' is not finite"),
        (GOOD.replace("2.85", ""), "column 'value': '' is not a number"),
        (GOOD.replace("0.43", "-0.43"), "column 'spread': '-0.43' is negative"),
        (GOOD.replace("0.43", "±0.43"), "column 'spread': '±0.43' is not a number"),
        (GOOD.replace("closest_to_retrain", "up"), "column 'better': 'up' is not one of"),
        (GOOD.replace(",read", ",seen"), "column 'checked': 'seen' is neither"),
        (GOOD.replace("SalUn", " "), "column 'row': empty"),
        (GOOD.replace("CIFAR-10,", "CIFAR-10, ResNet-18,"), "11 fields, expected 10"),
        (GOOD + "\n" + GOOD, r"line 4, column 'metric': same .* as line 3"),
        ('"Table 1,x', "line 3"),
    ],
)
def test_bad_lines_name_file_line_and_column(tmp_path, line, message):
    first = GOOD.replace("UA", "RA")
    with pytest.raises(ConfigError, match=message):
        read_published(write(tmp_path, first, line))


def test_wrong_header_names_the_column(tmp_path):
    with pytest.raises(ConfigError, match="line 1, column 6: 'std' where 'spread' belongs"):
        read_published(write(tmp_path, header=FIRST.replace("spread", "std")))
    with pytest.raises(ConfigError, match="line 1: the header must be"):
        read_published(write(tmp_path, header=",".join(HEADER[:-1])))
    with pytest.raises(ConfigError, match="no such file"):
        read_published(tmp_path / "nowhere.csv")


def test_every_paper_of_the_collection_parses(paper_mirror):
    """56 papers, some without any number: every line is a number with a unit, a direction and a
    source.
    """
    files = sorted(paper_mirror.glob("*/published.csv"))
    numbers = {path.parent.name: read_published(path) for path in files}
    assert len(files) == 56
    assert sum(map(len, numbers.values())) > 5600
    assert numbers["conmu"] == {}
    # The fixture's own means are those of the paper.
    salun = numbers["salun"]["Table 1", "CIFAR-10 ResNet-18 random 10%", "SalUn", "Avg. Gap"]
    assert (salun.value, salun.checked) == (1.15, "read")
