"""Options of the prompter: what a stage's recipe keeps of them, and the learning rate over the run."""

import json

import pytest
from pydantic import ValidationError

from papers.promptnucseg.prompter.options import PrompterTraining
from papers.promptnucseg.prompter.training import schedule_of
from shared.training.schedule import Schedule


@pytest.mark.parametrize("schedule", [{}, {"schedule": "cosine", "warmup": 2.0}, {"min_visible": 20}])
def test_options_survive_a_recipe(schedule):
    """A stage reads them from the JSON of its job."""
    options = PrompterTraining(**schedule)
    assert PrompterTraining(**json.loads(json.dumps(options.model_dump(mode="json")))) == options


def test_the_rate_is_constant_or_rises_and_falls():
    constant = Schedule(schedule_of(PrompterTraining()), 10)
    assert [constant.factor(epoch, step, 4) for epoch in (0, 5, 9) for step in (0, 3)] == [1.0] * 6
    cosine = Schedule(schedule_of(PrompterTraining(schedule="cosine", warmup=2.0)), 10)
    factors = [cosine.factor(epoch, step, 4) for epoch in range(10) for step in range(4)]
    assert factors[:8] == sorted(factors[:8])
    assert factors[8:] == sorted(factors[8:], reverse=True)
    assert factors[0] == 1 / 8
    assert factors[8] == 1.0
    assert factors[-1] < 0.01


def test_a_warmup_without_cosine_is_refused():
    with pytest.raises(ValidationError, match="warmup is read by the schedule 'cosine' only"):
        PrompterTraining(warmup=1.0)


def test_a_recipe_without_cut_nuclei_is_that_of_before():
    """Or the stages of the other scales would all be trained again."""
    assert "min_visible" not in PrompterTraining().model_dump(mode="json")
    assert PrompterTraining(min_visible=20).model_dump(mode="json")["min_visible"] == 20
