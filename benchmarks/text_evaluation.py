"""Evaluation of a small language model against one question at a time, and what padding costs in training.

400 generated questions with a true answer, its paraphrase and five perturbed answers; their lengths, and how much of an
answer's beginning is shared, are those of TOFU's forget10 (15 words a question, 36 an answer, 58 % of all tokens
distinct). Model: GPT-2 of width 128, 2 layers, vocabulary 4,604, as at the scale `tiny_real`.

Scoring: `shared.text.score` against the model's own loss, one answer a call, without padding (`ratio`) and padded to
the 200 columns of TOFU's released code (`ratio_released_padding`). Generation: against `model.generate`, one prompt a
call. Evaluation: both together. Training: tokens per second with length-sorted batches and without. Ratios are medians
over repeats; those of CPU seconds depend less on what else the machine does.

    python -m benchmarks.text_evaluation [--questions 400] [--repeats 3] [--threads N]
"""

import argparse
import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GPT2LMHeadModel

from benchmarks.training_throughput import Cost, now, ratio, since
from shared.files import write_json
from shared.gpu.device import choose_device, device_name
from shared.text.answer_tree import answer_tree
from shared.text.batches import Padding, TrainBatches, collate, padding_share
from shared.text.encode import IGNORED, EncodedRow
from shared.text.generate import Limit, generate
from shared.text.score import score
from shared.text.zoo import TinyGptOptions, tiny_gpt, word_tokenizer

RESULT = Path(__file__).parent / "results" / "text_evaluation.json"
VOCABULARY, CONTEXT, NUM_ANSWERS = 4604, 200, 7
# Token numbers of shared.text.zoo's tokenizer.
PAD, END, FIRST_WORD = 0, 1, 4
NEW_TOKENS, NUM_GENERATED, BATCH, BUCKET = 40, 100, 32, 16
NUM_TRAINED = 700  # rows of the training comparison


def questions(num_questions: int) -> list[EncodedRow]:
    """Encoded rows, NUM_ANSWERS for each question in turn."""
    draw = np.random.RandomState(0)

    def words(low: int, high: int) -> list[int]:
        return [int(w) for w in draw.randint(FIRST_WORD, VOCABULARY, draw.randint(low, high))]

    rows = []
    for index in range(num_questions):
        prompt, paraphrase = words(9, 23), words(24, 49)
        answers = [words(24, 49), paraphrase]
        answers += [paraphrase[: draw.randint(0, 23)] + words(16, 34) for _ in range(NUM_ANSWERS - 2)]
        for answer in answers:
            ids = [*prompt, *answer, END]
            rows.append(
                EncodedRow(index, ids, [1] * len(ids), [IGNORED] * len(prompt) + ids[len(prompt) :], len(prompt), False)
            )
    return rows


def naive_scores(model: GPT2LMHeadModel, rows: Sequence[EncodedRow], pad_to: int | None = None) -> list[float]:
    """Mean losses, one row a call."""
    losses = []
    with torch.no_grad():
        for row in rows:
            batch = collate([row], PAD, pad_to=pad_to, device=model.device)
            losses.append(float(model(**batch._asdict()).loss))
    return losses


def naive_generation(model: GPT2LMHeadModel, prompts: Sequence[list[int]]) -> list[list[int]]:
    """New tokens, one prompt a call."""
    found = []
    for prompt in prompts:
        ids = torch.tensor([prompt], device=model.device)
        options: dict[str, Any] = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "pad_token_id": PAD}
        whole = model.generate(ids, attention_mask=torch.ones_like(ids), eos_token_id=END, **options)[0].tolist()
        answer = whole[len(prompt) :]
        found.append(answer[: answer.index(END)] if END in answer else answer)
    return found


def train(start: GPT2LMHeadModel, rows: Sequence[EncodedRow], bucket: int) -> float:
    """One epoch of a copy with AdamW; returns the share of padding."""
    model = copy.deepcopy(start).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    plan = TrainBatches(rows, Padding(PAD, device=model.device), BATCH, bucket)
    batches = list(plan(0, torch.Generator().manual_seed(0)))
    for batch in batches:
        optimizer.zero_grad(set_to_none=True)
        model(**batch._asdict()).loss.backward()
        optimizer.step()
    return padding_share(batches)


