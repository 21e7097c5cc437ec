"""SegIC (Meng et al., ECCV 2024, arXiv:2311.14671): masks of what an annotated example shows.

v = mean of the frozen features over the example's mask
a = cos(features of the image, v)                          geometric: a as a map, and its highest point
mask = decoder(neck(features) + map(a), [point, text, W v])       text: meta; W v: visual instruction
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from papers.segic.backbone import FrozenBackbone
from papers.segic.inputs import fitted, fitted_size
from papers.segic.model import SegicModel
from papers.segic.options import Backbone, Names, ReleasedWeights, SegicTraining
from papers.segic.predictor import SegicPredictor, ThresholdPredictor
from papers.segic.released import frozen_digests, num_trainable
from papers.segic.text import text_encoder
from shared.options import Count, Options
from shared.segmentation.context import Context
from shared.segmentation.episodes.nearest import NearestFeatures
from shared.segmentation.episodes.open import class_source
from shared.segmentation.episodes.source import EpisodeSource
from shared.segmentation.samples import Array


class _Assembled(Options):
    """backbone: a field because every part is one, so that rows with the same backbone share it; it always is that of
    the decoder, whatever is given. named: whether the class's name is read where an evaluation tells it."""

    backbone: Backbone = Backbone()
    named: bool = True

    @model_validator(mode="before")
    @classmethod
    def _backbone_of_the_decoder(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        decoder = values.get("decoder", {})
        own = decoder.get("backbone", {}) if isinstance(decoder, dict) else decoder.backbone
        return {**values, "backbone": own}


class SegicOptions(_Assembled):
    """decoder: how it is trained."""

    decoder: SegicTraining = SegicTraining()


class ReleasedOptions(_Assembled):
    """decoder: the released file."""

    decoder: ReleasedWeights


class NearestOptions(Options):
    """backbone: whose features are compared."""

    backbone: Backbone = Backbone()


class ThresholdOptions(Options):
    """A similarity map cut at a threshold, without training: the best of `thresholds` on `episodes` training pairs of
    the `classes` of the set `data`."""

    backbone: Backbone = Backbone()
    thresholds: Annotated[list[float], Field(min_length=1)] = [0.5, 0.6, 0.7, 0.8]
    episodes: Count = 20
    data: str = "train"
    classes: Names | None = None
    correspondence: Literal["pooled", "dense"] = "pooled"


def segic(parts: Mapping[str, Any], options: SegicOptions, context: Context) -> SegicPredictor:
    """SegIC from its trained decoder and the frozen backbone."""
    return _assembled(parts["decoder"], parts["backbone"], options.named, context)


def released(parts: Mapping[str, Any], options: ReleasedOptions, context: Context) -> SegicPredictor:
    """SegIC with the authors' weights."""
    return _assembled(parts["decoder"], parts["backbone"], options.named, context)


def _assembled(model: SegicModel, backbone: FrozenBackbone, named: bool, context: Context) -> SegicPredictor:
    """Measures how much is trained, and how many of the two frozen parts are not what they were before the training."""
    texts = text_encoder(model.options.text)
    now = frozen_digests(backbone, texts).to(model.digest.device)
    context.measure("trainable parameters", float(num_trainable(model)))
    context.measure("changed frozen parts", float((now != model.digest).any(1).sum()))
    return SegicPredictor(model.eval(), backbone, texts, named)


def thresholded(parts: Mapping[str, Any], options: ThresholdOptions, context: Context) -> ThresholdPredictor:
    """The similarity map cut at the threshold that is best on training pairs; nothing learns."""
    backbone, dense = parts["backbone"], options.correspondence == "dense"
    source = class_source(context.data[options.data], context.source(options.data))
    episodes, rng = EpisodeSource(source, options.classes, by_image=True), context.rng("thresholds")
    pairs = [episodes.draw(rng) for _ in range(options.episodes)]
    predictor = ThresholdPredictor(backbone, 0.0, dense)
    found = [
        (predictor.maps(predictor.remember([pair.examples[0].example]), [pair.query.image])[0], pair.query.mask)
        for pair in pairs
    ]
    best = max(options.thresholds, key=lambda threshold: np.mean([_iou(a > threshold, truth) for a, truth in found]))
    context.measure("threshold", best)
    context.measure("trainable parameters", 0.0)
    context.measure("changed frozen parts", 0.0)  # there was no training
    return ThresholdPredictor(backbone, best, dense)


def nearest(parts: Mapping[str, Any], options: NearestOptions, context: Context) -> NearestFeatures:
    """Nearer to the example's object than to its background, by the backbone's features: nothing learns."""
    backbone: FrozenBackbone = parts["backbone"]
    return NearestFeatures(lambda image: _own_features(backbone, image), "cosine")


def _own_features(backbone: FrozenBackbone, image: Array) -> Array:
    """(D, h, w) float32 of the tokens that the picture covers in its square."""
    side, patch = backbone.options.image, backbone.options.kind.patch
    features = backbone.frozen_features(*fitted([image], side))[0]
    rows, columns = (max(1, round(length / patch)) for length in fitted_size(image.shape, side))
    return features[:, :rows, :columns].cpu().numpy()


def _iou(found: Array, truth: Array) -> float:
    return float((found & truth).sum() / max(1, (found | truth).sum()))
