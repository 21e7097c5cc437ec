"""Derived numbers of the tables."""

from collections.abc import Mapping

# The paper calls a method useful where it forgets without losing utility; it names no threshold.
KEPT_UTILITY, KEPT_PROBABILITY = 0.95, 0.5


def forget_truth_ratio(values: Mapping[str, float], reference: Mapping[str, float]) -> float:
    """Truth ratio of the forget set, under the name that OpenUnlearning publishes it by."""
    return values["truth_ratio_forget"]


def rouge_on_learned(values: Mapping[str, float], reference: Mapping[str, float]) -> float:
    """ROUGE-L recall on fine-tuning data (Table 1), on the retain rows: every fine-tuned model has learned them."""
    return values["rouge_l_recall_retain"]


def useful_forget_quality(values: Mapping[str, float], reference: Mapping[str, float]) -> float:
    """Forget quality where at least 95 % of the fine-tuned model's utility is left, else 0."""
    is_useful = values["model_utility"] >= KEPT_UTILITY * reference["model_utility"]
    return values["forget_quality"] if is_useful else 0.0


def kept_forget_quality(values: Mapping[str, float], reference: Mapping[str, float]) -> float:
    """Forget quality where more than half of the fine-tuned model's probability of retain answers is left, else 0."""
    is_kept = values["probability_retain"] > KEPT_PROBABILITY * reference["probability_retain"]
    return values["forget_quality"] if is_kept else 0.0
