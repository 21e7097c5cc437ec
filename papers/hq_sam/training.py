"""Training of HQ-SAM (arXiv:2306.01567, section 3.3), and of what the paper compares it with: one recipe, in which only
the parameters that learn and the mask that the loss reads differ.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from papers.hq_sam.boundary_loss import boundary_point_loss
from papers.hq_sam.encoder_tuning import add_adapters, add_lora
from papers.hq_sam.models import build_hq, new_names
from papers.hq_sam.options import AdaptedTraining, HqTraining, Tuning
from shared.errors import UserError
from shared.gpu.precision import precision_for
from shared.segmentation.context import Context
from shared.segmentation.losses import point_loss
from shared.segmentation.prompted_batches import HeldMasks, Pictures, PromptedBatch, PromptedBatchMaker, ReadPictures
from shared.segmentation.sam.decoder import Embeddings
from shared.segmentation.sam.features import embed_all
from shared.segmentation.sam.model import SamModel, seeded
from shared.segmentation.samples import Source
from shared.segmentation.steps import Steps, plan_epoch
from shared.training.optim import make_optimizer
from shared.training.options import OptimizerOptions, ScheduleOptions
from shared.training.state import LoopState

EMBEDDED_BYTES = 4 * 2**30  # embeddings of a training set that take at most this are kept on the device
EMBEDDED_AT_ONCE = 8
# what the loss on the single mask does not reach: the three masks of ambiguous prompts, and the predicted IoU
_UNREACHED = (*(f"mask_decoder.output_hypernetworks_mlps.{i}." for i in (1, 2, 3)), "mask_decoder.iou_prediction_head.")


def build_hq_sam(sam: SamModel, options: HqTraining, seed: int) -> SamModel:
    """SAM's weights, and new modules drawn from `seed` (torch's default initialisation)."""
    model = build_hq(sam.size, options.hq, seed)
    missing, unexpected = model.load_state_dict(sam.state_dict(), strict=False)
    if set(missing) != set(new_names(model)) or unexpected:
        raise UserError(f"HQ-SAM starts from a plain SAM, but this model lacks or adds {[*missing, *unexpected][0]}")
    return model.to(sam.device)


def train_hq_sam(model: SamModel, sam: SamModel, options: HqTraining, context: Context) -> None:
    """Train the new modules in place. The loss reads the HQ token's mask alone, or without one SAM's single mask."""
    tune(model, new_names(model), options, context, {"hq_token_only": True})


def build_adapted(sam: SamModel, options: AdaptedTraining, seed: int) -> SamModel:
    """A copy of SAM, its encoder with low-rank updates or adapters if the options say so; it starts as SAM."""
    model = copy.deepcopy(sam)
    if options.tune == "lora":
        seeded(lambda: add_lora(model.image_encoder, options.rank), seed)
    elif options.tune == "adapters":
        seeded(lambda: add_adapters(model.image_encoder, options.rank), seed)
    return model


def train_adapted(model: SamModel, sam: SamModel, options: AdaptedTraining, context: Context) -> None:
    """Train SAM's own weights, or the additions to its encoder, in place. The loss reads the single mask."""
    hooks = {"after_backward": _only_first_mask_token} if options.tune == "token" else {}
    tune(model, adapted_names(model, options), options, context, {}, **hooks)


def adapted_names(model: SamModel, options: AdaptedTraining) -> list[str]:
    """Parameters that an adapted SAM trains: those of the chosen part that the loss on the single mask reaches."""
    chosen = {
        "whole": lambda name: True,
        "decoder": lambda name: name.startswith("mask_decoder."),
        "token": lambda name: name.startswith(
            ("mask_decoder.mask_tokens.", "mask_decoder.output_hypernetworks_mlps.0.")
        ),
        "lora": lambda name: ".lora_" in name,
        "adapters": lambda name: ".adapter." in name,
    }[options.tune]
    return [name for name, _ in model.named_parameters() if chosen(name) and not name.startswith(_UNREACHED)]


def _only_first_mask_token(state: LoopState) -> None:
    """The single mask's token is a row of a tensor. The other three take part in its attention: trained, they would be
    context tokens."""
    gradient = state.model.get_parameter("mask_decoder.mask_tokens.weight").grad
    assert gradient is not None
    gradient[1:] = 0


