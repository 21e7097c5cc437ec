"""Every baseline: weights move, costs are counted, one seed is one result; then each one's
limits."""

import copy

import pytest
import torch
import torch.nn.functional as F

from shared.classification.protocol import METHODS
from shared.errors import UserError
from shared.options import parse_options
from shared.run import import_path

OPTIONS = {
    "original": {},
    "retrain": {},
    "finetune": {"lr": 0.01, "epochs": 2, "batch": 16},
    "random_label": {"lr": 0.01, "epochs": 2, "batch": 16},
    "gradient_ascent": {"lr": 0.01, "epochs": 2, "batch": 16},
    "neggrad_plus": {"lr": 0.01, "epochs": 2, "batch": 16, "retain_weight": 0.9},
    "iu_official": {"alpha": 1.0, "num": 20, "batch": 16},
    "iu": {"alpha": 1.0, "num": 20, "batch": 16},
    "fisher_forgetting": {"alpha": 1e-6, "num": 20, "batch": 16},
    "scrub": {"epochs": 3, "batch": 16, "max_epochs": 1, "decay_epochs": [2]},
    "bad_teacher": {"batch": 16, "retain_fraction": 0.5},
    "unsir": {"batch": 8, "noise_copies": 2, "noise_steps": 3, "samples_per_class": 6},
    "cf_k": {"lr": 0.01, "epochs": 2, "batch": 16, "num_layers": 1},
    "eu_k": {"lr": 0.01, "epochs": 2, "batch": 16, "num_layers": 1},
}
# forward/backward batches of the options above: 30 forget images are 2 batches of 16, 60 retained
# are 4
STEPS = {
    "original": 0,
    "retrain": 0,
    "finetune": 8,
    "random_label": 12,
    "gradient_ascent": 4,
    "neggrad_plus": 8,
    "fisher_forgetting": 2 * 3,
    "iu_official": 2 + 4 + 1 + 2 * 2,
    "scrub": 2 + 3 * 4,
    "bad_teacher": 4,
    "unsir": 3 + 4 + 1,
    "cf_k": 8,
    "eu_k": 8,
}


def run(name, model, forget, retain, context, **changes):
    method = import_path(METHODS[name])
    options = parse_options(METHODS[name], {**OPTIONS[name], **changes})
    return method(copy.deepcopy(model), forget, retain, options, context)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def one_class(images, label=0):
    return images.subset((images.labels == label).nonzero()[:, 0])


