"""Every loss against one written as loops over rows and tokens, each row alone and unpadded, in float64."""

import math

import pytest
import torch

VOCAB = 120


def cut(rows, i):
    """Ids and labels of row i without its padding."""
    n = int(rows.attention_mask[i].sum())
    return rows.input_ids[i, :n], rows.labels[i, :n]


def distributions(model, rows, i):
    """Log-probabilities (T, V) of row i alone."""
    return torch.log_softmax(model(input_ids=cut(rows, i)[0][None]).logits[0], -1)


def token_losses(model, rows, i):
    log_p, (_, labels) = distributions(model, rows, i), cut(rows, i)
    return [-log_p[t - 1, labels[t]] for t in range(1, len(labels)) if labels[t] != -100]


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def all_tokens(model, *sets):
    return [value for rows in sets for i in range(len(rows.labels)) for value in token_losses(model, rows, i)]


def log_ratios(model, reference, rows):
    return [sum(token_losses(reference, rows, i)) - sum(token_losses(model, rows, i)) for i in range(len(rows.labels))]


def log_sigmoid(x):
    return -torch.log1p(torch.exp(-x))


def kl_at(model, reference, rows, positions):
    """KL at every position that counts; padding is computed on the padded tensors."""
    values = []
    for i in range(len(rows.labels)):
        if positions == "all":
            inputs = {"input_ids": rows.input_ids[i : i + 1], "attention_mask": rows.attention_mask[i : i + 1]}
            log_p0 = torch.log_softmax(reference(**inputs).logits[0], -1)
            log_p = torch.log_softmax(model(**inputs).logits[0], -1)
            chosen = range(len(log_p))
        else:
            log_p0, log_p = distributions(reference, rows, i), distributions(model, rows, i)
            labels = cut(rows, i)[1].tolist()
            answers = [t - 1 for t in range(1, len(labels)) if labels[t] != -100]
            chosen = range(len(labels)) if positions == "attended" else answers
        values += [sum(math.exp(a) * (a - b) for a, b in zip(log_p0[t], log_p[t], strict=True)) for t in chosen]
    return values


def states(model, rows, i):
    """(T, d) output of the first block."""
    return model(input_ids=cut(rows, i)[0][None], output_hidden_states=True).hidden_states[1][0]


def ga(m, b, r, o):
    return -mean(all_tokens(m, b.forget))


def gd(m, b, r, o):
    return -o["gamma"] * mean(all_tokens(m, b.forget)) + o["alpha"] * mean(all_tokens(m, b.retain))


def kl(m, b, r, o):
    return -mean(all_tokens(m, b.forget)) + mean(kl_at(m, r, b.retain, o["kl_positions"]))


def po(m, b, r, o):
    if o["mean"] == "concatenated":
        return mean(all_tokens(m, b.refusal, b.retain))
    return mean(all_tokens(m, b.refusal)) + mean(all_tokens(m, b.retain))


def idk_dpo(m, b, r, o):
    beta = o["beta"]
    pairs = zip(log_ratios(m, r, b.refusal), log_ratios(m, r, b.forget), strict=True)
    return mean(-2 / beta * log_sigmoid(beta * (w - f)) for w, f in pairs) + mean(all_tokens(m, b.retain))


def npo(m, b, r, o):
    beta = o["beta"]
    value = mean(-2 / beta * log_sigmoid(-beta * x) for x in log_ratios(m, r, b.forget))
    if o["retain_term"] == "none":
        return value
    if o["retain_term"] == "nll":
        return value + mean(all_tokens(m, b.retain))
    return value + mean(kl_at(m, r, b.retain, o["kl_positions"]))


def simnpo(m, b, r, o):
    per_row = [mean(token_losses(m, b.forget, i)) for i in range(4)]
    value = mean(-2 / 4.5 * log_sigmoid(4.5 * (x - o["delta"])) for x in per_row)
    return 0.125 * value + mean(all_tokens(m, b.retain))


def rmu(m, b, r, o):
    generator = torch.Generator().manual_seed(len("rmu steering vector"))
    u = torch.rand(32, generator=generator)
    u = (u / u.norm()).double()

    def term(rows, target):
        sums, counts = [], []
        for i in range(4):
            labels, h = cut(rows, i)[1], states(m, rows, i)
            at = [t for t in range(len(labels)) if labels[t] != -100]
            sums.append(sum(mean((h[t] - target(i, t)) ** 2) for t in at))
            counts.append(len(at))
        if o["rmu_broadcast"]:
            return mean(s / n for s in sums for n in counts)
        return mean(s / n for s, n in zip(sums, counts, strict=True))

    kept = [states(r, b.retain, i) for i in range(4)]
    return term(b.forget, lambda i, t: 2.0 * u) + o["alpha"] * term(b.retain, lambda i, t: kept[i][t])


