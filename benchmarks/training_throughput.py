"""Images per second of the shared training loop against a plain Dataset and DataLoader loop.

Both train the same network on random images of CIFAR's size, with the same augmentation (crop of 32
after padding by 4, mirror), optimizer, number formats and CPU threads. The plain loop is the usual
recipe of torchvision: PIL images, RandomCrop, RandomHorizontalFlip, ToTensor, two workers, default
memory layout. CPU: the tiny network. GPU: ResNet-18 with batches of 256, and the share of the bf16
peak that a matrix product reaches in this run.

`ratio` compares wall times, which depend on what else the machine does: two loader processes get
their own share of a busy one. `cpu_seconds_ratio` compares CPU seconds, workers included: what a
job costs on a machine whose cores are all in use. The `same_layout` figures give the plain loop our
channels-last layout too; what remains is the data path and the loop itself.

    python -m benchmarks.training_throughput [--images 4096] [--epochs 2] [--repeats 3]
"""

import argparse
import os
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from shared.files import write_json
from shared.gpu.device import choose_device, device_name
from shared.gpu.precision import precision_for
from shared.models.build import build
from shared.training.device_images import Batch, DeviceImages
from shared.training.loop import fit
from shared.training.optim import make_optimizer
from shared.training.options import Augment, OptimizerOptions

BATCH_SIZE = 256
RESULT = Path(__file__).parent / "results" / "training_throughput.json"
OPTIMIZER = OptimizerOptions(lr=0.01, momentum=0.9, weight_decay=5e-4)


class PilImages(Dataset[tuple[Tensor, int]]):
    """Like torchvision's CIFAR10: bytes in memory, a PIL image and its transforms for each item."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = images, labels
        self.transform = transforms.Compose(
            [transforms.RandomCrop(32, 4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def random_data(num_images: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 32, 32, 3) uint8 and labels (N,) of 10 classes."""
    draw = np.random.RandomState(0)
    images = draw.randint(0, 256, (num_images, 32, 32, 3), dtype=np.uint8)
    return images, draw.randint(0, 10, num_images)


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """Mean cross-entropy of a batch."""
    return F.cross_entropy(model(batch.images), batch.labels)


class Cost(NamedTuple):
    """Seconds of wall and CPU time, that of finished child processes included."""

    wall: float
    cpu: float


def now() -> Cost:
    """The clocks of this moment."""
    return Cost(time.perf_counter(), sum(os.times()[:4]))


def since(start: Cost) -> Cost:
    """What was spent since `start`."""
    return Cost(*(b - a for a, b in zip(start, now(), strict=True)))


def ours(name: str, data: DeviceImages, epochs: int) -> Cost:
    """Cost of the shared loop for `epochs` epochs."""
    model = build(name, 10, seed=0).to(data.device)
    optimizer = make_optimizer(model.parameters(), OPTIMIZER)
    generator = torch.Generator().manual_seed(0)
    started = now()
    fit(
        model,
        lambda epoch, generator: data.batches(BATCH_SIZE, generator),
        cross_entropy,
        optimizer=optimizer,
        epochs=epochs,
        generator=generator,
    )
    return since(started)


def plain(name: str, data: PilImages, epochs: int, device: torch.device, same_layout: bool) -> Cost:
    """Cost of the usual loop for `epochs` epochs, workers kept alive between them."""
    policy = precision_for(device)
    policy.activate()
    model = build(name, 10, seed=0).to(device).train()
    if same_layout:
        policy.arrange(model)
    optimizer = make_optimizer(model.parameters(), OPTIMIZER)
    loader = DataLoader(
        data,
        BATCH_SIZE,
        shuffle=True,
        num_workers=2,
        pin_memory=device.type == "cuda",
        persistent_workers=True,
    )
    started = now()
    loss = torch.zeros(())
    for _ in range(epochs):
        for cpu_images, cpu_labels in loader:
            images = cpu_images.to(device, non_blocking=True)
            labels = cpu_labels.to(device, non_blocking=True)
            optimizer.zero_grad(set_to_none=True)
            with policy.context():
                loss = F.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
    loss.item()  # waits for the device
    wall = since(started).wall
    del loader  # ends the workers: only then does the system count their CPU time as ours
    return Cost(wall, since(started).cpu)


