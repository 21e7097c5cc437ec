"""The attacks from the plain prompt to the results: order, early stop, resume, what is stored."""

import copy
import subprocess
import sys

import pytest
import torch

from papers.unlearndiffatk.attack.schedule import attack_times
from papers.unlearndiffatk.method import no_attack, p4d, random_prefix, seed_search, unlearndiffatk
from papers.unlearndiffatk.options import (
    NoAttackOptions,
    P4dOptions,
    RandomPrefixOptions,
    SeedSearchOptions,
    UnlearnDiffAtkOptions,
)
from shared.diffusion.attacks.model import PipelineModel
from shared.diffusion.attacks.prompts import Prompt
from shared.diffusion.options import SampleOptions
from shared.errors import ConfigError, DataError

SEARCH = {"num_tokens": 2, "times": 3, "steps": 2, "lr": 0.05}
ATTACKS = {
    "unlearndiffatk": lambda context, **o: unlearndiffatk(context, UnlearnDiffAtkOptions(**{**SEARCH, **o})),
    "p4d": lambda context, **o: p4d(context, P4dOptions(**{**SEARCH, **o})),
    "random": lambda context, **o: random_prefix(context, RandomPrefixOptions(**{"num_tokens": 2, "tries": 3, **o})),
    "seeds": lambda context, **o: seed_search(context, SeedSearchOptions(**{"tries": 3, **o})),
    "none": lambda context, **o: no_attack(context, NoAttackOptions(**o)),
}
PREFIXED = ("unlearndiffatk", "p4d", "random")


@pytest.mark.parametrize("name", ATTACKS)
def test_the_plain_prompt_comes_first_and_all_rounds_are_kept(name, make_context, prompts):
    results = ATTACKS[name](make_context())
    assert [r.index for r in results] == [10, 11, 12, 13]
    for result, prompt in zip(results, prompts, strict=True):
        assert len(result.rounds) == (1 if name == "none" else 4)
        assert result.rounds[0].text == prompt.text
        assert result.rounds[0].seed == prompt.seed
        assert result.rounds[0].prefix == ()
        assert not result.success
        assert all(entry.seconds > 0 for entry in result.rounds)


@pytest.mark.parametrize("name", PREFIXED)
def test_success_of_the_plain_prompt_ends_the_attack_unless_it_never_stops(name, make_context):
    results = ATTACKS[name](make_context(threshold=-1.0))
    assert [len(r.rounds) for r in results] == [1] * 4
    assert all(r.pre_success for r in results)
    to_the_end = ATTACKS[name](make_context(threshold=-1.0), early_stop=False)
    assert [len(r.rounds) for r in to_the_end] == [4] * 4


def test_seed_search_goes_on_after_successes(make_context):
    results = ATTACKS["seeds"](make_context(threshold=-1.0))
    assert [len(r.rounds) for r in results] == [4] * 4
    assert len({entry.seed for entry in results[0].rounds}) == 4
    assert [e.seed for e in results[0].rounds[1:]] == [e.seed for e in results[3].rounds[1:]]


def test_the_first_success_ends_a_prompt_and_the_others_go_on(make_context, judge):
    """A judge that is convinced by one prompt's second image."""
    context = make_context()
    reference = ATTACKS["unlearndiffatk"](context)
    wanted = reference[1].rounds[2].score

    def convinced(images):
        verdicts = judge(images, 2.0)
        return verdicts._replace(positive=(verdicts.score - wanted).abs() < 1e-9)

    results = ATTACKS["unlearndiffatk"](make_context(judge=convinced))
    assert [len(r.rounds) for r in results] == [4, 3, 4, 4]
    assert results[1].success
    assert not results[1].pre_success
    for result, before in zip(results, reference, strict=True):
        for a, b in zip(result.rounds, before.rounds, strict=False):
            assert (a.prefix, a.text, a.time) == (b.prefix, b.text, b.time)
            assert a.score == pytest.approx(b.score, abs=1e-6)


