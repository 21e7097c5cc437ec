"""What the stage jobs of the text track make: models, each in a folder that transformers can load, and the log that
forget quality compares with."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# The models import these when first used (2 s of CPU); here, jobs that are forked later share them.
import transformers.models.auto.modeling_auto
import transformers.models.auto.tokenization_auto
import transformers.models.gpt2.modeling_gpt2  # noqa: F401

from shared.data.pull import pull
from shared.errors import DataError
from shared.files import digest, write_json
from shared.gpu.device import device_name
from shared.gpu.memory import PeakMemory
from shared.gpu.precision import job_device
from shared.results.records import Cost, Metric, Record
from shared.text.aggregate import aggregate
from shared.text.data import QaData, QaRow, all_texts, read_rows
from shared.text.encode import Encoder
from shared.text.evaluate import Evaluation
from shared.text.logs.open_unlearning_write import write_open_unlearning
from shared.text.models import load_model, load_tokenizer, model_folder, save_model
from shared.text.task import DataSpec, FinetuneRecipe, ModelSpec, Task
from shared.text.templates import prompt_template
from shared.text.training import finetune
from shared.text.zoo import save_tiny
from shared.training.checkpoint import Checkpoint
from shared.training.loop import FitResult
from shared.training.seeds import stream

MODEL, SOURCE, LOG = "model", "source.json", "log"
NOTHING = FitResult(0, 0.0, [])


def run_stage(job: Mapping[str, Any], out: Path, workdir: Path, threads: int = 1) -> Record:
    """Make a stage (`job["recipe"]`, from `protocol.stages`) and leave its artifacts in `out`.

    threads: as the caller has set them, for the signature's sake of all tracks.
    """
    recipe = job["recipe"]
    parents = {name: Path(stage["output"]).parent for name, stage in job.get("stages", {}).items()}
    make = {"base": _base, "retain_log": _retain_log}.get(recipe["stage"], _finetuned)
    with PeakMemory(job_device()) as peak:
        result, metrics = make(recipe, parents, out, workdir)
    return Record(
        paper="",
        scale="",
        experiment="stage",
        setting=recipe["data"].get("name", ""),
        row=recipe["stage"],
        seed=recipe["seed"],
        metrics=metrics,
        cost=Cost(result.seconds, result.steps, peak.peak_mb, device_name(job_device())),
        extras={"history": result.history},
    )


Made = tuple[FitResult, list[Metric]]


def _base(recipe: Mapping[str, Any], parents: Mapping[str, Path], out: Path, workdir: Path) -> Made:
    """A published model where it is, or a tiny one that learns what its world is."""
    spec = ModelSpec(**recipe["model"])
    if spec.checkpoint:
        write_json(out / SOURCE, {"model": spec.checkpoint, "tokenizer": spec.tokenizer or spec.checkpoint})
        return NOTHING, []
    assert spec.tiny is not None
    data, folder = DataSpec(**recipe["data"]), out / MODEL
    texts = all_texts([pull(name) for name in recipe["manifests"]])
    save_tiny(folder, spec.tiny, texts, recipe["seed"])
    if spec.world_recipe is None or data.world is None:
        return NOTHING, []
    rows = [(row.index, row.question, text) for row in qa_data(data).split(data.world) for text in _wordings(row)]
    return _learn(recipe, spec, folder, rows, spec.world_recipe, spec.tiny.context, out, workdir)


def _finetuned(recipe: Mapping[str, Any], parents: Mapping[str, Path], out: Path, workdir: Path) -> Made:
    """Fine-tuned here on a split, or a published checkpoint where it is."""
    if "checkpoint" in recipe:
        tokenizer = _source(parents["base"], "tokenizer")
        write_json(out / SOURCE, {"model": recipe["checkpoint"], "tokenizer": str(tokenizer)})
        return NOTHING, []
    spec, data = ModelSpec(**recipe["model"]), DataSpec(**recipe["data"])
    rows = [(row.index, row.question, row.answer) for row in qa_data(data).split(recipe["split"])]
    if data.world:
        # Without its world a tiny model forgets it, and utility with it
        rows += [(row.index, row.question, text) for row in qa_data(data).split(data.world) for text in _wordings(row)]
    train = FinetuneRecipe(**recipe["train"])
    return _learn(recipe, spec, parents["base"], rows, train, recipe["max_length"], out, workdir)


def _wordings(row: QaRow) -> list[str]:
    return [row.answer, *([row.paraphrased_answer] if row.paraphrased_answer else [])]


def _learn(
    recipe: Mapping[str, Any],
    spec: ModelSpec,
    start: Path,
    rows: list[tuple[int, str, str]],
    train: FinetuneRecipe,
    max_length: int,
    out: Path,
    workdir: Path,
) -> Made:
    """Fine-tune the model of a stage or folder on rows, and save it."""
    model, tokenizer = load_trainable(start, spec), stage_tokenizer(start)
    encoder = Encoder(tokenizer, prompt_template(spec.template), recipe["profile"], max_length)
    result = finetune(
        model,
        encoder.rows(rows),
        encoder,
        train,
        generator=lambda name: stream(recipe["seed"], f"{recipe['stage']} {name}"),
        checkpoint=Checkpoint(workdir / "checkpoint.pt", key=digest(recipe)),
        description=recipe["stage"],
    )
    save_model(model, tokenizer, out / MODEL)
    loss = result.history[-1]["loss"]
    return result, [] if loss is None else [Metric("train_loss", loss, "nats", "lower")]


def _retain_log(recipe: Mapping[str, Any], parents: Mapping[str, Path], out: Path, workdir: Path) -> Made:
    """Evaluate the retain model: the log, and its numbers as metrics of the stage."""
    task = Task.model_validate({**recipe["task"], "train": {"epochs": 1, "lr": 1.0}})
    model = load_for_evaluation(parents["model"], task.model)
    log = evaluation(task, stage_tokenizer(parents["base"]))(model, source="retain model")
    write_open_unlearning(log, out / LOG)
    values = aggregate(log, **aggregation(task))
    return NOTHING, [Metric(name, value) for name, value in values.items()]


# ---- for stages and rows


def qa_data(spec: DataSpec) -> QaData:
    """The questions of a task, pulled."""
    return QaData(pull(spec.name), spec.rows_per_author, spec.authors, spec.forget)


def holdout_rows(manifest: str, split: str) -> list[QaRow]:
    """Rows of a split of authors that no model is trained on, from a data set of their own."""
    return read_rows(pull(manifest) / f"{split}.json")


def load_trainable(start: Path, spec: ModelSpec) -> Any:
    """The model of a stage on the device, ready to train, with adapters or gradient checkpointing as specified."""
    model: Any = load_model(stage_model(start), dtype=spec.dtype, lora=spec.lora)
    model.to(job_device())
    if spec.gradient_checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    return model


def load_for_evaluation(stage: Path, spec: ModelSpec) -> Any:
    """The plain model of a stage on the device, in eval mode."""
    model: Any = load_model(stage_model(stage), dtype=spec.dtype)
    return model.to(job_device())


def stage_model(stage: Path) -> Path:
    """Folder of the model that a stage made or names."""
    return stage / MODEL if (stage / MODEL).is_dir() else _source(stage, "model")


def stage_tokenizer(stage: Path) -> Any:
    """Tokenizer of a stage's model."""
    return load_tokenizer(stage / MODEL if (stage / MODEL).is_dir() else _source(stage, "tokenizer"))


def _source(stage: Path, what: str) -> Path:
    if (stage / "config.json").is_file():
        return stage
    path = stage / SOURCE
    try:
        name = json.loads(path.read_text(encoding="utf-8"))[what]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: names no {what} ({error}); delete its folder and run the stage again") from None
    return model_folder(name)


def evaluation(task: Task, tokenizer: Any) -> Evaluation:
    """The questions that a task evaluates models on, encoded."""
    spec, data = task.evaluate, qa_data(task.data)
    encoder = Encoder(tokenizer, prompt_template(task.model.template), task.profile, spec.max_length)
    sets: dict[str, list[QaRow]] = {}
    for name, split in spec.sets.items():
        rows = holdout_rows(task.data.holdout, split) if name == "holdout" and task.data.holdout else data.split(split)
        sets[name] = rows[: spec.num_rows] if name in ("forget", "retain") else rows
    return Evaluation(encoder, sets, spec)


def aggregation(task: Task) -> dict[str, Any]:
    """How a task's logs become numbers: keywords of `aggregate`."""
    spec = task.evaluate
    return {"truth_ratio": spec.truth_ratio, "utility_sets": spec.utility, "epsilon": spec.epsilon}
