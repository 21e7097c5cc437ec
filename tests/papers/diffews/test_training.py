"""Pre-training and fine-tuning on a handful of generated pictures: what is copied, what learns, what is asked for."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from papers.diffews.network import doubled
from papers.diffews.options import FineTuning, Pretraining, Process, SmallUnet
from papers.diffews.pictures import painted
from papers.diffews.pretraining import build as build_small
from papers.diffews.pretraining import pictures, pretrain, squares
from papers.diffews.training import EpisodeLoss, EpisodeMaker, build, fine_tune, start_from
from shared.segmentation.context import Context
from shared.segmentation.data import GeneratedData
from shared.segmentation.episodes.source import EpisodeSource, SampleClasses
from shared.segmentation.generated.parts import HUE_FAMILIES
from shared.segmentation.samples import Instances, Sample
from shared.segmentation.steps import Step

SMALL = Pretraining(side=32, unet=SmallUnet(channels=[8, 16], groups=4), steps=3, batch=4)
DATA = GeneratedData(kind="generated", manifest="hue_triples", part="train")


class Squares:
    """Twelve pictures, each with a red square of class 0 and a green one of class 1."""

    names = [f"squares_{number}" for number in range(12)]

    def __len__(self):
        return 12

    def __getitem__(self, index):
        random = np.random.default_rng(index)
        image, labels = random.integers(0, 60, (32, 32, 3), dtype=np.uint8), np.zeros((32, 32), np.int32)
        for number, left in ((1, 2), (2, 18)):
            top = int(random.integers(2, 18))
            image[top : top + 12, left : left + 12, number - 1] = 250
            labels[top : top + 12, left : left + 12] = number
        return Sample(self.names[index], image, Instances(labels, np.arange(2)))


@pytest.fixture
def context():
    found = Context(torch.device("cpu"), 0, 1, {"train": DATA})
    found._opened["train"] = Squares()
    return found


@pytest.fixture
def base(context):
    model = build_small(None, SMALL, 1)
    pretrain(model, None, SMALL, context)
    return model


def tuning(**options):
    return FineTuning(
        **{"start": SMALL, "side": 32, "steps": 2, "batch": 4, "lr": 1e-3, "classes": ["circle"], **options}
    )


def step(number=0, batch=4):
    return Step(number, np.arange(batch), np.random.default_rng(number))


def test_the_codec_keeps_masks_and_gives_latents_of_unit_width(base):
    images, masks = squares(Squares(), 32)
    seen = torch.cat([pictures(images), painted(torch.from_numpy(masks))])
    assert float(base.encode(seen).std(correction=0)) == pytest.approx(1, abs=0.15)
    back = base.decode(base.encode(painted(torch.from_numpy(masks)))).mean(1) > 0
    both = (back & torch.from_numpy(masks)).sum() / (back | torch.from_numpy(masks)).sum()
    assert both > 0.8


def test_images_of_no_class_are_left_out():
    source = SampleClasses(Squares(), ("circle", "square"))
    source.members = [[0, 3], [3, 5]]
    images, masks = squares(source, 32)
    assert images.shape == (3, 32, 32, 3)
    assert [int(mask.sum()) for mask in masks] == [144, 288, 144]


def test_pretraining_is_repeatable_and_leaves_the_codec_frozen(base, context):
    again = build_small(None, SMALL, 1)
    pretrain(again, None, SMALL, context)
    for name, value in base.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not any(parameter.requires_grad for parameter in base.codec.parameters())
    fresh = build_small(None, SMALL, 1).unet.state_dict()
    assert not torch.equal(base.unet.conv_in.weight, fresh["conv_in.weight"])


def test_fine_tuning_starts_from_the_pretrained_model(base):
    model = build(None, tuning(), 5)
    start_from(model, base, model.options)
    unet = model.latent.unet
    assert torch.equal(unet.conv_in.weight, base.unet.conv_in.weight)
    assert torch.equal(unet.conv_in_ref.weight, doubled(base.unet.conv_in).weight)
    assert torch.equal(model.latent.codec.components, base.codec.components)
    assert model.latent.scale == base.scale


def test_from_noise_both_first_convolutions_are_doubled(base):
    model = build(None, tuning(process=Process(scheme="mn2m")), 5)
    start_from(model, base, model.options)
    for name in ("conv_in", "conv_in_ref"):
        assert torch.equal(getattr(model.latent.unet, name).weight, doubled(base.unet.conv_in).weight)


def test_fresh_weights_keep_the_codec_alone(base):
    model = build(None, tuning(pretrained=False), 5)
    before = model.latent.unet.conv_out.weight.clone()
    start_from(model, base, model.options)
    assert torch.equal(model.latent.unet.conv_out.weight, before)
    assert torch.equal(model.latent.codec.components, base.codec.components)


@pytest.mark.parametrize(
    "options", [{}, {"interaction": "none"}, {"fusion": "qkv"}, {"shots": 2}, {"process": Process(scheme="mn2m")}]
)
def test_the_whole_unet_learns_and_nothing_else(base, context, options):
    tuned = tuning(**options)
    model = build(None, tuned, 5)
    start_from(model, base, tuned)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fine_tune(model, base, tuned, context)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    learns = {name for name in before if name.startswith("latent.unet.")}
    assert changed <= learns
    # a text of zeros gives the cross-attention nothing to learn from
    assert all("norm2" in name or "attn2" in name for name in learns - changed)


def maker(**options):
    tuned = tuning(**options)
    return EpisodeMaker(EpisodeSource(SampleClasses(Squares(), HUE_FAMILIES), tuned.classes, tuned.shots), tuned)


def test_episodes_show_the_class_that_is_asked_for_in_another_image():
    batch = maker(shots=3, classes=["circle", "square"])(step(batch=6))
    shots = batch.example_masks.shape[1]
    assert 1 <= shots <= 3
    for number in range(6):
        channel = int(batch.images[number][batch.masks[number]].float().mean(0).argmax())
        for k in range(shots):
            shown, where = batch.example_images[number, k], batch.example_masks[number, k]
            assert int(shown[where].float().mean(0).argmax()) == channel
            assert not torch.equal(shown, batch.images[number])


def test_numbers_of_examples_are_drawn_for_a_whole_step():
    made = maker(shots=3)
    drawn = [made(step(number)).example_masks.shape[1] for number in range(30)]
    assert set(drawn) == {1, 2, 3}
    assert drawn == [made(step(number)).example_masks.shape[1] for number in range(30)]


def test_the_loss_of_one_step_is_the_distance_to_minus_the_mask(base):
    model = build(None, tuning(), 5)
    start_from(model, base, model.options)
    batch = maker()(step())

    def painter(query, times, examples, text):
        assert times.tolist() == [1, 1, 1, 1]
        assert_close(query, base.encode(pictures(batch.images)))
        return -base.encode(painted(batch.masks))

    loss = EpisodeLoss(model)
    assert float(loss(painter, batch)) == pytest.approx(0, abs=1e-10)
    half = batch._replace(**{name: getattr(batch, name)[:2] for name in batch._fields})
    rest = batch._replace(**{name: getattr(batch, name)[2:] for name in batch._fields})
    with torch.no_grad():
        parts = (loss(model, half) + loss(model, rest)) / 2
        assert_close(loss(model, batch), parts)


def test_a_loss_from_noise_may_be_cut_anywhere(base):
    """Times and noise belong to the sample, not to its place in the batch."""
    model = build(None, tuning(process=Process(scheme="mn2m", schedule="cosine", multi_resolution=0.5)), 5)
    start_from(model, base, model.options)
    batch, loss = maker()(step()), EpisodeLoss(model)
    one = [batch._replace(**{name: getattr(batch, name)[n : n + 1] for name in batch._fields}) for n in range(4)]
    with torch.no_grad():
        assert_close(loss(model, batch), torch.stack([loss(model, part) for part in one]).mean())


def test_the_padded_prompt_is_for_training_only(base):
    model = build(None, tuning(padded_text=True), 5)
    start_from(model, base, model.options)
    seen = []
    EpisodeLoss(model)(lambda query, times, examples, text: seen.append(text) or query, maker()(step()))
    assert seen[0] is model.latent.padded_text
