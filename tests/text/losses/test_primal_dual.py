"""PDU: its dual variable over steps, pieces, processes and kills."""

import torch

from shared.gpu.micro_batch import take


def test_pdu_moves_its_dual_by_the_excess_after_each_step(close, loss, model, batch, make_context):
    retain = loss("gd", model, batch, None, gamma=0.0).item()
    margin = loss("pdu", model, batch, None, dual_start=0.0).item()
    context, options = make_context(), {"eps": 0.3, "dual_start": 0.5, "dual_step": 2.0}
    for step in range(3):
        context.begin_step(batch, step)
        dual = 0.5 + step * 2.0 * (retain - 0.3)
        close(loss("pdu", model, batch, None, context, **options), margin + dual * (retain - 0.3))


def test_pdu_dual_stays_above_zero(loss, model, batch, make_context):
    context = make_context()
    for _ in range(3):  # without begin_step every call is a step
        loss("pdu", model, batch, None, context, eps=100.0)
    assert context.state["pdu.dual"] == 0


def test_pdu_pieces_of_a_step_share_one_dual_and_one_update(close, loss, model, batch, make_context):
    whole, pieces = make_context(), make_context()
    for step in range(3):
        whole.begin_step(batch, step)
        pieces.begin_step(batch, step)
        value = loss("pdu", model, batch, None, whole)
        parts = [(b - a) / 4 * loss("pdu", model, take(batch, a, b), None, pieces) for a, b in ((0, 1), (1, 4))]
        close(sum(parts), value)
        close(pieces.state["pdu.dual"], whole.state["pdu.dual"])


def test_pdu_processes_share_one_dual(close, loss, model, batch, make_context):
    """Two processes with a share each, their sums added: the dual of one process with the whole batch."""
    single, contexts = make_context(), [make_context(), make_context()]
    shares = [take(batch, 0, 1), take(batch, 1, 4)]
    for step in range(2):
        seen = [c.state.get("pdu.seen") for c in contexts]
        for context, share in zip(contexts, shares, strict=True):
            context.sum_over_processes = lambda value, seen=seen: sum(seen)
            context.begin_step(batch, step)
            loss("pdu", model, share, None, context)
        single.begin_step(batch, step)
        loss("pdu", model, batch, None, single)
    assert contexts[0].state["pdu.dual"] == contexts[1].state["pdu.dual"]
    close(contexts[0].state["pdu.dual"], single.state["pdu.dual"])


def test_pdu_resumes_from_its_state(loss, model, batch, make_context):
    straight = make_context()
    for step in range(4):
        straight.begin_step(batch, step)
        last = loss("pdu", model, batch, None, straight)
    before, after = make_context(), make_context()
    for step in range(4):
        context = before if step < 2 else after
        if step == 2:
            after.state.update({key: value.clone() for key, value in before.state.items()})
        context.begin_step(batch, step)
        resumed = loss("pdu", model, batch, None, context)
    assert resumed == last


def test_pdu_flat_logits_have_no_forget_term(close, loss, model, batch):
    with torch.no_grad():
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.zero_()
    close(loss("pdu", model, batch, None, dual_start=0.0), 0.0)
