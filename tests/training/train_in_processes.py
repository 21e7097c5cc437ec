"""Run by test_multi_process.py under the launcher: trains a network without batch norm, rank 0
writes its weights.

Arguments: the folder to write to; then pairs `batch_size/micro_batch` (0: none), one file each.
"""

import os
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from shared.gpu.launch import is_main_process
from shared.training.device_images import DeviceImages
from shared.training.loop import fit
from shared.training.options import Augment


def train(batch_size: int, micro_batch: int | None) -> tuple[nn.Module, list[dict[str, float | None]]]:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(37, 1, 6, 6, generator=generator)
    labels = torch.randint(0, 4, (37,), generator=generator)
    data = DeviceImages(images, labels, 4, Augment(pad=1, flip=True))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    result = fit(
        model,
        lambda epoch, generator: data.batches(batch_size, generator),
        lambda model, batch: F.cross_entropy(model(batch.images), batch.labels),
        optimizer=optimizer,
        epochs=3,
        generator=generator,
        max_grad_norm=1.0,
        # the processes disagree: all must stop together
        stop=lambda state: state.epoch == 2 and os.environ.get("RANK", "0") == "0",
        micro_batch=micro_batch,
    )
    return model, result.history


if __name__ == "__main__":
    for pair in sys.argv[2:]:
        batch_size, micro_batch = (int(part) for part in pair.split("/"))
        trained, history = train(batch_size, micro_batch or None)
        if is_main_process():
            losses = torch.tensor([float(row["loss"] or 0) for row in history])
            target = Path(sys.argv[1]) / f"{batch_size}_{micro_batch}.safetensors"
            save_file({**trained.state_dict(), "losses": losses}, target)
