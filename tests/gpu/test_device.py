import pytest
import torch

from shared.errors import UserError
from shared.gpu.device import choose_device, device_name


def test_cpu_when_no_gpu_is_usable(monkeypatch):
    monkeypatch.delenv("REPLICATE_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device() == torch.device("cpu")
    assert device_name(torch.device("cpu")) == "cpu"


def test_gpu_of_the_local_rank(monkeypatch):
    monkeypatch.delenv("REPLICATE_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device() == torch.device("cuda", 0)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert choose_device() == torch.device("cuda", 3)


def test_override_wins_over_a_usable_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("REPLICATE_DEVICE", "CPU")
    assert choose_device() == torch.device("cpu")
    monkeypatch.setenv("REPLICATE_DEVICE", "cuda:1")
    assert choose_device() == torch.device("cuda", 1)


@pytest.mark.parametrize("value", ["gpu", "tpu:0", "mps", "meta", "cuda:x"])
def test_unknown_device_is_one_line(monkeypatch, value):
    monkeypatch.setenv("REPLICATE_DEVICE", value)
    with pytest.raises(UserError, match=f"REPLICATE_DEVICE={value}: not a device; use cpu"):
        choose_device()


@pytest.mark.parametrize("value", ["cuda", "cuda:2"])
def test_missing_gpu_says_how_many_there_are(monkeypatch, value):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("REPLICATE_DEVICE", value)
    with pytest.raises(UserError, match=r"torch sees 0 GPU\(s\)"):
        choose_device()
