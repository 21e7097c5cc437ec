"""Frozen copies and cross-attention modules."""

from shared.diffusion.erasers.modules import cross_attentions, frozen_copy
from shared.diffusion.subsets import select, train_only


def test_frozen_copy_shares_what_is_not_trained(unet):
    train_only(unet, "cross_attention")
    chosen = select(unet, "cross_attention")
    frozen = frozen_copy(unet)
    for (name, mine), copied in zip(unet.named_parameters(), frozen.parameters(), strict=True):
        assert (mine.data_ptr() == copied.data_ptr()) == (name not in chosen)
        assert not copied.requires_grad
        assert mine.requires_grad == (name in chosen)


def test_cross_attentions_are_those_that_read_text(unet):
    found = cross_attentions(unet)
    assert len(found) == 4
    assert all(module.is_cross_attention for module in found.values())
