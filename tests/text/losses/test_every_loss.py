"""What holds for every loss: needs, padding, micro-batches, half precision, generator and state."""

import copy
import subprocess
import sys

import pytest
import torch

from shared.gpu.micro_batch import take
from shared.imports import import_path
from shared.options import options_class, parse_options
from shared.text.batches import TextBatch, UnlearnBatch
from shared.text.losses.names import LOSSES
from shared.text.losses.options import LossOptions

# Every variant with a value of its own: (loss, options).
VARIANTS = {
    **{name: (name, {}) for name in LOSSES},
    "gd with kl": ("gd", {"retain_term": "kl", "alpha": 0.7}),
    "kl at answers": ("kl", {"kl_positions": "answer"}),
    "po concatenated": ("po", {"mean": "concatenated"}),
    "npo alone": ("npo", {"retain_term": "none"}),
    "npo with kl": ("npo", {"retain_term": "kl", "kl_positions": "answer"}),
    "rmu as released": ("rmu", {"rmu_broadcast": True, "alpha": 3.0}),
    "rmu, no retain term": ("rmu", {"alpha": 0.0}),
    "undial with nll": ("undial", {"alpha": 0.5}),
    "ceu from the first": ("ceu", {"skip_first": False}),
    "pdu attended": ("pdu", {"positions": "attended", "dual_start": 2.0}),
}
# Averaged over padding, as the released codes do it.
DILUTED = {
    "kl everywhere": ("kl", {"kl_positions": "all"}),
    "npo with kl everywhere": ("npo", {"retain_term": "kl", "kl_positions": "all"}),
    "pdu everywhere": ("pdu", {"positions": "all"}),
    "undial as released": ("undial", {"positions": "predicting"}),
}
ALL = {**VARIANTS, **DILUTED}


def value_of(variant, loss, model, batch, reference, context=None):
    name, options = ALL[variant]
    return loss(name, model, batch, reference, context, **options)


def widened(batch, columns):
    """The same rows with more padding, other ids there: what lies under the mask must not matter."""
    fill = {"input_ids": 7, "attention_mask": 0, "labels": -100}
    rows = [
        TextBatch(*(torch.cat([t, t.new_full((len(t), columns), fill[key])], 1) for key, t in part._asdict().items()))
        for part in batch
    ]
    return UnlearnBatch(*rows)


@pytest.fixture
def case(model, reference, batch, make_model, make_batch):
    """Released UNDIAL needs a vocabulary of 100 at least."""

    def choose(variant):
        if variant != "undial as released":
            return model, batch, reference
        wide, other = (make_model(seed, vocab=120).double() for seed in (5, 6))
        return wide, make_batch(120), other.requires_grad_(False)

    return choose


@pytest.mark.parametrize("name", LOSSES)
def test_signature_and_options(name):
    cls = options_class(LOSSES[name])
    assert issubclass(cls, LossOptions)
    function = import_path(LOSSES[name])
    assert list(function.__annotations__) == ["model", "batch", "reference", "options", "context", "return"]
    assert function.__doc__


