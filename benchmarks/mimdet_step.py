"""Cost of a training step of MIMDet against the share of tokens that its encoder sees, and against a dense ViT.

The dense ViT is timm's, of the same width and depth, with a pyramid by (de)convolution, in the same engine with the
same heads. `encoder`: forward and backward pass of the transformer blocks that sampling touches; `step`: of the whole
detector, with losses and without the optimizer. Operations are counted without memory, times are measured here:
CPU seconds on a CPU (one thread by default), wall seconds on a GPU.

`share_of_saving`: time saved over time at ratio 1, divided by the same of operations. 1 is what theory promises.

    python -m benchmarks.mimdet_step [--size vit_b] [--image 320] [--batch 1] [--regions 64] [--repeats 3]
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from papers.mimdet.models.backbone import MimDet
from papers.mimdet.models.encoder import num_kept, run_blocks, transformer_blocks
from papers.mimdet.options import MimDetOptions, mimdet_size
from shared.detection.batches import Batch, example_batch
from shared.detection.detector import Detector, detection_loss
from shared.detection.examples import SourceExamples
from shared.detection.options import DetectorOptions, PixelOptions, RoiOptions
from shared.detection.scenes import make_scenes
from shared.files import write_json
from shared.gpu.device import choose_device, device_name
from shared.gpu.precision import precision_for

RATIOS = (0.25, 0.5, 1.0)
WANTED = 0.7
RESULT = Path(__file__).parent / "results" / "mimdet_step.json"


class DenseVit(nn.Module):
    """timm's ViT on all tokens, and maps of strides 4 to 32."""

    def __init__(self, options: MimDetOptions, image: int) -> None:
        super().__init__()
        D, patch = options.dim, options.patch
        self.channels, self.strides = [D // 4, D // 2, D, D], options.strides
        self.vit = VisionTransformer(
            image,
            patch,
            num_classes=0,
            global_pool="",
            class_token=False,
            embed_dim=D,
            depth=options.depth,
            num_heads=options.heads,
        )
        self.c3 = nn.ConvTranspose2d(D, D // 2, 2, stride=2)
        self.c2 = nn.Sequential(
            nn.ConvTranspose2d(D, D // 2, 2, stride=2),
            nn.GroupNorm(1, D // 2),
            nn.GELU(),
            nn.ConvTranspose2d(D // 2, D // 4, 2, stride=2),
        )

    def forward(self, images: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        """Images (N, 3, S, S) of the size given at the start."""
        side = images.shape[2] // self.strides[2]
        c4 = self.vit.forward_features(images).transpose(1, 2).unflatten(2, (side, side))
        return {"c2": self.c2(c4), "c3": self.c3(c4), "c4": c4, "c5": F.max_pool2d(c4, 2)}


def block_flops(options: MimDetOptions, tokens: int) -> int:
    """Operations of the encoder's blocks, forward and backward, on one image's tokens."""
    with torch.device("meta"):
        blocks = transformer_blocks(options.dim, options.heads, options.depth)
        x = torch.zeros(1, tokens, options.dim, requires_grad=True)
        with FlopCounterMode(display=False) as counter:
            run_blocks(blocks, x).sum().backward()
    return int(counter.get_total_flops())


def seconds(work: Callable[[], Tensor], model: nn.Module, device: torch.device) -> float:
    """Time of one forward and backward pass."""
    on_gpu = device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    model.zero_grad()
    if on_gpu:
        torch.cuda.synchronize()
    started = clock()
    with precision_for(device).context():
        loss = work()
    loss.backward()
    if on_gpu:
        torch.cuda.synchronize()
    return clock() - started


def batch_of(num: int, image: int, device: torch.device) -> Batch:
    """Scenes with three classes, as many pixels a side as asked for."""
    examples = SourceExamples(make_scenes(num, 0, size=image))
    return example_batch([examples[i] for i in range(num)], PixelOptions()).to(device)


def works(options: MimDetOptions, batch: Batch, regions: int) -> dict[str, tuple[nn.Module, Callable[[], Tensor]]]:
    """What is measured, by name."""
    device, image = batch.images.device, batch.images.shape[2]
    heads = DetectorOptions(roi=RoiOptions(samples=regions))
    found: dict[str, tuple[nn.Module, Callable[[], Tensor]]] = {}
    for ratio in RATIOS:
        backbone = MimDet(options.model_copy(update={"ratio_train": ratio}))
        model = Detector(backbone, heads, 3).to(device).train()
        kept = num_kept((image // options.patch) ** 2, ratio)
        tokens = torch.randn(len(batch.images), kept, options.dim, device=device)
        blocks = backbone.encoder.blocks
        found[f"encoder {ratio}"] = blocks, lambda b=blocks, x=tokens: run_blocks(b, x).square().mean()
        found[f"step {ratio}"] = model, lambda m=model: detection_loss(m, batch)
    dense = Detector(DenseVit(options, image), heads, 3).to(device).train()
    found["step dense"] = dense, lambda: detection_loss(dense, batch)
    return found


def measure(size: str, image: int, batch_size: int, regions: int, repeats: int, threads: int) -> dict[str, Any]:
    """Take turns, so that a busy machine slows all alike; medians decide."""
    torch.set_num_threads(threads)
    device = choose_device()
    precision_for(device).activate()
    options = mimdet_size(size).model_copy(update={"drop_path": 0.0})
    named = works(options, batch_of(batch_size, image, device), regions)
    times: dict[str, list[float]] = {name: [] for name in named}
    for turn in range(repeats + 1):
        for name, (model, work) in named.items():
            spent = seconds(work, model, device)
            if turn:  # the first turn warms up
                times[name].append(spent)
    medians = {name: statistics.median(values) for name, values in times.items()}
    tokens = (image // options.patch) ** 2
    flops = {ratio: batch_size * block_flops(options, num_kept(tokens, ratio)) for ratio in RATIOS}
    encoder = [medians[f"encoder {ratio}"] for ratio in RATIOS]
    saved, promised = (1 - np.array(values[:-1]) / values[-1] for values in (encoder, list(flops.values())))
    shares = {str(ratio): round(float(s / p), 3) for ratio, s, p in zip(RATIOS[:-1], saved, promised, strict=True)}
    return {
        "device": device_name(device),
        "torch": torch.__version__,
        "size": size,
        "image": image,
        "batch": batch_size,
        "tokens": tokens,
        "regions": regions,
        "cpu_threads": threads,
        "repeats": repeats,
        "clock": "wall" if device.type == "cuda" else "cpu",
        "encoder_gflops": {str(ratio): round(value / 1e9, 1) for ratio, value in flops.items()},
        "seconds": {name: round(value, 4) for name, value in medians.items()},
        "monotone": bool(np.all(np.diff(encoder) > 0)),
        "share_of_saving": shares,
        "wanted_share": WANTED,
        "step_over_dense": {str(r): round(medians[f"step {r}"] / medians["step dense"], 3) for r in RATIOS},
    }


def main() -> None:
    """Measure, print a table and write the result."""
    on_gpu = choose_device().type == "cuda"
    parser = argparse.ArgumentParser(description="training step of MIMDet by sampling ratio")
    parser.add_argument("--size", default="vit_b")
    parser.add_argument("--image", type=int, default=1024 if on_gpu else 320)
    parser.add_argument("--batch", type=int, default=4 if on_gpu else 1)
    parser.add_argument("--regions", type=int, default=512 if on_gpu else 64, help="sampled regions of an image")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    a = parser.parse_args()
    result = measure(a.size, a.image, a.batch, a.regions, a.repeats, a.threads)
    for key, value in result.items():
        print(f"{key:16} {value}")
    write_json(RESULT, result)


if __name__ == "__main__":
    main()
