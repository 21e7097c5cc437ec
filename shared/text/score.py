"""Teacher-forced scores of answers: the log-probability of every label, many rows at once.

Scores are those of one plain forward pass for each row, with the row's own attention mask and nothing after its last
label's predecessor (a causal model cannot see it). What makes it quick:

- The rows of one question run as one tree (`answer_tree`), prompt and common beginnings once. Rows run whole, padded
  on the right, where a tree could change a score: an architecture that is not in `TREE_MODELS` (recurrent layers,
  positions that are not given as numbers), kernels that take no mask of this form, a sliding window shorter than the
  row, a first token that nothing may attend to.
- The output layer sees the positions that predict a label, each once, and no (B, T, V) tensor exists.
- Batches hold things of similar length and at most `max_tokens` tokens, padding included.

Under the precision policy of the device: float32 on a CPU, bfloat16 products on a GPU; probabilities in float32.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from shared.errors import DataError
from shared.gpu.micro_batch import MicroBatch
from shared.gpu.precision import precision_for
from shared.text.answer_tree import AnswerTree, answer_tree
from shared.text.encode import IGNORED, EncodedRow
from shared.text.losses.modules import unwrapped
from shared.text.output_layer import chosen_logits

# Architectures whose layers use nothing but the attention mask and the position numbers that they are given.
TREE_MODELS = frozenset({"gpt2", "llama", "phi", "phi3", "qwen2", "qwen3", "mistral", "gemma", "gpt_neox"})
_TREE_KERNELS = frozenset({"sdpa", "eager"})
_WIDEST_TREE = 4096  # attention grows with the square of the nodes

# The logits of a CPU batch of this size stay near its caches; on a GPU they may take 2 GiB.
_CPU_TOKENS, _GPU_TOKENS, _GPU_LOGITS = 1024, 16384, 2**31 // 6


@dataclass(frozen=True, eq=False)
class RowScore:
    """Scores of one row's n labels, in order. All in nats; NaN or infinite where the model has diverged.

    log_probs: (n,). hits: (n,) bool, whether no other token is more probable. mean, variance: (n,) of the
    log-probability under the model's own next-token distribution, empty unless asked for. A row without target has
    n = 0, and no loss.
    """

    log_probs: NDArray[np.float64]
    hits: NDArray[np.bool_]
    mean: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    variance: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    @property
    def num_labels(self) -> int:
        """Labels that count, the end-of-sequence label included."""
        return len(self.log_probs)

    @property
    def nll(self) -> float:
        """Summed negative log-likelihood; NaN without labels."""
        return float(-self.log_probs.sum()) if self.num_labels else float("nan")

    @property
    def avg_loss(self) -> float:
        """Mean negative log-likelihood; NaN without labels."""
        return self.nll / self.num_labels if self.num_labels else float("nan")


def score(
    model: nn.Module,
    rows: Sequence[EncodedRow],
    *,
    share_prompts: bool = True,
    moments: bool = False,
    max_tokens: int | None = None,
) -> list[RowScore]:
    """Scores of `rows`, in their order, on the model's device and in eval mode.

    share_prompts: rows with one `index` are taken as answers to one question (what they share is read from the ids,
    so rows of two sets under one number cost time only). moments: also mean and variance, for Min-K%++. max_tokens:
    of a batch; None fits the device, and running out of memory halves the batch. Raises DataError naming the first row
    that is longer than the model's window.
    """
    model = unwrapped(model)
    device = next(model.parameters()).device
    todo = [(number, _Item.of(row)) for number, row in enumerate(rows) if row.has_target]
    _check_window(rows, todo, position_window(model))
    units = _units(model, todo, share_prompts)
    found = [RowScore(np.empty(0), np.empty(0, bool))] * len(rows)
    micro, precision = MicroBatch(), precision_for(device)
    precision.activate()
    trained = model.training
    model.eval()
    try:
        batches = _batches(units, max_tokens or _token_budget(model, device))
        for batch in tqdm(batches, desc="score", unit="batch", leave=False, disable=None):
            with torch.inference_mode(), precision.context():
                pieces = micro.run(
                    batch, lambda pieces: [_score(model, part, moments) for part, _ in pieces], len(batch)
                )
            for scored in pieces:
                for number, value in scored.items():
                    found[number] = value
    finally:
        model.train(trained)
    return found


def position_window(model: nn.Module) -> int:
    """Most positions that a model knows; without a bound of its own, more than any text has."""
    config: Any = model.config
    return int(getattr(config, "max_position_embeddings", None) or 2**31)


def _check_window(rows: Sequence[EncodedRow], todo: "Sequence[tuple[int, _Item]]", window: int) -> None:
    for number, item in todo:
        if len(item.keys) > window:
            row = rows[number]
            raise DataError(
                f"row {row.index}: {len(row.input_ids)} tokens do not fit the model's window of {window}; "
                f"encode with max_length = {window}"
            )


class _Item(NamedTuple):
    """What a row needs: inputs up to the last position that predicts; keys tell a masked token from a seen one."""

    question: int
    keys: list[int]
    predicting: list[int]
    labels: list[int]

    @classmethod
    def of(cls, row: EncodedRow) -> "_Item":
        predicting = [t - 1 for t in range(1, len(row.labels)) if row.labels[t] != IGNORED]
        stop = predicting[-1] + 1
        seen = zip(row.input_ids[:stop], row.attention_mask, strict=False)
        keys = [token if kept else ~token for token, kept in seen]
        return cls(row.index, keys, predicting, [row.labels[t + 1] for t in predicting])


@dataclass(frozen=True)
class _Unit:
    """A tree, or a whole row as one: the rows' numbers, the rows, and their nodes."""

    numbers: list[int]
    items: list[_Item]
    tree: AnswerTree
    whole: bool

    @property
    def width(self) -> int:
        return len(self.tree.keys)


