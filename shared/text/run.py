"""What a row job of the text track does: unlearn with one loss and one seed, evaluate on the way, leave the logs."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

# The scorer imports it when first used (2 s of CPU); here, jobs that are forked later share it, and no model waits.
import rouge_score.rouge_scorer  # noqa: F401
from torch import Tensor

from shared.data.pull import pull
from shared.errors import ConfigError
from shared.files import digest
from shared.gpu.device import device_name
from shared.gpu.launch import is_main_process
from shared.gpu.memory import PeakMemory
from shared.gpu.precision import job_device
from shared.imports import import_path
from shared.options import parse_options
from shared.results.records import Cost, Metric
from shared.text.aggregate import aggregate, log_ratios
from shared.text.batches import Refusals, UnlearnBatches
from shared.text.data import load_refusals
from shared.text.encode import Encoder
from shared.text.evaluate import Evaluation
from shared.text.logs.log import SETS, EvalLog
from shared.text.logs.open_unlearning_write import write_open_unlearning
from shared.text.logs.read import read_log
from shared.text.losses.context import LossContext
from shared.text.losses.options import LossOptions
from shared.text.protocol import EXTRA_METRICS, METRICS, REFERENCE_MODULE
from shared.text.stages import (
    LOG,
    aggregation,
    evaluation,
    load_for_evaluation,
    load_trainable,
    qa_data,
    stage_tokenizer,
)
from shared.text.task import Task
from shared.text.templates import prompt_template
from shared.text.training import padding, unlearn
from shared.training.loop import FitResult
from shared.training.processes import sum_over_processes
from shared.training.seeds import stream
from shared.training.state import LoopState

_SPECS = {spec.name: spec for spec in (*METRICS, *EXTRA_METRICS)}
REFUSALS_FILE, EVAL_FILE = "idontknow.jsonl", "TOFU_EVAL.json"
# Answers that the report shows before and after.
NUM_SHOWN = 6


@dataclass
class Judge:
    """Evaluates a model of one row, keeps what figures need, and leaves each log in a folder of its own."""

    task: Task
    questions: Evaluation
    retain: EvalLog
    logs: Path
    last: EvalLog | None = None

    def __call__(self, model: Any, epoch: int) -> dict[str, float]:
        """Numbers of the model after `epoch` epochs of unlearning."""
        log = self.questions(model)
        if is_main_process():
            write_open_unlearning(log, self.logs / f"epoch{epoch:02d}", self.retain)
        values = aggregate(log, self.retain, **aggregation(self.task))
        self.last = log
        return values


def run_row(
    job: Mapping[str, Any], seed: int, stages: Mapping[str, Path], workdir: Path, threads: int = 1
) -> tuple[list[Metric], Cost, dict[str, Any]]:
    """Unlearn with one method and one seed, and evaluate the result against the retain model's log.

    job: `task` (a Task's values), `method` (import path), `options`, `output` (logs go to a folder beside the records).
    Returns metrics, cost of unlearning without evaluation, and small values for figures.
    """
    task = Task.model_validate(job["task"])
    tokenizer = stage_tokenizer(stages["base"])
    judge = Judge(
        task,
        evaluation(task, tokenizer),
        read_log(stages["retain_log"] / LOG / "TOFU_EVAL.json", [name for name in SETS if name in task.evaluate.sets]),
        log_folder(job, seed),
    )
    options = parse_options(job["method"], job["options"])
    with PeakMemory(job_device()) as peak:
        if job["method"].startswith(f"{REFERENCE_MODULE}:"):
            chosen = import_path(job["method"])(stages, options)
            values = judge(load_for_evaluation(chosen, task.model), 0)
            result = FitResult(0, 0.0, [{"epoch": 0, **values}])
        else:
            key = digest({name: job[name] for name in ("task", "method", "options")} | {"seed": seed})
            context = LossContext(partial(stream, seed), sum_over_processes=sum_over_processes)
            loss, options = import_path(job["method"]), cast(LossOptions, options)
            run = Run(task, loss, options, context, tokenizer, stages["target"], Path(workdir), key)
            result = _unlearn(run, judge)
    trajectory = [point for point in result.history if "probability_forget" in point]
    judging = sum(point.get("evaluation_seconds") or 0.0 for point in result.history)
    cost = Cost(max(0.0, result.seconds - judging), result.steps, peak.peak_mb, device_name(job_device()))
    return _metrics(trajectory, cost), cost, _extras(judge, trajectory)


def log_folder(job: Mapping[str, Any], seed: int) -> Path:
    """Where a row's evaluation logs go: results/<paper>/<scale>/logs/<experiment>/<setting>/<row>/s<seed>."""
    output = Path(job["output"])
    results = next((parent for parent in output.parents if parent.name == "records"), output.parent).parent
    return results / "logs" / job["experiment"] / job["setting"] / job["row"] / f"s{seed}"


@dataclass(frozen=True)
class Run:
    """One loss on one target model. key: digest of the run, which its checkpoint belongs to."""

    task: Task
    loss: Callable[..., Tensor]
    options: LossOptions
    context: LossContext
    tokenizer: Any
    target: Path
    workdir: Path
    key: str


def _unlearn(run: Run, judge: Judge) -> FitResult:
    task, options, context = run.task, run.options, run.context
    model, reference = load_trainable(run.target, task.model), None
    if options.needs_reference:
        reference = load_for_evaluation(run.target, task.model).requires_grad_(False)

    def after_epoch(state: LoopState) -> dict[str, float]:
        if state.epoch + 1 != options.epochs and state.epoch + 1 not in _epochs(task, options):
            return {}
        started = time.perf_counter()
        values = judge(state.model, state.epoch + 1)
        state.model.train()
        return {**values, "evaluation_seconds": time.perf_counter() - started}

    result = unlearn(
        model,
        _batches(run, model),
        lambda net, batch: run.loss(net, batch, reference, options, context),
        options,
        context,
        on_epoch_end=after_epoch,
        workdir=run.workdir,
        key=run.key,
    )
    if judge.last is None:  # killed between the last epoch and the record: the history knows its numbers
        judge(model, options.epochs)
    return result


def _epochs(task: Task, options: LossOptions) -> list[int]:
    chosen = task.evaluate.epochs
    return list(range(1, options.epochs + 1)) if chosen == "all" else chosen


def _batches(run: Run, model: Any) -> UnlearnBatches:
    """Forget rows paired with retain rows, encoded for training."""
    task, options, data = run.task, run.options, qa_data(run.task.data)
    trained = Encoder(run.tokenizer, prompt_template(task.model.template), task.profile, task.max_length)
    forget, retain = (data.split(name) for name in (task.data.forget, task.data.retain))
    refusals = None
    if options.needs_refusal:
        if task.data.refusals is None:
            raise ConfigError("data.refusals: this loss answers with refusals; name the manifest that has them")
        texts = load_refusals(pull(task.data.refusals) / REFUSALS_FILE)
        refusals = Refusals(trained, [(row.index, row.question) for row in forget], texts)
    pads = padding(model, trained)
    if task.profile == "legacy" and getattr(options, "kl_positions", "") == "all":
        # the released code pads every row to the window, and its KL counts the padding
        pads = type(pads)(pads.pad_id, pad_to=task.max_length, device=pads.device)
    rows = (trained.rows((row.index, row.question, row.answer) for row in side) for side in (forget, retain))
    return UnlearnBatches(next(rows), next(rows), pads, options.batch, options.pairing, refusals, options.drop_last)


def _metrics(trajectory: list[dict[str, Any]], cost: Cost) -> list[Metric]:
    values = {name: value for name, value in trajectory[-1].items() if name in _SPECS}
    values["best_forget_quality"] = max(point["forget_quality"] for point in trajectory)
    values |= {"RTE": cost.seconds / 60, "steps": float(cost.steps)}
    return [Metric(name, float(value), _SPECS[name].unit, _SPECS[name].better) for name, value in values.items()]


def _extras(judge: Judge, trajectory: list[dict[str, Any]]) -> dict[str, Any]:
    """The trajectory over epochs, the forget rows' truth ratios, and a few answers."""
    assert judge.last is not None
    forget = judge.last.of("forget")
    spec = judge.task.evaluate
    ratios = np.clip(log_ratios(judge.last, "forget", spec.truth_ratio, spec.epsilon), -1e3, 1e3)
    shown = range(min(NUM_SHOWN, len(forget)))
    said = {"question": forget.question, "truth": forget.truth, "generated": forget.generated}
    return {
        "trajectory": trajectory,
        "log_truth_ratio": [round(float(value), 4) for value in ratios],
        "answers": [{name: texts[i] for name, texts in said.items() if texts} for i in shown],
    }
