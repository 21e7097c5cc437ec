"""The trainable part: sizes, tokens, and that prompts of one call do not touch each other."""

from dataclasses import replace

import pytest
import torch

from papers.segic.model import Cues, SegicModel, siblings_of
from papers.segic.options import Assembly, Backbone
from papers.segic.released import num_trainable


def cues(image, seed=0, examples=1, crossed=True, **more):
    generator = torch.Generator().manual_seed(seed)
    n = len(image)
    return Cues(
        torch.tensor(image),
        torch.randn(n, 64, generator=generator),
        torch.randn(n, examples, 64, generator=generator),
        torch.randn(n, 8, generator=generator),
        torch.full((n,), crossed),
        **more,
    )


def some(cues, rows):
    """The cues of some prompts."""
    chosen = {name: getattr(cues, name)[rows] for name in ("image", "prototype", "visual", "text", "crossed")}
    boxes = {name: getattr(cues, name)[rows] for name in ("boxes", "has_box") if getattr(cues, name) is not None}
    return replace(cues, **chosen, **boxes)


@pytest.mark.parametrize(
    ("backbone", "number"),
    [("dinov2_vitb14", 5_246_436), ("dinov2_vitl14", 5_377_508), ("dinov2_vitg14", 5_639_652)],
)
def test_so_many_parameters_learn(backbone, number):
    with torch.device("meta"):
        model = SegicModel(Assembly(backbone=Backbone(name=backbone)))
    assert num_trainable(model) == number
    parts = {name: sum(p.numel() for p in getattr(model, name).parameters()) for name, _ in model.named_children()}
    dim = model.options.backbone.kind.dim
    assert parts == {
        "neck": 590_848 + 256 * dim,
        "prompt_encoder": 6_400,
        "mask_decoder": 4_058_340,
        "prompt_proj": 196_864,
        "inst_proj": 256 * dim + 256,
        "inst_type_embed": 512,
    }


@pytest.mark.parametrize(("name", "image", "strides"), [("dinov2_vitl14", 896, (7, 2)), ("mae_vitb16", 1024, (8, 2))])
def test_the_similarity_map_becomes_a_dense_prompt_of_64_by_64(name, image, strides):
    with torch.device("meta"):
        model = SegicModel(Assembly(backbone=Backbone(name=name, image=image), size={"strides": strides}))
        dense = model.prompt_encoder.mask_downscaling(torch.zeros(1, 1, image, image))
    assert dense.shape == (1, 256, 64, 64) == (1, 256, model.options.backbone.tokens, model.options.backbone.tokens)


def test_strides_that_do_not_make_a_patch_are_refused():
    with pytest.raises(ValueError, match="strides 8 and 2 make 16, and the backbone's patches have 14"):
        Assembly(size={"strides": (8, 2)})


def test_masks_have_four_pixels_a_token(make, features):
    found = make()(features, cues([0, 0, 1]))
    assert found.logits.shape == (3, 1, 32, 32)
    assert found.iou.shape == (3, 1)
    assert found.logits.isfinite().all()


@pytest.mark.parametrize("crossed", [True, False])
def test_visual_tokens_are_those_of_all_siblings_or_ones_own(make, features, crossed):
    model = make(geometric=False, meta=False)
    prompts = model.prompts(features, cues([0, 0, 0, 1], crossed=crossed))
    seen = torch.ones(4, prompts.sparse.shape[1]) if prompts.valid is None else prompts.valid
    assert seen.sum(1).tolist() == ([3, 3, 3, 1] if crossed else [1, 1, 1, 1])


def test_a_crossed_prompt_marks_which_token_is_its_own(make, features):
    model = make(geometric=False, meta=False)
    asked = cues([0, 0])
    plain = model.inst_proj(asked.visual[:, 0])
    own, other = model.inst_type_embed.weight[1], model.inst_type_embed.weight[0]
    values = model.prompts(features, asked).sparse
    assert torch.allclose(values[0], torch.stack([plain[0] + own, plain[1] + other]))
    assert torch.allclose(values[1], torch.stack([plain[0] + other, plain[1] + own]))
    alone = model.prompts(features, replace(asked, crossed=torch.zeros(2, dtype=torch.bool)))
    assert torch.allclose(alone.sparse[0][alone.valid[0]], plain[:1])


