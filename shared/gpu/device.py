"""Which device a job computes on."""

import os

import torch

from shared.errors import UserError


def choose_device() -> torch.device:
    """The GPU if one is usable, else the CPU; the environment variable REPLICATE_DEVICE overrides.

    Under `accelerate launch` every process gets the GPU of its local rank. Raises UserError when
    the override names a device that is not there.
    """
    wanted = os.environ.get("REPLICATE_DEVICE", "").strip().lower()
    if not wanted:
        usable = torch.cuda.is_available()
        return torch.device("cuda", _local_rank()) if usable else torch.device("cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"REPLICATE_DEVICE={wanted}: not a device; use cpu, cuda or cuda:<number>")
    if device.type == "cpu":
        return torch.device("cpu")
    num_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = _local_rank() if device.index is None else device.index
    if index >= num_devices:
        raise UserError(
            f"REPLICATE_DEVICE={wanted}: torch sees {num_devices} GPU(s) here; unset it to let "
            "the job choose, or check the driver and CUDA_VISIBLE_DEVICES"
        )
    return torch.device("cuda", index)


def device_name(device: torch.device) -> str:
    """The name that a record shows: "cpu", or the GPU's model."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))