@pytest.mark.parametrize("name", METHODS)
def test_weights_move_costs_are_counted_and_one_seed_is_one_result(name, model, forget, retain, new_context):
    if name == "unsir":
        forget = one_class(forget)
        retain = retain.subset((retain.labels != 0).nonzero()[:, 0])
    context = new_context(seed=3)
    unlearned = run(name, model, forget, retain, context)
    if name != "original":
        assert not torch.equal(weights(unlearned), weights(model))
    assert torch.isfinite(weights(unlearned)).all()
    if name in STEPS:
        assert context.meter.steps == STEPS[name]
    again = run(name, model, forget, retain, new_context(seed=3))
    for (key, value), same in zip(unlearned.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(value, same), key
    if name not in ("original", "retrain", "iu", "iu_official"):  # those draw nothing
        other = run(name, model, forget, retain, new_context(seed=4))
        assert not torch.equal(weights(unlearned), weights(other))


def test_options_cover_every_method():
    assert set(OPTIONS) == set(METHODS)


def test_neggrad_plus_at_weight_one_is_finetuning(model, forget, retain, new_context):
    """a = 1: the gradient of D_f has weight 0, and its forward pass does not touch D_r's."""
    plus = run("neggrad_plus", model, forget, retain, new_context(), retain_weight=1.0, epochs=1)
    from shared.classification.ascent import Pairs

    # the same pairs, the loss written out
    reference = copy.deepcopy(model).train()
    optimizer = torch.optim.SGD(reference.parameters(), 0.01, 0.9, weight_decay=5e-4)
    for batch in Pairs(forget, retain, 16, 1.0, new_context().generator("unlearn")):
        optimizer.zero_grad()
        keep = ~batch.forget
        F.cross_entropy(reference(batch.images[keep]), batch.labels[keep]).backward()
        optimizer.step()
    torch.testing.assert_close(weights(plus), weights(reference), atol=1e-6, rtol=1e-4)


def test_pairs_weigh_both_means(model, forget, retain, context):
    from shared.classification.ascent import Pairs, paired_loss

    model.eval()  # so that the two passes do not depend on each other
    batch = next(Pairs(forget, retain, 16, 0.7, context.generator("x")))
    losses = F.cross_entropy(model(batch.images), batch.labels, reduction="none")
    expected = 0.7 * losses[~batch.forget].mean() - 0.3 * losses[batch.forget].mean()
    torch.testing.assert_close(paired_loss(model, batch), expected)


def test_gradient_ascent_climbs(model, forget, retain, context):
    """One step on the whole of D_f: theta + lr * gradient - lr * decay * theta."""
    climbed = run("gradient_ascent", model, forget, retain, context, epochs=1, batch=64)
    loss = F.cross_entropy(model.train()(forget.images), forget.labels)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
    start = weights(model)
    expected = start + 0.01 * gradient - 0.01 * 5e-4 * start
    torch.testing.assert_close(weights(climbed), expected, atol=1e-7, rtol=1e-5)


def test_scrub_limits(model, forget, retain, new_context):
    """gamma = alpha = 0 and no max phase: no gradient, so weights only shrink by Adam's decay (off:
    none moves)."""
    still = run(
        "scrub", model, forget.subset([0]), retain, new_context(),
        gamma=0.0, alpha=0.0, max_epochs=1, epochs=1, weight_decay=0.0, decay_epochs=[], lr=1e-12,
    )  # fmt: skip
    torch.testing.assert_close(weights(still), weights(model), atol=1e-9, rtol=0)


def test_distillation_is_zero_between_equals_and_positive_otherwise():
    from shared.classification.distillation import distillation

    torch.manual_seed(0)
    a, b = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    torch.testing.assert_close(distillation(a, a, 2.0), torch.zeros(5), atol=1e-6, rtol=0)
    p, q = (b.float() / 3).softmax(1), (a.float() / 3).softmax(1)
    expected = (p * (p.log() - q.log())).sum(1) * 9
    torch.testing.assert_close(distillation(a, b, 3.0), expected)


def test_bad_teacher_pulls_the_forget_set_to_the_untrained_net(model, forget, retain, new_context):
    """With lr large enough for the toy, outputs on D_f come closer to the bad teacher's than they
    were."""
    context = new_context(seed=5)
    bad = context.fresh_model("bad teacher").eval()(forget.images).softmax(1)
    before = (model.eval()(forget.images).softmax(1) - bad).abs().mean()
    after = run("bad_teacher", model, forget, retain, context, lr=3e-3, epochs=8).eval()
    assert (after(forget.images).softmax(1) - bad).abs().mean() < 0.7 * before


def test_last_layers_stay_the_others_to_the_bit(model, forget, retain, context):
    from shared.classification.layerwise import last_layers

    for name in ("cf_k", "eu_k"):
        unlearned = run(name, model, forget, retain, context)
        before = dict(model.named_parameters())
        for key, value in unlearned.named_parameters():
            assert torch.equal(value, before[key]) == (not key.startswith("fc")), (name, key)
    counts = [sum(m.any().item() for m in last_layers(model, k).values()) for k in (1, 2, 4)]
    # fc has 2 tensors, every convolution one and its batch norm two
    assert counts == [2, 5, len(list(model.parameters()))]
    with pytest.raises(UserError, match="has 4 convolutions and linear layers"):
        last_layers(model, 5)


def test_eu_k_over_all_layers_is_training_from_scratch(model, forget, retain, new_context):
    context = new_context(seed=2)
    unlearned = run("eu_k", model, forget, retain, context, num_layers=4)
    fresh = new_context(seed=2).fresh_model("reinitialised layers")
    # batch norm's running statistics do not enter a train-mode pass
    scratch = run("finetune", fresh, forget, retain, new_context(seed=2))
    assert torch.equal(weights(unlearned), weights(scratch))


def test_unsir_noise_raises_the_loss_and_needs_one_class(model, forget, retain, context):
    from shared.classification.unsir import first_of_each_class, train_noise

    options = parse_options(METHODS["unsir"], {**OPTIONS["unsir"], "noise_penalty": 0.0, "noise_steps": 25})
    start = torch.randn((8, 1, 8, 8), generator=context.generator("noise"))
    noise = train_noise(model, forget, 0, options, context)
    label = torch.zeros(8, dtype=torch.int64)
    with torch.no_grad():
        assert F.cross_entropy(model(noise), label) > F.cross_entropy(model(start), label)
    kept = first_of_each_class(retain, 4)
    assert torch.bincount(kept.labels).tolist() == [4, 4, 4]
    with pytest.raises(UserError, match="D_f holds 3 classes"):
        run("unsir", model, forget, retain, context)


def test_finetuning_resumes_from_its_checkpoint(model, forget, retain, new_context, tmp_path):
    """A finished run's checkpoint gives the same weights at once, and the steps it took are still
    counted."""
    first = run("finetune", model, forget, retain, new_context(workdir=tmp_path, key="a"))
    context = new_context(workdir=tmp_path, key="a")
    again = run("finetune", model, forget, retain, context)
    assert torch.equal(weights(first), weights(again))
    assert context.meter.steps == 8
    other = run("finetune", model, forget, retain, new_context(workdir=tmp_path, key="b"), lr=0.02)
    assert not torch.equal(weights(first), weights(other))
