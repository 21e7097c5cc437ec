"""The typed task: what is refused, what a stage's digest depends on, torch-free."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from shared.classification import protocol
from shared.classification.protocol import pruning_levels, stages, stages_needed
from shared.classification.task import PruningSpec, Task, known_models
from shared.files import digest
from shared.options import explain, options_class

TASK = {
    "data": {"name": "digits", "validation": {"fraction": 0.25, "source": "test"}},
    "model": {"name": "tiny_cnn"},
    "train": {"epochs": 40, "batch": 64, "lr": 0.05, "schedule": "cosine"},
    "forget": {"rule": "random", "fraction": 0.1},
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"forget": {"fraction": 0.0}}, "forget.fraction: Input should be greater than 0"),
        ({"forget": {"fraction": 1.0}}, "forget.fraction: Input should be less than 1"),
        ({"forget": {"rule": "class"}}, "needs `class_index`"),
        ({"forget": {"rule": "class", "class_index": 0, "fraction": 0.1}}, "no fraction"),
        ({"forget": {"fracton": 0.1}}, "unknown key .did you mean 'fraction'"),
        ({"model": {"name": "resnet18_cifer"}}, "did you mean 'resnet18_cifar'"),
        ({"train": {"epochs": 3}}, "multistep needs them"),
        ({"train": {"epochs": "3", "schedule": "cosine"}}, "valid integer"),
        ({"data": {"name": "x", "mean": [0.5]}}, "mean and std go together"),
        (
            {
                "data": {"name": "x", "validation": {"fraction": 0.0}},
                "evaluate": {"split": "validation"},
            },
            "needs data.validation",
        ),
        (
            {"forget": {"fraction": 0.1, "split_seed_bug": True}},
            "validation split of the training set",
        ),
        ({"evaluate": {"membership": ["entropi"]}}, "'entropy'"),
    ],
)
def test_bad_tasks_are_one_clear_line(change, message):
    with pytest.raises(ValidationError) as caught:
        Task(**{**TASK, **change})
    import re

    assert re.search(message, explain(caught.value, Task)), explain(caught.value, Task)


def test_tuning_on_the_overlapping_validation_split_is_refused():
    data = {"name": "cifar10", "validation": {"fraction": 0.1}}
    forget = {"fraction": 0.1, "split_seed_bug": True}
    Task(**{**TASK, "data": data, "forget": forget})
    with pytest.raises(ValidationError, match="overlap D_f and D_r"):
        Task(**{**TASK, "data": data, "forget": forget, "evaluate": {"split": "validation"}})


def test_stage_digests_depend_on_what_the_stage_depends_on():
    def keys(seed=1, **change):
        return {k: digest(v) for k, v in stages(Task(**{**TASK, **change}), seed).items()}

    base = keys()
    assert base == keys(evaluate={"split": "validation", "membership": ["entropy"]})
    other_half = keys(forget={"fraction": 0.5})
    assert other_half["original"] == base["original"]
    assert other_half["retrain"] != base["retrain"]
    assert not set(keys(seed=2).values()) & set(base.values())
    own = keys(retrain={"epochs": 2, "schedule": "cosine"})
    assert own["original"] == base["original"]
    assert own["retrain"] != base["retrain"]


def test_stages_needed():
    task = Task(**TASK)
    assert stages_needed("retrain", task) == ["retrain"]
    assert stages_needed(protocol.METHODS["retrain"], task) == ["retrain"]
    assert stages_needed("papers.salun.method:salun", task) == ["original"]
    shadows = {"attacks": ["lira"], "shadows": {"num": 2, "train": TASK["train"]}}
    assert stages_needed("finetune", Task(**{**TASK, "evaluate": shadows})) == ["original", "shadows"]


def test_papers_that_name_a_class_differently_share_the_retrained_model():
    cycle = Task(**{**TASK, "forget": {"rule": "class", "class_cycle": [1, 4]}})
    index = Task(**{**TASK, "forget": {"rule": "class", "class_index": 4}})
    assert stages(cycle, 1) == stages(index, 1)


def test_one_original_for_every_seed():
    task = Task(**{**TASK, "original_seed": 42})
    assert stages(task, 1)["original"] == stages(task, 2)["original"] == stages(Task(**TASK), 42)["original"]
    assert stages(task, 1)["retrain"] != stages(task, 2)["retrain"]


def test_a_pruned_original_stands_on_the_dense_one_that_other_papers_use():
    task = Task(**{**TASK, "pruning": {"sparsity": 0.9, "rewind_epoch": 2}})
    found, dense = stages(task, 1), stages(Task(**TASK), 1)["original"]
    assert found["original"]["stages"] == {"dense": dense}
    assert found["retrain"]["stages"] == {"pruned": found["original"]}
    synflow = stages(Task(**{**TASK, "pruning": {"method": "synflow", "sparsity": 0.9}}), 1)
    assert synflow["original"]["stages"] == {}


def test_iterative_pruning_is_a_chain_of_rounds():
    assert pruning_levels(PruningSpec(method="imp", sparsity=0.5)) == [0.2, 0.36, 0.488, 0.5]
    assert len(pruning_levels(PruningSpec(method="imp", sparsity=0.95))) == 14
    assert pruning_levels(PruningSpec(method="imp", sparsity=0.1)) == [0.1]
    recipe = stages(Task(**{**TASK, "pruning": {"method": "imp", "sparsity": 0.36}}), 1)["original"]
    assert recipe["stages"]["dense"]["pruning"]["sparsity"] == 0.2
    assert "pruning" not in recipe["stages"]["dense"]["stages"]["dense"]


def test_a_backdoored_original_depends_on_the_forget_set():
    poison = {"trigger": {"size": 2, "row": -2, "column": -2, "value": 1.0}, "target": 0}
    first = stages(Task(**{**TASK, "poison": poison}), 1)["original"]
    second = stages(Task(**{**TASK, "poison": poison, "forget": {"fraction": 0.2}}), 1)["original"]
    assert first != second
    with pytest.raises(ValidationError, match="poison needs"):
        Task(**{**TASK, "poison": poison, "forget": {"rule": "class", "class_index": 0}})


def test_every_method_declares_options_that_planning_can_read():
    for path in protocol.METHODS.values():
        assert options_class(path).model_config["extra"] == "forbid"


def test_known_models_are_those_of_the_library():
    from shared.models.build import MODELS

    assert sorted(known_models()) == sorted(MODELS)


def test_planning_imports_no_torch():
    code = (
        "import sys; import shared.classification.protocol as p; "
        "from shared.options import options_class; "
        "[options_class(path) for path in (*p.METHODS.values(), 'papers.salun.method:salun', "
        "'papers.salun.method:masked', 'papers.boundary.method:shrink', "
        "'papers.unlearn_sparse.method:l1_sparse')]; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
