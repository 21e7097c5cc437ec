"""Greedy generation, many prompts at once.

Prompts of similar length share a batch, which begins with as many tokens as its shortest prompt has; longer prompts
go on being read while shorter ones are answered already. So nothing is padded, no position is shifted, and every
architecture gives what it gives for the prompt alone. `transformers.generate` gives the same tokens, one padded batch
at a time; on tiny models its bookkeeping at every token costs more than the model.
"""

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from shared.gpu.micro_batch import MicroBatch
from shared.gpu.precision import precision_for
from shared.text.encode import Encoder
from shared.text.losses.modules import unwrapped
from shared.text.output_layer import chosen_logits
from shared.text.score import position_window

log = logging.getLogger(__name__)
BATCH = 64


@dataclass(frozen=True)
class Limit:
    """How long an answer may become. max_total: tokens of prompt and answer (200 in the released TOFU code); max_new:
    of the answer alone (200 in OpenUnlearning). None: no such limit. The model's window always is one."""

    max_total: int | None = None
    max_new: int | None = None

    def stop(self, prompt: int, window: int) -> int:
        """Most tokens of prompt and answer."""
        bounds = [self.max_total, None if self.max_new is None else prompt + self.max_new, window]
        return min(bound for bound in bounds if bound is not None)


def prompts_of(encoder: Encoder, questions: Iterable[tuple[int, str]]) -> list[list[int]]:
    """Prompt ids of (row number, question) pairs."""
    return [encoder.prompt_ids(index, question) for index, question in questions]


def generate_ids(
    model: nn.Module, encoder: Encoder, prompts: Sequence[Sequence[int]], limit: Limit, *, batch: int = BATCH
) -> list[list[int]]:
    """`generate` by the rules of an encoder's profile.

    In profile open_unlearning the padding token is masked in prompts, as everywhere: where it is EOS, so are the EOS
    that close the turns of a chat.
    """
    masked = encoder.pad_id if encoder.profile == "open_unlearning" else None
    return generate(model, prompts, {encoder.eos_id, *_own_ends(model)}, limit, masked_id=masked, batch=batch)