def tune(
    model: SamModel, names: list[str], options: Tuning, context: Context, decode: dict[str, Any], **hooks: Any
) -> None:
    """Train the named parameters in place. decode: how the decoder is called; hooks: of the training loop."""
    model.freeze(names)
    pictures, embeddings = training_pictures(model, context.source(options.data), options.jitter)
    maker = PromptedBatchMaker(pictures, model.size.low_res, tuple(options.prompts), options.prompt_points)
    workers = 0 if embeddings is not None else context.threads - 1

    def epoch(number: int, generator: torch.Generator) -> Steps[PromptedBatch]:
        return Steps(plan_epoch(len(pictures), options.batch, options.steps_per_epoch, generator), maker, workers)

    prompt_embeddings = tuple(p for p in model.prompt_encoder.parameters() if p.requires_grad)
    milestones = tuple(options.milestones)
    context.fit(
        model,
        epoch,
        TuningLoss(options, embeddings, decode, prompt_embeddings),
        optimizer=make_optimizer(model.parameters(), OptimizerOptions(kind="adam", lr=options.lr)),
        epochs=options.epochs,
        schedule=ScheduleOptions(kind="multistep", milestones=milestones, gamma=options.gamma) if milestones else None,
        **hooks,
    )
    model.eval()


def training_pictures(model: SamModel, source: Source, jitter: bool) -> tuple[Pictures, Embeddings | None]:
    """What batches are made of; and the embeddings of all pictures, where the encoder need not run again: it is frozen,
    the pictures are the same in every epoch, and the embeddings are small enough to be kept on the device.
    """
    pictures = ReadPictures(source, model.size.image, jitter)
    learns = any(parameter.requires_grad for parameter in model.image_encoder.parameters())
    if jitter or learns or len(source) * _embedded_bytes(model) > EMBEDDED_BYTES:
        return pictures, None
    masks: list[np.ndarray] = []
    with precision_for(model.device).context():
        embeddings = embed_all(model, _image_batches(pictures, masks), torch.float32)
    return HeldMasks(np.stack(masks)), embeddings.to(model.device)


def _embedded_bytes(model: SamModel) -> int:
    size = model.size
    return 4 * size.tokens**2 * (size.width + (size.encoder.dim if model.needs_early else 0))


def _image_batches(pictures: ReadPictures, masks: list[np.ndarray]) -> Iterator[Tensor]:
    """All images, (B, 3, S, S) at a time; their masks are left in `masks`."""
    unused = np.random.default_rng(0)
    for start in range(0, len(pictures), EMBEDDED_AT_ONCE):
        stop = min(start + EMBEDDED_AT_ONCE, len(pictures))
        images, found = zip(*(pictures.picture(position, unused) for position in range(start, stop)), strict=True)
        masks.extend(found)
        yield torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2))


@dataclass(frozen=True)
class TuningLoss:
    """BCE plus Dice of one mask a prompt, on random points that are mostly uncertain (section 3.3).

    embeddings: of all pictures, by position; None: batches have images. decode: how the decoder is called.
    sometimes_read: trained parameters that some kinds of prompt do not need.
    """

    options: Tuning
    embeddings: Embeddings | None
    decode: dict[str, Any]
    sometimes_read: tuple[nn.Parameter, ...] = ()

    def __call__(self, net: nn.Module, batch: PromptedBatch) -> Tensor:
        device = next(net.parameters()).device
        groups, order = batch.prompts()
        found = net(self._source(batch, device), [group.to(device) for group in groups], **self.decode)
        # float32: points in bfloat16 would miss their pixel
        logits, labels = found.logits[:, 0].float(), batch.labels[order].to(device) / 255
        loss = boundary_point_loss if self.options.region == "boundary" else point_loss
        terms = loss(logits, labels, torch.Generator().manual_seed(batch.seed), self.options.loss_points)
        # a batch without points, say, leaves their embeddings without gradient, for which several processes would wait
        return terms.bce + terms.dice + sum(0.0 * parameter.sum() for parameter in self.sometimes_read)

    def _source(self, batch: PromptedBatch, device: torch.device) -> Tensor | Embeddings:
        if self.embeddings is not None:
            return self.embeddings[batch.positions.to(device)]
        assert batch.images is not None
        return batch.images.to(device)