def _units(model: nn.Module, todo: Sequence[tuple[int, _Item]], share: bool) -> list[_Unit]:
    """Trees of the questions that have several rows and may share, whole rows of the others."""
    questions: dict[int, list[int]] = defaultdict(list)
    for place, (_, item) in enumerate(todo):
        questions[item.question if share else place].append(place)
    units = []
    for places in questions.values():
        items = [todo[place][1] for place in places]
        tree = answer_tree([item.keys for item in items])
        if len(items) > 1 and _may_share(model, tree):
            units.append(_Unit([todo[place][0] for place in places], items, tree, whole=False))
        else:
            units += [_Unit([todo[p][0]], [todo[p][1]], answer_tree([todo[p][1].keys]), whole=True) for p in places]
    return units


def _may_share(model: nn.Module, tree: AnswerTree) -> bool:
    config: Any = model.config
    window = getattr(config, "sliding_window", None) or _WIDEST_TREE
    return (
        config.model_type in TREE_MODELS
        and config._attn_implementation in _TREE_KERNELS
        and len(tree.keys) <= _WIDEST_TREE
        and max(tree.depth) < window
        and all(tree.keys[path[0]] >= 0 for path in tree.paths)
    )


def _batches(units: Sequence[_Unit], max_tokens: int) -> list[list[_Unit]]:
    """Units of one kind and similar width; the widest first, so that memory runs out at once or never."""
    batches: list[list[_Unit]] = []
    for unit in sorted(units, key=lambda unit: (unit.whole, -unit.width)):
        batch = batches[-1] if batches else []
        if batch and batch[0].whole == unit.whole and batch[0].width * (len(batch) + 1) <= max_tokens:
            batch.append(unit)
        else:
            batches.append([unit])
    return batches


