"""UnlearnDiffAtk (Zhang et al., ECCV 2024, arXiv:2310.11868): other words make erased models draw the concept.

The victim itself classifies a target image: min over a prefix p of E_{t, e} |e - eps(z_t | [p, c])|^2, its ordinary
denoising loss. Baselines: P4D (arXiv:2309.06135), random prefixes, other seeds, nothing.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from papers.unlearndiffatk.attack.layout import Layout
from papers.unlearndiffatk.attack.schedule import attack_times
from papers.unlearndiffatk.attack.search import EmbeddingSearch, Search, SimplexSearch, layout_of, vocabulary
from papers.unlearndiffatk.options import (
    AttackOptions,
    NoAttackOptions,
    P4dOptions,
    RandomPrefixOptions,
    SearchOptions,
    SeedSearchOptions,
    UnlearnDiffAtkOptions,
)
from shared.diffusion.attacks.context import AttackContext
from shared.diffusion.attacks.judging import Ledger, chunks, draw_attacked, draw_plain
from shared.diffusion.attacks.prompts import Prompt
from shared.diffusion.attacks.results import PromptResult
from shared.training.seeds import stream

Attacked = Callable[[list[int], Ledger], None]


def unlearndiffatk(context: AttackContext, options: UnlearnDiffAtkOptions) -> list[PromptResult]:
    """Search over the simplex, with the victim alone."""
    targets = context.target_latents()
    return _search(context, options, lambda rows: SimplexSearch(_of(context, rows), targets[rows], options, context))


def p4d(context: AttackContext, options: P4dOptions) -> list[PromptResult]:
    """Search over embeddings, with the original model beside the victim."""
    targets = context.target_latents()
    context.original_model()
    return _search(context, options, lambda rows: EmbeddingSearch(_of(context, rows), targets[rows], options, context))


def random_prefix(context: AttackContext, options: RandomPrefixOptions) -> list[PromptResult]:
    """Random tokens, drawn alike for every prompt."""
    allowed = vocabulary(context.victim, options.special_tokens).cpu()
    generator = stream(context.seed, "random prefixes")
    draws = [
        allowed[torch.randint(len(allowed), (options.num_tokens,), generator=generator)] for _ in range(options.tries)
    ]

    def attack(rows: list[int], ledger: Ledger) -> None:
        prompts = _of(context, rows)
        for prefix in draws:
            layout = layout_of(context.victim, prompts, options)
            tokens = prefix.to(layout.ids.device).expand(len(prompts), -1)
            positive = _try(context, options, ledger, prompts, _Drawn(layout, tokens))
            stays = _finish_if(ledger, prompts, positive, options.early_stop)
            prompts = [prompt for prompt, stay in zip(prompts, stays, strict=True) if stay]
            if not prompts:
                return
        ledger.finish(prompts)

    return _attack(context, options, attack, only_failed=options.early_stop)


def seed_search(context: AttackContext, options: SeedSearchOptions) -> list[PromptResult]:
    """The raw prompt with other seeds; the share of successes is a rate for each prompt (`scores.seed_search_rate`)."""
    generator = stream(context.seed, "other seeds")
    seeds = torch.randint(2**31, (options.tries,), generator=generator).tolist()

    def attack(rows: list[int], ledger: Ledger) -> None:
        prompts = _of(context, rows)
        for seed in seeds:
            same = [seed] * len(prompts)
            ledger.judge(prompts, draw_plain(context.victim, prompts, same), seeds=same)
        ledger.finish(prompts)

    return _attack(context, options, attack, only_failed=False)


def no_attack(context: AttackContext, options: NoAttackOptions) -> list[PromptResult]:
    """The raw prompt with its own seed."""
    return _attack(context, options, lambda rows, ledger: ledger.finish(_of(context, rows)), only_failed=False)


def _attack(context: AttackContext, options: AttackOptions, attack: Attacked, only_failed: bool) -> list[PromptResult]:
    """Draw every plain prompt; then attack all of them, or those that failed, in batches."""
    ledger = Ledger(context)
    left: list[int] = []
    for rows in chunks(ledger.open_prompts(), options.batch):
        prompts = _of(context, rows)
        ledger.start()
        positive = ledger.judge(prompts, draw_plain(context.victim, prompts))
        stays = _finish_if(ledger, prompts, positive, only_failed)
        left += [row for row, stay in zip(rows, stays, strict=True) if stay]
    for rows in chunks(left, options.batch):
        ledger.start()
        attack(rows, ledger)
    return ledger.results()


def _search(context: AttackContext, options: SearchOptions, start: Callable[[list[int]], Search]) -> list[PromptResult]:
    times = attack_times(options.times, len(context.victim.abar))

    def attack(rows: list[int], ledger: Ledger) -> None:
        search = start(rows)
        for time in times:
            for _ in range(options.steps):
                search.step(time)
            search.check()
            drawn = _Drawn(search.layout, search.tokens(), time, search.losses.tolist())
            positive = _try(context, options, ledger, search.prompts, drawn)
            search.keep(_finish_if(ledger, search.prompts, positive, options.early_stop))
            if not search.prompts:
                return
        ledger.finish(search.prompts)

    return _attack(context, options, attack, only_failed=options.early_stop)


class _Drawn(NamedTuple):
    """Adversarial tokens (B, N) in their layout, and where the search that found them stands."""

    layout: Layout
    tokens: Tensor
    time: int | None = None
    losses: list[float] | None = None


def _try(
    context: AttackContext, options: AttackOptions, ledger: Ledger, prompts: Sequence[Prompt], drawn: _Drawn
) -> list[bool]:
    """Draw and judge the prompts with their adversarial tokens."""
    model = context.victim
    special = set(model.special)
    content = drawn.layout.content(drawn.layout.filled(drawn.tokens))
    # a special token in the middle cannot be typed; it stays only where the ids themselves are drawn
    typed = [[i for i in row if i not in special] for row in content]
    retokenise = options.judged == "retokenised"
    images, texts, exact = draw_attacked(model, prompts, typed if retokenise else content, retokenise)
    prefixes = [tuple(row) for row in drawn.tokens.tolist()]
    return ledger.judge(
        prompts,
        images,
        noise_level=drawn.time,
        losses=drawn.losses,
        prefixes=prefixes,
        texts=texts,
        exact=[e and len(t) == len(c) for e, t, c in zip(exact, typed, content, strict=True)],
    )


def _finish_if(ledger: Ledger, prompts: Sequence[Prompt], positive: Sequence[bool], stop: bool) -> list[bool]:
    """End the prompts that succeeded, if a success ends an attack; returns which go on."""
    ledger.finish([prompt for prompt, found in zip(prompts, positive, strict=True) if found and stop])
    return [not (found and stop) for found in positive]


def _of(context: AttackContext, rows: Sequence[int]) -> list[Prompt]:
    return [context.prompts[row] for row in rows]