def timed(costs: list[Cost], function: Callable[..., Any], *arguments: Any) -> Any:
    """Result of a call; its cost is appended."""
    started = now()
    found = function(*arguments)
    costs.append(since(started))
    return found


def measure(num_questions: int, repeats: int, threads: int) -> dict[str, Any]:
    """Alternate the two ways, so that a busy machine slows both."""
    torch.set_num_threads(threads)
    device = choose_device()
    tokenizer = word_tokenizer([" ".join(f"w{n}" for n in range(VOCABULARY - FIRST_WORD))], CONTEXT)
    model = tiny_gpt(TinyGptOptions(width=128, context=CONTEXT), tokenizer, 0).to(device).eval()
    rows = questions(num_questions)
    prompts = [row.input_ids[: row.num_masked] for row in rows[::NUM_ANSWERS]][:NUM_GENERATED]
    ours, naive, padded, said, naive_said, sorted_, unsorted = ([] for _ in range(7))  # type: list[list[Cost]]
    score(model, rows[:70])  # kernels are chosen and caches filled
    naive_scores(model, rows[:70])
    for _ in range(repeats):
        found = timed(ours, score, model, rows)
        expected = timed(naive, naive_scores, model, rows)
        timed(padded, naive_scores, model, rows, CONTEXT)
        answers = timed(said, generate, model, prompts, {END}, Limit(max_new=NEW_TOKENS))
        expected_answers = timed(naive_said, naive_generation, model, prompts)
        share = timed(sorted_, train, model, rows[:NUM_TRAINED], BUCKET)
        plain_share = timed(unsorted, train, model, rows[:NUM_TRAINED], 0)
    difference = max(abs(a.avg_loss - b) for a, b in zip(found, expected, strict=True))
    groups = [[row.input_ids for row in rows[n : n + NUM_ANSWERS]] for n in range(0, len(rows), NUM_ANSWERS)]
    num_tokens = sum(len(row.input_ids) for row in rows)
    # Generation was measured on fewer prompts than scoring.
    scale = num_questions / len(prompts)
    whole, naive_whole = _together(ours, said, scale), _together(naive, naive_said, scale)
    result: dict[str, Any] = {
        "device": device_name(device),
        "torch": torch.__version__,
        "cpu_threads": threads,
        "repeats": repeats,
        "questions": num_questions,
        "answers": len(rows),
        "distinct_tokens": round(sum(len(answer_tree(group).keys) for group in groups) / num_tokens, 3),
        "largest_difference": difference,
        "equal_generations": sum(a == b for a, b in zip(answers, expected_answers, strict=True)) / len(prompts),
        "seconds_scoring": round(min(cost.wall for cost in ours), 3),
        "seconds_scoring_naive": round(min(cost.wall for cost in naive), 3),
    }
    pairs = {
        "ratio": (naive_whole, whole),
        "ratio_scoring": (naive, ours),
        "ratio_scoring_released_padding": (padded, ours),
        "ratio_generation": (naive_said, said),
        "ratio_sorted_training": (unsorted, sorted_),
    }
    for name, (theirs, own) in pairs.items():
        result[name] = ratio(theirs, own, "wall")
        result[f"{name}_cpu_seconds"] = ratio(theirs, own, "cpu")
    num_trained = sum(len(row.input_ids) for row in rows[:NUM_TRAINED])
    result["training_tokens_per_second"] = round(num_trained / min(cost.wall for cost in sorted_))
    result["training_tokens_per_second_unsorted"] = round(num_trained / min(cost.wall for cost in unsorted))
    return {
        **result,
        "padding_share": round(share, 3),
        "padding_share_unsorted": round(plain_share, 3),
        "wanted_ratio": 5.0,
    }


def _together(scoring: Sequence[Cost], generation: Sequence[Cost], scale: float) -> list[Cost]:
    return [Cost(*(a + scale * b for a, b in zip(s, g, strict=True))) for s, g in zip(scoring, generation, strict=True)]


def main() -> None:
    """Measure, print a table and write the result."""
    parser = argparse.ArgumentParser(description="evaluation and padding of the text track")
    parser.add_argument("--questions", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    result = measure(arguments.questions, arguments.repeats, arguments.threads)
    for key, value in result.items():
        print(f"{key:44} {value}")
    write_json(RESULT, result)


if __name__ == "__main__":
    main()
