"""Miniature evaluation logs in the three public layouts, built here key by key and not by our writers."""

import numpy as np
import pytest

SIZES = {"retain": 7, "forget": 6, "real_authors": 4, "world_facts": 5}
TOP_KEYS = {
    "retain": "eval_log.json",
    "forget": "eval_log_forget.json",
    "real_authors": "eval_real_author_wo_options.json",
    "world_facts": "eval_real_world_wo_options.json",
}
PREFIXES = {"retain": "retain", "forget": "forget", "real_authors": "ra", "world_facts": "wf"}


def draw(seed):
    """Plain lists: for every question set losses of answer, paraphrase and perturbed answers, counts, ROUGE, texts."""
    rng = np.random.default_rng(seed)
    sets = {}
    for name, n in SIZES.items():
        wrong = 5 if name in ("retain", "forget") else 3
        loss = rng.gamma(2, 0.5, n).tolist()
        sets[name] = {
            "loss": loss,
            "para": rng.gamma(3, 0.7, n).tolist() if wrong == 5 else loss,
            "pert": rng.gamma(5, 0.7, (n, wrong)).tolist(),
            "tokens": rng.integers(3, 30, n).tolist(),
            "pert_tokens": rng.integers(3, 30, (n, wrong)).tolist(),
            "rouge1": rng.uniform(0.5, 1, n).tolist(),
            "rougeL": rng.uniform(0.2, 0.9, n).tolist(),
            "texts": [[f"{name} question {i}?", f"answer {rng.integers(99)}", f"truth {name} {i}"] for i in range(n)],
        }
    return sets


def legacy(sets, version=1):
    content = {}
    for name, s in sets.items():
        columns = {
            "avg_gt_loss": s["loss"],
            "gt_loss": [a * b for a, b in zip(s["loss"], s["tokens"], strict=True)],
            "num_token_gt": s["tokens"],
            "generated_text": s["texts"],
            "rouge1_recall": s["rouge1"],
            "rougeL_recall": s["rougeL"],
            "average_perturb_loss": s["pert"],
            "avg_paraphrased_loss": s["para"],
            "paraphrased_loss": [a * b for a, b in zip(s["para"], s["tokens"], strict=True)],
            "perturb_loss": (np.array(s["pert"]) * np.array(s["pert_tokens"])).tolist(),
            "num_token_paraphrased": s["tokens"],
            "num_token_perturb": s["pert_tokens"],
        }
        if version == 1:
            with np.errstate(invalid="ignore"):  # a diverged model's
                columns["truth_ratio"] = np.exp(np.array(s["para"]) - np.mean(s["pert"], axis=1)).tolist()
            columns = {key: {str(i): value for i, value in enumerate(column)} for key, column in columns.items()}
        content[TOP_KEYS[name]] = columns
    return content


def open_unlearning(sets):
    content = {"forget_quality": {"agg_value": None}, "model_utility": {"agg_value": 0.5}}
    for name, s in sets.items():
        n = len(s["loss"])
        prefix = PREFIXES[name]
        answers = {"Q_A_Prob": s["loss"], "Q_A_PERT_Prob": s["pert"]}
        if name in ("retain", "forget"):
            answers["Q_A_PARA_Prob"] = s["para"]
        for metric, losses in answers.items():
            rows = {
                str(i): {"prob": np.exp(-np.array(loss)).tolist(), "avg_loss": loss} for i, loss in enumerate(losses)
            }
            content[f"{prefix}_{metric}"] = {"agg_value": 0.5, "value_by_index": rows}
        keys = ("rouge1_recall", "rougeL_f1", "rougeL_recall", "input", "ground_truth", "generation")
        values = [
            (s["rouge1"][i], 0.5, s["rougeL"][i], s["texts"][i][0], s["texts"][i][2], s["texts"][i][1])
            for i in range(n)
        ]
        rows = {str(i): dict(zip(keys, value, strict=True)) for i, value in enumerate(values)}
        content[f"{prefix}_Q_A_ROUGE"] = {"agg_value": 0.5, "value_by_index": rows}
    scores = {str(i): {"score": 0.25} for i in range(SIZES["forget"])}
    content["extraction_strength"] = {"agg_value": 0.25, "value_by_index": scores}
    unseen = {str(i): {"score": 2.0 + i} for i in range(8)}
    content["mia_min_k"] = {
        "forget": {"agg_value": 0.25, "value_by_index": scores},
        "holdout": {"agg_value": 5.5, "value_by_index": unseen},
        "auc": 1.0,
        "agg_value": 1.0,
    }
    losses = {str(i): {"score": loss} for i, loss in enumerate(sets["forget"]["loss"])}
    content["mia_loss"] = {
        "forget": {"agg_value": 1.0, "value_by_index": losses},
        "holdout": {"agg_value": 5.5, "value_by_index": unseen},
        "auc": 1.0,
        "agg_value": 1.0,
    }
    return content


@pytest.fixture
def drawn():
    return draw(0)


@pytest.fixture(name="draw")
def draw_fixture():
    return draw


LAYOUTS = {
    "legacy v1": legacy,
    "legacy v0": lambda sets: legacy(sets, version=0),
    "OpenUnlearning": open_unlearning,
}


@pytest.fixture
def layouts():
    return LAYOUTS
