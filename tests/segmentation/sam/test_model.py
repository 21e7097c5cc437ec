import pytest
import torch

from shared.segmentation.sam.features import embed_all
from shared.segmentation.sam.model import SamModel, build_sam, count
from shared.segmentation.sam.options import SIZES
from shared.segmentation.sam.prompts import Prompts

# published parameter counts; and MiB of 32-bit weights as the papers print them
COUNTS = {"vit_b": 93_735_472, "vit_l": 312_342_832, "vit_h": 641_090_608, "tiny_vit": 10_130_092}
MEBIBYTES = {"vit_b": 357.6, "vit_l": 1191.5, "vit_h": 2445.6}


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts(name):
    with torch.device("meta"):  # shapes without memory
        model = build_sam(SIZES[name])
    assert count(model) == COUNTS[name]
    assert count(model.mask_decoder) == 4_058_340
    assert count(model.prompt_encoder) == 6_220
    if name in MEBIBYTES:
        assert round(4 * count(model) / 2**20, 1) == MEBIBYTES[name]


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_tensors_are_those_of_the_packages_registry(name):
    from segment_anything import sam_model_registry

    with torch.device("meta"):
        package = {k: v.shape for k, v in sam_model_registry[name]().state_dict().items()}
        for ours in (name, f"{name}_256"):  # the same file fits both image sizes
            assert {k: v.shape for k, v in build_sam(SIZES[ours]).state_dict().items()} == package


@torch.no_grad()
def test_a_smaller_image_is_padded_with_the_mean_colour(small, images):
    crop = images[:, :, :40, :56]
    padded = torch.tensor(small.size.pixel_mean).view(1, 3, 1, 1).repeat(3, 1, 64, 64)
    padded[:, :, :40, :56] = crop
    torch.testing.assert_close(small.embed(crop).image, small.embed(padded).image, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_images_of_bytes_and_their_embeddings_give_the_same_masks(small, images):
    pixels = images.to(torch.uint8)
    prompts = Prompts(torch.tensor([0, 2]), boxes=torch.tensor([[4.0, 4, 40, 40], [10, 8, 60, 50]]))
    direct = small(pixels, prompts)
    cached = small(embed_all(small, pixels.split(2), dtype=torch.float32), prompts)
    torch.testing.assert_close(direct.logits, cached.logits, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_cache_in_half_precision_keeps_the_early_feature(images):
    model = SamModel(SIZES["small_patch8"], needs_early=True).train()
    cache = embed_all(model, images.split(2))
    assert model.training
    assert len(cache) == 3
    assert (cache.image.dtype, cache.early.dtype) == (torch.float16, torch.float16)
    whole = model.eval().embed(images)
    torch.testing.assert_close(cache.to(dtype=torch.float32).early, whole.early, atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(cache[1:].image, cache.image[1:])


def test_same_seed_same_weights_and_the_global_state_is_left_alone():
    state = torch.random.get_rng_state()
    first, second, other = (build_sam(SIZES["small_patch4"], seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    name = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])


def test_freezing_trains_only_what_is_named(images):
    model = build_sam(SIZES["small_patch4"], seed=0)
    chosen = model.freeze(["image_encoder", "mask_decoder"])  # a prompt encoder as it was
    assert not any(name.startswith("prompt_encoder") for name in chosen)
    assert count(model, trainable=True) == count(model) - count(model.prompt_encoder)
    prompts = Prompts(torch.tensor([0, 0, 2]), points=torch.full((3, 2, 2), 20.0), labels=torch.tensor([[1, 0]] * 3))
    masks = model(images, prompts)
    (masks.logits.mean() + masks.iou.sum()).backward()
    assert masks.logits.shape == (3, 1, 64, 64)
    assert all(parameter.grad is None for parameter in model.prompt_encoder.parameters())
    assert all(parameter.grad is not None for parameter in model.image_encoder.parameters())
    with pytest.raises(ValueError, match=r"'mask_decoder\.hf' names no parameter"):
        model.freeze(["mask_decoder.hf"])


def test_frozen_batch_statistics_do_not_move():
    model = build_sam(SIZES["tiny_vit"], seed=0)
    model.freeze(["mask_decoder"])
    model.train()
    assert model.mask_decoder.training
    assert not any(module.training for module in model.image_encoder.modules())
    model.freeze(["image_encoder"])
    assert model.image_encoder.training
    assert not model.mask_decoder.training


def test_half_precision_does_not_blur_the_prompts(small, images, monkeypatch):
    """What the decoder is given, under autocast and without."""
    given = []
    monkeypatch.setattr(
        small.mask_decoder, "decode", lambda _, positions, encoded, **options: given.append((positions, encoded.sparse))
    )
    prompts = Prompts(torch.zeros(2, dtype=torch.long), boxes=torch.tensor([[3.0, 5, 40, 41], [3, 5, 40, 43]]))
    embeddings = small.embed(images)
    small(embeddings, prompts)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        small(embeddings, prompts)
    (plain, sparse), (cast, cast_sparse) = given
    assert cast.dtype == cast_sparse.dtype == torch.float32
    torch.testing.assert_close(cast, plain)
    torch.testing.assert_close(cast_sparse, sparse)
