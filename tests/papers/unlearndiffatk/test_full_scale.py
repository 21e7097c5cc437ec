"""Full's experiments on the published files, small: code paths are the paper's, sizes and numbers of steps are not."""

import importlib.util
import re
import sys

import pytest
import torch
import yaml

from shared import options
from shared.config import PaperConfig, merge, raw_config
from shared.diffusion.attacks.judging import Ledger
from shared.diffusion.evaluate import frechet
from shared.paths import ROOT
from shared.planning import plan as planning
from shared.planning import stages as planning_stages
from shared.results.records import read_records
from shared.run import main
from tests.diffusion.detectors.test_networks import Session
from tests.papers.unlearndiffatk.miniatures import mirror

pytestmark = pytest.mark.e2e

README = ROOT / "papers" / "unlearndiffatk" / "README.md"
FEW = {"num_steps": 2}
ATTACK = {"evaluate": {"attack": {"sample": FEW, "target": FEW}}}
QUALITY = {"evaluate": {"images": {"sample": FEW, "frechet": {"reference": {"size": 16}}}}}
SEARCH = {"times": 2, "steps": 1, "batch": 2}
TRAINED = {"iterations": 1, "draw_steps": 2}
OPTIONS = {
    "none": {"batch": 2},
    "p4d": SEARCH,
    "unlearndiffatk": SEARCH,
    "attack": SEARCH,
    "random": {"tries": 2},
    "seeds": {"tries": 2},
}
ABLATIONS = ("prefix", "suffix", "middle", "even", "every_third", "one_token", "more_tokens", "most_tokens")


def small(config):
    """Values that cut sizes alone, for every task, setting and trained row."""
    tasks = dict.fromkeys(config["tasks"], ATTACK)
    tasks["church_erased_here"] = {**ATTACK, "concept": {"drawn": {"per_prompt": 1, "sample": FEW}}}
    tasks["church_and_coco"] = merge(tasks["church_erased_here"], QUALITY)
    experiments = {}
    for name, experiment in config["experiments"].items():
        settings = {}
        for key in experiment["settings"]:
            kind = key.rpartition("-")[2]
            cut = OPTIONS["unlearndiffatk" if kind in ABLATIONS else kind]
            attack = {"options": cut, **({"target": None} if kind in ("none", "random", "seeds") else {})}
            settings[key] = {"change": {"evaluate": {"attack": attack}}}
            if name.startswith("E4") and name != "E4-erased":
                settings[key] = merge(settings[key], {"change": QUALITY})
        experiments[name] = {"settings": settings}
    rows = {"ESD-x": {"options": TRAINED}, "ESD-u": {"options": TRAINED}, "FMN": {"options": {"iterations": 1}}}
    experiments["E3-erased"]["rows"] = rows
    return {"tasks": tasks, "experiments": experiments}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    root = tmp_path_factory.mktemp("published")
    mirror(root)
    return root


@pytest.fixture
def make_plan(published, monkeypatch):
    """Full, with sizes cut and further values; stages are shared by the tests of this file."""
    from shared.planning.jobs import load_identity

    monkeypatch.chdir(published)
    monkeypatch.setenv("DATA_MIRROR", str(published / "mirror"))
    monkeypatch.setenv("REPLICATE_MANIFESTS", str(published / "manifests"))
    monkeypatch.delenv("REPLICATE_DATA", raising=False)
    runtime = type("Runtime", (), {"InferenceSession": lambda file: Session()})
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    config = raw_config("unlearndiffatk", "full")

    def make(further=None):
        values = merge(merge(config, small(config)), further or {})
        monkeypatch.setattr(planning, "load_config", lambda slug, scale: PaperConfig(**values))
        return planning.Plan("unlearndiffatk", "full")

    load_identity.cache_clear()
    yield make
    load_identity.cache_clear()


@pytest.fixture
def plan(make_plan):
    return make_plan()


def job_of(plan, experiment, setting, row):
    plan.write()
    return next(c for c in plan.cells if (c.experiment, c.setting, c.row) == (experiment, setting, row)).jobs[0]


def start(job):
    """Run a row job as the engine runs it."""
    return main(["row", str(job.path), "--threads", "1", "--gpus", "0"])


def run(plan, experiment, setting, row):
    """Metrics and extras of a row's record."""
    job = job_of(plan, experiment, setting, row)
    assert start(job) == 0
    record = read_records(job.output)[0]
    values = {metric.name: metric.value for metric in record.metrics}
    assert 0 <= values["pre_ASR"] <= values["ASR"] <= 100
    return values, record.extras


@pytest.mark.parametrize("concept", ["nudity", "violence", "illegal"])
@pytest.mark.parametrize(("attack", "row"), [("unlearndiffatk", "ESD"), ("p4d", "FMN"), ("none", "SLD")])
def test_concepts_leave_scores_alone(plan, concept, attack, row):
    values, extras = run(plan, "E1", f"{concept}-{attack}", row)
    assert values["num_prompts"] == 2  # the third has more than 60 tokens
    assert {"prompts"} == set(extras)
    assert {"index", "before", "success", "rounds", "score"} == set(extras["prompts"][0])
    calls = {"unlearndiffatk": 1, "p4d": 2}
    left = any(not prompt["before"] for prompt in extras["prompts"])
    assert values.get("unet_calls") == (calls.get(attack) if left else None)