def _token_budget(model: nn.Module, device: torch.device) -> int:
    if device.type == "cpu":
        return _CPU_TOKENS
    vocabulary: int = model.config.vocab_size  # type: ignore[union-attr,assignment]
    return max(1, min(_GPU_TOKENS, _GPU_LOGITS // vocabulary))


def _score(model: nn.Module, units: Sequence[_Unit], moments: bool) -> dict[int, RowScore]:
    """Scores by row number, of units of one kind."""
    device = next(model.parameters()).device
    width = max(unit.width for unit in units)
    nodes, labels = _targets(units, width)
    chosen, place = np.unique(nodes, return_inverse=True)
    inputs = _inputs(model, units, width, device)
    logits, _ = chosen_logits(model, torch.from_numpy(chosen).to(device), lambda: model(**inputs, use_cache=False))
    values = _label_scores(logits, torch.from_numpy(place).to(device), torch.from_numpy(labels).to(device), moments)
    columns = values.double().cpu().numpy()
    found: dict[int, RowScore] = {}
    start = 0
    for number, item in ((n, item) for unit in units for n, item in zip(unit.numbers, unit.items, strict=True)):
        log_probs, hits, *rest = columns[:, start : start + len(item.labels)]
        found[number] = RowScore(log_probs, hits > 0, *rest)
        start += len(item.labels)
    return found


def _targets(units: Sequence[_Unit], width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions in the flattened batch that predict, row by row, and the labels that they predict: (n,) each."""
    nodes, labels = [], []
    for number, unit in enumerate(units):
        for item, path in zip(unit.items, unit.tree.paths, strict=True):
            nodes += [number * width + path[position] for position in item.predicting]
            labels += item.labels
    return np.array(nodes, np.int64), np.array(labels, np.int64)


def _inputs(model: nn.Module, units: Sequence[_Unit], width: int, device: torch.device) -> dict[str, Tensor]:
    """Arguments of the forward pass; (B, T) ids, padded on the right with a node that sees itself only."""

    def padded(values: Sequence[Sequence[int]], fill: int) -> Tensor:
        rows = [[*row, *[fill] * (width - len(row))] for row in values]
        return torch.tensor(rows, dtype=torch.int64, device=device)

    keys = padded([unit.tree.keys for unit in units], 0)
    seen = keys >= 0
    ids = torch.where(seen, keys, ~keys)
    if units[0].whole:
        real = padded([[1] * unit.width for unit in units], 0)
        return {"input_ids": ids, "attention_mask": real * seen}
    last = padded([unit.tree.last for unit in units], -1)
    node = torch.arange(width, device=device)
    mask = (node[None, None, :] <= node[None, :, None]) & (node[None, :, None] <= last[:, None, :]) & seen[:, None, :]
    # A padding node has no ancestors: without itself, its softmax would be over nothing.
    mask |= ((last < 0)[:, :, None]) & torch.eye(width, dtype=torch.bool, device=device)
    depth = padded([unit.tree.depth for unit in units], 0)
    return {"input_ids": ids, "attention_mask": _as_kernel_wants(model, mask[:, None]), "position_ids": depth}


def _as_kernel_wants(model: nn.Module, mask: Tensor) -> Tensor:
    """(B, 1, T, T) mask, True = sees: as it is, or to be added to the scores."""
    config: Any = model.config
    if config._attn_implementation == "sdpa":
        return mask
    dtype = next(model.parameters()).dtype
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)


def _label_scores(logits: Tensor, place: Tensor, labels: Tensor, moments: bool) -> Tensor:
    """(2, n) log-probability and hit of every label, or (4, n) with mean and variance; `logits` (m, V) is used up.

    place: (n,) the row of `logits` that predicts each label.
    """
    largest = logits.amax(-1)
    own = logits[place, labels]
    hits = (own >= largest[place]).to(own.dtype)
    # In place: for large vocabularies the logits are most of the memory.
    shifted = logits.sub_(largest[:, None])
    if not moments:
        return torch.stack([own - largest[place] - shifted.exp_().sum(-1).log_()[place], hits])
    log_p = shifted.sub_(shifted.logsumexp(-1, keepdim=True))
    p = log_p.exp()
    mean = -torch.special.entr(p).sum(-1)
    variance = (p * torch.where(p > 0, log_p - mean[:, None], 0.0).square()).sum(-1)
    return torch.stack([log_p[place, labels], hits, mean[place], variance[place]])
