"""Behind wrappers: peft, processes, compilation, recomputed layers; modules by name."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from shared.errors import ConfigError
from shared.text.losses.modules import find_module, hidden_states, logits_at, unwrapped
from shared.text.losses.names import LOSSES
from shared.text.losses.positions import answer

# The libraries still call their own deprecated names.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")


@pytest.fixture
def lora(model):
    config = LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights=False)
    return get_peft_model(copy.deepcopy(model), config).double().eval()


@pytest.fixture
def one_process(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_unwrapped(model, lora):
    assert unwrapped(model) is model
    assert unwrapped(lora) is lora.base_model.model
    assert unwrapped(torch.compile(model)) is model
    assert unwrapped(torch.compile(lora)) is lora.base_model.model


def test_find_module_by_name_of_the_plain_model(model, lora):
    assert find_module(model, "transformer.h.1") is model.transformer.h[1]
    assert find_module(lora, "transformer.h.1") is lora.base_model.model.transformer.h[1]
    with pytest.raises(ConfigError, match=r"the model has no 'transformer\.h\.7' \(did you mean 'transformer\.h\.\d'"):
        find_module(model, "transformer.h.7")
    with pytest.raises(ConfigError, match="the model has no ''"):
        find_module(model, "")


@pytest.mark.parametrize("block", [0, 1])
def test_hidden_states_are_those_that_the_model_reports(block, model, batch):
    rows = batch.forget
    states = hidden_states(model, rows, f"transformer.h.{block}")
    inputs = {"input_ids": rows.input_ids, "attention_mask": rows.attention_mask}
    if block == 0:  # the library reports the last block's after the final norm
        expected = model(**inputs, output_hidden_states=True).hidden_states[1]
        torch.testing.assert_close(states, expected, rtol=0, atol=0)
    torch.testing.assert_close(
        model.lm_head(model.transformer.ln_f(hidden_states(model, rows, "transformer.h.1"))), model(**inputs).logits
    )


def test_blocks_after_the_module_do_not_run(model, batch):
    ran = []
    model.transformer.h[1].register_forward_hook(lambda *_: ran.append(1))
    hidden_states(model, batch.forget, "transformer.h.0")
    assert not ran
    assert not model.transformer.h[0]._forward_hooks
    model(input_ids=batch.forget.input_ids)
    assert ran


def test_a_module_that_never_runs_is_one_line(model, batch):
    model.spare = nn.Linear(2, 2)
    with pytest.raises(ConfigError, match="'spare' does not run in a forward pass"):
        hidden_states(model, batch.forget, "spare")
    assert not model.spare._forward_hooks


def test_logits_are_made_at_the_chosen_positions_only(model, batch, close):
    shapes = []
    model.lm_head.register_forward_hook(lambda _m, _i, output: shapes.append(tuple(output.shape)))
    mask = answer(batch.forget)
    logits = logits_at(model, batch.forget, mask)
    assert shapes == [(20, 50)]
    rows = batch.forget
    close(logits, model(input_ids=rows.input_ids, attention_mask=rows.attention_mask).logits[mask])


def test_half_precision_logits_become_float32(model, batch):
    assert logits_at(model.bfloat16(), batch.forget, answer(batch.forget)).dtype == torch.float32


@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_a_lora_model_are_those_of_the_merged_one(name, lora, reference, batch, loss, close):
    value = loss(name, lora, batch, reference)
    value.backward()
    trained = [p.grad for p in lora.parameters() if p.requires_grad and p.grad is not None]
    assert trained
    assert all(torch.isfinite(grad).all() for grad in trained)
    with torch.no_grad():  # merged weights are frozen
        close(loss(name, lora.merge_and_unload(), batch, reference), value)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_with_recomputed_layers(name, model, reference, batch, loss, gradient, close):
    """Recomputing activations to save memory changes neither value nor gradient."""
    plain = loss(name, model, batch, reference)
    expected = gradient(plain, model)
    model.gradient_checkpointing_enable()
    model.train()  # layers recompute in training only; there is no dropout
    again = loss(name, model, batch, reference)
    close(again, plain)
    close(gradient(again, model), expected)


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_a_model_that_several_processes_train(name, model, reference, batch, loss, gradient, close):
    plain = loss(name, model, batch, reference)
    expected = gradient(plain, model)
    wrapped = nn.parallel.DistributedDataParallel(model, find_unused_parameters=name == "rmu")
    for _ in range(2):  # an incomplete exchange would be noticed by the second forward pass
        value = loss(name, wrapped, batch, reference)
        value.backward()
    close(value, plain)
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    close(torch.cat([g.flatten() for g in found]), 2 * expected)
