"""E10: how many weights the models have, and what they cost on this machine."""

import time
from typing import Literal

import torch

from papers.hq_sam.encoder_tuning import add_adapters, add_lora
from papers.hq_sam.models import build_hq
from shared.gpu.device import choose_device
from shared.gpu.memory import PeakMemory
from shared.gpu.precision import precision_for
from shared.options import Count, Options
from shared.results.records import Metric
from shared.segmentation.sam.model import SamModel, build_sam, count
from shared.segmentation.sam.options import sam_size
from shared.segmentation.sam.prompts import Prompts
from shared.study import Findings


class SizeOptions(Options):
    """size: a published SAM by name. adds: what learns besides the frozen SAM; nothing: SAM itself learns, as Meta
    trained it."""

    size: Literal["vit_b", "vit_l", "vit_h", "tiny_vit"]
    adds: Literal["nothing", "hq", "lora", "adapters"] = "nothing"


class SpeedOptions(SizeOptions):
    """repeats: timed images; two more come before them."""

    repeats: Count = 20


def model_size(options: SizeOptions, seed: int) -> Findings:
    """`total params`, `learnable params` in MiB of 32-bit weights, as the paper prints them; `new parameters`, and
    `overhead`, their share of SAM's in percent. No weight is made: the models lie on torch's meta device.
    """
    with torch.device("meta"):
        sam, model = count(build_sam(sam_size(options.size))), count(_model(options))
    new = model - sam
    values = {
        "total params": (_mebibytes(model), "MiB"),
        "learnable params": (_mebibytes(new if options.adds != "nothing" else model), "MiB"),
        "new parameters": (float(new), ""),
        "overhead": (100 * new / sam, "%"),
    }
    return Findings([Metric(name, value, unit, "lower") for name, (value, unit) in values.items()])


def model_speed(options: SpeedOptions, seed: int) -> Findings:
    """`FPS`: images of 1024 pixels with one box each, encoder and decoder, one after the other; `memory` in GB. With
    fresh weights: what they are does not matter.
    """
    device = choose_device()
    model = _model(options, seed).to(device).eval().requires_grad_(False)
    side = model.size.image
    box = torch.tensor([[side / 4, side / 4, 3 * side / 4, 3 * side / 4]], device=device)
    prompts = Prompts(torch.zeros(1, dtype=torch.long, device=device), boxes=box)
    image = torch.full((1, 3, side, side), 127.0, device=device)
    precision = precision_for(device)
    precision.activate()
    with PeakMemory(device) as peak, torch.inference_mode(), precision.context():
        for _ in range(2):
            model(image, prompts)
        _wait(device)
        started = time.perf_counter()
        for _ in range(options.repeats):
            model(image, prompts)
        _wait(device)
        seconds = time.perf_counter() - started
    fps, memory = options.repeats / seconds, peak.peak_mb * 2**20 / 1e9
    return Findings([Metric("FPS", fps, "fps", "higher"), Metric("memory", memory, "GB", "lower")])


def _model(options: SizeOptions, seed: int | None = None) -> SamModel:
    size = sam_size(options.size)
    if options.adds == "hq":
        return build_hq(size, seed=seed)
    model = build_sam(size, seed)
    if options.adds == "lora":
        add_lora(model.image_encoder, None)
    elif options.adds == "adapters":
        add_adapters(model.image_encoder, None)
    return model


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _mebibytes(num_parameters: int) -> float:
    return 4 * num_parameters / 2**20
