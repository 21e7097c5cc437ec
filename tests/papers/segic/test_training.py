"""Losses and the training: limits and identities, then that it learns and leaves frozen parts alone."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from papers.segic import training
from papers.segic.losses import presence_loss, weighted_point_loss
from papers.segic.method import SegicOptions, segic
from papers.segic.negatives import ClassQueues
from papers.segic.pairs import PairMaker
from papers.segic.released import frozen_digests
from papers.segic.text import RandomTexts
from shared.segmentation.context import Context
from shared.segmentation.losses import point_loss
from shared.segmentation.steps import Step
from tests.papers.segic.scenes import Classed, Instanced


class Scenes(Context):
    """Opens the scenes of the tests: `train` by class, `objects` as instances."""

    def source(self, name):
        return Classed(9) if name == "train" else Instanced(9)


@pytest.fixture
def context():
    data = {"train": SimpleNamespace(kind="scenes"), "objects": SimpleNamespace(kind="scenes")}
    return Scenes(torch.device("cpu"), 0, 1, data)


def random(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_equal_weights_give_the_plain_loss():
    logits, labels = random((3, 8, 8), 0), (random((3, 16, 16), 1) > 0).float()
    plain = point_loss(logits, labels, torch.Generator().manual_seed(5), 64)
    for weight in (1.0, 0.1):
        found = weighted_point_loss(
            logits, labels, torch.full((3,), weight), torch.Generator().manual_seed(5), num_points=64
        )
        assert found == pytest.approx(float(plain.bce + plain.dice), rel=1e-5)


def test_a_weight_of_nothing_leaves_a_mask_out():
    logits, labels = random((2, 8, 8), 0), (random((2, 16, 16), 1) > 0).float()
    logits[1] *= 100
    found = weighted_point_loss(logits, labels, torch.tensor([1.0, 0.0]), torch.Generator().manual_seed(5), 64)
    again = weighted_point_loss(logits, labels, torch.tensor([1.0, 1.0]), torch.Generator().manual_seed(5), 64)
    assert found < again / 2


def test_presence_is_read_from_the_iou_output():
    assert presence_loss(torch.tensor([9.0, -9.0]), torch.tensor([True, False])) < 1e-3
    assert presence_loss(torch.tensor([9.0, -9.0]), torch.tensor([False, True])) > 8


def test_queues_hold_the_latest_of_each_class():
    queues, rng = ClassQueues(2), np.random.default_rng(0)
    for number in range(1, 5):
        queues.add(["a"], torch.full((1, 2, 3), float(number)))
    queues.add(["b", "c"], torch.stack([torch.ones(2, 3), torch.zeros(2, 3)]))
    assert [float(v[0, 0]) for v in queues.kept["a"]] == [3.0, 4.0]
    assert "c" not in queues.kept
    names, features = queues.draw(["b"], 5, rng)
    assert names == ["a"]
    assert features.shape == (1, 2, 3)
    assert queues.draw(["a", "b"], 5, rng)[0] == []
    assert len(queues.draw([], 1, rng)[0]) == 1


def loss_and_batch(recipe, context, backbone, **options):
    chosen = recipe(**{"instances": ["objects"], "box": 0.0, **options})
    maker = PairMaker(training.training_sets(chosen, context))
    loss = training.SegicLoss(chosen, backbone, RandomTexts(8))
    return loss, maker(Step(0, np.arange(6), np.random.default_rng(2))), training.build(None, chosen, 0)


def test_no_image_of_a_held_out_class_is_learned_from(recipe, context):
    chosen = recipe(instances=["train"], classes=["square", "bar"], pure=True)
    semantic, instances = training.training_sets(chosen, context)
    rng = np.random.default_rng(4)
    assert all("dot" not in semantic.draw(rng).shown for _ in range(40))
    samples = [instances.source[place] for place in range(len(instances.source))]
    assert 0 < len(samples) < len(context.source("train"))
    assert all(2 not in sample.truth.classes for sample in samples)


def test_with_reversion_the_loss_is_the_mean_of_both_directions(recipe, context, backbone):
    loss, batch, model = loss_and_batch(recipe, context, backbone, reversion=True)
    asked = []
    one_way = loss._one_way
    loss._one_way = lambda *values: asked.append(one_way(*values)) or asked[-1]
    total = loss(model, batch)
    assert len(asked) == 2
    assert total.item() == pytest.approx((asked[0][1].item() + asked[1][1].item()) / 2, rel=1e-5)
    plain, _, _ = loss_and_batch(recipe, context, backbone, reversion=False)
    assert plain(model, batch).item() == pytest.approx(asked[0][1].item(), rel=1e-5)


def test_the_found_mask_is_the_example_of_the_reversed_direction(recipe, context, backbone):
    loss, batch, model = loss_and_batch(recipe, context, backbone)
    cues, found = [], []
    one_way = loss._one_way

    def watched(net, asked, batch):
        cues.append(asked)
        found.append(one_way(net, asked, batch))
        return found[-1]

    loss._one_way = watched
    loss(model, batch)
    targets, examples = loss.encoded(batch).unbind(1)
    assert torch.equal(cues[0].features, targets)
    assert torch.equal(cues[1].features, examples)
    own = training.token_masks((found[0][0].logits[:, 0] > 0).float(), 8)
    expected = training.pooled(targets, cues[1].cues.image, own)
    assert torch.allclose(cues[1].cues.prototype, expected)
    assert not cues[1].cues.prototype.requires_grad


def test_features_of_a_view_are_computed_once_and_are_the_same(recipe, context, backbone):
    loss, batch, _ = loss_and_batch(recipe, context, backbone)
    first = loss.encoded(batch)
    kept = dict(loss.kept)
    assert torch.equal(loss.encoded(batch), first)
    assert loss.kept.keys() == kept.keys()
    direct = backbone.frozen_features(batch.images.flatten(0, 1), batch.sizes.flatten(0, 1)).unflatten(0, (6, 2))
    assert torch.allclose(first, direct, atol=1e-5)


def test_negatives_come_behind_with_empty_targets_and_no_box(recipe, context, backbone):
    loss, batch, model = loss_and_batch(
        recipe, context, backbone, negatives=1.0, box=1.0, instances=[], most_prompts=2, reversion=False
    )
    seen = []
    one_way = loss._one_way
    loss._one_way = lambda net, asked, batch: seen.append(asked) or one_way(net, asked, batch)
    loss(model, batch)  # fills the queues
    loss(model, batch)
    first, second = seen
    assert len(first.cues) == 6
    assert first.cues.has_box.all()
    assert len(second.cues) == 12  # two prompts a pair: its class, and the one that it does not show
    assert second.weights.tolist() == [1.0] * 6 + [pytest.approx(0.1)] * 6
    assert not second.labels[6:].any()
    assert second.cues.has_box is None


def test_negatives_are_not_drawn_for_instances(recipe, context, backbone):
    loss, batch, model = loss_and_batch(recipe, context, backbone, negatives=1.0, semantic=[], reversion=False)
    loss(model, batch)
    assert not loss.queues.kept


def test_training_moves_the_model_and_nothing_that_is_frozen(recipe, context, backbone):
    options = recipe(instances=["objects"], negatives=0.5)
    model = training.build(None, options, 0)
    before = {name: value.clone() for name, value in model.named_parameters()}
    frozen = frozen_digests(backbone, RandomTexts(8))
    training.train(model, backbone, options, context)
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert {name.split(".")[0] for name in moved} == {
        *("neck", "prompt_encoder", "mask_decoder", "prompt_proj", "inst_proj", "inst_type_embed")
    }
    assert torch.equal(model.digest, frozen)
    row = Scenes(torch.device("cpu"), 0, 1, context.data)
    segic({"decoder": model, "backbone": backbone}, SegicOptions(decoder=options), row)
    measured = {metric.name: metric.value for metric in row.measured}
    assert measured["changed frozen parts"] == 0
    with torch.no_grad():
        model.digest[0, 0] += 1
    segic({"decoder": model, "backbone": backbone}, SegicOptions(decoder=options), row)
    assert row.measured[-1].value == 1


def test_the_same_seed_gives_the_same_weights(recipe, context, backbone):
    def trained():
        model = training.build(None, recipe(), 0)
        training.train(model, backbone, recipe(), Scenes(torch.device("cpu"), 0, 1, context.data))
        return model.state_dict()

    first, second = trained(), trained()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_it_learns(recipe, context, backbone):
    options = recipe(steps_per_epoch=60, lr=3e-3, batch=4, points=128, box=0.0, warmup=0.1)
    model = training.build(None, options, 0)
    training.train(model, backbone, options, context)
    loss, batch, fresh = loss_and_batch(recipe, context, backbone, instances=[])
    with torch.no_grad():
        assert float(loss(model, batch)) < 0.95 * float(loss(fresh, batch))