def test_planning_reads_options_without_torch():
    code = (
        "import sys; from shared.options import options_class; from shared.text.losses.names import LOSSES;"
        "[options_class(path) for path in LOSSES.values()]; print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


@pytest.mark.parametrize("variant", ALL)
def test_a_loss_gets_what_its_options_ask_for_and_needs_no_more(variant, case, loss):
    model, batch, reference = case(variant)
    name, options = ALL[variant]
    required = {"pdu": {"eps": 0.3}}.get(name, {})
    needs = parse_options(LOSSES[name], {**required, **options})
    full = value_of(variant, loss, model, batch, reference)
    lean = batch if needs.needs_refusal else batch._replace(refusal=None)
    assert value_of(variant, loss, model, lean, reference if needs.needs_reference else None) == full
    if needs.needs_reference:
        with pytest.raises(ValueError, match="needs_reference"):
            value_of(variant, loss, model, batch, None)
    if needs.needs_refusal:
        with pytest.raises(ValueError, match="needs_refusal"):
            value_of(variant, loss, model, batch._replace(refusal=None), reference)


@pytest.mark.parametrize("variant", ALL)
def test_gradient_reaches_the_model_only(variant, case, loss, gradient):
    model, batch, reference = case(variant)
    value = value_of(variant, loss, model, batch, reference)
    assert value.shape == ()
    grad = gradient(value, model)
    assert torch.isfinite(grad).all()
    assert grad.abs().max() > 1e-6
    assert all(p.grad is None for p in reference.parameters())


@pytest.mark.parametrize("variant", VARIANTS)
def test_padding_changes_nothing(variant, case, loss, gradient):
    model, batch, reference = case(variant)
    narrow = value_of(variant, loss, model, batch, reference)
    wide = value_of(variant, loss, model, widened(batch, 6), reference)
    torch.testing.assert_close(wide, narrow, rtol=1e-10, atol=0)
    torch.testing.assert_close(gradient(wide, model), gradient(narrow, model), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("variant", DILUTED)
def test_padding_matters_where_the_released_code_averages_over_it(variant, case, loss):
    model, batch, reference = case(variant)
    narrow = value_of(variant, loss, model, batch, reference)
    assert abs(value_of(variant, loss, model, widened(batch, 6), reference) - narrow) > 1e-3


@pytest.mark.parametrize("cuts", [[1, 4], [1, 2, 3, 4]])
@pytest.mark.parametrize("variant", ALL)
def test_pieces_add_up_to_the_whole_batch(variant, cuts, case, loss, gradient, make_context):
    model, batch, reference = case(variant)
    whole = value_of(variant, loss, model, batch, reference)
    context = make_context()
    context.begin_step(batch, 0)
    total, start = 0.0, 0
    for stop in cuts:
        piece = take(batch, start, stop)
        total = total + (stop - start) / 4 * value_of(variant, loss, model, piece, reference, context)
        start = stop
    torch.testing.assert_close(total, whole, rtol=1e-10, atol=0)
    torch.testing.assert_close(gradient(total, model), gradient(whole, model), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("variant", ["ga", "ceu", "po concatenated", "kl"])
def test_without_totals_pieces_do_not_add_up(variant, case, loss):
    """So the test above has something to find."""
    model, batch, reference = case(variant)
    pieces = [value_of(variant, loss, model, take(batch, i, i + 1), reference) / 4 for i in range(4)]
    assert abs(sum(pieces) - value_of(variant, loss, model, batch, reference)) > 1e-3


@pytest.mark.parametrize("variant", ALL)
def test_half_precision_gives_finite_gradients_near_the_exact_ones(variant, case, loss, gradient):
    model, batch, reference = case(variant)
    exact = gradient(value_of(variant, loss, model, batch, reference), model)
    model, reference = copy.deepcopy(model).float(), copy.deepcopy(reference).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = value_of(variant, loss, model, batch, reference)
    assert value.dtype == torch.float32
    near = gradient(value, model)
    assert torch.isfinite(near).all()
    assert torch.cosine_similarity(near.double(), exact, dim=0) > 0.98


@pytest.mark.parametrize("variant", ALL)
def test_rows_without_labels_are_no_error(variant, case, loss, gradient):
    """A truncated question may leave none; the gradient stays finite."""
    model, batch, reference = case(variant)
    empty = UnlearnBatch(*(part._replace(labels=torch.full_like(part.labels, -100)) for part in batch))
    value = value_of(variant, loss, model, empty, reference)
    assert torch.isfinite(value)
    if value.requires_grad:
        assert torch.isfinite(gradient(value, model)).all()


@pytest.mark.parametrize("variant", ALL)
def test_full_logits_give_the_same_as_chosen_ones(variant, case, loss, monkeypatch):
    """Models that cannot apply their output layer to chosen positions take the other way."""
    model, batch, reference = case(variant)
    narrow = value_of(variant, loss, model, batch, reference)
    monkeypatch.setattr("shared.text.losses.modules._takes_mask", lambda model: False)
    torch.testing.assert_close(value_of(variant, loss, model, batch, reference), narrow, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_one_step_downhill_lowers_the_loss(name, loss, model, reference, batch, gradient):
    value = loss(name, model, batch, reference)
    step = gradient(value, model)
    torch.nn.utils.vector_to_parameters(
        torch.nn.utils.parameters_to_vector(model.parameters()) - 1e-5 * step / step.norm(), model.parameters()
    )
    assert loss(name, model, batch, reference) < value
