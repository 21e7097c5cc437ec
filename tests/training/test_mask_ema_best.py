import pytest
import torch
import torch.nn.functional as F
from torch import nn

from shared.training.best import BestWeights
from shared.training.device_images import DeviceImages
from shared.training.ema import Ema
from shared.training.loop import fit
from shared.training.mask import WeightMask
from shared.training.optim import make_optimizer
from shared.training.options import OptimizerOptions


def network():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3))


def train(model, mask=None, kind="sgd", **hooks):
    generator = torch.Generator().manual_seed(0)
    data = DeviceImages(torch.rand(20, 1, 6, 6, generator=generator), torch.arange(20) % 3, 3)
    momentum = {"momentum": 0.9} if kind == "sgd" else {}
    options = OptimizerOptions(kind=kind, lr=0.05, weight_decay=0.01, **momentum)
    optimizer = make_optimizer(model.parameters(), options)
    if mask is not None:
        hooks |= {"after_backward": mask.after_backward, "after_step": mask.after_step}
    fit(
        model,
        lambda epoch, generator: data.batches(6, generator),
        lambda model, batch: F.cross_entropy(model(batch.images), batch.labels),
        optimizer=optimizer,
        epochs=2,
        generator=generator,
        **hooks,
    )
    return optimizer


def random_mask(model, share):
    generator = torch.Generator().manual_seed(7)
    return {name: torch.rand(p.shape, generator=generator) < share for name, p in model.named_parameters()}


@pytest.mark.parametrize("leak", [True, False])
def test_a_full_mask_is_no_mask_to_the_bit(leak):
    masked, free = network(), network()
    train(masked, WeightMask(masked, random_mask(masked, 1.1), leak))
    train(free)
    assert all(torch.equal(a, b) for a, b in zip(masked.state_dict().values(), free.state_dict().values(), strict=True))


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_masked_weights_stay_to_the_bit_and_the_others_learn(kind):
    model, start = network(), network()
    mask = random_mask(model, 0.4)
    optimizer = train(model, WeightMask(model, mask), kind)
    for (name, after), before in zip(model.named_parameters(), start.parameters(), strict=True):
        assert torch.equal(after[~mask[name]], before[~mask[name]]), name
        assert name != "4.weight" or (after[mask[name]] != before[mask[name]]).all()
        if kind == "sgd":
            assert not optimizer.state[after]["momentum_buffer"][~mask[name]].any()


def test_batch_norm_statistics_are_not_masked():
    model = network()
    train(model, WeightMask(model, random_mask(model, -1.0)))
    start = network()
    for after, before in zip(model.parameters(), start.parameters(), strict=True):
        assert torch.equal(after, before)
    assert not torch.equal(model[1].running_mean, start[1].running_mean)


def test_the_leak_shrinks_masked_weights():
    model, start = network(), network()
    mask = random_mask(model, 0.4)
    train(model, WeightMask(model, mask, leak=True))
    hidden = ~mask["4.weight"]
    after, before = model[4].weight[hidden], start[4].weight[hidden]
    assert (after.abs() < before.abs()).all()
    assert (after.sign() == before.sign()).all()
    # without a gradient the weights follow w <- w - lr * v, v <- 0.9 v + 0.01 w, whatever the data
    weight, velocity = before.clone(), torch.zeros_like(before)
    for _ in range(2 * 4):
        velocity = 0.9 * velocity + 0.01 * weight
        weight = weight - 0.05 * velocity
    torch.testing.assert_close(after, weight, rtol=1e-5, atol=1e-7)


def test_a_partial_mask_leaves_other_parameters_free():
    model, start = network(), network()
    train(model, WeightMask(model, {"4.weight": torch.zeros(3, 48, dtype=torch.bool)}))
    assert torch.equal(model[4].weight, start[4].weight)
    assert not torch.equal(model[0].weight, start[0].weight)


def test_a_mask_of_another_model_is_refused():
    model = network()
    with pytest.raises(ValueError, match=r"'4.wieght', which is no parameter .did you mean '4.weight'"):
        WeightMask(model, {"4.wieght": torch.ones(1)})
    with pytest.raises(ValueError, match=r"shape \(2,\), its weight \(3, 48\)"):
        WeightMask(model, {"4.weight": torch.ones(2)})


def test_mask_restores_what_it_holds():
    model = network()
    mask = WeightMask(model, random_mask(model, 0.5))
    other = WeightMask(model, random_mask(model, 0.5))
    saved = {"anchors": [torch.zeros_like(anchor) for anchor in mask.state_dict()["anchors"]]}
    other.load_state_dict(saved)
    assert all(not anchor.any() for anchor in other.state_dict()["anchors"])


def test_average_of_weights_follows_its_formula():
    model, start = network(), network()
    seen = []
    ema = Ema(model, decay=0.8)
    train(model, ema=ema, after_step=lambda state: seen.append(state.model[4].weight.detach().clone()))
    expected = start[4].weight.detach().clone()
    for weight in seen:
        expected = 0.8 * expected + 0.2 * weight
    torch.testing.assert_close(ema.model[4].weight, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(ema.model[1].running_mean, model[1].running_mean)
    assert not ema.model.training
    assert not ema.model[4].weight.requires_grad


def test_average_without_memory_is_the_model():
    model = network()
    ema = Ema(model, decay=0.0)
    train(model, ema=ema)
    for averaged, trained in zip(ema.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(averaged, trained)


@pytest.mark.parametrize("decay", [1.0, -0.1])
def test_decay_outside_its_range(decay):
    with pytest.raises(ValueError, match="lies in"):
        Ema(network(), decay)


def test_best_weights_are_the_earliest_highest():
    model, best = nn.Linear(1, 1, bias=False), BestWeights()
    best.restore(model)
    for weight, score in [(1.0, 0.2), (2.0, 0.9), (3.0, 0.9), (4.0, float("nan")), (5.0, 0.1)]:
        nn.init.constant_(model.weight, weight)
        assert best.offer(model, score) == (weight in (1.0, 2.0))
    again = BestWeights()
    again.load_state_dict(best.state_dict())
    again.restore(model)
    assert model.weight.item() == 2.0
    assert again.score == 0.9
