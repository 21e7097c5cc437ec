"""HQ-SAM against the package of the paper's authors, `segment-anything-hq`, which only tests and benchmarks use."""

import importlib
import importlib.util
import warnings
from functools import partial

import pytest
import torch
from torch import nn

from papers.hq_sam.models import build_hq
from shared.segmentation.sam.options import SIZES, VIT_B, SamSize
from shared.segmentation.sam.prompts import Prompts

SMALL = SIZES["small_patch8"]
BOXES = torch.tensor([[4.0, 4, 40, 40], [10, 8, 60, 50], [0, 20, 30, 63], [25, 25, 50, 45], [2, 2, 62, 62]])
PROMPTS = Prompts(torch.tensor([1, 0, 0, 1, 1]), boxes=BOXES)


@pytest.fixture(scope="module")
def authors():
    """The authors' package. Its imports use names of timm that now warn."""
    if importlib.util.find_spec("segment_anything_hq") is None:
        pytest.skip("needs the package segment-anything-hq: of the extra `dev`")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("segment_anything_hq")


def authors_model(authors, size):
    """Their classes at any size of a plain ViT."""
    parts, vit = authors.modeling, size.encoder
    encoder = parts.ImageEncoderViT(
        img_size=size.image,
        patch_size=vit.patch,
        embed_dim=vit.dim,
        depth=vit.depth,
        num_heads=vit.heads,
        out_chans=size.width,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=vit.window,
        global_attn_indexes=vit.global_blocks,
    )
    tokens = (size.tokens, size.tokens)
    prompt_encoder = parts.PromptEncoder(size.width, tokens, (size.image, size.image), 16)
    decoder = parts.mask_decoder_hq.MaskDecoderHQ(
        transformer_dim=size.width,
        transformer=parts.TwoWayTransformer(size.depth, size.width, size.heads, size.mlp),
        iou_head_hidden_dim=size.iou_hidden,
        vit_dim=vit.dim,
    )
    return parts.Sam(encoder, prompt_encoder, decoder, size.pixel_mean, size.pixel_std).eval()


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_tensors_are_those_of_the_authors_registry(authors, name):
    with torch.device("meta"):
        theirs = authors.sam_model_registry[name]().state_dict()
        ours = build_hq(SIZES[name]).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


def test_tensors_of_the_light_model_are_those_of_the_authors_registry(authors):
    theirs = authors.sam_model_registry["vit_tiny"]().state_dict()
    with torch.device("meta"):
        ours = build_hq(SIZES["tiny_vit"]).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


# ViT-B's decoder with two of its blocks on 128 pixels, and the smallest model
REDUCED = SamSize(image=128, encoder=VIT_B.model_copy(update={"depth": 2, "window": 3, "global_blocks": [1]}))


@torch.no_grad()
@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize("hq_token_only", [False, True])
@pytest.mark.parametrize("size", [SMALL, REDUCED], ids=["small", "vit_b decoder"])
def test_masks_are_those_of_the_authors(authors, spread, size, hq_token_only, multimask):
    model = spread(build_hq(size, seed=9), seed=9)
    theirs = authors_model(authors, size)
    theirs.load_state_dict(model.state_dict())
    images = torch.rand(2, 3, size.image, size.image, generator=torch.Generator().manual_seed(3)) * 255
    given = [{"image": image, "original_size": (50, 70)} for image in images]
    for i, record in enumerate(given):
        record["boxes"] = PROMPTS.boxes[PROMPTS.image == i]
    ours = model(images, PROMPTS, multimask=multimask, hq_token_only=hq_token_only)
    for i, result in enumerate(theirs(given, multimask, hq_token_only)):
        chosen = PROMPTS.image == i
        expected = result["low_res_logits"]
        scale = expected.abs().max()
        torch.testing.assert_close(ours.logits[chosen] / scale, expected / scale, atol=1e-4, rtol=0)
        torch.testing.assert_close(ours.iou[chosen], result["iou_predictions"], atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@torch.no_grad()
def test_the_light_model_is_that_of_the_authors(authors, spread):
    theirs = spread(authors.sam_model_registry["vit_tiny"]())
    generator = torch.Generator().manual_seed(4)
    for name, value in theirs.named_buffers():  # statistics that batch norm has to use
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5, generator=generator)
    for module in theirs.modules():
        module.train(False)  # biases of attention are kept from the last call of this
    model = build_hq(SIZES["tiny_vit"]).eval()
    model.load_state_dict(theirs.state_dict())
    image = torch.rand(1, 3, 1024, 1024, generator=generator) * 255
    embedding, early = theirs.image_encoder(theirs.preprocess(image))
    ours = model.embed(image)
    torch.testing.assert_close(ours.image, embedding, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.early, early[0], atol=1e-4, rtol=1e-4)
