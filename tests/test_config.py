"""Configurations: typed, deltas on `full`, one line for a mistake."""

import pytest

from shared import config
from shared.errors import ConfigError

FULL = """
title: A paper
track: classification
seeds: {pilot: 0, test: [1, 2]}
tasks: {main: {}}
experiments:
  E1:
    title: Table 1
    metrics: [UA]
    settings: {only: {label: all, task: main}}
    rows:
      Retrain: {method: retrain}
      FT: {method: finetune, options: {lr: 1e-2, epochs: 10}}
"""


@pytest.fixture
def room(tmp_path, monkeypatch):
    folder = tmp_path / "demo"
    (folder / "config").mkdir(parents=True)
    (folder / "Snakefile").write_text("")
    (folder / "config" / "full.yaml").write_text(FULL)
    monkeypatch.setattr(config, "papers_root", lambda: tmp_path)
    monkeypatch.setattr(config, "paper_slugs", lambda: ["demo"])
    return folder


def write(room, text, name="mini"):
    (room / "config" / f"{name}.yaml").write_text(text)


def test_a_delta_changes_values_and_keeps_the_rest(room):
    write(room, "base: full\nexperiments: {E1: {rows: {FT: {options: {epochs: 2}}}}}\n")
    row = config.load_config("demo", "mini").experiments["E1"].rows["FT"]
    assert row.method == "finetune"
    assert row.options == {"lr": 0.01, "epochs": 2}


def test_scientific_notation_without_a_dot_is_a_number(room):
    assert config.load_config("demo", "full").experiments["E1"].rows["FT"].options["lr"] == 0.01


def test_tuned_values_lie_over_their_scale_only(room):
    write(room, "base: full\n")
    (room / "tuning").mkdir()
    (room / "tuning" / "mini.yaml").write_text("experiments: {E1: {rows: {FT: {per_setting: {only: {lr: 0.5}}}}}}\n")
    assert config.load_config("demo", "mini").experiments["E1"].rows["FT"].per_setting == {"only": {"lr": 0.5}}
    assert config.load_config("demo", "full").experiments["E1"].rows["FT"].per_setting == {}


def test_a_scale_inherits_what_its_base_was_tuned_to(room):
    write(room, "base: full\n")
    write(room, "base: mini\nseeds: {test: [7]}\n", "mini_more_seeds")
    (room / "tuning").mkdir()
    (room / "tuning" / "mini.yaml").write_text("experiments: {E1: {rows: {FT: {options: {lr: 0.5}}}}}\n")
    assert config.load_config("demo", "mini_more_seeds").experiments["E1"].rows["FT"].options["lr"] == 0.5


def test_any_file_in_config_is_a_scale(room):
    write(room, "base: mini\nseeds: {test: [7]}\n", "tiny_real")
    write(room, "base: full\n")
    assert config.scales("demo") == ["full", "mini", "tiny_real"]
    assert config.load_config("demo", "tiny_real").seeds.test == [7]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: full\nsede: {pilot: 1}\n", r"mini.yaml: sede: unknown key \(did you mean 'seeds'\?\)"),
        (
            "base: full\nexperiments: {E1: {rows: {FT: {optoins: {}}}}}\n",
            r"experiments.E1.rows.FT.optoins: unknown key \(did you mean 'options'\?\)",
        ),
        ("base: full\nseeds: {test: [0, 1]}\n", "pilot seed 0 is also a test seed"),
        ("base: full\nseeds: {test: [1, 1]}\n", "listed twice"),
        ("base: full\nseeds_per_job: 0\n", "seeds_per_job"),
        ("base: full\nseeds_per_job: two\n", "seeds_per_job.*got 'two'"),
        (
            "base: full\ntrack: clasification\n",
            r"track 'clasification' does not exist \(did you mean 'classification'\?\)",
        ),
        ("base: full\nexperiments: {E1: {rows: {'a/b': {method: x}}}}\n", "row 'a/b' must be made of letters"),
        ("base: mini\n", "leads back to itself"),
        ("base: full\nseeds: {pilot: 1\n", "mini.yaml line"),
        ("base: full\nseeds: {pilot: 1, pilot: 2}\n", "mini.yaml line 2: key 'pilot' is given twice"),
        ("- a list\n", "expected keys and values"),
    ],
)
def test_a_mistake_is_one_line_with_file_and_key(room, text, message):
    write(room, text)
    with pytest.raises(ConfigError, match=message) as error:
        config.load_config("demo", "mini")
    assert "\n" not in str(error.value)


def test_unknown_paper_and_scale_name_the_nearest(room):
    with pytest.raises(ConfigError, match=r"paper 'dmo' does not exist \(did you mean 'demo'\?\)"):
        config.load_config("dmo", "full")
    with pytest.raises(ConfigError, match=r"no such scale \(did you mean 'full'\?\)"):
        config.load_config("demo", "fulll")


def test_merge_replaces_lists_and_scalars_and_merges_mappings():
    assert config.merge({"a": {"b": 1, "c": [1, 2]}, "d": 3}, {"a": {"c": [9]}, "e": None}) == {
        "a": {"b": 1, "c": [9]},
        "d": 3,
        "e": None,
    }
