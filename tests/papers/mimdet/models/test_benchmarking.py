"""The baseline: windows, relative positions against timm's index, groups, and its maps."""

import pytest
import torch
from timm.layers import gen_relative_position_index

from papers.mimdet.models.benchmarking import Benchmarking, RelativeBias, from_windows, to_windows
from papers.mimdet.options import BenchmarkingOptions
from shared.errors import ConfigError

SMALL = BenchmarkingOptions(dim=64, depth=8, heads=4, patch=8, image=64, window=4, drop_path=0.0)


@pytest.fixture
def model():
    return Benchmarking(SMALL).eval()


def test_relative_bias_is_timms():
    bias = RelativeBias(5, 3)
    torch.nn.init.normal_(bias.relative_position_bias_table)
    index = gen_relative_position_index((5, 5))
    expected = bias.relative_position_bias_table[index.flatten()].view(25, 25, 3).permute(2, 0, 1)
    assert torch.equal(bias(), expected)
    assert bias.relative_position_bias_table.shape == (81, 3)


def test_windows_and_back():
    x = torch.arange(2 * 64).view(2, 64, 1).float()
    windows = to_windows(x, 8, 4)
    assert windows.shape == (8, 16, 1)
    square = x[0].view(8, 8)
    torch.testing.assert_close(windows[1, :, 0].view(4, 4), square[:4, 4:])
    torch.testing.assert_close(windows[2, :, 0].view(4, 4), square[4:, :4])
    torch.testing.assert_close(from_windows(windows, 8, 4), x)


def test_maps_and_gradients(model):
    maps = model.train()(torch.randn(2, 3, 64, 64), torch.tensor([[64, 64]] * 2))
    assert {n: tuple(m.shape[1:]) for n, m in maps.items()} == {
        "s0": (64, 32, 32),
        "s1": (64, 16, 16),
        "s2": (64, 8, 8),
        "s3": (64, 4, 4),
    }
    sum(m.square().mean() for m in maps.values()).backward()
    assert all(p.grad is not None for p in model.parameters())


@torch.no_grad()
def test_the_first_block_of_a_group_sees_its_window_only(model):
    """A change in one corner reaches the other windows through the global block alone."""
    pixels = torch.randn(1, 3, 64, 64)
    other = pixels.clone()
    other[..., :8, :8] += 1
    seen = []
    hooks = [block.register_forward_hook(lambda m, i, out: seen.append(out)) for block in model.blocks[:2]]
    for given in (pixels, other):
        model(given, torch.tensor([[64, 64]]))
    for hook in hooks:
        hook.remove()
    local, overall = ((seen[2 + i] - seen[i]).abs().sum(2) for i in range(2))
    assert local.shape == (4, 16)
    assert local[0].min() > 0
    assert local[1:].max() == 0
    assert overall.shape == (1, 64)
    assert overall.min() > 0


@torch.no_grad()
def test_the_bias_of_positions_is_added_to_the_attention(model):
    pixels, sizes = torch.randn(1, 3, 64, 64), torch.tensor([[64, 64]])
    before = model(pixels, sizes)["s0"]
    model.windowed_rel_pos_bias.relative_position_bias_table += 3.0  # a constant bias changes nothing
    torch.testing.assert_close(model(pixels, sizes)["s0"], before, atol=1e-5, rtol=1e-5)
    torch.nn.init.normal_(model.windowed_rel_pos_bias.relative_position_bias_table)
    assert not torch.allclose(model(pixels, sizes)["s0"], before, atol=1e-3)


def test_the_tables_axes_are_a_switch():
    rows = Benchmarking(SMALL.model_copy(update={"axes": "rows"})).pos_embed.unflatten(1, (8, 8))
    columns = Benchmarking(SMALL).pos_embed.unflatten(1, (8, 8))
    torch.testing.assert_close(rows, columns.transpose(1, 2))


def test_recomputed_activations_give_the_same_gradients():
    pixels, sizes = torch.randn(1, 3, 64, 64), torch.tensor([[64, 64]])
    gradients = []
    for again in (False, True):
        torch.manual_seed(0)
        model = Benchmarking(SMALL.model_copy(update={"checkpointing": again})).train()
        model(pixels, sizes)["s3"].square().mean().backward()
        gradients.append(model.blocks[0].attn.qkv.weight.grad)
    torch.testing.assert_close(*gradients)


def test_images_of_another_size(model):
    with pytest.raises(
        ConfigError, match="takes images of 64x64 pixels, not 64x80: set the input to kind: fixed, size: 64"
    ):
        model(torch.zeros(1, 3, 64, 80), torch.tensor([[64, 80]]))