@pytest.mark.parametrize(("attack", "row"), [("unlearndiffatk", "UCE"), ("p4d", "AC"), ("none", "ESD")])
def test_a_style_is_attacked_to_the_end_and_divided_by_fifty(plan, attack, row):
    values, extras = run(plan, "E2", attack, row)
    assert all(prompt["rounds"] == (1 if attack == "none" else 3) for prompt in extras["prompts"])
    assert values["ASR_top1"] == values["ASR"]
    assert values["ASR_top1"] <= values["ASR_top3"] <= 100 * 2 / 50


@pytest.mark.parametrize("concept", ["church", "parachute", "tench", "garbage_truck"])
def test_objects(plan, concept):
    values, extras = run(plan, "E3", f"{concept}-unlearndiffatk", "FMN")
    assert values["num_prompts"] == len(extras["prompts"])
    assert extras["attack"][0]["text"] == "an oat, cat 0"


@pytest.mark.parametrize("row", ["ESD-x", "ESD-u", "FMN", "UCE", "SLD"])
def test_erased_here_from_stable_diffusion_itself(plan, row):
    values, _ = run(plan, "E3-erased", "unlearndiffatk", row)
    assert ("erase_minutes" in values) == (row != "SLD")


@pytest.mark.parametrize("row", ["AdvUnlearn", "SH"])
def test_leaderboard(plan, row, monkeypatch):
    """A text encoder or a U-Net with its quality on the captions of COCO-10k."""

    class Means(torch.nn.Module):
        num_features = 3

        def forward(self, images):
            return images.mean((2, 3))

    monkeypatch.setattr(frechet, "inception_features", lambda *_, **__: Means())
    values, _ = run(plan, "E4-church", "attack", row)
    assert values["FID"] >= 0
    assert 0 <= values["CLIP_score"] <= 100


@pytest.mark.parametrize("setting", ["even", "most_tokens", "seeds"])
def test_ablations(plan, setting):
    values, _ = run(plan, "E5", setting, "ESD-x")
    assert ("seed_search_rate" in values) == (setting == "seeds")


def readme_block(language):
    """The README's only block of a language besides shell commands."""
    (block,) = re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    return block


def test_an_eraser_of_ones_own_is_the_readmes_function_and_row(make_plan, tmp_path, monkeypatch):
    file = tmp_path / "method.py"
    file.write_text(readme_block("python"))
    spec = importlib.util.spec_from_file_location("papers.mine.method", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "papers.mine.method", module)
    known = options.source_of
    for place in (options, planning, planning_stages):
        monkeypatch.setattr(place, "source_of", lambda path: file if path.startswith("papers.mine.") else known(path))
    row = yaml.safe_load(readme_block("yaml"))
    plan = make_plan({"experiments": {"E3-random": {"rows": row}}})
    values, _ = run(plan, "E3-random", "random", *row)
    assert "erase_minutes" in values


def test_a_killed_attack_goes_on_prompt_by_prompt(plan, monkeypatch):
    """The finished prompts of a killed row stay in its journal, and the row ends as if nothing had happened."""
    job = job_of(plan, "E3", "church-unlearndiffatk", "ESD")
    assert start(job) == 0
    whole = read_records(job.output)[0]
    job.output.unlink()
    finish, finished = Ledger.finish, []

    def dies(ledger, prompts):
        finish(ledger, prompts)
        finished.extend(prompt.index for prompt in prompts)
        if finished:
            raise KeyboardInterrupt  # as a kill, between two prompts

    monkeypatch.setattr(Ledger, "finish", dies)
    with pytest.raises(KeyboardInterrupt):
        start(job)
    monkeypatch.setattr(Ledger, "finish", finish)
    seen = []
    judge = Ledger.judge

    def watched(ledger, prompts, images, **rest):
        seen.extend(prompt.index for prompt in prompts)
        return judge(ledger, prompts, images, **rest)

    monkeypatch.setattr(Ledger, "judge", watched)
    assert start(job) == 0
    assert finished
    assert not set(seen) & set(finished)
    resumed = read_records(job.output)[0]
    assert resumed.extras["prompts"] == whole.extras["prompts"]
    assert [m for m in resumed.metrics if m.name == "ASR"] == [m for m in whole.metrics if m.name == "ASR"]


def test_a_missing_detector_is_one_line_that_says_what_to_do(plan, published, capsys, monkeypatch):
    monkeypatch.setenv("REPLICATE_DATA", str(published / "elsewhere"))
    folder = published / "mirror" / "nudenet_v3"
    folder.rename(published / "hidden")
    try:
        assert start(job_of(plan, "E1", "nudity-none", "ESD")) != 0
    finally:
        (published / "hidden").rename(folder)
    message = capsys.readouterr().err
    assert "data set 'nudenet_v3'" in message
    assert "put best.onnx" in message
    assert "Traceback" not in message


def test_an_erased_model_of_another_base_is_one_line(plan, published, capsys):
    job = job_of(plan, "E3", "tench-none", "ESD")
    name = next((published / "mirror").glob("Tench-ESD*"))
    kept = name.read_bytes()
    weights = torch.load(name, weights_only=True)
    inner = next(iter(weights.values())) if len(weights) == 1 else weights
    first = next(key for key in inner if key.endswith("conv_in.weight"))
    inner[first] = torch.zeros(3, 3, 3, 3)
    torch.save(weights, name)
    try:
        assert start(job) != 0
    finally:
        name.write_bytes(kept)
    message = capsys.readouterr().err
    assert "a victim of another base model" in message
    assert "Traceback" not in message