def wga(m, b, r, o):
    nll = all_tokens(m, b.forget)
    return -mean(math.exp(-x.item()) ** o["beta"] * x for x in nll) + mean(all_tokens(m, b.retain))


def satimp(m, b, r, o):
    nll = all_tokens(m, b.forget)
    weights = [math.exp(-x) ** o["beta1"] * (1 - math.exp(-x)) ** o["beta2"] for x in map(torch.Tensor.item, nll)]
    return -0.1 * mean(w * x for w, x in zip(weights, nll, strict=True)) + mean(all_tokens(m, b.retain))


def undial(m, b, r, o):
    values = []
    for i in range(4):
        inputs = {k: v[i : i + 1] for k, v in b.forget._asdict().items() if k != "labels"}
        teacher, own = r(**inputs).logits[0], torch.log_softmax(m(**inputs).logits[0], -1)
        labels = b.forget.labels[i]
        for t in range(len(labels) - 1):
            if labels[t + 1] == -100 and o["positions"] == "answer":
                continue
            lowered = teacher[t].clone()
            lowered[labels[t + 1]] -= o["beta"]  # -100 counts from the end here, too
            values.append(-(torch.softmax(lowered, 0) * own[t]).sum())
    return mean(values)


def ceu(m, b, r, o):
    values = []
    for i in range(4):
        log_p, (_, labels) = distributions(m, b.forget, i), cut(b.forget, i)
        at = [t for t in range(1, len(labels)) if labels[t] != -100][1 if o["skip_first"] else 0 :]
        for t in at:
            p = log_p[t - 1].detach().exp()
            rest = 1 - p[labels[t]]
            values.append(-sum(p[v] / rest * log_p[t - 1, v] for v in range(VOCAB) if v != labels[t]))
    return mean(values)


def pdu(m, b, r, o):
    margins = []
    for i in range(4):
        inputs = {k: v[i : i + 1] for k, v in b.forget._asdict().items() if k != "labels"}
        logits, labels = m(**inputs).logits[0], b.forget.labels[i]
        for t in range(len(labels)):
            if o["positions"] == "all" or (t + 1 < len(labels) and labels[t + 1] != -100):
                margins.append((max(logits[t]) - mean(logits[t])) ** 2)
    return mean(margins) + o["dual_start"] * (mean(all_tokens(m, b.retain)) - o["eps"])


CASES = [
    (ga, {}),
    (gd, {"gamma": 0.5, "alpha": 2.0}),
    (kl, {"kl_positions": "attended"}),
    (kl, {"kl_positions": "answer"}),
    (kl, {"kl_positions": "all"}),
    (po, {"mean": "sum"}),
    (po, {"mean": "concatenated"}),
    (idk_dpo, {"beta": 0.1}),
    (idk_dpo, {"beta": 0.5}),
    (npo, {"beta": 0.1, "retain_term": "none"}),
    (npo, {"beta": 0.3, "retain_term": "nll"}),
    (npo, {"beta": 0.1, "retain_term": "kl", "kl_positions": "attended"}),
    (simnpo, {"delta": 0.0}),
    (simnpo, {"delta": 0.5}),
    (rmu, {"rmu_broadcast": False, "alpha": 1.5}),
    (rmu, {"rmu_broadcast": True, "alpha": 1.5}),
    (wga, {"beta": 1.0}),
    (wga, {"beta": 0.2}),
    (satimp, {"beta1": 5.0, "beta2": 1.0}),
    (satimp, {"beta1": 0.5, "beta2": 2.0}),
    (undial, {"beta": 10.0, "positions": "answer"}),
    (undial, {"beta": 3.0, "positions": "predicting"}),
    (ceu, {"skip_first": True}),
    (ceu, {"skip_first": False}),
    (pdu, {"eps": 0.3, "dual_start": 2.0, "positions": "answer"}),
    (pdu, {"eps": 0.3, "dual_start": 2.0, "positions": "all"}),
]


@pytest.mark.parametrize(("naive", "options"), CASES, ids=lambda x: getattr(x, "__name__", None))
def test_value_and_gradient(naive, options, loss, gradient, make_model, make_batch):
    model = make_model(seed=3, vocab=VOCAB).double()
    reference = make_model(seed=3, vocab=VOCAB).double()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.mul_(0.97)
    batch = make_batch(VOCAB)
    value = loss(naive.__name__, model, batch, reference.requires_grad_(False), **options)
    expected = naive(model, batch, reference, options)
    torch.testing.assert_close(value, expected, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(gradient(value, model), gradient(expected, model), rtol=1e-5, atol=1e-8)


def test_every_loss_has_a_case():
    from shared.text.losses.names import LOSSES

    assert {naive.__name__ for naive, _ in CASES} == set(LOSSES)
