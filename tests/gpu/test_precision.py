import pytest
import torch
from torch import nn

from shared.errors import UserError
from shared.gpu.precision import Precision, precision_for


def test_cpu_is_plain_float32():
    policy = precision_for(torch.device("cpu"))
    assert policy.autocast is None
    layer = nn.Linear(2, 2)
    with policy.context():
        assert layer(torch.ones(1, 2)).dtype == torch.float32
    assert policy.arrange(layer) is layer
    assert policy.compiled(layer) is layer


@pytest.mark.parametrize("supported", [True, False])
def test_gpu_uses_bfloat16_where_supported(monkeypatch, supported):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: supported)
    policy = precision_for(torch.device("cuda"))
    assert policy.autocast == (torch.bfloat16 if supported else None)
    assert policy.channels_last
    assert policy.tf32
    assert policy.deterministic


def test_autocast_keeps_losses_in_float32():
    policy = Precision("cpu", torch.bfloat16)
    layer = nn.Linear(2, 3)
    with policy.context():
        logits = layer(torch.ones(4, 2))
        loss = nn.functional.cross_entropy(logits.float(), torch.zeros(4, dtype=torch.int64))
    assert logits.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    assert layer.weight.dtype == torch.float32


def test_switches_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("REPLICATE_DETERMINISTIC", "0")
    monkeypatch.setenv("REPLICATE_COMPILE", "1")
    policy = precision_for(torch.device("cpu"))
    assert not policy.deterministic
    assert policy.compile
    monkeypatch.setenv("REPLICATE_COMPILE", "yes")
    with pytest.raises(UserError, match="REPLICATE_COMPILE=yes: use 0 or 1"):
        precision_for(torch.device("cpu"))


@pytest.mark.parametrize("deterministic", [True, False])
def test_activation_sets_torchs_switches(monkeypatch, deterministic):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    set_modes = []
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda mode, warn_only: set_modes.append(mode))
    for name in ("benchmark", "deterministic", "allow_tf32"):
        monkeypatch.setattr(torch.backends.cudnn, name, getattr(torch.backends.cudnn, name))
    precisions = []
    monkeypatch.setattr(torch, "set_float32_matmul_precision", precisions.append)
    Precision("cuda", torch.bfloat16, tf32=True, channels_last=True, deterministic=deterministic).activate()
    assert precisions == ["high"]
    assert torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.deterministic is deterministic
    assert torch.backends.cudnn.benchmark is not deterministic
    assert set_modes == [deterministic]


def test_activation_leaves_a_cpu_run_alone(monkeypatch):
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda *a, **k: pytest.fail("slows CPU runs"))
    Precision("cpu").activate()


def test_channels_last_changes_the_layout_only():
    conv = nn.Conv2d(3, 4, 3)
    before = conv.weight.clone()
    Precision("cpu").arrange(conv)
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(conv.weight, before)
