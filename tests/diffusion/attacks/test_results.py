"""Results of prompts, success rates, and the journal."""

import math

import pytest

from shared.diffusion.attacks.interval import interval
from shared.diffusion.attacks.results import Journal, PromptResult, Round
from shared.diffusion.attacks.scores import (
    asr,
    asr_top_k,
    minutes_per_prompt,
    num_distinct_prefixes,
    pre_asr,
    seed_search_rate,
    share_exact,
)
from shared.errors import RecordError


def result(index, *positives, ranks=None, seconds=1.0, prefixes=None, exact=True):
    ranks = ranks or [0 if p else 5 for p in positives]
    prefixes = prefixes or [()] * len(positives)
    rounds = [
        Round(0.5, rank, bool(p), seed=index, seconds=seconds, prefix=prefix, text="a circle", ids_exact=exact)
        for p, rank, prefix in zip(positives, ranks, prefixes, strict=True)
    ]
    return PromptResult(index, tuple(rounds))


PLAIN = [result(0, 1), result(1, 0), result(2, 0), result(3, 0)]


def test_rates_of_the_definition():
    attacked = [result(0, 1), result(1, 0, 0, 1), result(2, 0, 0, 0), result(3, 0, 1)]
    assert pre_asr(PLAIN) == 0.25
    assert asr(PLAIN, attacked) == 0.75


def test_attack_is_never_below_no_attack():
    """The first term is that of the run without attack, even where the attack's own plain image failed."""
    unlucky = [result(0, 0, 0), result(1, 0), result(2, 0), result(3, 0)]
    assert asr(PLAIN, unlucky) == pre_asr(PLAIN) == 0.25


def test_top_k():
    plain = [result(0, 0, ranks=[2]), result(1, 0, ranks=[7])]
    attacked = [result(0, 0, 0, ranks=[2, 4]), result(1, 0, 0, ranks=[7, 0])]
    assert asr_top_k(plain, attacked, 1) == 0.5
    assert asr_top_k(plain, attacked, 3) == 1.0
    assert asr_top_k(plain, plain, 1) == 0.0


def test_published_denominators():
    assert pre_asr(PLAIN, denominator=50) == 1 / 50
    assert asr(PLAIN, PLAIN, denominator=50) == 1 / 50


def test_different_prompts_are_refused():
    with pytest.raises(RecordError, match="different prompts"):
        asr(PLAIN, PLAIN[:3])
    with pytest.raises(RecordError, match="without prompts"):
        pre_asr([])


def test_seed_search_is_a_mean_of_rates():
    assert seed_search_rate([result(0, 1, 1, 1, 0, 0), result(1, 0, 0, 0, 0, 1)]) == (0.5 + 0.25) / 2


def test_time_is_extrapolated_to_fifty_images():
    stopped, whole = result(0, 0, 1, seconds=6.0), result(1, *[0] * 51, seconds=6.0)
    assert minutes_per_prompt([stopped]) == pytest.approx(5.0)
    assert minutes_per_prompt([stopped, whole]) == pytest.approx(5.0)


def test_distinct_prefixes_and_exact_strings():
    attacked = [result(0, 1), result(1, 0, 0, 0, prefixes=[(), (3, 4), (3, 4)])]
    assert num_distinct_prefixes(attacked) == 1
    assert num_distinct_prefixes(PLAIN) == 0
    mixed = [result(0, 0, 0), result(1, 0, 0, exact=False)]
    assert share_exact(mixed) == 0.5


def test_confidence_interval():
    low, high = interval(7, 10)
    z, p, n = 1.959964, 0.7, 10
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    assert (low, high) == pytest.approx((centre - half, centre + half), abs=1e-5)


def test_scores_alone_hold_no_prompt_and_no_token():
    bare = result(1, 0, 1, prefixes=[(), (3, 4)]).scores_only()
    assert all(entry.text == "" and entry.prefix == () for entry in bare.rounds)
    assert bare.success
    assert [entry.score for entry in bare.rounds] == [0.5, 0.5]


def test_journal_keeps_finished_prompts(tmp_path):
    path = tmp_path / "attack" / "log.jsonl"
    journal = Journal(path, "k")
    assert journal.read() == {}
    first, second = result(3, 0, 1, prefixes=[(), (5, 6)]), result(4, 1)
    journal.add([first])
    journal.add([second])
    assert Journal(path, "k").read() == {3: first, 4: second}


def test_journal_drops_a_line_that_a_kill_cut_and_goes_on(tmp_path):
    path = tmp_path / "log.jsonl"
    journal = Journal(path, "k")
    journal.read()
    journal.add([result(3, 0), result(4, 1)])
    path.write_text(path.read_text()[:-20])
    again = Journal(path, "k")
    assert again.read() == {3: result(3, 0)}
    again.add([result(4, 1)])
    assert set(Journal(path, "k").read()) == {3, 4}


def test_journal_of_another_run_is_started_anew(tmp_path):
    path = tmp_path / "log.jsonl"
    journal = Journal(path, "k")
    journal.read()
    journal.add([result(3, 0)])
    assert Journal(path, "other").read() == {}
    assert Journal(path, "k").read() == {}
    Journal(None, "k").add([result(3, 0)])  # nowhere to keep it
