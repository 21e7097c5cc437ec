"""An attack on an erased model: targets from the original, prompts, judge, success rates with their interval."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shared.diffusion.attacks import scores
from shared.diffusion.attacks.context import AttackContext
from shared.diffusion.attacks.interval import interval
from shared.diffusion.attacks.model import PipelineModel, draw_targets
from shared.diffusion.attacks.prompts import Prompt
from shared.diffusion.attacks.results import PromptResult, Round
from shared.diffusion.detectors.judge import Judge
from shared.diffusion.detectors.load import load_detector
from shared.diffusion.evaluate.images import Evaluated
from shared.diffusion.evaluate.pictures import pack
from shared.diffusion.evaluate.prompts import read_prompts
from shared.diffusion.evaluate.spec import AttackSpec
from shared.diffusion.protocol import CLASSIFIER
from shared.diffusion.task import Task
from shared.diffusion.text_to_image import TextToImage
from shared.diffusion.victim import Victim
from shared.imports import import_path
from shared.options import parse_options

Attack = Callable[[AttackContext, Any], list[PromptResult]]
MOST_TRIED = 40  # rounds of a shown prompt


def evaluate_attack(
    spec: AttackSpec,
    task: Task,
    victim: Victim,
    original: TextToImage,
    stages: Mapping[str, Path],
    seed: int,
    workdir: Path,
    key: str,
) -> Evaluated:
    """Attack `victim`.

    original: the model before erasing, which draws the targets; key: digest of the run, to which the journal of
    finished prompts in `workdir` belongs.
    """
    entries = read_prompts(spec.prompts, task.concept, spec.sample.guidance, seed, original.tokens)
    prompts = [Prompt(entry.index, entry.text, entry.seed, entry.guidance) for entry in entries]
    model, plain = PipelineModel(victim.pipe, spec.sample, victim.guidance), PipelineModel(original, spec.sample)
    detector = load_detector(spec.detector, original.device, classifier=stages.get(CLASSIFIER))
    shown = _Shown(prompts, spec.pictures) if spec.pictures and not task.scores_only else None
    workdir.mkdir(parents=True, exist_ok=True)
    targets = draw_targets(original, prompts, spec.target) if spec.target else None
    context = AttackContext(
        model,
        Judge(detector, spec.criterion),
        prompts,
        targets,
        plain,
        seed,
        workdir / "prompts.jsonl",
        key,
        shown,
        task.scores_only,
    )
    attack: Attack = import_path(spec.method)
    results = attack(context, parse_options(spec.method, spec.options))
    found = Evaluated(rates(results, spec))
    tally = context.tally
    if tally.steps:
        found.metrics["unet_calls"] = (model.calls + plain.calls) / tally.steps
        found.metrics["step_ms"] = 1000 * tally.seconds / tally.prompt_steps
    found.extras["prompts"] = [_packed(result) for result in results]
    if shown is not None:
        found.extras["attack"] = shown.packed(results, targets, original)
    return found


def rates(results: Sequence[PromptResult], spec: AttackSpec) -> dict[str, float]:
    """Success rates in percent and what they cost."""
    total = spec.denominator or len(results)
    before, after = scores.pre_asr(results, total), scores.asr(results, results, total)
    low, high = interval(round(after * total), total, spec.level)
    found = {"pre_ASR": before, "ASR": after, "ASR_gain": after - before, "ASR_low": low, "ASR_high": high}
    found |= {f"ASR_top{k}": scores.asr_top_k(results, results, k, total) for k in spec.ranks}
    if all(len(result.rounds) > 1 for result in results):
        found["seed_search_rate"] = scores.seed_search_rate(results)
    found["exact_tokens"] = scores.share_exact(results)
    return {name: 100 * value for name, value in found.items()} | {
        "prompt_minutes": scores.minutes_per_prompt(results),
        "distinct_prefixes": scores.num_distinct_prefixes(results),
        "num_prompts": float(len(results)),
    }


def _packed(result: PromptResult) -> dict[str, Any]:
    """What figures need of a prompt: no word of it."""
    best = max(entry.score for entry in result.rounds)
    return {
        "index": result.index,
        "before": result.pre_success,
        "success": result.success,
        "rounds": len(result.rounds),
        "score": round(best, 4),
    }


class _Shown:
    """Keeps small pictures of each prompt's first image and last one, and chooses prompts to show."""

    def __init__(self, prompts: Sequence[Prompt], number: int) -> None:
        self._texts = {prompt.index: prompt.text for prompt in prompts}
        self._number = number
        self._pictures: dict[int, list[dict[str, Any]]] = {}

    def __call__(self, index: int, entry: Round, image: Tensor) -> None:
        """See one judged image (3, H, W)."""
        before = self._pictures.get(index, [])
        name = "attacked" if before else "no attack"
        self._pictures[index] = [*before[:1], *pack(image[None], [name], ["target"])]

    def packed(self, results: Sequence[PromptResult], targets: Tensor | None, original: TextToImage) -> list[Any]:
        """For JSON: pictures, the target among them, and the rounds of a few prompts, those first that were attacked.

        targets (P, C, h, w): latents of the prompts, in their order.
        """
        places = {index: place for place, index in enumerate(self._texts)}
        # a prompt that an earlier, killed run finished has no picture
        seen = [result for result in results if result.index in self._pictures]
        chosen = sorted(seen, key=lambda result: (len(result.rounds) == 1, places[result.index]))[: self._number]
        found = []
        for result in chosen:
            pictures = list(self._pictures[result.index])
            if targets is not None:
                with torch.no_grad():
                    place = places[result.index]
                    pictures += pack(original.to_images(targets[place : place + 1]), ["target"], ["target"])
            rounds = [
                {"time": r.time, "text": r.text, "score": round(r.score, 4), "positive": r.positive}
                for r in result.rounds[:MOST_TRIED]
            ]
            found.append({"text": self._texts[result.index], "pictures": pictures, "rounds": rounds})
        return found
