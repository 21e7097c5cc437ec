"""What one image costs: parameters, multiply-adds and images in a second (PromptNucSeg, arXiv:2311.15939)."""

import time
from functools import partial
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch.utils.flop_counter import FlopCounterMode

from papers.promptnucseg.method import NucleusSegmenter, PromptNucSegOptions
from papers.promptnucseg.prompter.model import Prompter, build_prompter
from papers.promptnucseg.prompter.options import PrompterTraining
from papers.promptnucseg.segmentor.predict import segment
from shared.gpu.device import choose_device
from shared.options import Count, Options
from shared.results.records import Metric
from shared.segmentation.sam.model import SamModel, build_sam, count
from shared.segmentation.sam.options import sam_size
from shared.segmentation.sam.prompts import EncodedPrompts
from shared.study import Findings


class CostOptions(Options):
    """size: of the segmentor; the prompter is that of PanNuke. prompts: nuclei of the image. images: so many are timed
    with random weights on the device at hand; 0: none is.
    """

    size: str = "vit_b_256"
    prompts: Count = 20
    images: Annotated[int, Field(ge=0)] = 0


def cost(options: CostOptions, seed: int) -> Findings:
    """params (millions), MACs (billions) of both networks for one image, and FPS if asked for."""
    with torch.device("meta"):
        model, prompter = _networks(options, "meta")
    found = [
        Metric("params", (count(model) + count(prompter)) / 1e6, "M", "lower"),
        Metric("MACs", _macs(model, prompter, options.prompts) / 1e9, "G", "lower"),
    ]
    if options.images:
        found.append(Metric("FPS", _images_a_second(options, seed), "fps", "higher"))
    return Findings(found)


def _networks(options: CostOptions, device: torch.device | str) -> tuple[SamModel, Prompter]:
    """Both in evaluation mode. Moved in any case: SAM's constants ignore a default device."""
    model, prompter = build_sam(sam_size(options.size)), build_prompter(PrompterTraining(num_classes=5))
    return model.eval().to(device), prompter.eval().to(device)


def _macs(model: SamModel, prompter: Prompter, num: int) -> float:
    """Multiply-adds of products of matrices and of convolutions, as torch counts them (two operations each).

    Embedding a point, a product with a 2 x 128 matrix, is left out: the package's code for it needs values.
    """
    side, width = model.size.image, model.size.width
    meta = partial(torch.zeros, device="meta")
    dense = model.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
    prompts = EncodedPrompts(meta(num, dtype=torch.long), meta(num, 2, width), None, dense)
    place = meta(1, width, model.size.tokens, model.size.tokens)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        prompter(meta(1, 3, side, side))
        model.mask_decoder.decode(model.embed(meta(1, 3, side, side)), place, prompts)
    return counter.get_total_flops() / 2


def _images_a_second(options: CostOptions, seed: int) -> float:
    """From an image in memory to its label map. The networks know nothing: the points are random ones."""
    model, prompter = _networks(options, choose_device())
    random = np.random.default_rng(seed)
    side = model.size.image
    image = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
    points = random.uniform(0, side - 1, (options.prompts, 2)).astype(np.float32)
    row = PromptNucSegOptions(prompter=prompter.options, filter=False, window=side, overlap=side // 4)
    segmenter = NucleusSegmenter(model, prompter, row)
    classes = np.zeros(len(points), np.int64)
    started = 0.0
    for number in range(options.images + 1):
        segmenter.points(image)
        segment(model, image, points, classes, 5, row)
        if number == 0:  # the first one warms up
            started = time.perf_counter()
    return options.images / (time.perf_counter() - started)