def step_flops(name: str, device: torch.device) -> int:
    """Floating-point operations of one forward and backward pass over a batch."""
    model = build(name, 10, seed=0).to(device)
    images = torch.rand(BATCH_SIZE, 3, 32, 32, device=device)
    with FlopCounterMode(display=False) as counter:
        model(images).sum().backward()
    return int(counter.get_total_flops())


def peak_flops(device: torch.device, size: int = 8192, repeats: int = 20) -> float:
    """bf16 floating-point operations per second that a square matrix product reaches here."""
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    b = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    for _ in range(3):
        c = a @ b
    c[0, 0].item()  # waits for the device
    started = time.perf_counter()
    for _ in range(repeats):
        c = a @ b
    c[0, 0].item()
    return float(2 * size**3 * repeats / (time.perf_counter() - started))


def ratio(theirs: list[Cost], ours: list[Cost], clock: str) -> float:
    """Median over the pairs of runs of theirs / ours."""
    pairs = zip(theirs, ours, strict=True)
    return round(statistics.median(getattr(a, clock) / getattr(b, clock) for a, b in pairs), 3)


def measure(num_images: int, epochs: int, repeats: int, threads: int) -> dict[str, Any]:
    """Alternate the two loops, so that a busy machine slows both; medians decide."""
    torch.set_num_threads(threads)
    device = choose_device()
    on_gpu = device.type == "cuda"
    name = "resnet18_cifar" if on_gpu else "tiny_cnn"
    images, labels = random_data(num_images)
    resident = DeviceImages(
        torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(device),
        torch.from_numpy(labels).to(device),
        10,
        Augment(pad=4, flip=True),
    )
    items = PilImages(images, labels)
    ours(name, resident, 1)  # kernels are chosen and caches filled
    costs: dict[str, list[Cost]] = {"ours": [], "plain": [], "same_layout": []}
    for _ in range(repeats):
        costs["ours"].append(ours(name, resident, epochs))
        costs["plain"].append(plain(name, items, epochs, device, same_layout=False))
        costs["same_layout"].append(plain(name, items, epochs, device, same_layout=True))
    rates = {key: num_images * epochs / statistics.median(cost.wall for cost in value) for key, value in costs.items()}
    result: dict[str, Any] = {
        "device": device_name(device),
        "torch": torch.__version__,
        "model": name,
        "batch_size": BATCH_SIZE,
        "num_images": num_images,
        "epochs": epochs,
        "repeats": repeats,
        "cpu_threads": threads,
        "deterministic": precision_for(device).deterministic,
        "images_per_second": round(rates["ours"], 1),
        "images_per_second_plain": round(rates["plain"], 1),
        "ratio": ratio(costs["plain"], costs["ours"], "wall"),
        "ratio_same_layout": ratio(costs["same_layout"], costs["ours"], "wall"),
        "cpu_seconds_ratio": ratio(costs["plain"], costs["ours"], "cpu"),
        "cpu_seconds_ratio_same_layout": ratio(costs["same_layout"], costs["ours"], "cpu"),
        "wanted_ratio": 4.0 if on_gpu else 1.5,
    }
    if on_gpu:
        peak, used = peak_flops(device), step_flops(name, device) / BATCH_SIZE * rates["ours"]
        result["bf16_peak_tflops"] = round(peak / 1e12, 1)
        result["model_tflops"] = round(used / 1e12, 1)
        result["share_of_peak"] = round(used / peak, 4)
    return result


def main() -> None:
    """Measure, print a table and write the result."""
    on_gpu = choose_device().type == "cuda"
    parser = argparse.ArgumentParser(description="throughput of the training loop")
    parser.add_argument("--images", type=int, default=50_000 if on_gpu else 4096)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    result = measure(arguments.images, arguments.epochs, arguments.repeats, arguments.threads)
    for key, value in result.items():
        print(f"{key:24} {value}")
    write_json(RESULT, result)


if __name__ == "__main__":
    main()