@pytest.mark.parametrize("name", ATTACKS)
def test_results_do_not_hang_on_the_batch(name, make_context):
    whole, alone = (ATTACKS[name](make_context(), batch=batch) for batch in (4, 1))
    for a, b in zip(whole, alone, strict=True):
        for first, second in zip(a.rounds, b.rounds, strict=True):
            assert (first.prefix, first.text, first.seed) == (second.prefix, second.text, second.seed)
            assert first.score == pytest.approx(second.score, abs=1e-6)


@pytest.mark.parametrize("name", ["unlearndiffatk", "random", "seeds"])
def test_seeds_of_the_run(name, make_context):
    first, again, other = (ATTACKS[name](make_context(seed=seed)) for seed in (0, 0, 1))

    def drawn(results):
        return [(e.prefix, e.seed, e.score) for r in results for e in r.rounds]

    assert drawn(first) == drawn(again)
    assert drawn(first) != drawn(other)


def test_images_are_judged_at_the_noise_levels_of_the_schedule(make_context):
    for result in ATTACKS["unlearndiffatk"](make_context(), times=4):
        assert [entry.time for entry in result.rounds] == [None, *attack_times(4)]
        assert all(entry.loss > 0 for entry in result.rounds[1:])


def test_number_of_network_calls(make_context, counted, pipeline, sampling):
    """Steps: one call each with gradient. Images: plain and one a noise level, two denoising steps each."""
    victim = copy.deepcopy(pipeline)
    calls = counted(victim)
    context = make_context(victim=PipelineModel(victim, SampleOptions(num_steps=2, batch=8)))
    ATTACKS["unlearndiffatk"](context, times=3, steps=5)
    assert calls["with"] == 15
    assert calls["without"] == 2 * (1 + 3)


def test_the_string_is_tokenised_again_before_it_is_judged(make_context, model, monkeypatch):
    """A text whose tokens are not the optimised ones: the judged image is the text's."""
    seen = []
    draw = type(model).draw

    def recording(self, ids, texts, seeds, guidance):
        seen.append(ids.clone())
        return draw(self, ids, texts, seeds, guidance)

    monkeypatch.setattr(type(model), "draw", recording)
    monkeypatch.setattr(type(model), "text", lambda self, ids: "a box")
    for judged, exact in (("retokenised", False), ("exact", False)):
        seen.clear()
        results = ATTACKS["random"](make_context(rows=[0]), judged=judged, tries=1)
        entry = results[0].rounds[1]
        assert entry.text == "a box"
        assert entry.ids_exact is exact
        drawn = seen[1][0].tolist()
        if judged == "retokenised":
            assert drawn == [0, *model.tokens("a box"), *[1] * 9]
        else:
            assert drawn[1:3] == list(entry.prefix)


def test_words_of_the_world_survive_tokenising(make_context, model):
    for result in ATTACKS["random"](make_context(), tries=5):
        for entry in result.rounds[1:]:
            assert entry.ids_exact
            assert model.tokens(entry.text)[:2] == list(entry.prefix)


def test_special_tokens_in_a_prefix_cannot_be_typed(make_context):
    results = ATTACKS["random"](make_context(rows=[0]), tries=20, special_tokens=True, num_tokens=3)
    entries = [e for r in results for e in r.rounds[1:]]
    special = [e for e in entries if set(e.prefix) & {0, 1}]
    assert special
    assert not any(e.ids_exact for e in special)
    assert all(e.ids_exact for e in entries if e not in special)


@pytest.mark.parametrize("place", ["suffix", "middle", "even", "every_third"])
def test_places(place, make_context, model):
    for result in ATTACKS["random"](make_context(rows=[1]), tries=2, place=place):
        for entry in result.rounds[1:]:
            words = model.tokens(entry.text)
            own = model.tokens("a nice blue circle in flat style")
            assert sorted(words) == sorted([*own, *entry.prefix])


