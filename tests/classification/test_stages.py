"""Stages that stand on stages: pruned originals, backdoors, shadow models, pretrained backbones; on real digits."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from shared.classification import data
from shared.classification import stages as module
from shared.classification.masks import load_mask
from shared.classification.protocol import stages
from shared.classification.pruning import conv_weights, sparsity
from shared.classification.run import run_row
from shared.classification.stages import run_stage
from shared.classification.task import PoisonSpec, Task
from shared.data import pull as pulling
from shared.errors import ConfigError, DataError
from shared.models.build import build, load_model
from shared.results.records import write_records
from shared.training.device_images import DeviceImages

TASK = {
    "data": {
        "name": "digits",
        "validation": {"fraction": 0.25, "source": "test"},
        "loader": {"noise": 0.25, "num_train": 300},
    },
    "model": {"name": "tiny_cnn"},
    "train": {"epochs": 3, "batch": 64, "lr": 0.05, "schedule": "cosine"},
    "forget": {"rule": "random", "fraction": 0.1},
}
TRIGGER = {"trigger": {"size": 2, "row": -2, "column": -2, "value": 1.0}, "target": 3}


@pytest.fixture(autouse=True)
def _digits(tmp_path, monkeypatch):
    monkeypatch.setenv("REPLICATE_DATA", str(tmp_path / "data"))
    pulling.pull("digits")


def make(recipe, folder):
    """The stage with everything it stands on; returns its folder."""
    parents = {name: make(parent, folder / name) for name, parent in recipe.get("stages", {}).items()}
    made = {name: {"output": str(path / "record.json")} for name, path in parents.items()}
    folder.mkdir(parents=True, exist_ok=True)
    record = run_stage(json.loads(json.dumps({"recipe": recipe, "stages": made})), folder, folder / "work", 1)
    write_records(folder / "record.json", [record])
    return folder


def task(**change):
    return Task(**{**TASK, **change})


def weights(folder):
    return load_model(build("tiny_cnn", 10, 1), folder / "model.safetensors")


def row(wanted, method, options, tmp_path, **stage_folders):
    job = json.loads(json.dumps({"task": wanted.model_dump(), "method": method, "options": options}))
    metrics, _, extras = run_row(job, 1, stage_folders, tmp_path / "row", 1)
    return {metric.name: metric.value for metric in metrics}, extras


def test_a_pruned_original_keeps_its_zeros_through_unlearning(tmp_path):
    pruned = task(pruning={"sparsity": 0.9, "rewind_epoch": 1})
    original = make(stages(pruned, 1)["original"], tmp_path / "original")
    assert sparsity(weights(original)) == pytest.approx(0.9, abs=1e-4)
    assert sparsity(load_mask(original / "mask.safetensors")) == pytest.approx(0.9, abs=1e-4)
    assert sparsity(weights(original / "dense")) < 0.01
    found, _ = row(
        pruned,
        "shared.classification.finetune:finetune",
        {"lr": 0.05, "epochs": 1, "batch": 64},
        tmp_path,
        original=original,
    )
    assert found["sparsity"] == pytest.approx(90, abs=0.01)


def test_retrain_trains_other_weights_under_the_same_mask(tmp_path):
    found = stages(task(pruning={"sparsity": 0.8}), 1)
    retrain = make(found["retrain"], tmp_path / "retrain")
    mask, same = (load_mask(folder / "mask.safetensors") for folder in (retrain, retrain / "pruned"))
    assert all(torch.equal(mask[name], same[name]) for name in mask)
    name = next(iter(mask))
    ours, theirs = (weights(folder).state_dict()[name] for folder in (retrain, retrain / "pruned"))
    assert torch.equal(ours == 0, ~mask[name])
    assert not torch.equal(ours, theirs)


def test_rewinding_repeats_the_first_epochs_of_the_dense_run(tmp_path):
    recipe = stages(task(pruning={"sparsity": 0.5, "rewind_epoch": 2}), 1)["original"]
    dense = make(recipe["stages"]["dense"], tmp_path / "dense")
    model, mask = module._start(module._bench(recipe), {"dense": dense}, tmp_path / "work")
    bench = module._bench(recipe["stages"]["dense"])
    snapshot = bench.untrained()
    module._train(bench, snapshot, tmp_path / "snapshot.pt", "key", stop_after=2)
    for name, value in snapshot.state_dict().items():
        expected = value * mask[name] if name in mask else value
        torch.testing.assert_close(model.state_dict()[name], expected, rtol=0, atol=0)


def test_iterative_pruning_nests(tmp_path):
    recipe = stages(task(pruning={"method": "imp", "sparsity": 0.36}), 1)["original"]
    folder = make(recipe, tmp_path / "imp")
    inner, outer = (load_mask(path / "mask.safetensors") for path in (folder, folder / "dense"))
    assert sparsity(outer) == pytest.approx(0.2, abs=1e-4)
    assert all((inner[name] <= outer[name]).all() for name in inner)


def test_a_layer_without_weights_is_said_and_the_network_stays_defined(tmp_path, monkeypatch):
    monkeypatch.setattr(
        module, "imp_mask", lambda model, *_: {n: torch.zeros_like(w).bool() for n, w in conv_weights(model).items()}
    )
    recipe = stages(task(pruning={"sparsity": 0.9}), 1)["original"]
    with pytest.warns(UserWarning, match="without a weight"):
        folder = make(recipe, tmp_path / "original")
    found, _ = row(
        task(pruning={"sparsity": 0.9}), "shared.classification.finetune:original", {}, tmp_path, original=folder
    )
    assert found["sparsity"] == 100
    assert 0 < found["TA"] < 30  # one class for every image


def test_synflow_prunes_before_training_and_trains_on_those_weights(tmp_path):
    folder = make(stages(task(pruning={"method": "synflow", "sparsity": 0.7}), 1)["original"], tmp_path / "synflow")
    assert sparsity(weights(folder)) == pytest.approx(0.7, abs=2e-3)


def test_the_trigger_lands_where_it_should():
    images = DeviceImages(torch.zeros(2, 3, 8, 8), torch.tensor([0, 1]), 10)
    marked = data.stamped(images, PoisonSpec(**TRIGGER))
    assert marked.images[0, 0].nonzero().tolist() == [[6, 6], [6, 7], [7, 6], [7, 7]]
    assert marked.labels.tolist() == [3, 3]
    assert images.images.sum() == 0
    bytes_ = DeviceImages(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), torch.tensor([0]), 10)
    assert data.stamped(bytes_, PoisonSpec(**TRIGGER)).images.max() == 255


@pytest.mark.parametrize(
    "change",
    [{"target": 10}, {"trigger": {**TRIGGER["trigger"], "size": 9}}, {"trigger": {**TRIGGER["trigger"], "row": -1}}],
)
def test_a_trigger_that_does_not_fit_is_one_line(change):
    images = DeviceImages(torch.zeros(2, 3, 8, 8), torch.tensor([0, 1]), 10)
    with pytest.raises(ConfigError, match="does not fit 8 x 8 images of 10 classes"):
        data.stamped(images, PoisonSpec(**{**TRIGGER, **change}))


def test_a_backdoored_original_obeys_the_trigger_and_retrain_does_not(tmp_path):
    poisoned = task(poison=TRIGGER, forget={"fraction": 0.2}, train={**TASK["train"], "epochs": 15})
    found = stages(poisoned, 1)
    original, retrain = (make(found[name], tmp_path / name) for name in ("original", "retrain"))
    behind, _ = row(poisoned, "shared.classification.finetune:original", {}, tmp_path, original=original)
    clean, _ = row(poisoned, "shared.classification.finetune:retrain", {}, tmp_path, retrain=retrain)
    assert behind["ASR"] > 80
    assert clean["ASR"] < 40
    # D_f is the marked images: the original calls them the target
    assert behind["FA"] > 80


def test_shadow_models_judge_membership(tmp_path):
    shadows = {"num": 3, "train": {**TASK["train"], "epochs": 2}}
    judged = task(
        forget={"rule": "class", "class_index": 4},
        evaluate={"attacks": ["lira", "svc_grid", "privacy"], "shadows": shadows},
    )
    found = stages(judged, 1)
    original, said = (make(found[name], tmp_path / name) for name in ("original", "shadows"))
    outputs = load_file(said / "shadows.safetensors")
    assert outputs["forget"].shape[0] == outputs["unseen"].shape[0] == 3
    assert not torch.equal(outputs["forget"][0], outputs["forget"][1])
    values, _ = row(judged, "shared.classification.finetune:original", {}, tmp_path, original=original, shadows=said)
    assert all(0 <= values[name] <= 100 for name in ("MIA_lira", "MIA_f1", "MIA_privacy"))


def test_lira_without_shadows_is_refused():
    with pytest.raises(ValueError, match="go together"):
        task(evaluate={"attacks": ["lira"]})


def test_the_last_partial_batch_can_be_left_out(tmp_path):
    """D_f has 30 images: with batches of 8, 24 count."""
    original = make(stages(task(), 1)["original"], tmp_path / "original")
    kept, _ = row(
        task(evaluate={"drop_last": 8}), "shared.classification.finetune:original", {}, tmp_path, original=original
    )
    every, _ = row(task(), "shared.classification.finetune:original", {}, tmp_path, original=original)
    assert (kept["FA"] * 24 / 100) == pytest.approx(round(kept["FA"] * 24 / 100))
    assert (every["FA"] * 30 / 100) == pytest.approx(round(every["FA"] * 30 / 100))


def test_training_may_start_from_a_published_backbone(tmp_path, monkeypatch):
    start = {name: value.clone() for name, value in build("tiny_cnn", 1000, 1, seed=9).state_dict().items()}
    save_file(start, tmp_path / "published.safetensors")
    monkeypatch.setattr(module, "checkpoint_file", lambda name: tmp_path / "published.safetensors")
    bench = module._bench({**stages(task(train={**TASK["train"], "init": "published"}), 1)["original"]})
    state = bench.untrained().state_dict()
    assert all(torch.equal(state[name], value) for name, value in start.items() if not name.startswith("fc."))
    assert state["fc.weight"].shape[0] == 10
    save_file({"conv.weight": torch.zeros(1)}, tmp_path / "published.safetensors")
    with pytest.raises(DataError, match=r"belongs to another network|unknown to this network"):
        bench.untrained()


def test_a_killed_rewind_goes_on(tmp_path):
    """The rewind's checkpoint belongs to its own key: the stage after it starts from its own first step."""
    recipe = stages(task(pruning={"sparsity": 0.5, "rewind_epoch": 1}), 1)["original"]
    folder = make(recipe, tmp_path / "a")
    first = weights(folder).state_dict()
    (folder / "work" / "checkpoint.pt").unlink()
    job = {"recipe": recipe, "stages": {"dense": {"output": str(folder / "dense" / "record.json")}}}
    run_stage(json.loads(json.dumps(job)), folder, folder / "work", 1)
    again = weights(folder).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
