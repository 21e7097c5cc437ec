"""Training of the prompter (arXiv:2311.15939, section 3.1, and the authors' settings)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from papers.promptnucseg.prompter.losses import PromptBatch, prompter_loss
from papers.promptnucseg.prompter.model import Prompter, build_prompter
from papers.promptnucseg.prompter.options import ConvNextSmall, PrompterTraining
from papers.promptnucseg.prompter.predict import all_candidates, select
from papers.promptnucseg.prompter.pyramid import ConvNext
from shared.data.checkpoints import checkpoint_file
from shared.errors import DataError
from shared.gpu.precision import precision_for
from shared.metrics.segmentation.detection import Counts, class_counts, mean_class_f1
from shared.segmentation.augment.batches import AugmentedBatches
from shared.segmentation.augment.compose import augmentation
from shared.segmentation.augment.view import View
from shared.segmentation.context import Context
from shared.segmentation.nucleus_prompts import centroids
from shared.segmentation.sam.model import SamModel
from shared.segmentation.samples import Array, Instances, Sample, Source, instances_of
from shared.training.best import BestWeights
from shared.training.ema import Ema
from shared.training.optim import make_optimizer
from shared.training.options import OptimizerOptions, ScheduleOptions
from shared.training.seeds import stream_seed
from shared.training.state import LoopState


@dataclass(frozen=True)
class Scene:
    """What the prompter learns from in one image. image: (H, W, 3) uint8; labels: (H, W) int32, ids 1..n; nuclei:
    (n, 3) float32 by rising id: x and y of the centroid, class from 0.
    """

    name: str
    image: Array
    labels: Array
    nuclei: Array


def build(sam: SamModel | None, options: PrompterTraining, seed: int) -> Prompter:
    """A fresh prompter with weights from `seed`; a pretrained backbone is loaded by `train`. It has nothing of SAM."""
    return build_prompter(options, seed)


def train(model: Prompter, sam: SamModel | None, options: PrompterTraining, context: Context) -> None:
    """Train in place; the weights left are the average of those of the last epoch, or of the best one on
    `options.validation`.
    """
    if isinstance(options.backbone, ConvNextSmall) and options.backbone.weights:
        assert isinstance(model.backbone, ConvNext)
        model.backbone.load(checkpoint_file(options.backbone.weights))
    data = scenes(context.source(options.data), options.num_classes)
    validation = scenes(context.source(options.validation), options.num_classes) if options.validation else []
    precision_for(context.device).arrange(model)  # before the average is made: the two are added up in memory order
    averaged, best = Ema(model, options.ema), BestWeights()

    def batches(epoch: int, generator: torch.Generator) -> AugmentedBatches[View, PromptBatch]:
        # Set here and not in a hook of the epoch's start, which a resumed run does not repeat.
        averaged.decay = options.ema if epoch >= options.ema_from else 0.0
        return epoch_batches(data, options, generator, context.device, context.threads)

    def choose(state: LoopState) -> dict[str, float]:
        if not validation:
            return {}
        assert isinstance(averaged.model, Prompter)
        score = class_f1(averaged.model, validation, options)
        best.offer(averaged.model, score)
        return {"class_F1": score}

    with _seeded_dropout(context):
        context.fit(
            model,
            batches,
            lambda net, batch: torch.stack(prompter_loss(net(batch.images), batch, options)).sum(),
            optimizer=make_optimizer(
                model.parameters(),
                OptimizerOptions(kind="adamw", lr=options.lr, weight_decay=options.weight_decay),
            ),
            epochs=options.epochs,
            stream="prompter",
            schedule=schedule_of(options),
            max_grad_norm=options.max_grad_norm,
            ema=averaged,
            on_epoch_end=choose,
            stateful={"best": best},
        )
    best.restore(averaged.model)
    model.load_state_dict(averaged.model.state_dict())
    model.eval()


def schedule_of(options: PrompterTraining) -> ScheduleOptions:
    """The learning rate over the run."""
    if options.schedule == "cosine":
        return ScheduleOptions(kind="cosine", unit="step", warmup=options.warmup)
    return ScheduleOptions()


def scenes(source: Source, num_classes: int) -> list[Scene]:
    """Every image of a data set with the points that stand for its nuclei, in memory."""
    return [_scene(source[index], num_classes) for index in range(len(source))]


def _scene(sample: Sample, num_classes: int) -> Scene:
    truth = sample.truth
    if not isinstance(truth, Instances):
        raise DataError(f"{sample.name}: the prompter learns from instance maps, this sample has none")
    if len(truth) and truth.classes.max() >= num_classes:
        raise DataError(
            f"{sample.name}: a nucleus of class {truth.classes.max()}, the prompter has {num_classes} classes"
        )
    nuclei = np.concatenate([centroids(truth), truth.classes[:, None]], 1).astype(np.float32)
    return Scene(sample.name, sample.image, truth.labels, nuclei)


def epoch_batches(
    data: Sequence[Scene],
    options: PrompterTraining,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    threads: int = 1,
) -> AugmentedBatches[View, PromptBatch]:
    """One shuffled epoch of augmented batches."""
    augment = augmentation(options.augment)

    def make(index: int, rng: np.random.Generator) -> View:
        scene = data[index]
        view = augment(scene.image, scene.labels, scene.nuclei, rng)
        if options.min_visible is None:
            return view
        assert view.labels is not None
        return view._replace(points=visible_nuclei(view.labels, scene.nuclei[:, 2], options.min_visible))

    return AugmentedBatches(len(data), options.batch, make, lambda views: collate(views).to(device), generator, threads)


def visible_nuclei(labels: Array, classes: Array, min_pixels: int) -> Array:
    """(m, 3) float32: centroid (x, y) and class of the nuclei in a label map (H, W), without those of fewer pixels.

    classes: (n,) of ids 1..n, of which the map may lack some.
    """
    large = np.bincount(labels.ravel(), minlength=len(classes) + 1) >= min_pixels
    seen = instances_of(np.where(large[labels], labels, 0), np.concatenate([[0], classes]))
    return np.concatenate([centroids(seen), seen.classes[:, None]], 1).astype(np.float32)


def collate(views: Sequence[View]) -> PromptBatch:
    """Views of equal size, with their points, as one batch on the CPU."""
    sizes = sorted({view.size for view in views})
    if len(sizes) > 1:
        (h0, w0), (h1, w1) = sizes[:2]
        raise DataError(
            f"images of {w0}x{h0} and {w1}x{h1} in one batch; add {{kind: random_crop}} to the augmentation"
        )
    points = [view.points for view in views if view.points is not None]
    most = max(1, *(len(p) for p in points)) if points else 1
    nuclei = np.zeros((len(views), most, 2), np.float32)
    classes = np.full((len(views), most), -1, np.int64)
    for row, found in enumerate(points):
        nuclei[row, : len(found)], classes[row, : len(found)] = found[:, :2], found[:, 2]
    mean = sum(len(found) for found in points) / len(views)
    # as stored, colours last in memory: what convolutions want
    images = torch.from_numpy(np.stack([view.image for view in views])).permute(0, 3, 1, 2)
    foreground = torch.from_numpy(np.stack([view.labels for view in views if view.labels is not None]) > 0)
    return PromptBatch(
        images, foreground, torch.from_numpy(nuclei), torch.from_numpy(classes), torch.full((len(views),), mean)
    )


def class_f1(model: Prompter, validation: Sequence[Scene], options: PrompterTraining) -> float:
    """F1 of detection within `options.hit_radius`, a class at a time, mean over the classes that occur; NaN if none."""
    counts = [Counts()] * options.num_classes
    found = all_candidates(model, [scene.image for scene in validation])
    for scene, raw in zip(validation, found, strict=True):
        points = select(raw, options.points)
        truth, classes = scene.nuclei[:, :2], scene.nuclei[:, 2].astype(np.int64)
        more = class_counts(
            points.xy, points.scores, points.classes, truth, classes, options.num_classes, options.hit_radius
        )
        counts = [before + new for before, new in zip(counts, more, strict=True)]
    return mean_class_f1(counts)


@contextmanager
def _seeded_dropout(context: Context) -> Iterator[None]:
    """Dropout draws from torch's global generators: seeded here, and restored afterwards."""
    with torch.random.fork_rng(devices=[context.device] if context.device.type == "cuda" else []):
        torch.manual_seed(stream_seed(context.seed, "dropout of the prompter"))
        yield
