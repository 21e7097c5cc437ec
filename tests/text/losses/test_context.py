"""Totals of the whole batch, steps, and masks of positions."""

import pytest
import torch

from shared.text.batches import TextBatch
from shared.text.losses.positions import POSITIONS, next_labels
from shared.text.losses.tokens import num_labels, sequence_sum, token_mean


@pytest.fixture
def rows():
    """Two rows: question 2, answer 3; question 1, answer 1, padding 3 of which the first carries the end's label."""
    ids = torch.tensor([[5, 6, 7, 8, 9], [5, 6, 1, 1, 1]])
    attended = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    labels = torch.tensor([[-100, -100, 7, 8, 9], [-100, 6, 1, -100, -100]])
    return TextBatch(ids, attended, labels)


def test_positions(rows):
    masks = {name: mask(rows).int().tolist() for name, mask in POSITIONS.items()}
    assert masks == {
        "answer": [[0, 1, 1, 1, 0], [1, 1, 0, 0, 0]],
        "after_first": [[0, 0, 1, 1, 0], [0, 1, 0, 0, 0]],
        "attended": [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]],
        "all": [[1] * 5, [1] * 5],
        "predicting": [[1, 1, 1, 1, 0], [1, 1, 1, 1, 0]],
    }
    assert next_labels(rows).tolist() == [[-100, 7, 8, 9, -100], [6, 1, -100, -100, -100]]
    assert num_labels(rows).tolist() == [3, 2]


def test_a_label_of_the_first_column_is_never_predicted(rows):
    labelled = rows._replace(labels=rows.input_ids)
    assert POSITIONS["answer"](labelled).sum(1).tolist() == [4, 4]


def test_sequence_sum(rows):
    values = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0])
    assert sequence_sum(values, POSITIONS["answer"](rows)).tolist() == [7.0, 24.0]


def test_a_batch_of_its_own_needs_no_totals(rows, context):
    assert context.num_samples(2) == 2
    assert token_mean(torch.ones(5), rows, "forget", "answer", context) == 1
    with pytest.raises(ValueError, match="no whole batch with forget rows"):
        context.num_tokens("forget", "answer")


def test_totals_are_those_of_the_step_begun(batch, context):
    context.begin_step(batch, 0)
    assert context.num_samples(1) == 4
    assert {name: context.num_tokens("forget", name) for name in POSITIONS} == {
        "answer": 20, "after_first": 16, "attended": 35, "all": 44, "predicting": 40,
    }  # fmt: skip
    assert context.num_tokens("retain", "answer") == 19
    smaller = batch._replace(forget=TextBatch(*(part[:2] for part in batch.forget)), refusal=None)
    context.begin_step(smaller, 1)
    assert context.step == 1
    assert context.num_tokens("forget", "answer") == 7
    with pytest.raises(ValueError, match="no whole batch with refusal rows"):
        context.num_tokens("refusal", "answer")
