"""The searches: their losses, gradients, batches, and how often they call a network."""

import copy

import pytest
import torch
import torch.nn.functional as F

from papers.unlearndiffatk.attack.search import EmbeddingSearch, SimplexSearch, vocabulary
from papers.unlearndiffatk.options import P4dOptions, UnlearnDiffAtkOptions
from shared.diffusion.attacks.model import PipelineModel, draw_targets
from shared.diffusion.options import SampleOptions
from shared.errors import DataError
from shared.training.seeds import stream

SETTING = {"num_tokens": 2, "times": 4, "steps": 3, "lr": 0.05}


def simplex(context, rows=None, **changes):
    rows = list(range(len(context.prompts))) if rows is None else rows
    options = UnlearnDiffAtkOptions(**{**SETTING, **changes})
    return SimplexSearch([context.prompts[r] for r in rows], context.targets[rows], options, context)


def embedding(context, rows=None, **changes):
    rows = list(range(len(context.prompts))) if rows is None else rows
    options = P4dOptions(**{**SETTING, **changes})
    return EmbeddingSearch([context.prompts[r] for r in rows], context.targets[rows], options, context)


def test_loss_is_the_victim_s_denoising_loss_under_the_drawn_prompt(make_context, pipeline):
    context = make_context()
    search = simplex(context)
    search.step(312)
    generator = stream(context.seed, "attack")
    uniform = torch.rand(2, generator=generator)
    noise = torch.randn(12, 8, 8, generator=generator).double()
    tokens = vocabulary(context.victim, False)[(uniform * 41).long()]  # uniform rows over the 41 words
    ids = search.layout.filled(tokens.expand(4, -1))
    kept = pipeline.scheduler.alphas_cumprod[312].double()
    noisy = kept.sqrt() * context.targets + (1 - kept).sqrt() * noise
    with torch.no_grad():
        predicted = pipeline.predict(noisy, torch.tensor(312), pipeline.encode(ids))
    expected = (predicted - noise).square().flatten(1).mean(1)
    torch.testing.assert_close(search.losses, expected.float(), atol=1e-5, rtol=1e-4)