def test_a_killed_attack_goes_on_with_the_next_prompt(make_context, judge, tmp_path):
    whole = ATTACKS["unlearndiffatk"](make_context(), batch=1)
    journal = tmp_path / "attack.jsonl"
    judged = {"left": 4 + 3 + 2}

    def dies(images):
        judged["left"] -= 1
        if judged["left"] < 0:
            raise KeyboardInterrupt
        return judge(images, 2.0)

    stored = {"journal": journal, "key": "k"}
    with pytest.raises(KeyboardInterrupt):
        ATTACKS["unlearndiffatk"](make_context(judge=dies, **stored), batch=1)
    seen = []
    context = make_context(watch=lambda index, entry, image: seen.append(index), **stored)
    resumed = ATTACKS["unlearndiffatk"](context, batch=1)
    assert 10 not in seen  # it was finished
    assert set(seen) == {11, 12, 13}
    for a, b in zip(resumed, whole, strict=True):
        assert [(e.prefix, e.score) for e in a.rounds] == [(e.prefix, e.score) for e in b.rounds]
    assert ATTACKS["unlearndiffatk"](make_context(judge=None, **stored), batch=1) == resumed


def test_watching_sees_every_image(make_context):
    seen = []
    context = make_context(watch=lambda index, entry, image: seen.append((index, entry, image.shape)))
    results = ATTACKS["unlearndiffatk"](context)
    assert len(seen) == sum(len(r.rounds) for r in results)
    assert {shape for _, _, shape in seen} == {torch.Size([3, 32, 32])}
    by_prompt = [tuple(entry for i, entry, _ in seen if i == result.index) for result in results]
    assert by_prompt == [result.rounds for result in results]


def test_runs_on_harmful_prompts_store_scores_alone(make_context, tmp_path):
    journal = tmp_path / "attack.jsonl"
    results = ATTACKS["unlearndiffatk"](make_context(scores_only=True, journal=journal, key="k"))
    assert all(e.text == "" and e.prefix == () for r in results for e in r.rounds)
    assert "circle" not in journal.read_text()
    with pytest.raises(ConfigError, match="cannot be watched"):
        make_context(scores_only=True, watch=print)


def test_bad_input_is_named(make_context, judge, targets):
    with pytest.raises(ConfigError, match="needs target images"):
        ATTACKS["unlearndiffatk"](make_context(targets=None))
    with pytest.raises(ConfigError, match="P4D needs the original model"):
        ATTACKS["p4d"](make_context(original=None))
    with pytest.raises(DataError, match="3 target images for 4 prompts"):
        make_context(targets=targets[:3])
    broken = targets.clone()
    broken[2, 0, 0, 0] = float("inf")
    with pytest.raises(DataError, match="prompt 12: the latent of its target image holds NaN"):
        make_context(targets=broken)
    twice = [Prompt(1, "a circle", 0, 2.0)] * 2
    with pytest.raises(DataError, match="same index"):
        make_context(prompts=twice, targets=None)
    long = [Prompt(7, "a " * 11, 0, 2.0)]
    with pytest.raises(DataError, match="prompt 7: 11 tokens do not fit into the window of 12"):
        ATTACKS["none"](make_context(prompts=long, targets=None))
    nearly = [Prompt(7, "a " * 9, 0, 2.0)]
    with pytest.raises(DataError, match="prompt 7: 9 tokens and 2 adversarial ones do not fit"):
        ATTACKS["random"](make_context(prompts=nearly, targets=None))
    unknown = [Prompt(7, "a hexagon", 0, 2.0)]
    with pytest.raises(DataError, match="a word that the tokenizer does not know"):
        ATTACKS["none"](make_context(prompts=unknown, targets=None))

    def blind(images):
        return judge(images)._replace(score=torch.tensor([0.1, float("nan"), 0.1, 0.1])[: len(images)])

    with pytest.raises(DataError, match="prompt 11: the detector's score is no number"):
        ATTACKS["none"](make_context(judge=blind))


def test_options_are_read_without_torch():
    names = ["unlearndiffatk", "p4d", "random_prefix", "seed_search", "no_attack"]
    code = (
        "import sys\n"
        "from shared.options import options_class\n"
        f"found = [options_class('papers.unlearndiffatk.method:' + n).__name__ for n in {names}]\n"
        "print(len(found), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["5", "False"]
