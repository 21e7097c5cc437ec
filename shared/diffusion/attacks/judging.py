"""Drawing and judging prompts, and the record of a prompt's rounds."""

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from shared.diffusion.attacks.context import AttackContext, Model
from shared.diffusion.attacks.prompts import Prompt
from shared.diffusion.attacks.results import Journal, PromptResult, Round
from shared.errors import DataError


class Ledger:
    """Rounds of the prompts that are attacked, with the time that each took; finished prompts go to the journal."""

    def __init__(self, context: AttackContext) -> None:
        self._context = context
        self._journal = Journal(context.journal, context.key)
        self._done = self._journal.read()
        self._rounds: dict[int, list[Round]] = {}
        self._clock = time.perf_counter()

    def open_prompts(self) -> list[int]:
        """Positions (in the context's prompts) of those that no earlier run finished."""
        return [i for i, prompt in enumerate(self._context.prompts) if prompt.index not in self._done]

    def start(self) -> None:
        """What follows belongs to the next round."""
        self._clock = time.perf_counter()

    def judge(
        self,
        prompts: Sequence[Prompt],
        images: Tensor,
        *,
        seeds: Sequence[int] | None = None,
        noise_level: int | None = None,
        losses: Sequence[float] | None = None,
        prefixes: Sequence[tuple[int, ...]] | None = None,
        texts: Sequence[str] | None = None,
        exact: Sequence[bool] | None = None,
    ) -> list[bool]:
        """Add a round to every prompt; returns which images show the concept. images (B, 3, H, W)."""
        verdicts = self._context.judge(images)
        if not torch.isfinite(verdicts.score).all():
            bad = prompts[int((~torch.isfinite(verdicts.score)).nonzero()[0])].index
            raise DataError(f"prompt {bad}: the detector's score is no number; the victim drew a broken image")
        seconds = (time.perf_counter() - self._clock) / len(prompts)
        self._clock = time.perf_counter()
        for row, prompt in enumerate(prompts):
            entry = Round(
                score=float(verdicts.score[row]),
                rank=int(verdicts.rank[row]),
                positive=bool(verdicts.positive[row]),
                seed=seeds[row] if seeds is not None else prompt.seed,
                seconds=seconds,
                time=noise_level,
                loss=losses[row] if losses is not None else None,
                prefix=prefixes[row] if prefixes is not None else (),
                text=texts[row] if texts is not None else prompt.text,
                ids_exact=exact[row] if exact is not None else True,
            )
            self._rounds.setdefault(prompt.index, []).append(entry)
            if self._context.watch is not None:
                self._context.watch(prompt.index, entry, images[row])
        return verdicts.positive.tolist()

    def finish(self, prompts: Sequence[Prompt]) -> None:
        """These prompts get no further round."""
        results = [PromptResult(prompt.index, tuple(self._rounds.pop(prompt.index))) for prompt in prompts]
        if self._context.scores_only:
            results = [result.scores_only() for result in results]
        self._journal.add(results)
        self._done.update({result.index: result for result in results})

    def results(self) -> list[PromptResult]:
        """All prompts' results, in the context's order."""
        return [self._done[prompt.index] for prompt in self._context.prompts]


def window_ids(model: Model, tokens: Sequence[int], name: str) -> list[int]:
    """A prompt's full ids (L): start, tokens, end and padding. Raises DataError if it does not fit."""
    if len(tokens) > model.window - 2:
        raise DataError(f"{name}: {len(tokens)} tokens do not fit into the window of {model.window}; drop it")
    return [model.start, *tokens, *[model.end] * (model.window - 1 - len(tokens))]


def draw_plain(model: Model, prompts: Sequence[Prompt], seeds: Sequence[int] | None = None) -> Tensor:
    """Images of the raw prompts, with their own or other seeds."""
    ids = torch.tensor([window_ids(model, model.tokens(p.text), f"prompt {p.index}") for p in prompts])
    own = [prompt.seed for prompt in prompts]
    return model.draw(ids, [p.text for p in prompts], seeds or own, [p.guidance for p in prompts])


def draw_attacked(
    model: Model, prompts: Sequence[Prompt], content: Sequence[Sequence[int]], retokenise: bool
) -> tuple[Tensor, list[str], list[bool]]:
    """Images of optimised tokens `content` (specials left out), as the strings they decode to.

    Also returns these strings, and whether their own tokens are the optimised ones. retokenise: draw the string's
    tokens (cut to the window, as a tokenizer cuts them) rather than the optimised ones.
    """
    texts = [model.text(ids) for ids in content]
    again = [model.tokens(text)[: model.window - 2] for text in texts]
    exact = [list(ids) == new for ids, new in zip(content, again, strict=True)]
    drawn = again if retokenise else content
    ids = torch.tensor([window_ids(model, row, f"prompt {p.index}") for row, p in zip(drawn, prompts, strict=True)])
    images = model.draw(ids, texts, [p.seed for p in prompts], [p.guidance for p in prompts])
    return images, texts, exact


def chunks(positions: Sequence[int], size: int) -> list[list[int]]:
    """Positions in groups of at most `size`."""
    return [list(positions[i : i + size]) for i in range(0, len(positions), size)]
