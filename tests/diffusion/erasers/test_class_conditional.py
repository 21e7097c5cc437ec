"""Erasing a class of a class-conditional DDPM: times, losses, mask, and training."""

import copy

import pytest
import torch
from torch import nn

from shared.diffusion.classes.options import ClassErasingOptions
from shared.diffusion.erasers.class_conditional import (
    ErasingBatches,
    class_saliency_mask,
    drop_condition,
    erase_class,
    erasing_loss,
    guided_sum_loss,
    noised_images,
    relabel_class_loss,
    sum_loss,
)
from shared.diffusion.erasers.noising import noised
from shared.diffusion.train import antithetic_times
from shared.diffusion.zoo.class_unet import ClassUnet
from shared.errors import DataError
from shared.training.device_images import DeviceImages
from shared.training.seeds import stream

CLASSES, NULL = 4, 4


class TinyDdpm(nn.Module):
    """Conditional on class and time, with dropout as the paper's has."""

    def __init__(self, dropout=0.1):
        super().__init__()
        self.condition = nn.Embedding(CLASSES + 1, 8)
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 1, 3, padding=1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, images, timesteps, labels):
        condition = self.condition(labels) + torch.sin(timesteps.float() / 10)[:, None]
        return self.last(self.dropout(torch.relu(self.first(images) + condition[:, :, None, None])))


@pytest.fixture
def model():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TinyDdpm().eval()


@pytest.fixture
def steps():
    return torch.cumprod(1 - torch.linspace(1e-4, 0.2, 50), 0)


def images_of(label, num=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.full((num,), label) if label is not None else torch.randint(1, CLASSES, (num,), generator=generator)
    return DeviceImages(torch.rand(num, 1, 12, 12, generator=generator), labels, CLASSES)


@pytest.fixture
def forget():
    return images_of(0)


@pytest.fixture
def retain():
    return images_of(None, num=30, seed=1)


def options_of(**changes):
    return ClassErasingOptions(**{"iterations": 6, "batch": 8, "mask_batch": 8, "lr": 1e-2, **changes})


def batches_of(forget, retain, steps, seed=0, **changes):
    return ErasingBatches(forget, retain, steps, options_of(**changes), torch.Generator().manual_seed(seed))


def flat(mask):
    return torch.cat([part.flatten() for part in mask.values()])


@pytest.mark.parametrize("count", [1, 2, 7, 8])
def test_antithetic_times(count):
    times = antithetic_times(count, 50, torch.Generator().manual_seed(0))
    assert len(times) == count
    half = count // 2 + 1
    assert torch.equal(times[half:], 49 - times[: count - half])
    assert times.min() >= 0
    assert times.max() < 50


def test_images_are_scaled_and_noised(forget, steps):
    batch = next(forget.batches(5, shuffle=False))
    found = noised_images(batch, steps, torch.Generator().manual_seed(0))
    expected = noised(2 * batch.images - 1, found.noise, found.timesteps, steps)
    assert torch.equal(found.images, expected)


def test_sum_loss_is_a_mean_square_times_pixels(model, forget, steps):
    batch = noised_images(next(forget.batches(5, shuffle=False)), steps, torch.Generator().manual_seed(0))
    predicted = model(batch.images, batch.timesteps, batch.labels)
    torch.testing.assert_close(sum_loss(model, batch), 144 * (predicted - batch.noise).square().mean())


def test_relabelling_as_its_own_class_costs_nothing_in_eval_mode(model, forget, steps):
    batch = noised_images(next(forget.batches(5, shuffle=False)), steps, torch.Generator().manual_seed(0))
    assert relabel_class_loss(model, batch, batch.labels) == 0
    assert relabel_class_loss(model, batch, batch.labels + 1) > 0
    model.train()  # the two branches drop out different units
    assert relabel_class_loss(model, batch, batch.labels) > 0


def test_relabel_target_is_detached(model, forget, steps):
    batch = noised_images(next(forget.batches(5, shuffle=False)), steps, torch.Generator().manual_seed(0))
    target = model(batch.images, batch.timesteps, batch.labels + 1).detach()
    expected = torch.autograd.grad(
        (model(batch.images, batch.timesteps, batch.labels) - target).square().mean(), list(model.parameters())
    )
    mine = torch.autograd.grad(relabel_class_loss(model, batch, batch.labels + 1), list(model.parameters()))
    for a, b in zip(mine, expected, strict=True):
        torch.testing.assert_close(a, b)
    assert not mine[0][1].any()  # the row of the other class


def test_terms_of_the_loss(model, forget, retain, steps):
    batch = next(batches_of(forget, retain, steps))
    relabel, ascend = (
        erasing_loss(model, batch, options_of(alpha=0.0, forget_term=term)) for term in ("relabel", "ascend")
    )
    torch.testing.assert_close(relabel, relabel_class_loss(model, batch.forget, batch.other))
    torch.testing.assert_close(ascend, -sum_loss(model, batch.forget))
    with_retain = erasing_loss(model, batch, options_of(alpha=0.5))
    torch.testing.assert_close(with_retain, relabel + 0.5 * sum_loss(model, batch.retain))


def test_batches_name_the_next_class_and_drop_conditions_independently(forget, retain, steps):
    for batch in batches_of(forget, retain, steps, condition_drop=0.0):
        assert (batch.forget.labels == 0).all()
        assert (batch.other == 1).all()
        assert (batch.retain.labels > 0).all()
        assert len(batch.forget.labels) == len(batch.retain.labels) == 8
    last = images_of(CLASSES - 1)
    assert (next(batches_of(last, retain, steps, condition_drop=0.0)).other == 0).all()
    dropped = [
        ((b.forget.labels == NULL), (b.other == NULL), (b.retain.labels == NULL))
        for b in batches_of(forget, retain, steps, iterations=40, condition_drop=0.5)
    ]
    shares = torch.stack([torch.cat(column) for column in zip(*dropped, strict=True)]).float()
    assert ((shares.mean(1) - 0.5).abs() < 0.1).all()
    assert torch.corrcoef(shares).fill_diagonal_(0).abs().max() < 0.2


def test_dropping_nothing_and_everything():
    labels = torch.tensor([0, 1, 2])
    assert torch.equal(drop_condition(labels, 9, 0.0, torch.Generator()), labels)
    assert (drop_condition(labels, 9, 1.0, torch.Generator()) == 9).all()


def test_guided_loss_without_guidance_is_the_sum_loss(model, forget, steps):
    batch = noised_images(next(forget.batches(5, shuffle=False)), steps, torch.Generator().manual_seed(0))
    torch.testing.assert_close(guided_sum_loss(model, batch, NULL, 0.0), sum_loss(model, batch))
    with_class = model(batch.images, batch.timesteps, batch.labels)
    without = model(batch.images, batch.timesteps, torch.full_like(batch.labels, NULL))
    expected = (batch.noise - (3 * with_class - 2 * without)).square().flatten(1).sum(1).mean()
    torch.testing.assert_close(guided_sum_loss(model, batch, NULL, 2.0), expected)


def test_mask_adds_clipped_gradients_with_their_sign(model, forget, steps):
    options = options_of(keep=0.3)
    mask = class_saliency_mask(model, forget, steps, options, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    total = None
    for batch in forget.batches(8, generator):
        loss = guided_sum_loss(model, noised_images(batch, steps, generator), NULL, 2.0)
        model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
        total = gradient if total is None else total + gradient
    rank = (-total.abs()).argsort(stable=True).argsort()
    assert torch.equal(flat(mask), rank < int(0.3 * len(total)))


@pytest.mark.parametrize("forget_term", ["relabel", "ascend"])
def test_training_moves_only_masked_weights(forget_term, model, forget, retain, steps):
    options = options_of(keep=0.3, forget_term=forget_term)
    before = copy.deepcopy(model)
    mask = class_saliency_mask(copy.deepcopy(model), forget, steps, options, stream(0, "saliency mask"))
    result = erase_class(model, forget, retain, steps, options, generator=lambda name: stream(0, name))
    assert result.steps == 6
    for (name, after), start in zip(model.named_parameters(), before.parameters(), strict=True):
        assert torch.equal(after[~mask[name]], start[~mask[name]])
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True))


