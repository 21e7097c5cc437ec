"""A small paper and a way to plan it, with any change to its configuration."""

import copy

import pytest
import yaml

from shared import config
from shared.planning import spec as plan_spec
from shared.planning.plan import Plan

PAPER = {
    "title": "A paper",
    "track": "classification",
    "seeds": {"pilot": 0, "test": [1, 2, 3]},
    "seeds_per_job": 2,
    "tuning": {"metric": "Avg. Gap", "change": {"evaluate": {"split": "validation"}}},
    "tasks": {
        "digits": {
            "data": {"name": "digits", "validation": {"fraction": 0.25, "source": "test"}, "loader": {"noise": 0.25}},
            "model": {"name": "tiny_cnn"},
            "train": {"epochs": 2, "batch": 64, "lr": 0.05, "schedule": "cosine"},
            "forget": {"rule": "random", "fraction": 0.1},
        }
    },
    "experiments": {
        "E1": {
            "title": "Table 1",
            "metrics": ["UA", "Avg. Gap"],
            "settings": {
                "ten": {"label": "10 %", "task": "digits"},
                "fifty": {"label": "50 %", "task": "digits", "change": {"forget": {"fraction": 0.5}}},
            },
            "rows": {
                "Retrain": {"method": "retrain"},
                "FT": {"method": "finetune", "options": {"lr": 0.02}, "grid": {"lr": [0.01, 0.02]}},
                "SalUn": {
                    "method": "papers.salun.method:salun",
                    "options": {"lr": 0.02, "keep": 0.5},
                    "per_setting": {"fifty": {"keep": 0.3}},
                },
            },
        },
        "E4": {
            "title": "Ablation",
            "metrics": ["UA"],
            "settings": {"ten": {"label": "10 %", "task": "digits"}},
            "rows": {
                "FT": {"like": "E1/FT"},
                "keep-0.1": {"like": "E1/SalUn", "options": {"keep": 0.1}},
                "FT+mask": {
                    "method": "papers.salun.method:masked",
                    "like": "E1/FT",
                    "like_into": "base_options",
                    "options": {"base": "finetune"},
                },
            },
        },
    },
}


@pytest.fixture
def paper(tmp_path, monkeypatch):
    """Writes a configuration, returns its plan; the working folder is a fresh one."""
    monkeypatch.chdir(tmp_path)

    def build(change=None, slug="demo"):
        values = copy.deepcopy(PAPER)
        if change:
            change(values)
        folder = tmp_path / "papers" / slug / "config"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "full.yaml").write_text(yaml.safe_dump(values))
        (folder.parent / "Snakefile").write_text("")
        for module in (config, plan_spec):
            monkeypatch.setattr(module, "papers_root", lambda: tmp_path / "papers")
        return Plan(slug, "full")

    return build
