"""The typed task of the text track: questions, model, how it learned them, what it must forget, what is measured.
Torch-free.

Seeds. A row's seed decides the batches of every fine-tuning, the unlearning, and a tiny base model's weights unless the
task gives these a seed of their own. The data are the same for all seeds.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from shared.errors import nearest
from shared.options import Count, NonNegative, Positive, Strict
from shared.text.models import LoraOptions
from shared.text.templates import TEMPLATES
from shared.text.zoo import TinyGptOptions

SetName = Literal["retain", "forget", "real_authors", "world_facts", "holdout"]


class DataSpec(Strict):
    """Question-answer pairs in the layout of TOFU (name of the manifest), and which of them are forgotten.

    forget, retain: splits by name; full: what the target model learned. authors: only the last so many authors.
    world: a split that every model of a tiny task learns besides, in the part of general knowledge. refusals: manifest
    with the file of refusals, for the losses that answer with them. holdout: manifest with the splits of the set
    "holdout", if they are not among the others.
    """

    name: str
    forget: str = "forget10"
    retain: str = "retain90"
    full: str = "full"
    rows_per_author: Count = 20
    authors: Count | None = None
    world: str | None = None
    refusals: str | None = None
    holdout: str | None = None


class FinetuneRecipe(Strict):
    """Fine-tuning on question-answer pairs with AdamW; warmup in epochs.

    bucket: sort every so many batches' worth of rows by length (0: plain random order).
    """

    epochs: Count
    batch: Count = 32
    lr: Positive
    weight_decay: NonNegative = 0.01
    warmup: NonNegative = 1.0
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    bucket: Annotated[int, Field(ge=0)] = 0


class ModelSpec(Strict):
    """A causal language model: a published `checkpoint` (manifest), or a `tiny` one made here with its tokenizer.

    tokenizer: manifest to take the tokenizer from where the checkpoint has none. template: key of
    `shared.text.templates.TEMPLATES`. world_recipe: how a tiny model learns `data.world` first (answers and their
    paraphrases); absent: it starts untrained. lora: adapters instead of all weights, in fine-tuning and unlearning.
    seed: of a tiny model that is the same for all rows' seeds, as a checkpoint is; absent: each seed has its own.
    """

    checkpoint: str | None = None
    tiny: TinyGptOptions | None = None
    tokenizer: str | None = None
    template: str
    world_recipe: FinetuneRecipe | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    gradient_checkpointing: bool = False
    lora: LoraOptions | None = None
    seed: int | None = None

    @model_validator(mode="after")
    def _one_model(self) -> "ModelSpec":
        if (self.checkpoint is None) == (self.tiny is None):
            raise ValueError("a model is either a `checkpoint` or `tiny`")
        if self.world_recipe and not self.tiny:
            raise ValueError("world_recipe is for tiny models: a checkpoint knows the world")
        if self.seed is not None and not self.tiny:
            raise ValueError("seed is for tiny models: a checkpoint is the same for all seeds")
        if self.template not in TEMPLATES:
            raise ValueError(f"'{self.template}' is no prompt template{nearest(self.template, list(TEMPLATES))}")
        return self


class EvaluationSpec(Strict):
    """What is measured, and when.

    sets: question set -> split. num_rows: first rows of forget and retain set (300 in TOFU's code; null: all).
    utility: sets whose probability, ROUGE-L recall and truth ratio make model utility. epsilon: added to denominators
    (1e-10 in OpenUnlearning). max_length: window of scored rows. max_total or max_new: tokens of a generated answer,
    with the prompt or without. epochs: epochs of unlearning after which the model is evaluated, the last one always.
    memorization, membership: further metrics (the latter needs the set "holdout").
    """

    sets: dict[SetName, str]
    num_rows: Count | None = None
    utility: list[Literal["retain", "real_authors", "world_facts"]] = ["retain", "real_authors", "world_facts"]
    truth_ratio: Literal["geometric", "arithmetic"] = "geometric"
    epsilon: NonNegative = 0.0
    max_length: Count = 200
    max_total: Count | None = 200
    max_new: Count | None = None
    epochs: list[Count] | Literal["all"] = []
    memorization: bool = False
    membership: bool = False

    @model_validator(mode="after")
    def _parts_fit(self) -> "EvaluationSpec":
        lacking = [name for name in (*self.utility, "forget") if name not in self.sets]
        if lacking:
            raise ValueError(f"evaluate.sets lacks '{lacking[0]}'")
        if (self.max_total is None) == (self.max_new is None):
            raise ValueError("give max_total or max_new")
        if self.membership != ("holdout" in self.sets):
            raise ValueError("membership and the set 'holdout' go together")
        return self


class Task(Strict):
    """One setting. profile: how rows are encoded (`shared.text.encode`); max_length: window of training rows.

    released: manifests of published target and retain models that take the place of fine-tuning here.
    """

    data: DataSpec
    model: ModelSpec
    profile: Literal["legacy", "open_unlearning"] = "legacy"
    max_length: Count = 500
    train: FinetuneRecipe
    released: dict[Literal["target", "retain"], str] = {}
    evaluate: EvaluationSpec

    @model_validator(mode="after")
    def _released_fits(self) -> "Task":
        if self.released and self.model.tiny:
            raise ValueError("released models are checkpoints; a tiny model has none")
        return self
