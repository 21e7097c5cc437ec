import csv
import json
import math

import pytest

from shared.errors import ConfigError, RecordError
from shared.files import write_json
from shared.results import tables
from shared.results.cells import mean_and_std, read_tables
from shared.results.records import Metric, Record, read_records, write_records

from .conftest import METRICS, SEEDS, TABLE_1


def built(case):
    return tables.build(case.spec).by_key()


def test_row_check_of_table_1(case):
    """(2.39 + 0.38 + 0.33 + 1.51) / 4 = 1.1525 is printed as 1.15: gaps are between means."""
    cells = built(case)
    gaps = [cells["E1", "random10", "SalUn", f"gap_{metric}"].mean for metric in METRICS]
    assert gaps == pytest.approx([2.39, 0.38, 0.33, 1.51])
    assert cells["E1", "random10", "SalUn", "Avg. Gap"].mean == pytest.approx(1.1525)


@pytest.mark.parametrize(("setting", "row"), [(s, r) for s in TABLE_1 for r in TABLE_1[s]])
def test_published_means_give_the_published_average_gap(case, setting, row):
    """Up to 0.02: the paper rounded after computing its gaps."""
    cell = built(case)["E1", setting, row, "Avg. Gap"]
    assert cell.mean == pytest.approx(TABLE_1[setting][row][2], abs=0.02)
    assert cell.published == TABLE_1[setting][row][2]


def test_means_spreads_and_values_of_seeds(case):
    cell = built(case)["E1", "random10", "SalUn", "UA"]
    assert (cell.mean, cell.std) == (pytest.approx(2.85), pytest.approx(0.43))
    assert sorted(cell.values) == SEEDS
    assert cell.n == 5
    assert (cell.published, cell.published_spread, cell.delta) == (2.85, 0.43, pytest.approx(0.0))
    assert cell.inside is True


def test_std_has_n_minus_one_and_is_unknown_for_one_seed():
    assert mean_and_std([1.0, 3.0]) == (2.0, math.sqrt(2.0))
    assert mean_and_std([1.0]) == (1.0, None)
    assert mean_and_std([]) == (None, None)


def test_gaps_of_the_reference_row_are_zero(case):
    cells = built(case)
    for metric in [*(f"gap_{m}" for m in METRICS), "Avg. Gap"]:
        cell = cells["E1", "random10", "Retrain", metric]
        assert (cell.mean, cell.std, set(cell.values.values())) == (0.0, 0.0, {0.0})


def test_per_seed_gaps_are_against_the_same_seed(case):
    """UA of row and reference move together here, so the per-seed gap moves by the difference of
    their spreads.
    """
    cells = built(case)
    ours, theirs = (cells["E1", "random10", row, "UA"].values for row in ("SalUn", "Retrain"))
    gap = cells["E1", "random10", "SalUn", "gap_UA"]
    assert gap.values == {seed: pytest.approx(abs(ours[seed] - theirs[seed])) for seed in SEEDS}
    assert gap.std == pytest.approx(0.69 - 0.43)


def test_gap_of_means_is_not_the_mean_of_gaps(case):
    """A row that scatters round the reference has gaps in every seed and none on average."""
    case.write_record("random10", "FT", lambda metric, value: value)
    values = [5.24 + shift for shift in (-2, -1, 0, 1, 2)]
    records = read_records(case.record("random10", "FT"))
    changed = []
    for record, value in zip(records, values, strict=True):
        metrics = [Metric("UA", value, "%") if m.name == "UA" else m for m in record.metrics]
        changed.append(Record(**{**vars(record), "metrics": metrics}))
    write_records(case.record("random10", "FT"), changed)
    gap = built(case)["E1", "random10", "FT", "gap_UA"]
    assert gap.mean == pytest.approx(0.0)
    assert sum(gap.values.values()) / 5 > 0.5


def test_units_are_converted(case):
    """Records hold seconds, the table and the paper minutes."""
    cell = built(case)["E1", "random10", "SalUn", "RTE"]
    assert (cell.mean, cell.unit, cell.published) == (pytest.approx(2.66), "min", 2.66)


def test_unit_that_does_not_match_is_refused(case):
    path = case.record("random10", "FT")
    records = [Record(**{**vars(r), "metrics": [Metric("RTE", 1.0, "%")]}) for r in read_records(path)]
    write_records(path, records)
    with pytest.raises(ConfigError, match=r"E1 / random10 / FT, seed 1, metric RTE: unit '%' .* 'min'"):
        tables.build(case.spec)


