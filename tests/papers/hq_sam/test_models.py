"""HQ-SAM's decoder, its names, its switches and what it trains."""

import pytest
import torch
from segment_anything.modeling import MaskDecoder, TwoWayTransformer

from papers.hq_sam.models import build_hq, new_names
from papers.hq_sam.options import HqOptions
from shared.data.manifest import load_manifest
from shared.errors import DataError
from shared.segmentation.sam.checkpoints import load_decoder, load_sam, save_released
from shared.segmentation.sam.decoder import Embeddings
from shared.segmentation.sam.model import build_sam, count
from shared.segmentation.sam.options import SIZES
from shared.segmentation.sam.prompts import Prompts

SMALL = SIZES["small_patch8"]
BOXES = torch.tensor([[4.0, 4, 40, 40], [10, 8, 60, 50], [0, 20, 30, 63], [25, 25, 50, 45], [2, 2, 62, 62]])
PROMPTS = Prompts(torch.tensor([1, 0, 0, 1, 1]), boxes=BOXES)
# new parameters, and MiB of them as table 1 prints them
NEW = {"vit_b": 1_071_104, "vit_l": 1_333_248, "vit_h": 1_595_392, "tiny_vit": 448_512}
MEBIBYTES = {"vit_b": 4.1, "vit_l": 5.1, "vit_h": 6.1, "tiny_vit": 1.7}


@pytest.fixture(scope="module")
def model(spread):
    return spread(build_hq(SMALL, seed=0))


@pytest.fixture(scope="module")
def embeddings(model, images):
    with torch.no_grad():
        return model.embed(images)


def names_of_section_3():
    """The 25 tensors that the released files have beyond SAM's."""
    ends = ("weight", "bias")
    names = {"mask_decoder.hf_token.weight"}
    names |= {f"mask_decoder.hf_mlp.layers.{i}.{end}" for i in range(3) for end in ends}
    modules = ("compress_vit_feat", "embedding_encoder", "embedding_maskfeature")
    return names | {f"mask_decoder.{module}.{i}.{end}" for module in modules for i in (0, 1, 3) for end in ends}


@pytest.mark.parametrize("size", NEW)
def test_new_parameters_are_as_many_as_published(size):
    with torch.device("meta"):
        model = build_hq(SIZES[size])
        sam = build_sam(SIZES[size])
    names = new_names(model)
    assert len(names) == 25
    assert set(names) == names_of_section_3()
    assert sum(model.state_dict()[name].numel() for name in names) == NEW[size]
    assert set(model.state_dict()) - set(names) == set(sam.state_dict())
    assert round(4 * NEW[size] / 2**20, 1) == MEBIBYTES[size]
    if size == "vit_l":
        assert NEW[size] / count(sam) < 0.005


def plain_sam(model):
    """The package's decoder with SAM's part of the weights."""
    size = model.size
    decoder = MaskDecoder(
        transformer_dim=size.width,
        transformer=TwoWayTransformer(size.depth, size.width, size.heads, size.mlp),
        iou_head_hidden_dim=size.iou_hidden,
    )
    decoder.load_state_dict(model.mask_decoder.state_dict(), strict=False)
    return decoder.eval()


