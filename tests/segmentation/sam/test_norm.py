import torch
from segment_anything.modeling.common import LayerNorm2d

from shared.segmentation.sam.norm import ChannelNorm


def test_outputs_and_gradients_are_the_packages(randomise):
    ours, package = randomise(ChannelNorm(6)), LayerNorm2d(6)
    package.load_state_dict(ours.state_dict())
    x = torch.randn(2, 6, 5, 7, generator=torch.Generator().manual_seed(0))
    grads = []
    for norm in (ours, package):
        own = x.clone().requires_grad_()
        out = norm(own)
        (out * x.flip(1)).sum().backward()
        grads.append((out, own.grad, norm.weight.grad, norm.bias.grad))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_each_pixel_has_mean_zero_and_variance_one_over_channels():
    out = ChannelNorm(64)(torch.randn(1, 64, 3, 3, generator=torch.Generator().manual_seed(1)) * 5 + 2)
    torch.testing.assert_close(out.mean(1), torch.zeros(1, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.var(1, unbiased=False), torch.ones(1, 3, 3), atol=1e-4, rtol=0)