def test_without_adversarial_tokens_it_is_the_plain_loss(make_context, pipeline, prompts):
    """N = 0: the ordinary training loss of the target under the prompt itself."""
    context = make_context()
    noise = torch.randn(4, 12, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    from papers.unlearndiffatk.attack.search import layout_of

    layout = layout_of(context.victim, prompts, UnlearnDiffAtkOptions(**SETTING).model_copy(update={"num_tokens": 0}))
    table = context.victim.table()
    with torch.no_grad():
        states = context.victim.encode(layout.embeddings(torch.empty(4, 0, 16, dtype=table.dtype), table))
        assert torch.equal(states, pipeline.encode([p.text for p in prompts]))
        times = torch.full((4,), 500)
        noisy = 0.5 * context.targets + noise
        mine = F.mse_loss(context.victim.noise(noisy, times, states), noise)
        plain = F.mse_loss(pipeline.predict(noisy, times, pipeline.encode([p.text for p in prompts])), noise)
    torch.testing.assert_close(mine, plain)


def test_rows_stay_on_the_simplex_and_move(make_context):
    search = simplex(make_context())
    start = search.variable.detach().clone()
    torch.testing.assert_close(start.sum(-1), torch.ones(4, 2))
    for time in (60, 180):
        search.step(time)
        rows = search.variable.detach()
        assert (rows >= 0).all()
        torch.testing.assert_close(rows.sum(-1), torch.ones(4, 2), atol=1e-5, rtol=0)
    assert not torch.equal(rows, start)


def test_ties_go_to_the_smallest_id(make_context):
    search = simplex(make_context())
    # all rows are uniform: the first word that is not special
    assert (search.tokens() == 2).all()
    with_special = simplex(make_context(), special_tokens=True)
    assert (with_special.tokens() == 0).all()


def test_special_tokens_are_left_out(model):
    assert vocabulary(model, False).tolist() == list(range(2, 43))
    assert vocabulary(model, True).tolist() == list(range(43))


@pytest.mark.parametrize("make", [simplex, embedding])
def test_a_prompt_s_search_does_not_hang_on_its_batch(make, make_context):
    """The seed is reset for every prompt; Adam is elementwise."""
    context = make_context()
    together = make(context)
    for time in (60, 180, 300):
        together.step(time)
    for row in range(4):
        alone = make(context, rows=[row])
        for time in (60, 180, 300):
            alone.step(time)
        torch.testing.assert_close(alone.variable[0], together.variable[row], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(alone.losses[0], together.losses[row], atol=1e-5, rtol=1e-4)
        assert torch.equal(alone.tokens()[0], together.tokens()[row])


@pytest.mark.parametrize("make", [simplex, embedding])
def test_a_smaller_batch_goes_on_as_if_nothing_had_happened(make, make_context):
    context = make_context()
    whole, cut = make(context), make(context)
    for search in (whole, cut):
        search.step(60)
        search.step(60)
    cut.keep([False, True, False, True])
    assert [p.index for p in cut.prompts] == [11, 13]
    for search in (whole, cut):
        search.step(180)
        search.step(180)
    torch.testing.assert_close(cut.variable, whole.variable[[1, 3]], atol=1e-5, rtol=1e-4)
    assert torch.equal(cut.tokens(), whole.tokens()[[1, 3]])
    cut.keep([False, False])
    assert cut.prompts == []


def test_one_step_is_one_forward_of_the_network_and_p4d_needs_two(make_context, counted, pipeline, original):
    victim, other = copy.deepcopy(pipeline), copy.deepcopy(original)
    sampling = SampleOptions(num_steps=2, batch=3)
    context = make_context(victim=PipelineModel(victim, sampling), original=PipelineModel(other, sampling))
    calls, others = counted(victim), counted(other)
    search = simplex(context)
    for _ in range(5):
        search.step(60)
    assert calls == {"with": 5, "without": 0, "text": 5}
    assert others == {"with": 0, "without": 0, "text": 0}
    search = embedding(context)
    calls.update({"with": 0, "text": 0})
    others["text"] = 0  # the plain prompts were encoded once
    for _ in range(5):
        search.step(60)
    assert calls == {"with": 5, "without": 0, "text": 5}
    assert others == {"with": 0, "without": 5, "text": 0}


def test_p4d_loss_is_zero_when_nothing_was_erased_and_nothing_is_added(make_context, pipeline, sampling):
    """eps = eps_orig; with the adversarial tokens of one prompt as the other's own words, c' = c."""
    model = PipelineModel(pipeline, sampling)
    context = make_context(original=model)
    search = embedding(context)
    table, layout = model.table(), search.layout
    # the original is asked for the very tokens that the victim gets
    nearest = search.tokens()
    search._plain = pipeline.encode(layout.filled(nearest)).detach()
    search.step(500)
    assert search.losses.abs().max() < 1e-12
    assert len(table) == 43


def test_p4d_starts_at_tokens_and_takes_its_gradient_at_the_nearest(make_context):
    context = make_context()
    search = embedding(context)
    table = context.victim.table()
    first = search.tokens()
    assert (first == first[:1]).all()
    assert torch.equal(search.variable.detach(), table[first].detach())
    # a small push leaves the nearest token, and thus the loss, as it is
    with torch.no_grad():
        search.variable.add_(1e-3)
    pushed = embedding(context)
    pushed.step(500)
    search.step(500)
    torch.testing.assert_close(search.losses, pushed.losses)


class Oracle:
    """A victim that recognises its target under one prompt only: its error is the distance of the first adversarial
    tokens from two words. As the original it always knows the noise."""

    abar, window, start, end, special = torch.linspace(0.99, 0.01, 50), 12, 0, 1, (0, 1)

    def __init__(self, targets, words, knows=False):
        self._targets, self._words, self._knows = targets, words, knows
        self._table = torch.randn(43, 8, generator=torch.Generator().manual_seed(4))

    def tokens(self, text):
        return [2, 5]

    def table(self):
        return self._table

    def encode(self, embeddings):
        return embeddings

    def noise(self, latents, timesteps, states):
        kept = self.abar[timesteps].view(-1, 1, 1, 1).to(latents)
        noise = (latents - kept.sqrt() * self._targets) / (1 - kept).sqrt()
        if self._knows:
            return noise
        away = 0.1 * (states[:, 1:3] - self._table[self._words]).square().sum((1, 2))
        return noise + away.view(-1, 1, 1, 1)


@pytest.mark.parametrize(("make", "rate", "num"), [(simplex, 0.01, 150), (embedding, 0.1, 150)])
def test_search_finds_the_words_that_the_victim_answers_to(make, rate, num, make_context, targets):
    target, words = targets[:1].float(), [17, 30]
    victim, original = Oracle(target, words), Oracle(target, words, knows=True)
    context = make_context(rows=[0], victim=victim, original=original, targets=target)
    search = make(context, lr=rate, weight_decay=0.0)
    search.step(25)
    first = float(search.losses[0])
    for _ in range(num):
        search.step(25)
    assert search.tokens()[0].tolist() == words
    assert first > 1.0


def test_gradients_are_those_of_the_paper_s_loss(make_context, pipeline):
    """First step: Adam moves every entry by lr against the sign of its gradient, then the projection."""
    context = make_context(rows=[0])
    search = simplex(context, weight_decay=0.0, lr=1e-3)
    start = search.variable.detach().clone()
    search.step(312)
    gradient = search.variable.grad
    assert gradient.abs().max() <= 1
    moved = start - 1e-3 * gradient / (gradient.abs() + 1e-8)
    from papers.unlearndiffatk.attack.simplex import project_exact

    torch.testing.assert_close(search.variable.detach(), project_exact(moved), atol=1e-6, rtol=1e-4)


def test_weight_decay_belongs_to_the_gradient_or_to_the_weights(make_context):
    context = make_context(rows=[0])
    kinds = {}
    for kind in ("adam", "adamw"):
        search = simplex(context, optimizer=kind, weight_decay=0.1)
        search.step(312)
        kinds[kind] = search.variable.detach()
    assert not torch.equal(kinds["adam"], kinds["adamw"])


def test_broken_victims_are_named(make_context):
    context = make_context()
    search = simplex(context)
    search.step(60)
    search.check()
    search.losses[2] = float("nan")
    with pytest.raises(DataError, match="prompt 12: the attack's loss is nan"):
        search.check()


def test_weights_need_no_gradient(make_context, pipeline):
    search = simplex(make_context())
    search.step(60)
    assert not any(p.requires_grad for p in pipeline.unet.parameters())
    assert all(p.grad is None for p in [*pipeline.unet.parameters(), *pipeline.text_encoder.parameters()])


def test_targets_are_latents_of_the_original_s_own_images(original, prompts):
    options = SampleOptions(num_steps=2, batch=3)
    targets = draw_targets(original, prompts, options)
    assert targets.shape == (4, 12, 8, 8)
    images = original.generate([prompts[1].text], [prompts[1].seed], options.model_copy(update={"guidance": 2.0}))
    torch.testing.assert_close(targets[1:2], original.to_latents(images), atol=1e-6, rtol=1e-5)
