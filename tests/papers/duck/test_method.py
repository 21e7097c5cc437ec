"""DUCK: distance, centroids, targets, pairing, limits of the loss, stop rule, switches of the released code."""

import copy

import pytest
import torch
import torch.nn.functional as F

from papers.duck.method import (
    Centroids,
    DuckOptions,
    Phase,
    Targets,
    centroids,
    cosine_distance,
    duck,
    embeddings,
    first_phase,
    movement,
    second_phase,
)
from shared.classification.options import AdamOptions
from shared.errors import UserError
from shared.metrics.accuracy import accuracy, predict

SHORT = {"lr": 1e-3, "epochs": 2, "batch": 16, "rho": 2, "stop_below": None}


def by_class(forget, retain, *gone):
    """D_f: all images of the classes `gone`; D_r: all others."""
    everything = forget.followed_by(retain)
    mark = torch.isin(everything.labels, torch.tensor(gone))
    return everything.subset(mark.nonzero()[:, 0]), everything.subset((~mark).nonzero()[:, 0])


def parameters(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def pairs_of(phase, epoch=0):
    return list(phase.pairs(epoch, torch.Generator().manual_seed(0)))


# ---- distance and centroids


def test_cosine_distance_is_bounded_and_scale_invariant():
    a, b = torch.randn(50, 8), torch.randn(50, 8)
    d = cosine_distance(a, b)
    assert d.min() >= 0
    assert d.max() <= 2
    torch.testing.assert_close(cosine_distance(3 * a, 0.1 * b), d)
    torch.testing.assert_close(cosine_distance(a, a), torch.zeros(50), atol=1e-6, rtol=0)
    torch.testing.assert_close(cosine_distance(a, -a), torch.full((50,), 2.0))
    assert cosine_distance(a.relu() + 1e-3, b.relu() + 1e-3).max() <= 1 + 1e-6


def test_a_sample_at_its_centroid_is_not_pulled():
    centre = torch.rand(1, 8)
    here, away = (4 * centre).requires_grad_(), torch.rand(1, 8).requires_grad_()
    (cosine_distance(here, centre) + cosine_distance(away, centre)).sum().backward()
    assert here.grad.abs().max() < 1e-6
    assert away.grad.abs().max() > 1e-3


def test_centroids_are_class_means_of_the_retained_embeddings(model, forget, retain, context):
    _, kept = by_class(forget, retain, 1)
    model.train()
    found = centroids(model, kept, DuckOptions(**SHORT), context)
    model.eval()
    with torch.no_grad():
        expected = torch.stack([model.features(kept.images[kept.labels == k]).mean(0) for k in (0, 2)])
    assert found.classes.tolist() == [0, 2]  # the removed class has none
    torch.testing.assert_close(found.means, expected)


def test_a_class_of_a_single_image_has_that_image_as_centroid(model, retain, context):
    single = retain.subset([*range(0, 60, 3), 1])  # class 0, and one image of class 1
    found = centroids(model, single, DuckOptions(**SHORT), context)
    assert found.classes.tolist() == [0, 1]
    torch.testing.assert_close(found.means[1:], embeddings(model, retain.subset([1]), 16))


def test_centroids_are_made_of_a_limited_number_of_batches(model, retain, new_context):
    context = new_context()
    centroids(model, retain, DuckOptions(**SHORT, centroid_batches=2), context)
    assert context.meter.steps == 2


def test_the_target_is_the_nearest_centroid_of_another_class():
    centres = Centroids(torch.tensor([0, 1, 2, 3]), torch.eye(4))
    features = torch.tensor([[4.0, 3, 2, 1], [4.0, 3, 2, 1], [1.0, 2, 4, 3]])
    assert centres.nearest(features, torch.tensor([0, 1, 2])).tolist() == [1, 0, 3]


def test_the_index_bug_excludes_a_neighbour_of_the_removed_class():
    """Class 1 is removed: position 1 in the list is class 2, which the released guard takes for the own class."""
    centres = Centroids(torch.tensor([0, 2, 3]), torch.eye(3))
    labels = torch.tensor([1, 1, 1])
    features = torch.tensor([[5.0, 1, 2], [1.0, 5, 2], [1.0, 2, 5]])
    assert centres.classes[centres.nearest(features, labels)].tolist() == [0, 2, 3]
    assert centres.classes[centres.nearest(features, labels, index_bug=True)].tolist() == [0, 3, 3]
    # with all classes present, position and class are the same thing
    full = Centroids(torch.arange(3), torch.eye(3))
    assert torch.equal(full.nearest(features, labels), full.nearest(features, labels, index_bug=True))


# ---- pairing


def test_every_forget_batch_meets_rho_plus_one_retain_batches(forget, retain):
    phase = first_phase(forget, retain, DuckOptions(**SHORT))
    found = pairs_of(phase)
    assert len(found) == phase.num_steps == 2 * 3  # 30 forget images in batches of 16, rho + 1 = 3
    for step, pair in enumerate(found):
        part = slice(0, 16) if step < 3 else slice(16, 30)
        assert torch.equal(pair.images[pair.forget], forget.images[part])  # data-set order, not shuffled
        assert pair.slot[pair.forget].tolist() == list(range(30))[part]
        assert (pair.slot[~pair.forget] == -1).all()
        assert not pair.chosen.any()
        assert len(pair.labels[~pair.forget]) == 16
    first, again = (torch.cat([p.images[~p.forget] for p in found[i : i + 3]]) for i in (0, 3))
    assert not torch.equal(first, again)  # shuffled anew for every forget batch


def test_fewer_retain_batches_than_rho_are_all_used(forget, retain):
    phase = first_phase(forget, retain, DuckOptions(**{**SHORT, "rho": 40}))
    found = pairs_of(phase)
    assert len(found) == phase.num_steps == 2 * 4
    seen = torch.cat([pair.images[~pair.forget] for pair in found[:4]])
    assert len(seen) == 60
    assert torch.equal(seen.sum(0), retain.images.sum(0)) or torch.allclose(seen.sum(0), retain.images.sum(0))


def test_drop_last_leaves_out_partial_batches_of_both_sides(forget, retain):
    phase = first_phase(forget, retain, DuckOptions(**{**SHORT, "rho": 9}, drop_last=True))
    found = pairs_of(phase)
    assert len(phase.forget) == 16
    assert [len(pair.labels) for pair in found] == [32] * 3  # 60 retain images: three full batches
    with pytest.raises(UserError, match="D_f has 0 and D_r 60 images: not one pair of batches of 64 and 64"):
        first_phase(forget, retain, DuckOptions(lr=1e-3, batch=64, drop_last=True))


def test_weights_make_the_mean_over_samples_the_papers_loss(model, forget, retain):
    options = DuckOptions(**SHORT, lambda_forget=0.7, lambda_retain=1.3, temperature=3.0, label_smoothing=0.1)
    centres = Centroids(torch.arange(3), torch.rand(3, 128))
    targets = Targets(centres, torch.arange(32) % 3, options)
    pair = pairs_of(first_phase(forget, retain, options))[-1]  # a partial forget batch: 14 and 16 images
    model.eval()
    features = model.features(forget.images[16:])
    distance = (1 - F.cosine_similarity(features, centres.means[(torch.arange(32) % 3)[16:30]])).mean()
    images, labels = pair.images[~pair.forget], pair.labels[~pair.forget]
    entropy = F.cross_entropy(model(images) / 3.0, labels, label_smoothing=0.1)
    torch.testing.assert_close(targets.loss(model, pair), 0.7 * distance + 1.3 * entropy)
    torch.testing.assert_close(targets.loss(model, pair, joint=True), targets.loss(model, pair))
    # memory is short: the loop cuts a batch and weighs the pieces by their sizes
    cut = [type(pair)(*(field[rows] for field in pair)) for rows in (slice(0, 9), slice(9, None))]
    pieces = sum(targets.loss(model, piece) * len(piece.labels) for piece in cut) / len(pair.labels)
    torch.testing.assert_close(pieces, targets.loss(model, pair))


# ---- the method


def test_without_the_distance_it_is_temperature_scaled_fine_tuning(model, forget, retain, new_context):
    options = DuckOptions(**SHORT, lambda_forget=0.0, lambda_retain=1.4)
    ours = duck(copy.deepcopy(model), forget, retain, options, new_context())
    phase = first_phase(forget, retain, options)

    def loss(net, batch):
        return 1.4 * F.cross_entropy(net(batch.images[~batch.forget]) / 2.0, batch.labels[~batch.forget])

    plain = copy.deepcopy(model)
    new_context().fit(plain, phase.pairs, loss, AdamOptions(lr=1e-3, epochs=2))
    torch.testing.assert_close(parameters(ours), parameters(plain), atol=1e-5, rtol=1e-4)


def test_without_the_cross_entropy_accuracy_collapses(model, forget, retain, new_context):
    setting = {**SHORT, "epochs": 8, "lr": 5e-3}
    whole = duck(copy.deepcopy(model), forget, retain, DuckOptions(**setting), new_context())
    alone = duck(copy.deepcopy(model), forget, retain, DuckOptions(**setting, lambda_retain=0.0), new_context())
    assert accuracy(predict(whole, retain)) > accuracy(predict(alone, retain)) + 30


@pytest.mark.parametrize("removed", [[1], [0, 2]])
def test_classes_are_removed_and_the_others_kept(removed, model, forget, retain, new_context):
    """Also with all classes but one removed: everything moves to the last centroid."""
    gone, kept = by_class(forget, retain, *removed)
    context = new_context()
    options = DuckOptions(**{**SHORT, "epochs": 20, "lr": 2e-3, "stop_below": 1.0})
    trained = duck(copy.deepcopy(model), gone, kept, options, context)
    assert accuracy(predict(trained, gone)) < 5
    assert accuracy(predict(trained, kept)) > 95
    (agreement,) = context.measured
    assert (agreement.name, agreement.unit) == ("agreement", "fraction")
    assert agreement.value > 0.9


def test_it_stops_after_the_epoch_that_brings_accuracy_under_the_threshold(model, forget, retain, new_context):
    gone, kept = by_class(forget, retain, 1)

    def steps(stop_below, epochs=12):
        context = new_context()
        options = DuckOptions(**{**SHORT, "lr": 2e-3, "epochs": epochs, "stop_below": stop_below})
        trained = duck(copy.deepcopy(model), gone, kept, options, context)
        return context.meter.steps, accuracy(predict(trained, gone))

    all_epochs, _ = steps(None)
    stopped, reached = steps(50.0)
    assert stopped < all_epochs
    assert reached < 50
    one_less = (stopped - 4) // 6 - 1  # steps of an epoch; the centroids took 4
    if one_less:
        assert steps(None, one_less)[1] >= 50


def test_learning_rate_zero_in_effect_leaves_the_weights(model, forget, retain, context):
    options = DuckOptions(**{**SHORT, "lr": 1e-12})
    trained = duck(copy.deepcopy(model), forget, retain, options, context)
    torch.testing.assert_close(parameters(trained), parameters(model), atol=1e-9, rtol=0)
    for buffer, other in zip(trained.state_dict().items(), model.state_dict().values(), strict=True):
        assert "running" not in buffer[0] or not torch.equal(buffer[1], other)


def test_targets_are_chosen_once_from_the_original_and_do_not_follow_it(model, forget, retain, new_context):
    gone, kept = by_class(forget, retain, 1)
    context = new_context()
    options = DuckOptions(**{**SHORT, "lr": 5e-3, "epochs": 4})
    centres = centroids(copy.deepcopy(model), kept, options, new_context())
    expected = centres.classes[centres.nearest(embeddings(copy.deepcopy(model), gone, 16), gone.labels)]
    trained = duck(copy.deepcopy(model), gone, kept, options, context)
    share = (trained.eval()(gone.images).argmax(1) == expected).float().mean().item()
    assert context.measured[0].value == pytest.approx(share)


def test_same_seed_same_weights_and_another_seed_others(model, forget, retain, new_context):
    runs = [
        parameters(duck(copy.deepcopy(model), forget, retain, DuckOptions(**SHORT), new_context(s))) for s in (0, 0, 1)
    ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


# ---- the released code's oddities


def test_reassignment_chooses_from_the_current_network_in_the_first_epoch_only(model, forget, retain):
    options = DuckOptions(**SHORT, reassign_first_epoch=True)
    phase = first_phase(forget, retain, options)
    assert all(pair.chosen[pair.forget].all() and not pair.chosen[~pair.forget].any() for pair in pairs_of(phase))
    assert not any(pair.chosen.any() for pair in pairs_of(phase, epoch=1))
    centres = Centroids(torch.arange(3), torch.rand(3, 128))
    targets = Targets(centres, torch.full((32,), 7), options)  # not a centroid: would fail if it were read
    model.train()
    pair = pairs_of(phase)[0]
    targets.loss(model, pair)
    expected = centres.nearest(model.features(forget.images[:16]), forget.labels[:16])
    assert torch.equal(targets.table[:16], expected)
    assert (targets.table[16:] == 7).all()


def test_the_append_bug_reads_what_was_noted_for_other_images(forget, retain):
    """rho = 2: four entries a forget batch, the one broken off included; batch n reads entry n, of batch n // 4."""
    data = forget.followed_by(forget)  # 60 images: batches of 10 make six
    options = DuckOptions(lr=1e-3, batch=10, rho=2, reassign_first_epoch=True, duck_append_bug=True)
    phase = first_phase(data, retain, options)
    noted = {}
    for step, pair in enumerate(phase.pairs(0, torch.Generator().manual_seed(0))):
        for item in (pair, phase.broken_off):
            if item is not None:
                noted[int(item.slot[0])] = (step // 3, len(noted))
        assert (phase.broken_off is not None) == (step % 3 == 2)
    assert {slot: batch for slot, (batch, _) in noted.items() if slot >= 0} == {
        0: 0, 10: 0, 20: 0, 30: 0, 40: 1, 50: 1,
    }  # fmt: skip
    read = [int(pair.slot[0]) for pair in pairs_of(phase, epoch=1)]
    assert read == [0] * 3 + [10] * 3 + [20] * 3 + [30] * 3 + [40] * 3 + [50] * 3


def test_the_broken_off_pass_moves_batch_norm_statistics_and_no_weight(model, forget, retain, new_context):
    few = forget.subset(range(16))  # a single forget batch: entry 0 is its own, reassignment or not
    setting = {**SHORT, "epochs": 1, "reassign_first_epoch": True}
    plain = duck(copy.deepcopy(model), few, retain, DuckOptions(**setting), new_context())
    odd = duck(copy.deepcopy(model), few, retain, DuckOptions(**setting, duck_append_bug=True), new_context())
    assert torch.equal(parameters(plain), parameters(odd))
    moved = [n for n, b in plain.named_buffers() if not torch.equal(b, dict(odd.named_buffers())[n])]
    assert any("running_mean" in name for name in moved)


def test_second_phase_pairs_as_the_released_code(forget, retain):
    options = DuckOptions(**SHORT, low_phase=True, low_batch=20, low_augment={"pad": 1, "flip": True})
    gone, kept = by_class(forget, retain, 1)
    low = second_phase(first_phase(gone, kept, options), kept, options)
    found = pairs_of(low)
    assert len(found) == 3  # class removal: D_f's first batch with all full batches of D_r
    assert all(torch.equal(pair.images[pair.forget], gone.images[:16]) for pair in found)
    assert low.weights == (0.1, 1.0)
    random = second_phase(first_phase(forget, retain, options), retain, options)
    assert random.num_retain == 20  # random samples: 20, of which D_r has 3 full ones
    assert len(pairs_of(random)) == 2 * 3
    with pytest.raises(UserError, match="not one pair of batches of 16 and 512"):
        second_phase(first_phase(gone, kept, options), kept, DuckOptions(**SHORT, low_batch=512))


def test_second_phase_runs_on_and_is_skipped_without_one_of_the_terms(model, forget, retain, new_context):
    gone, kept = by_class(forget, retain, 1)

    def steps(**changes):
        context = new_context()
        options = DuckOptions(**{**SHORT, "low_batch": 20, "low_augment": {"pad": 1, "flip": True}, **changes})
        trained = duck(copy.deepcopy(model), gone, kept, options, context)
        assert parameters(trained).isfinite().all()
        return context.meter.steps

    released = {"reassign_first_epoch": True, "duck_append_bug": True, "duck_index_bug": True}
    assert steps(low_phase=True, **released) == steps() + 2 * 3
    assert steps(low_phase=True, lambda_forget=0.0) == steps()


# ---- bad input, figure data, resume


def test_bad_input_is_one_clear_line(model, forget, retain, context):
    one, other = forget.subset(range(0, 30, 3)), retain.subset(range(0, 60, 3))  # class 0 on both sides
    with pytest.raises(UserError, match="D_r has a single class, which D_f has too"):
        duck(model, one, other, DuckOptions(**SHORT), context)
    with pytest.raises(UserError, match="D_f has 30 and D_r 0 images"):
        duck(model, forget, retain.subset([]), DuckOptions(**SHORT), context)
    with pytest.raises(UserError, match="D_f has 0 and D_r 60 images"):
        duck(model, forget.subset([]), retain, DuckOptions(**SHORT), context)


def test_movement_is_a_projection_of_directions(model, forget, retain, context):
    options = DuckOptions(**SHORT)
    centres = centroids(model, retain, options, context)
    before = embeddings(model, forget, 16)
    found = movement(before, 5 * before, centres, most=7)
    assert found["before"] == found["after"]  # the length of an embedding is no movement
    assert len(found["before"]) == 7
    assert (len(found["centroids"]), found["classes"]) == (3, [0, 1, 2])


def test_a_killed_run_ends_in_the_weights_of_one_left_alone(model, forget, retain, new_context, tmp_path, monkeypatch):
    """Interrupted within an epoch: table of targets, broken-off pass and order of batches continue."""
    from shared.training import resume

    gone, kept = by_class(forget, retain, 1)
    options = DuckOptions(**SHORT, reassign_first_epoch=True, duck_append_bug=True)
    alone = duck(copy.deepcopy(model), gone, kept, options, new_context())
    monkeypatch.setattr(resume.Resume, "is_due", lambda self: self._checkpoint is not None)
    loss, calls = Targets.loss, []

    def interrupted(self, *arguments, **keywords):
        calls.append(1)
        if len(calls) == 10:
            raise KeyboardInterrupt
        return loss(self, *arguments, **keywords)

    monkeypatch.setattr(Targets, "loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        duck(copy.deepcopy(model), gone, kept, options, new_context(workdir=tmp_path, key="k"))
    resumed = duck(copy.deepcopy(model), gone, kept, options, new_context(workdir=tmp_path, key="k"))
    for (name, a), b in zip(alone.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_phase_says_what_it_lacks(forget, retain):
    with pytest.raises(UserError, match="D_r 60 images: not one pair of batches of 256 and 61"):
        Phase(forget, retain, DuckOptions(lr=1.0), 61, 2, (1.0, 1.0), full_only=True)
