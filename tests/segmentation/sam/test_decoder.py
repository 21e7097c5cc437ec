"""The batched decoder against the package's decoder, called once for each image and prompt."""

import pytest
import torch
from segment_anything.modeling import MaskDecoder, TwoWayTransformer

from shared.segmentation.sam.decoder import Embeddings
from shared.segmentation.sam.prompts import Prompts, encode_prompts

IMAGE = torch.tensor([2, 0, 1, 1, 2])


@pytest.fixture(scope="module")
def package(small):
    size = small.size
    decoder = MaskDecoder(
        transformer_dim=size.width,
        transformer=TwoWayTransformer(size.depth, size.width, size.heads, size.mlp),
        iou_head_hidden_dim=size.iou_hidden,
    )
    decoder.load_state_dict(small.mask_decoder.state_dict())
    return decoder.eval()


@pytest.fixture(scope="module")
def embeddings(small, images):
    with torch.no_grad():
        return small.embed(images)


def prompts_of(kind):
    generator = torch.Generator().manual_seed(7)
    if kind == "boxes":
        corners = torch.rand(5, 2, generator=generator) * 30
        return Prompts(IMAGE, boxes=torch.cat([corners, corners + 25], dim=1))
    if kind == "points":
        labels = torch.tensor([[1, 0, -1]]).repeat(5, 1)
        return Prompts(IMAGE, points=torch.rand(5, 3, 2, generator=generator) * 64, labels=labels)
    return Prompts(IMAGE, masks=(torch.rand(5, 1, 32, 32, generator=generator) > 0.5) * 255.0)


def one_by_one(small, package, embeddings, prompts, multimask):
    """Masks and IoU by the package's own calls, one prompt at a time."""
    outputs = []
    for k in range(len(prompts)):
        one = prompts[k : k + 1]
        points = None if one.points is None else (one.points, one.labels)
        sparse, dense = small.prompt_encoder(points=points, boxes=one.boxes, masks=one.masks)
        image = embeddings.image[int(one.image)][None]
        outputs.append(package(image, small.prompt_encoder.get_dense_pe(), sparse, dense, multimask))
    return torch.cat([logits for logits, _ in outputs]), torch.cat([iou for _, iou in outputs])


@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize("kind", ["boxes", "points", "masks"])
@torch.no_grad()
def test_prompts_of_several_images_in_one_call(small, package, embeddings, kind, multimask):
    prompts = prompts_of(kind)
    masks = small(embeddings, prompts, multimask=multimask)
    logits, iou = one_by_one(small, package, embeddings, prompts, multimask)
    assert masks.logits.shape == (5, 3 if multimask else 1, 32, 32)
    torch.testing.assert_close(masks.logits, logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(masks.iou, iou, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_different_kinds_in_one_call_are_each_as_alone(small, package, embeddings):
    kinds = [prompts_of(kind) for kind in ("masks", "boxes", "points")]
    masks = small(embeddings, kinds)
    alone = [one_by_one(small, package, embeddings, prompts, False) for prompts in kinds]
    torch.testing.assert_close(masks.logits, torch.cat([logits for logits, _ in alone]), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(masks.iou, torch.cat([iou for _, iou in alone]), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_called_as_the_package_calls_it_the_decoder_is_the_packages(small, package, embeddings):
    prompts = prompts_of("boxes")
    sparse, dense = small.prompt_encoder(points=None, boxes=prompts.boxes, masks=None)
    arguments = (embeddings.image[:1], small.prompt_encoder.get_dense_pe(), sparse, dense, True)
    for ours, theirs in zip(small.mask_decoder(*arguments), package(*arguments), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_gradients_reach_shared_image_tokens_as_in_the_package(small, package, embeddings):
    prompts = prompts_of("boxes")
    grads = []
    for run in (
        lambda e: small(e, prompts).logits,
        lambda e: one_by_one(small, package, e, prompts, False)[0],
    ):
        image = embeddings.image.clone().requires_grad_()
        run(Embeddings(image)).square().mean().backward()
        grads.append(image.grad)
    torch.testing.assert_close(*grads, atol=1e-5, rtol=1e-3)


@torch.no_grad()
def test_order_of_prompts_does_not_matter(small, embeddings):
    prompts = prompts_of("points")
    order = torch.tensor([3, 1, 4, 0, 2])
    moved = Prompts(prompts.image[order], points=prompts.points[order], labels=prompts.labels[order])
    torch.testing.assert_close(small(embeddings, moved).logits, small(embeddings, prompts).logits[order])


@torch.no_grad()
def test_an_image_without_objects_gives_no_masks(small, embeddings):
    nobody = torch.zeros(0, dtype=torch.long)
    for prompts in (
        Prompts(nobody, boxes=torch.zeros(0, 4)),
        Prompts(nobody, points=torch.zeros(0, 2, 2), labels=torch.zeros(0, 2)),
    ):
        masks = small(embeddings, prompts)
        assert masks.logits.shape == (0, 1, 32, 32)
        assert masks.iou.shape == (0, 1)


@torch.no_grad()
def test_decoder_input_has_five_tokens_and_those_of_the_prompt(small, embeddings, monkeypatch):
    seen = []
    forward = small.mask_decoder.transformer.forward
    monkeypatch.setattr(
        small.mask_decoder.transformer, "forward", lambda *args: seen.append(args[2].shape) or forward(*args)
    )
    small(embeddings, prompts_of("boxes"))
    assert seen == [(5, 1 + 4 + 2, 64)]
    assert encode_prompts(small.prompt_encoder, prompts_of("boxes")).dense.shape == (1, 64, 1, 1)
