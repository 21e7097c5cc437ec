import pytest
import torch

from shared.segmentation.sam.features import encode
from shared.segmentation.sam.options import SIZES
from shared.segmentation.sam.tiny_vit import TinyVitEncoder, to_release, to_timm


@pytest.fixture(scope="module")
def encoder():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TinyVitEncoder(SIZES["tiny_vit"]).eval()


def test_names_are_those_of_the_released_file_and_back(encoder):
    names = list(encoder.state_dict())
    # one of each kind
    assert {
        "patch_embed.seq.0.c.weight",
        "patch_embed.seq.2.bn.running_var",
        "layers.0.blocks.1.conv3.bn.bias",
        "layers.0.downsample.conv2.c.weight",
        "layers.2.blocks.5.attn.attention_biases",
        "layers.2.downsample.conv3.bn.num_batches_tracked",
        "layers.3.blocks.1.local_conv.c.weight",
        "layers.3.blocks.0.mlp.fc2.bias",
        "norm_head.weight",
        "head.bias",
        "neck.3.bias",
    } <= set(names)
    assert not any(name.startswith(("net.", "layers.3.downsample")) for name in names)
    assert [to_release(to_timm(name)) for name in names] == names
    inside = {name for name, _ in encoder.named_parameters()} | {name for name, _ in encoder.named_buffers()}
    assert {to_timm(name) for name in names} <= inside


def test_state_dict_loads_back_strictly(encoder):
    other = TinyVitEncoder(SIZES["tiny_vit"])
    other.load_state_dict(encoder.state_dict())
    for name, value in other.state_dict().items():
        assert torch.equal(value, encoder.state_dict()[name]), name
    state = encoder.state_dict()
    state["layers.1.blocks.0.attn.surplus"] = torch.zeros(1)
    with pytest.raises(RuntimeError, match="surplus"):
        other.load_state_dict(state)


def test_stride_16_with_the_early_feature_at_the_same_resolution(encoder):
    images = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        embeddings = encode(encoder, images, early=True)
    assert embeddings.image.shape == (2, 256, 8, 8)
    assert embeddings.early.shape == (2, 8, 8, 160)