@torch.no_grad()
def test_without_the_hq_column_masks_are_sams(model, embeddings):
    # called without early features, the decoder leaves its sixth token out
    sparse, dense = model.prompt_encoder(points=None, boxes=BOXES, masks=None)
    arguments = (embeddings.image[:1], model.prompt_encoder.get_dense_pe(), sparse, dense, True)
    for ours, theirs in zip(model.mask_decoder(*arguments), plain_sam(model)(*arguments), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    same_image = Prompts(torch.zeros(5, dtype=torch.long), boxes=BOXES)
    with_token = model(embeddings, same_image).sam
    without = model.mask_decoder(*arguments[:-1], False)[0]
    assert not torch.allclose(with_token, without, atol=1e-3)  # the token takes part in SAM's attention


@torch.no_grad()
@pytest.mark.parametrize("multimask", [False, True])
def test_hq_token_masked_out_of_attention_gives_sams_masks_exactly(model, embeddings, monkeypatch, multimask):
    transformer = model.mask_decoder.transformer
    forward = transformer.forward

    def without_hq(source, pe, tokens, index, valid):
        assert tokens.shape == (5, 1 + 4 + 1 + 2, 64)  # eight tokens for a box
        seen = torch.ones(tokens.shape[:2], dtype=torch.bool)
        seen[:, 5] = False
        return forward(source, pe, tokens, index, seen)

    monkeypatch.setattr(transformer, "forward", without_hq)
    masks = model(embeddings, PROMPTS, multimask=multimask)
    sam = build_sam(SMALL)
    sam.load_state_dict(model.state_dict(), strict=False)
    plain = sam.eval()(embeddings, PROMPTS, multimask=multimask)
    best = plain.iou.argmax(1)
    torch.testing.assert_close(masks.sam[:, 0], plain.logits[torch.arange(5), best], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(masks.iou[:, 0], plain.iou.max(1).values, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_a_zero_last_layer_makes_the_sum_sams_mask(spread, images):
    model = spread(build_hq(SMALL, seed=1))
    for parameter in model.mask_decoder.hf_mlp.layers[2].parameters():
        parameter.zero_()
    masks = model(images, PROMPTS, multimask=True)
    assert torch.equal(masks.hq, torch.zeros_like(masks.hq))
    assert torch.equal(masks.logits, masks.sam)


@torch.no_grad()
def test_switch_between_the_token_alone_and_the_sum(model, embeddings):
    only, both = (model(embeddings, PROMPTS, hq_token_only=alone) for alone in (True, False))
    assert torch.equal(only.logits, only.hq)
    assert torch.equal(both.logits, both.sam + both.hq)
    assert torch.equal(only.iou, both.iou)
    assert only.logits.shape == (5, 1, 32, 32)
    assert not torch.allclose(only.logits, both.logits)


FEATURES = [
    ["decoder_plain"],
    ["decoder"],
    ["final"],
    ["final", "early"],
    ["decoder", "final"],
    ["decoder", "early"],
    ["decoder", "final", "early"],
]


@torch.no_grad()
@pytest.mark.parametrize("features", FEATURES, ids=" ".join)
def test_masks_are_products_of_the_token_with_the_sum_of_the_terms(spread, images, features):
    model = spread(build_hq(SMALL, HqOptions(features=features), seed=2))
    decoder = model.mask_decoder
    kept = []
    run = decoder.run
    decoder.run = lambda *arguments: kept.append(run(*arguments)) or kept[-1]
    masks = model(images, PROMPTS, hq_token_only=True)
    embeddings, (decoded,) = model.embed(images), kept
    terms = []
    if "decoder_plain" in features:
        terms.append(decoded.upscaled)
    if "decoder" in features:
        terms.append(decoder.embedding_maskfeature(decoded.upscaled))
    if "final" in features:
        terms.append(decoder.embedding_encoder(embeddings.image)[PROMPTS.image])
    if "early" in features:
        terms.append(decoder.compress_vit_feat(embeddings.early.permute(0, 3, 1, 2))[PROMPTS.image])
    expected = torch.einsum("nc,nchw->nhw", decoder.hf_mlp(decoded.tokens[:, 5]), sum(terms))
    torch.testing.assert_close(masks.logits[:, 0], expected, atol=1e-4, rtol=1e-4)
    assert hasattr(decoder, "compress_vit_feat") == model.needs_early == ("early" in features)
    assert len(new_names(model)) == 7 + 6 * len(set(features) - {"decoder_plain"})


@torch.no_grad()
def test_context_tokens_alone_leave_sams_heads_in_charge(spread, model, embeddings):
    context = spread(build_hq(SMALL, HqOptions(features=[], context_tokens=3), seed=3))
    assert new_names(context) == ["mask_decoder.context_tokens.weight"]
    masks = context(embeddings, PROMPTS)
    assert masks.hq is None
    assert torch.equal(masks.logits, masks.sam)
    with_both = build_hq(SMALL, HqOptions(context_tokens=3), seed=3)
    assert len(new_names(with_both)) == 26
    with_both.load_state_dict(model.state_dict(), strict=False)
    assert with_both.mask_decoder.output_tokens().shape == (9, 64)
    assert torch.equal(with_both.mask_decoder.output_tokens()[5], model.mask_decoder.hf_token.weight[0])
    assert not torch.allclose(with_both.eval()(embeddings, PROMPTS).hq, model(embeddings, PROMPTS).hq)


def test_options_that_contradict_themselves():
    for values, message in (
        ({"features": ["decoder", "decoder_plain"]}, "either"),
        ({"features": ["final", "final"]}, "twice"),
        ({"features": []}, "nothing can be trained"),
        ({"features": ["late"]}, "late"),
    ):
        with pytest.raises(ValueError, match=message):
            HqOptions(**values)


@torch.no_grad()
def test_features_computed_once_give_the_same_masks(model, embeddings):
    prepared = model.mask_decoder.prepare(embeddings)
    assert model.mask_decoder.prepare(prepared) is prepared
    assert prepared.feature.shape == (2, 8, 32, 32)
    assert torch.equal(model(prepared, PROMPTS).logits, model(embeddings, PROMPTS).logits)
    first = Prompts(torch.zeros(5, dtype=torch.long), boxes=BOXES)  # one image: the path without copies
    alone = model(prepared[:1], first)
    torch.testing.assert_close(alone.logits, model(embeddings, first).logits, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="no early feature"):
        model(Embeddings(embeddings.image), PROMPTS)


def test_training_moves_the_25_tensors_and_no_other(images):
    model = build_hq(SMALL, seed=4)
    new = new_names(model)
    model.freeze(new)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    embeddings = model.embed(images)
    assert not embeddings.image.requires_grad
    for _ in range(2):
        optimizer.zero_grad()
        loss = model(embeddings, PROMPTS, hq_token_only=True).logits.square().mean()
        loss.backward()
        optimizer.step()
    with_gradient = [name for name, parameter in model.named_parameters() if parameter.grad is not None]
    assert set(with_gradient) == set(new)
    assert len(with_gradient) == 25
    assert count(model, trainable=True) == sum(before[name].numel() for name in new)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == (name not in new), name


def test_baseline_rows_train_their_own_parts(images):
    sam = build_sam(SMALL, seed=5)
    decoder = sam.freeze(["mask_decoder"])
    token = sam.freeze(["mask_decoder.mask_tokens", "mask_decoder.output_hypernetworks_mlps.0"])
    assert len(token) == 1 + 6
    assert set(token) < set(decoder)
    sam(images, PROMPTS).logits.mean().backward()
    assert {name for name, parameter in sam.named_parameters() if parameter.grad is not None} == set(token)
    context = build_hq(SMALL, HqOptions(features=[], context_tokens=3), seed=5)
    assert context.freeze(new_names(context)) == ["mask_decoder.context_tokens.weight"]
    context(images, PROMPTS).logits.mean().backward()
    assert context.mask_decoder.context_tokens.weight.grad.abs().sum() > 0


def test_files_of_sam_and_of_hq_sam(model, tmp_path):
    save_released(model, tmp_path / "hq.pth")
    sam = build_sam(SMALL, seed=6)
    save_released(sam, tmp_path / "sam.pth")
    fresh = build_hq(SMALL, seed=7)
    own = {name: fresh.state_dict()[name].clone() for name in new_names(fresh)}
    assert load_sam(fresh, tmp_path / "sam.pth", new=new_names(fresh)) is False
    for name, value in fresh.state_dict().items():
        assert torch.equal(value, own[name] if name in own else sam.state_dict()[name]), name
    assert load_sam(fresh, tmp_path / "hq.pth", new=new_names(fresh)) is True
    for name, value in fresh.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    with pytest.raises(DataError, match=r"hq.pth: tensor 'mask_decoder.\w+.*' is unknown to this model"):
        load_sam(sam, tmp_path / "hq.pth")
    part = {name: value for name, value in model.state_dict().items() if name != "mask_decoder.hf_token.weight"}
    torch.save(part, tmp_path / "part.pth")
    with pytest.raises(DataError, match=r"part.pth: has no tensor 'mask_decoder.hf_token.weight'"):
        load_sam(fresh, tmp_path / "part.pth", new=new_names(fresh))


def test_a_training_file_is_a_decoder_without_prefix(model, tmp_path):
    torch.save(model.mask_decoder.state_dict(), tmp_path / "epoch_11.pth")
    fresh = build_hq(SMALL, seed=8)
    load_decoder(fresh, tmp_path / "epoch_11.pth")
    assert torch.equal(fresh.mask_decoder.hf_token.weight, model.mask_decoder.hf_token.weight)
    torch.save(build_sam(SMALL).mask_decoder.state_dict(), tmp_path / "sam.pth")
    with pytest.raises(DataError, match=r"has no tensor 'hf_token.weight'"):
        load_decoder(fresh, tmp_path / "sam.pth")


@pytest.mark.parametrize("size", ["vit_b", "vit_l", "vit_h", "vit_tiny"])
def test_manifests_name_the_released_files_at_a_revision(size):
    (file,) = load_manifest(f"sam_hq_{size}").files
    assert file.name == f"sam_hq_{size}.pth"
    assert file.is_pinned
    assert "/resolve/main/" not in file.addresses[0]