def test_cost_is_a_metric(case):
    cells = built(case)
    assert cells["E1", "random10", "SalUn", "steps"].mean == 266
    assert cells["E1", "random10", "SalUn", "peak_memory_mb"].unit == "MiB"
    assert not cells["E1", "random10", "SalUn", "steps"].listed


def test_missing_and_failed_cells_say_why(case):
    case.fail("random10", "GA", "CUDA out of\nmemory")
    case.record("random10", "FT").unlink()
    cells = built(case)
    failed, missing = cells["E1", "random10", "GA", "UA"], cells["E1", "random10", "FT", "Avg. Gap"]
    assert (failed.status, failed.reason) == ("failed", "CUDA out of memory (log: logs/row.log)")
    assert (missing.status, missing.mean) == ("missing", None)
    assert "no record" in missing.reason
    assert cells["E1", "random10", "SalUn", "UA"].status == "measured"


def test_failed_stage_is_the_reason_of_the_rows_that_never_started(case):
    stage = case.root / "stages" / "abc" / "record.json"
    write_json(stage.with_suffix(".error.json"), {"message": "disk full"})
    case.spec["stages"] = [str(stage)]
    case.record("random10", "FT").unlink()
    cell = built(case)["E1", "random10", "FT", "UA"]
    assert (cell.status, cell.reason) == ("failed", "a stage failed: disk full")


def test_gaps_without_the_reference_are_missing(case):
    case.fail("random10", "Retrain", "killed")
    cell = built(case)["E1", "random10", "SalUn", "Avg. Gap"]
    assert (cell.status, cell.reason) == ("missing", "Retrain is failed")


def test_damaged_record_is_a_failed_cell(case):
    case.record("random10", "FT").write_text('{"schema": 1, "rec')
    cell = built(case)["E1", "random10", "FT", "UA"]
    assert cell.status == "failed"
    assert "s1-5.json: damaged record" in cell.reason


def test_record_of_another_scale_is_refused(case):
    case.spec["scale"] = "mini"
    cell = built(case)["E1", "random10", "FT", "UA"]
    assert cell.status == "failed"
    assert "of salun at full, not of salun at mini" in cell.reason


def test_metric_left_out_of_a_record_is_missing_and_of_one_seed_incomplete(case):
    path = case.record("random10", "FT")
    records = read_records(path)
    without = [m for m in records[2].metrics if m.name != "MIA"]
    write_records(path, [Record(**{**vars(r), "metrics": without}) if r.seed == 3 else r for r in records])
    cell = built(case)["E1", "random10", "FT", "MIA"]
    assert (cell.status, cell.n, cell.reason) == ("measured", 4, "no MIA for seeds 3")
    write_records(path, [Record(**{**vars(r), "metrics": without}) for r in records])
    assert built(case)["E1", "random10", "FT", "MIA"].reason == "the record holds no MIA"


def test_seed_without_record_makes_a_cell_incomplete(case):
    path = case.record("random10", "FT")
    write_records(path, read_records(path)[:3])
    cell = built(case)["E1", "random10", "FT", "UA"]
    assert (cell.n, cell.reason, cell.is_complete) == (3, "no record of seeds 4, 5", False)


def test_one_record_serves_several_cells_and_is_paid_once(case):
    experiment = dict(case.spec["experiments"]["E1"], published_table=None, title="Ablation")
    case.spec["experiments"]["E4"] = experiment
    before = tables.build(case.spec).summary["seconds"]
    case.spec["cells"] += [dict(cell, experiment="E4") for cell in case.spec["cells"]]
    after = tables.build(case.spec)
    assert after.summary["seconds"] == before
    cells = after.by_key()
    assert cells["E4", "random10", "SalUn", "UA"].values == cells["E1", "random10", "SalUn", "UA"].values
    assert cells["E4", "random10", "SalUn", "UA"].published is None


def test_seeds_split_over_jobs_are_joined(case):
    path = case.record("random10", "FT")
    records = read_records(path)
    cell = next(c for c in case.spec["cells"] if c["record"] == str(path))
    other = path.with_name("s3-5.json")
    write_records(path, records[:2])
    write_records(other, records[2:])
    case.spec["cells"].append(dict(cell, record=str(other)))
    found = built(case)["E1", "random10", "FT", "UA"]
    assert (found.n, found.reason) == (5, "")
    write_records(other, records[1:])
    assert "seed 2 is in another record too" in built(case)["E1", "random10", "FT", "UA"].reason


