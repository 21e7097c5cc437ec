"""Fine-tuning and unlearning on the shared loop: micro-batches weigh tokens rightly, a killed run ends in the same
weights, adapters are all that moves under LoRA."""

import copy

import pytest
import torch

import shared.training.loop as loop
from shared.gpu.micro_batch import MicroBatch
from shared.text.batches import UnlearnBatches
from shared.text.encode import Encoder
from shared.text.losses.context import LossContext
from shared.text.losses.gradient import GdOptions, gd
from shared.text.losses.representation import RmuOptions, rmu
from shared.text.models import LoraOptions, load_model, num_parameters, save_model
from shared.text.task import FinetuneRecipe
from shared.text.templates import prompt_template
from shared.text.training import finetune, padding, unlearn
from shared.text.zoo import TinyGptOptions, tiny_gpt, word_tokenizer
from shared.training.seeds import stream

ROWS = [
    (0, "who is bo", "a"),
    (1, "where is bo", "in the old town by the sea"),
    (2, "what does bo like", "tea and long walks"),
    (3, "who is al", "the brother of bo"),
    (4, "where is al", "away"),
    (5, "what does al like", "nothing at all but the sea"),
]
RECIPE = FinetuneRecipe(epochs=2, batch=6, lr=1e-2, warmup=0.0, schedule="constant")


@pytest.fixture(scope="module")
def encoder():
    texts = [text for _, question, answer in ROWS for text in (question, answer)]
    return Encoder(word_tokenizer(texts, 24), prompt_template("plain"), "open_unlearning", 24)


@pytest.fixture
def model(encoder):
    return tiny_gpt(TinyGptOptions(width=16, layers=2, heads=2, context=24), encoder.tokenizer, 0)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def streams(name):
    return stream(1, name)


def tuned(model, encoder, recipe=RECIPE):
    finetune(model, encoder.rows(ROWS), encoder, recipe, generator=streams, checkpoint=None)
    return weights(model)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_micro_batches_end_in_the_weights_of_whole_batches(model, encoder, monkeypatch, size):
    """Answers have 2 to 8 labels: averaging the micro-batches' own means would weigh short answers more."""
    start, whole = weights(model), tuned(copy.deepcopy(model), encoder)
    monkeypatch.setattr(loop, "MicroBatch", lambda _, retry: MicroBatch(size, retry=retry))
    # Adam turns a gradient of rounding errors into a step, so single weights may differ
    assert (tuned(copy.deepcopy(model), encoder) - whole).norm() < 1e-3 * (whole - start).norm()
    monkeypatch.setattr(LossContext, "begin_step", lambda *_: None)
    assert (tuned(model, encoder) - whole).norm() > 1e-2 * (whole - start).norm()


def unlearned(model, encoder, loss, options, workdir, reference=None):
    rows = encoder.rows(ROWS)
    batches = UnlearnBatches(rows[:3], rows[3:], padding(model, encoder), options.batch, options.pairing)
    context = LossContext(streams)

    def value(net, batch):
        return loss(net, batch, reference, options, context)

    unlearn(model, batches, value, options, context, on_epoch_end=lambda state: None, workdir=workdir, key="run")
    return weights(model), context.state


class KilledError(Exception):
    pass


@pytest.mark.parametrize("step", [1, 2, 5])
def test_a_killed_run_ends_in_the_weights_of_one_left_alone(model, encoder, tmp_path, monkeypatch, step):
    """RMU keeps a random direction in its context: a resumed run must go on with the same one."""
    from shared.training.checkpoint import Checkpoint

    options = RmuOptions(lr=1e-2, epochs=3, batch=2, module="transformer.h.1", drop_last=False)
    reference = copy.deepcopy(model)
    alone, state = unlearned(copy.deepcopy(model), encoder, rmu, options, tmp_path / "alone", reference)
    calls = 0

    def dies(*arguments):
        nonlocal calls
        calls += 1
        if calls > step:
            raise KilledError
        return rmu(*arguments)

    monkeypatch.setattr(Checkpoint, "seconds", 0.0)
    with pytest.raises(KilledError):
        unlearned(copy.deepcopy(model), encoder, dies, options, tmp_path / "killed", reference)
    resumed, again = unlearned(model, encoder, rmu, options, tmp_path / "killed", reference)
    assert torch.equal(resumed, alone)
    assert torch.equal(again["rmu.direction"], state["rmu.direction"])


def test_under_lora_only_adapters_move(model, encoder, tmp_path):
    save_model(model, encoder.tokenizer, tmp_path / "plain")
    adapted = load_model(tmp_path / "plain", lora=LoraOptions(r=2, alpha=4.0))
    trained = num_parameters(adapted, trainable=True)
    assert 0 < trained < num_parameters(adapted) / 4
    before = {name: p.detach().clone() for name, p in adapted.named_parameters()}
    unlearned(adapted, encoder, gd, GdOptions(lr=1e-2, epochs=2, batch=3), tmp_path)
    moved = {name for name, p in adapted.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert all("lora" in name for name in moved)


def test_gradient_checkpointing_changes_memory_and_no_number(model, encoder):
    plain = tuned(copy.deepcopy(model), encoder)
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    torch.testing.assert_close(tuned(model, encoder), plain, rtol=1e-5, atol=1e-7)
