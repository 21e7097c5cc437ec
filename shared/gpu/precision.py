"""One policy for number formats and kernels, decided by the device and never by a paper.

CPU: plain float32. GPU: bfloat16 autocast where the hardware has it (weights, optimizer and losses
stay float32) and TF32 for what remains in float32. Convolutions run channels-last on both: on the
CPU a training step of the small networks takes 7 to 25 % less time so. Kernels are deterministic
unless REPLICATE_DETERMINISTIC=0, because the same seed on the same device must give the same
metrics; =0 lets cuDNN search for the fastest kernels instead. REPLICATE_COMPILE=1 compiles the
forward pass: worth its minute of compilation in long runs only.
"""

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from shared.errors import UserError
from shared.gpu.device import choose_device


@dataclass(frozen=True)
class Precision:
    """Formats and kernels of a run. autocast: format of matrix products, None for float32."""

    device_type: str
    autocast: torch.dtype | None = None
    tf32: bool = False
    channels_last: bool = True
    deterministic: bool = True
    compile: bool = False

    def activate(self) -> None:
        """Set torch's process-wide switches; cheap, so that every run may call it."""
        if self.device_type != "cuda":
            return  # CPU kernels need no switch; torch's deterministic mode only slows them down
        torch.set_float32_matmul_precision("high" if self.tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = self.tf32
        torch.backends.cudnn.benchmark = not self.deterministic
        torch.backends.cudnn.deterministic = self.deterministic
        if self.deterministic:
            # cuBLAS reads it when its first handle is made: too late has no effect, so a job
            # activates early.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # Some operations have no deterministic kernel; they warn by name instead of ending the run.
        torch.use_deterministic_algorithms(self.deterministic, warn_only=True)

    def context(self) -> AbstractContextManager[object]:
        """Context in which losses (and evaluations) are computed."""
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.device_type, dtype=self.autocast)

    def arrange(self, model: nn.Module) -> nn.Module:
        """Lay out the weights, in place, as the kernels want them."""
        return model.to(memory_format=torch.channels_last) if self.channels_last else model

    def compiled(self, model: nn.Module) -> nn.Module:
        """The model to call in a training step: itself, or a compiled view of the same weights."""
        if not self.compile:
            return model
        view = torch.compile(model)
        assert isinstance(view, nn.Module)  # of a module; torch's stub also covers functions
        return view


def precision_for(device: torch.device) -> Precision:
    """The policy for `device` under the environment's switches."""
    on_gpu = device.type == "cuda"
    bfloat16 = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    return Precision(
        device.type,
        autocast=torch.bfloat16 if bfloat16 else None,
        tf32=on_gpu,
        deterministic=_switch("REPLICATE_DETERMINISTIC", True),
        compile=_switch("REPLICATE_COMPILE", False),
    )


def _switch(name: str, default: bool) -> bool:
    value = os.environ.get(name, "")
    if value not in ("", "0", "1"):
        raise UserError(f"{name}={value}: use 0 or 1, or unset it")
    return default if value == "" else value == "1"


def job_device() -> torch.device:
    """The job's device, under the precision policy."""
    found = choose_device()
    precision_for(found).activate()
    return found
