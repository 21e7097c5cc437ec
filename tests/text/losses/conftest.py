"""A tiny GPT-2, its starting point, and batches of rows of unequal lengths."""

import copy

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from shared.imports import import_path
from shared.options import parse_options
from shared.text.batches import TextBatch, UnlearnBatch
from shared.text.losses.context import LossContext
from shared.text.losses.names import LOSSES

PAD = 0
# What a loss cannot do without; the block is the tiny model's last but one.
REQUIRED = {"pdu": {"eps": 0.3}, "rmu": {"module": "transformer.h.0"}}


def tiny_gpt2(seed=0, vocab=50):
    config = GPT2Config(
        n_layer=2, n_embd=32, n_head=4, n_positions=40, vocab_size=vocab,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    # Wide enough that distributions are not flat; drawn here, as versions of the library draw differently.
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.3, generator=generator)
    return model


def rows_of(lengths, seed, vocab=50):
    """Rows of (question length, answer length), right-padded; ids from 2 on."""
    generator = torch.Generator().manual_seed(seed)
    width = max(q + a for q, a in lengths)
    ids = torch.full((len(lengths), width), PAD)
    labels = torch.full_like(ids, -100)
    attended = torch.zeros_like(ids)
    for i, (q, a) in enumerate(lengths):
        ids[i, : q + a] = torch.randint(2, vocab, (q + a,), generator=generator)
        labels[i, q : q + a] = ids[i, q : q + a]
        attended[i, : q + a] = 1
    return TextBatch(ids, attended, labels)


def batch_of(vocab=50):
    return UnlearnBatch(
        forget=rows_of([(3, 5), (6, 2), (2, 9), (4, 4)], 1, vocab),
        retain=rows_of([(5, 3), (2, 2), (4, 8), (3, 6)], 2, vocab),
        refusal=rows_of([(3, 4), (6, 3), (2, 3), (4, 2)], 3, vocab),
    )


def context_of(seed=0):
    return LossContext(generator=lambda name: torch.Generator().manual_seed(seed + len(name)))


def loss_value(name, model, batch, reference, context=None, **options):
    """The loss called `name`, with its required options and the changes given."""
    parsed = parse_options(LOSSES[name], {**REQUIRED.get(name, {}), **options})
    return import_path(LOSSES[name])(model, batch, reference, parsed, context or context_of())


def gradient_of(value, model):
    """All gradients in one vector; weights that the value does not reach count 0."""
    grads = torch.autograd.grad(value, list(model.parameters()), allow_unused=True, retain_graph=True)
    pairs = zip(grads, model.parameters(), strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])


def assert_equal(a, b, rtol=1e-9):
    """Equal in float64; vectors by the length of their difference."""
    a, b = (torch.as_tensor(x, dtype=torch.float64) for x in (a, b))
    assert (a - b).norm() <= rtol * b.norm() + 1e-12, f"{a} is not {b}"


@pytest.fixture
def model():
    return tiny_gpt2(seed=0).double()


@pytest.fixture
def reference(model):
    """Not the model itself: the weights a few steps before."""
    torch.manual_seed(9)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return other.requires_grad_(False)


@pytest.fixture
def start(model):
    """The model itself, frozen: theta = theta_0."""
    return copy.deepcopy(model).requires_grad_(False)


@pytest.fixture
def batch():
    return batch_of()


@pytest.fixture
def context():
    return context_of()


@pytest.fixture
def loss():
    return loss_value


@pytest.fixture
def gradient():
    return gradient_of


@pytest.fixture
def make_rows():
    return rows_of


@pytest.fixture
def make_batch():
    return batch_of


@pytest.fixture
def make_model():
    return tiny_gpt2


@pytest.fixture
def make_context():
    return context_of


@pytest.fixture
def close():
    return assert_equal
