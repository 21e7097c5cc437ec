"""The configurations: what rows share, and what makes them differ."""

import json

import pytest

from papers.segic.method import SegicOptions
from papers.segic.options import Backbone, SegicTraining, TextSpec
from shared.errors import ConfigError
from shared.options import parse_options
from shared.paths import ROOT
from shared.planning.plan import Plan
from shared.results.published import read_published

PUBLISHED = ROOT / "papers" / "segic" / "published.csv"


@pytest.fixture(scope="module")
def full():
    return Plan("segic", "full").spec


def options(spec, experiment, row):
    return spec["experiments"][experiment]["rows"][row]["options"]


def test_a_row_trains_on_its_decoders_backbone():
    found = SegicOptions(decoder={"backbone": {"name": "dinov2_vitl14"}})
    assert found.backbone == found.decoder.backbone == Backbone(name="dinov2_vitl14")
    assert SegicOptions().backbone == SegicTraining().backbone
    assert SegicOptions(decoder=found.decoder, backbone=Backbone()).backbone == found.backbone


def test_rows_that_the_paper_has_in_two_tables_are_one(full):
    assert options(full, "E3", "DINOv2-B") == options(full, "E4", "all") == options(full, "E5", "both")
    assert options(full, "E1", "SegIC") != options(full, "E3", "DINOv2-L")  # 160,000 samples an epoch, and 80,000


def test_instructions_are_all_that_the_rows_of_table_4_differ_in(full):
    rows = {row: json.loads(json.dumps(options(full, "E4", row))) for row in ("none", "geometric", "meta", "all")}
    used = {row: values["decoder"].pop("use") for row, values in rows.items()}
    assert rows["none"] == rows["geometric"] == rows["meta"] == rows["all"]
    names = ("geometric", "visual", "meta")
    assert {row: [name for name in names if use[name]] for row, use in used.items()} == {
        "none": [],
        "geometric": ["geometric"],
        "meta": ["meta"],
        "all": list(names),
    }


def test_the_recipe_is_the_released_one():
    recipe = SegicTraining()
    steps = recipe.epochs * recipe.steps_per_epoch * recipe.batch
    assert steps == 12 * 80_000
    assert (recipe.lr, recipe.weight_decay, recipe.milestones, recipe.points) == (1e-4, 1e-4, [10], 12_544)
    assert (recipe.box, recipe.crossed, recipe.named, recipe.negatives) == (0.5, 0.5, 0.75, 0.25)
    assert recipe.reversion


def test_published_names_are_those_of_the_file(full):
    published = {(table, setting, row) for table, setting, row, _ in read_published(PUBLISHED)}
    named, ours = 0, set()
    for experiment in full["experiments"].values():
        table, settings = experiment["published_table"], [s["published"] for s in experiment["settings"].values()]
        for row in experiment["rows"].values():
            found = [(table, setting, row["published"]) in published for setting in settings if table and setting]
            named += sum(found)
            ours |= set() if any(found) or not table else {row["published"]}
    assert ours == {"released-80k", "released-160k", "random", "thresholded"}
    assert named == 48


def test_pulled_files_follow_from_the_options():
    assert SegicTraining().manifests() == ["clip_vit_large_patch14"]
    assert SegicTraining(text=TextSpec(clip=None)).manifests() == []
    assert Backbone(name="dinov2_vitl14", weights="dinov2_vitl14").manifests() == ["dinov2_vitl14"]
    assert Backbone().sets() == []
    assert SegicTraining(semantic=["a"], instances=["b", "a"]).sets() == ["a", "b"]


def test_a_misspelt_key_is_named():
    with pytest.raises(ConfigError, match="did you mean 'reversion'"):
        parse_options("papers.segic.method:segic", {"decoder": {"revision": True}})
