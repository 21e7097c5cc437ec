import pydantic
import pytest
import torch
from torch.optim import lr_scheduler

from shared.training.options import OptimizerOptions, ScheduleOptions
from shared.training.schedule import Schedule


def rates_of_torch(make, count):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler, rates = make(optimizer), []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def ours_by_epoch(epochs, **options):
    schedule = Schedule(ScheduleOptions(**options), epochs)
    return [0.1 * schedule.factor(epoch) for epoch in range(epochs)]


def ours_by_step(epochs, num_steps, **options):
    schedule = Schedule(ScheduleOptions(unit="step", **options), epochs)
    return [0.1 * schedule.factor(epoch, step, num_steps) for epoch in range(epochs) for step in range(num_steps)]


def test_constant():
    assert ours_by_epoch(3) == [0.1] * 3


def test_multistep_is_torchs():
    theirs = rates_of_torch(lambda o: lr_scheduler.MultiStepLR(o, [91, 136], gamma=0.1), 182)
    assert ours_by_epoch(182, kind="multistep", milestones=(91, 136)) == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize("epochs", [1, 10, 40])
def test_cosine_is_torchs(epochs):
    theirs = rates_of_torch(lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=epochs), epochs)
    assert ours_by_epoch(epochs, kind="cosine") == pytest.approx(theirs, rel=1e-9)


def test_cosine_by_step_is_torchs():
    theirs = rates_of_torch(lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=35), 35)
    assert ours_by_step(5, 7, kind="cosine") == pytest.approx(theirs, rel=1e-9)


def test_warmup_then_cosine_is_torchs():
    def make(optimizer):
        rising = lr_scheduler.LinearLR(optimizer, start_factor=1 / 5, total_iters=4)
        falling = lr_scheduler.CosineAnnealingLR(optimizer, T_max=15)
        return lr_scheduler.SequentialLR(optimizer, [rising, falling], milestones=[5])

    theirs = rates_of_torch(make, 20)
    assert ours_by_epoch(20, kind="cosine", warmup=5) == pytest.approx(theirs, rel=1e-9)


def test_linear_decay_after_warmup_is_transformers():
    """Theirs gives the first warm-up step the rate 0 and is one step behind until the full rate is reached."""
    from transformers import get_linear_schedule_with_warmup

    theirs = rates_of_torch(lambda o: get_linear_schedule_with_warmup(o, 6, 30), 30)
    ours = ours_by_step(5, 6, kind="linear", warmup=1.0)
    assert ours[6:] == pytest.approx(theirs[6:], rel=1e-9)
    assert ours[:6] == pytest.approx(theirs[1:7], rel=1e-9)


def test_a_run_that_starts_later_takes_the_rest_of_the_schedule():
    late = Schedule(ScheduleOptions(kind="multistep", milestones=(4,)), 6, start=3)
    assert [late.factor(epoch) for epoch in range(3)] == pytest.approx([1.0, 0.1, 0.1])


def test_warmup_by_step_reaches_the_full_rate_at_its_last_step():
    rates = ours_by_step(2, 10, warmup=0.5)
    assert rates[:6] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1, 0.1])
    assert rates[4] == 0.1


def test_warmup_and_multistep():
    rates = ours_by_epoch(6, kind="multistep", milestones=(4,), warmup=2)
    assert rates == pytest.approx([0.05, 0.1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "multistep"}, "needs at least one"),
        ({"kind": "cosine", "milestones": (3,)}, "milestones belong to"),
        ({"kind": "cosine", "gamma": 0.5}, "gamma is not a setting of the schedule 'cosine'"),
        ({"kind": "multistep", "milestones": (5, 3)}, "must rise"),
        ({"warmup": 0.5}, "unit: step"),
        ({"kind": "linaer"}, "constant"),
    ],
)
def test_settings_that_would_be_ignored_are_refused(options, message):
    with pytest.raises(pydantic.ValidationError, match=message):
        ScheduleOptions(**options)


def test_milestones_may_come_as_a_list_from_json():
    assert ScheduleOptions(kind="multistep", milestones=[91, 136]).milestones == (91, 136)
    assert OptimizerOptions(kind="adam", lr=1e-3, betas=[0.5, 0.9]).betas == (0.5, 0.9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "adam", "lr": 1e-3, "momentum": 0.9}, "momentum is not a setting of adam"),
        ({"kind": "sgd", "lr": 0.1, "betas": (0.9, 0.99)}, "betas is not a setting of sgd"),
        ({"lr": 0.1, "nesterov": True}, "nesterov needs a momentum"),
        ({"lr": 0.0}, "greater than 0"),
    ],
)
def test_optimizer_settings_are_checked(options, message):
    with pytest.raises(pydantic.ValidationError, match=message):
        OptimizerOptions(**options)


@pytest.mark.parametrize(
    "options", [ScheduleOptions(kind="cosine", unit="step"), OptimizerOptions(kind="adamw", lr=1.0)]
)
def test_options_survive_a_job_file(options):
    assert type(options)(**options.model_dump(mode="json")) == options