def test_every_instruction_has_its_tokens(make, features):
    asked = cues([0])
    numbers = {
        (): 0,
        ("geometric",): 2,  # the point and SAM's padding
        ("meta",): 1,
        ("visual",): 1,
        ("geometric", "meta", "visual"): 4,
    }
    for chosen, number in numbers.items():
        model = make(**{name: name in chosen for name in ("geometric", "meta", "visual")})
        prompts = model.prompts(features, asked)
        assert prompts.sparse.shape == (1, number, 32)
        assert (prompts.dense.shape[-1] == 8) == ("geometric" in chosen)


def test_a_box_takes_the_place_of_the_padding_point(make, features):
    asked = cues([0, 1], boxes=torch.tensor([[2.0, 2, 9, 9], [0, 0, 0, 0]]), has_box=torch.tensor([True, False]))
    prompts = make(visual=False, meta=False).prompts(features, asked)
    assert prompts.valid.tolist() == [[True, False, True, True], [True, True, False, False]]


def test_a_prompt_without_box_is_not_changed_by_the_box_of_another(make, features):
    model, asked = make(), cues([0, 1])
    boxed = replace(asked, boxes=torch.full((2, 4), 5.0), has_box=torch.tensor([True, False]))
    before, after = model(features, asked).logits, model(features, boxed).logits
    assert torch.allclose(before[1], after[1], atol=1e-4)
    assert not torch.allclose(before[0], after[0], atol=1e-2)


def test_prompts_of_different_images_are_as_if_asked_alone(make, features):
    model, asked = make(), cues([0, 1, 1])
    together = model(features, asked).logits
    first, rest = model(features, some(asked, [0])).logits, model(features, some(asked, [1, 2])).logits
    assert torch.allclose(together, torch.cat([first, rest]), atol=1e-4)


def test_crossed_prompts_depend_on_their_siblings(make, features):
    model, asked = make(geometric=False, meta=False), cues([0, 0])
    changed = replace(asked, visual=asked.visual * torch.tensor([1.0, 5.0])[:, None, None])
    assert not torch.allclose(model(features, asked).logits[0], model(features, changed).logits[0], atol=1e-3)
    alone = {"crossed": torch.zeros(2, dtype=torch.bool)}
    apart = (model(features, replace(c, **alone)).logits[0] for c in (asked, changed))
    assert torch.allclose(*apart, atol=1e-4)


def test_crossed_points_of_others_are_outside(make, features):
    model = make(visual=False, meta=False)
    asked = replace(cues([0, 0, 1]), crossed_points=True)
    prompts = model.prompts(features, asked)
    assert prompts.valid.tolist() == [[True, True, True], [True, True, True], [True, False, True]]
    apart = model.prompts(features, replace(asked, crossed_points=False)).sparse
    gap = model.prompt_encoder.point_embeddings[0].weight - model.prompt_encoder.point_embeddings[1].weight
    assert torch.allclose(prompts.sparse[0, 0], apart[0, 0], atol=1e-6)
    assert torch.allclose(prompts.sparse[0, 1], apart[1, 0] + gap[0], atol=1e-5)


def test_no_instruction_asks_the_same_of_every_class(make, features):
    model = make(geometric=False, visual=False, meta=False)
    assert torch.equal(model(features, cues([0], 1)).logits, model(features, cues([0], 2)).logits)


def test_siblings_keep_their_order():
    found = siblings_of(torch.tensor([1, 0, 1]))
    assert found.index[0].tolist() == [0, 2]
    assert found.own.tolist() == [[True, False], [True, False], [False, True]]
    assert found.valid.tolist() == [[True, True], [True, False], [True, True]]


def test_the_temperature_divides_the_map(small, features):
    from papers.segic.model import build_segic

    plain, cooled = (build_segic(small(use={"temperature": t}), 0) for t in (1.0, 2.0))
    assert torch.allclose(plain.maps(features, cues([0])), 2 * cooled.maps(features, cues([0])))