def text_of(encoder: Encoder, ids: Sequence[int]) -> str:
    """A generated answer as text, without special tokens and surrounding white space."""
    return str(encoder.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()


def generate(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    ends: Collection[int],
    limit: Limit,
    *,
    masked_id: int | None = None,
    batch: int = BATCH,
) -> list[list[int]]:
    """The most probable token again and again: ids after each prompt, up to and without the first of `ends`.

    Generation stops at the model's window whatever the limit, and says in one line how many answers that cut; a prompt
    that fills it has an empty answer. masked_id: prompt tokens with attention 0; as in transformers, they take up no
    position. batch: prompts at once; running out of memory halves it.
    """
    model = unwrapped(model)
    window = position_window(model)
    stops = [limit.stop(len(prompt), window) for prompt in prompts]
    found: list[list[int]] = [[] for _ in prompts]
    todo = sorted((n for n in range(len(prompts)) if len(prompts[n]) < stops[n]), key=lambda n: -len(prompts[n]))
    batches = [todo[start : start + batch] for start in range(0, len(todo), batch)]
    micro, precision = MicroBatch(), precision_for(next(model.parameters()).device)
    precision.activate()
    trained = model.training
    model.eval()
    try:
        for numbers in tqdm(batches, desc="generate", unit="batch", leave=False, disable=None):

            def attempt(pieces: list[Any]) -> list[list[int]]:
                parts = [[(prompts[n], stops[n]) for n in part] for part, _ in pieces]
                return [ids for part in parts for ids in _Decoding(model, part, ends, masked_id).run()]

            with torch.inference_mode(), precision.context():
                texts = micro.run(numbers, attempt, len(numbers))
            for number, ids in zip(numbers, texts, strict=True):
                found[number] = ids
    finally:
        model.train(trained)
    lengths = [len(prompt) + len(ids) for prompt, ids in zip(prompts, found, strict=True)]
    wanted = [limit.stop(len(prompt), window + 1) for prompt in prompts]
    if cut := sum(length >= window and want > window for length, want in zip(lengths, wanted, strict=True)):
        log.warning("%d of %d generated answers are cut at the model's window of %d tokens", cut, len(prompts), window)
    return found


class _Decoding:
    """One batch of (prompt, most tokens in all). Rows that are done leave it when half of them are."""

    def __init__(
        self, model: nn.Module, rows: Sequence[tuple[Sequence[int], int]], ends: Collection[int], masked_id: int | None
    ) -> None:
        device = next(model.parameters()).device
        width = max(stop for _, stop in rows)
        filled = [[*prompt, *[0] * (width - len(prompt))] for prompt, _ in rows]
        self._model, self._rows = model, rows
        self._ends = torch.tensor(sorted(ends), device=device)
        self._tokens = torch.tensor(filled, dtype=torch.int64, device=device)
        self._prompt = torch.tensor([len(prompt) for prompt, _ in rows], device=device)
        self._stop = torch.tensor([stop for _, stop in rows], device=device)
        inside = torch.arange(width, device=device) < self._prompt[:, None]
        masked = (self._tokens == masked_id) & inside if masked_id is not None else torch.zeros_like(inside)
        self._mask = (~masked).to(torch.int64) if masked.any() else None
        self._length = self._stop.clone()  # of prompt and answer, once it is known
        self._done = torch.zeros_like(self._prompt, dtype=torch.bool)
        self._active = torch.arange(len(rows), device=device)
        self._cache: Any = None

    def run(self) -> list[list[int]]:
        """The answers, in order."""
        position = int(self._prompt.min())
        fed = 0
        while len(self._active):
            following = self._next(fed, position)
            self._write(position, following)
            fed, position = position, position + 1
            self._drop_done()
        pairs = zip(self._tokens.tolist(), self._rows, self._length.tolist(), strict=True)
        return [tokens[len(prompt) : length] for tokens, (prompt, _), length in pairs]

    def _next(self, fed: int, position: int) -> Tensor:
        """(A,) most probable tokens at `position` of the active rows, whose first `fed` tokens the model has read."""
        given: dict[str, Any] = {}
        if self._mask is not None:
            seen = self._mask[self._active, :position]
            given["attention_mask"] = seen
            given["position_ids"] = (seen.cumsum(1) - 1).clamp(min=0)[:, fed:]
        ids = self._tokens[self._active, fed:position]
        final = torch.arange(len(ids), device=ids.device) * ids.shape[1] + ids.shape[1] - 1
        logits, output = chosen_logits(
            self._model,
            final,
            lambda: self._model(input_ids=ids, past_key_values=self._cache, use_cache=True, **given),
        )
        self._cache = output.past_key_values
        return logits.argmax(-1)

    def _write(self, position: int, following: Tensor) -> None:
        rows = self._active
        answering = position >= self._prompt[rows]
        self._tokens[rows, position] = torch.where(answering, following, self._tokens[rows, position])
        ended = answering & torch.isin(following, self._ends) & ~self._done[rows]
        self._length[rows] = torch.where(ended, position, self._length[rows])
        self._done[rows] |= ended | (position + 1 >= self._stop[rows])

    def _drop_done(self) -> None:
        left = ~self._done[self._active]
        num_left = int(left.sum())
        if num_left and num_left > len(self._active) // 2:
            return
        kept = left.nonzero()[:, 0]
        self._active = self._active[kept]
        if num_left:
            self._cache.batch_select_indices(kept)


def _own_ends(model: nn.Module) -> list[int]:
    """End tokens that a checkpoint names for itself: chat models close a turn with another token than a text."""
    own = getattr(getattr(unwrapped(model), "generation_config", None), "eos_token_id", None)
    return [] if own is None else own if isinstance(own, list) else [int(own)]