def test_training_is_seeded_and_keep_one_needs_no_mask(model, forget, retain, steps, monkeypatch):
    def fail(*_):
        raise AssertionError("no gradient pass is needed")

    results = []
    for seed in (0, 0, 1):
        net = copy.deepcopy(model)
        with monkeypatch.context() as patch:
            patch.setattr("shared.diffusion.erasers.class_conditional.class_saliency_mask", fail)
            torch.manual_seed(seed)
            generator = lambda name, seed=seed: stream(seed, name)  # noqa: E731
            erase_class(net, forget, retain, steps, options_of(keep=1.0), generator=generator)
        results.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_the_track_s_own_network_is_taken_as_it_comes(forget, retain, steps):
    """Frozen, as the zoo loads it; dropout is on while it unlearns."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = ClassUnet(
            sample_size=12, in_channels=1, num_classes=CLASSES, channels=8, multipliers=(1, 2), num_blocks=1,
            attention=(6,), groups=4,
        )  # fmt: skip
    unet.eval().requires_grad_(False)
    before = copy.deepcopy(unet.state_dict())
    erase_class(unet, forget, retain, steps, options_of(iterations=2), generator=lambda name: stream(0, name))
    after = unet.state_dict()
    changed = sum(int((after[name] != value).sum()) for name, value in before.items())
    total = sum(value.numel() for value in before.values())
    assert 0 < changed <= total // 2


def test_too_few_images_are_named(retain, steps):
    with pytest.raises(DataError, match="5 images do not fill a batch of 8"):
        next(batches_of(images_of(0, num=5), retain, steps))