def test_setting_that_is_not_run_is_not_missing(case):
    case.spec["experiments"]["E1"]["settings"]["random50"].update(enabled=False, why_not="needs a GPU")
    case.spec["cells"] = [c for c in case.spec["cells"] if c["setting"] == "random10"]
    cell = built(case)["E1", "random50", "SalUn", "UA"]
    assert (cell.status, cell.reason, cell.is_complete) == ("not run", "needs a GPU", True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"row": "SalUm"}, r"E1 has no row 'SalUm' \(did you mean 'SalUn'\?\)"),
        ({"setting": "random1"}, r"E1 has no setting 'random1' \(did you mean 'random10'\?\)"),
        ({"experiment": "E2"}, r"unknown experiment 'E2' \(did you mean 'E1'\?\)"),
    ],
)
def test_unknown_names_are_one_line(case, change, message):
    case.spec["cells"][0].update(change)
    with pytest.raises(ConfigError, match=message):
        tables.build(case.spec)


def test_unknown_metric_of_an_experiment(case):
    case.spec["experiments"]["E1"]["metrics"].append("MIAA")
    with pytest.raises(ConfigError, match=r"experiment E1: unknown metric 'MIAA' \(did you mean 'MIA'\?\)"):
        tables.build(case.spec)


def test_misspelt_published_names_are_found(case):
    case.spec["experiments"]["E1"]["settings"]["random10"]["published"] = "CIFAR-10 ResNet-18 random 10"
    with pytest.raises(ConfigError, match=r"has no setting .* \(did you mean 'CIFAR-10 ResNet-18 random 10%'\?\)"):
        tables.build(case.spec)
    case.spec["experiments"]["E1"]["published_table"] = "Table1"
    with pytest.raises(ConfigError, match=r"no table 'Table1' for E1 \(did you mean 'Table 1'\?\)"):
        tables.build(case.spec)


def test_json_and_csv_read_back_what_was_written(case):
    case.fail("random10", "GA", 'a, "quoted"\nreason <script>')
    tables.run(case.spec)
    expected = tables.build(case.spec)
    assert read_tables(case.folder / "tables.json") == expected
    assert tables.read_csv(case.folder / "tables.csv") == expected.cells
    assert tables.read_csv(case.folder / "tables" / "E1.csv") == expected.cells


def test_csv_of_an_experiment_that_is_gone_is_removed(case):
    case.spec["experiments"]["E4"] = dict(case.spec["experiments"]["E1"], published_table=None)
    tables.run(case.spec)
    assert (case.folder / "tables" / "E4.csv").is_file()
    del case.spec["experiments"]["E4"]
    tables.run(case.spec)
    assert not (case.folder / "tables" / "E4.csv").exists()


def test_frame_is_long_and_numeric(case):
    table = tables.frame(tables.build(case.spec).cells)
    part = table[(table.setting == "random10") & (table.metric == "Avg. Gap")]
    assert len(part) == 6
    assert part["mean"].idxmax() == part.index[list(part.row).index("RL")]
    assert table["std"].dtype == float


def test_summary_names_date_and_commit_of_the_newest_record(case):
    summary = tables.build(case.spec).summary
    assert (summary["date"], summary["commit"]) == ("2026-01-05T10:00:00+00:00", "0123456789abcdef")
    assert summary["num_records"] == 60
    assert summary["devices"] == ["cpu"]


def test_damaged_tables_name_the_file(case, tmp_path):
    tables.run(case.spec)
    path = case.folder / "tables.json"
    path.write_text(path.read_text()[:-50])
    with pytest.raises(RecordError, match=r"tables\.json: damaged"):
        read_tables(path)
    path.write_text(json.dumps({"schema": 99}))
    with pytest.raises(RecordError, match="schema 1"):
        read_tables(path)
    path = case.folder / "tables.csv"
    rows = list(csv.reader(path.open()))
    rows[3][rows[0].index("mean")] = "many"
    with (tmp_path / "bad.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    with pytest.raises(RecordError, match=r"bad\.csv, line 4: damaged"):
        tables.read_csv(tmp_path / "bad.csv")
