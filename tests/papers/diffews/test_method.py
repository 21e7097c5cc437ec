"""The segmenter: what it remembers, what it answers, and what it refuses."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from papers.diffews.method import FewShot, diffews
from papers.diffews.network import Diffews
from papers.diffews.options import Answering, DiffewsOptions, FineTuning, Process, ReleasedOptions
from papers.diffews.process import FIRST_TIME
from shared.errors import ConfigError, DataError
from shared.options import parse_options
from shared.segmentation.context import Context
from shared.segmentation.episodes.predictor import Example

# thresholds that an untrained network's grey pictures reach in places
LOW = Answering(tau=0.6)
MN2M = Process(scheme="mn2m", schedule="cosine")


def picture(seed, height=32, width=32):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def example(seed, height=32, width=32):
    mask = np.zeros((height, width), bool)
    mask[height // 4 : height // 2, width // 4 :] = True
    return Example(picture(seed, height, width), mask)


@pytest.fixture
def segmenter(make):
    return FewShot(make(), LOW, 0)


def test_masks_have_their_images_sizes(segmenter):
    memory = segmenter.remember([example(1), example(2, 40, 50)])
    images = [picture(3), picture(4, 20, 70), picture(5, 64, 48)]
    found = segmenter.masks(memory, images)
    assert [mask.shape for mask in found] == [(32, 32), (20, 70), (64, 48)]
    assert all(mask.dtype == bool for mask in found)
    assert any(0 < mask.mean() < 1 for mask in found)


def test_an_answer_does_not_depend_on_what_else_is_asked(segmenter):
    memory = segmenter.remember([example(1)])
    images = [picture(3), picture(4)]
    assert_close(
        segmenter.found(memory, images)[1], segmenter.found(memory, images[1:])[0], rtol=0, atol=1 / 255 + 1e-6
    )


def test_the_memory_is_used_many_times_and_computed_once(segmenter, monkeypatch):
    calls = []
    remember = Diffews.remember
    monkeypatch.setattr(Diffews, "remember", lambda *a: calls.append(1) or remember(*a))
    memory = segmenter.remember([example(1)])
    first = [segmenter.masks(memory, [picture(seed)])[0] for seed in range(3)]
    again = segmenter.masks(memory, [picture(0)])[0]
    assert len(calls) == 1
    assert np.array_equal(first[0], again)


def test_the_memory_is_linear_in_examples(segmenter):
    sizes = [segmenter.remember([example(seed) for seed in range(n)]).num_bytes for n in (1, 2, 5)]
    assert sizes == [sizes[0], 2 * sizes[0], 5 * sizes[0]]


def test_sampled_keys_keep_the_memory_of_one_example(make):
    model = make()
    examples = [example(seed) for seed in range(4)]
    every, some = (FewShot(model, Answering(keys=keys), 0).remember(examples) for keys in ("all", "sampled"))
    assert every.num_bytes == 4 * some.num_bytes
    one = FewShot(model, Answering(keys="sampled"), 0).remember(examples[:1])
    assert_close(one.banks[FIRST_TIME], FewShot(model, Answering(), 0).remember(examples[:1]).banks[FIRST_TIME])


def test_the_order_of_examples_does_not_matter(segmenter):
    examples = [example(seed) for seed in range(3)]
    found = [segmenter.found(segmenter.remember(e), [picture(9)]) for e in (examples, examples[::-1])]
    assert_close(*found, rtol=0, atol=1 / 255 + 1e-6)


def test_one_step_paints_minus_the_output(make):
    model = make()
    segmenter = FewShot(model, Answering(), 0)
    memory, images = segmenter.remember([example(1)]), [picture(3)]
    z = model.latent.encode(torch.from_numpy(images[0]).permute(2, 0, 1)[None].float() / 127.5 - 1)
    output = model.answer(z, torch.tensor([FIRST_TIME]), memory.examples, memory.banks[FIRST_TIME], model.latent.text)
    painted = (model.latent.decode(-output) / 2 + 0.5).clamp(0, 1)
    assert_close(segmenter.found(memory, images), (painted * 255).floor() / 255, rtol=0, atol=1 / 255 + 1e-6)


@pytest.mark.parametrize("options", [{"process": MN2M}, {"process": Process(scheme="mi2m")}, {"fusion": "qkv"},
                                     {"interaction": "none"}, {"injection": "mask"}, {"target": "blend"}])  # fmt: skip
def test_every_variant_answers(make, options):
    steps = 3 if "process" in options else 1
    segmenter = FewShot(make(**options), Answering(steps=steps, tau=0.6), 0)
    memory = segmenter.remember([example(1), example(2)])
    assert set(memory.banks) == ({667, 334, 1} if steps == 3 else {1})
    found = segmenter.masks(memory, [picture(3), picture(4)])
    assert found[0].shape == (32, 32)


def test_banks_of_several_times_are_those_of_each_time_alone(make):
    model = make(process=Process(scheme="mi2m"), injection="mask")
    memory = FewShot(model, Answering(steps=20), 0).remember([example(1), example(2)])
    for time in (1, 501, 951):
        alone = model.remember(memory.examples, torch.tensor([time]), model.latent.text)
        assert_close(memory.banks[time], alone, rtol=1e-4, atol=1e-5)


def test_noise_follows_the_seed_and_an_ensemble_averages_over_it(make):
    model = make(process=MN2M)

    def found(seed, ensemble):
        segmenter = FewShot(model, Answering(steps=2, ensemble=ensemble), seed)
        return segmenter.found(segmenter.remember([example(1)]), [picture(3)])

    assert torch.equal(found(0, 1), found(0, 1))
    assert not torch.equal(found(0, 1), found(1, 1))
    assert not torch.equal(found(0, 1), found(0, 3))


def test_what_it_refuses(segmenter):
    with pytest.raises(DataError, match="no example is given"):
        segmenter.remember([])
    with pytest.raises(DataError, match="empty"):
        Example(picture(1), np.zeros((32, 32), bool))
    memory = segmenter.remember([example(1)])
    with pytest.raises(DataError, match="expected an image"):
        segmenter.masks(memory, [picture(3)[..., 0]])
    assert segmenter.masks(memory, []) == []


def test_the_row_uses_its_part_and_its_seed(make):
    options = DiffewsOptions(model=make().options, tau=0.5)
    found = diffews({"model": make()}, options, Context(torch.device("cpu"), 7))
    assert (found.seed, found.answering.tau, found.side) == (7, 0.5, 32)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 4}, "paints the mask in one"),
        ({"ensemble": 3}, "only mn2m starts from"),
        ({"model": {"fusion": "qkv"}, "keys": "sampled"}, "has not"),
        ({"model": {"interaction": "none", "fusion": "qkv"}}, "is for the interaction 'fsa'"),
        ({"model": {"interaction": "tca", "injection": "multiply_latent"}}, "tokens have no latents"),
        ({"model": {"process": {"scheme": "mn2m"}, "injection": "add"}}, "injection 'concat'"),
        ({"model": {"start": {"kind": "small"}, "side": 48}}, "learns at 32"),
        ({"model": {"inyection": "add"}}, "injection"),
    ],
)
def test_options_that_make_no_sense_are_one_line(values, message):
    with pytest.raises(ConfigError, match=message) as error:
        parse_options("papers.diffews.method:diffews", values)
    assert "\n" not in str(error.value)


def test_weights_that_training_reads_are_named():
    assert FineTuning().manifests() == ["stable_diffusion_2_1"]
    assert FineTuning(interaction="tca").manifests() == ["stable_diffusion_2_1", "clip_vit_large_patch14"]
    assert ReleasedOptions(folder="incontext").manifest == "diffews_released"
