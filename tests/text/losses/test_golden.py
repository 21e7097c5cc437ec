"""Golden values: float64, the seeds of conftest.py. A change that moves one moves numbers of the papers."""

import pytest

GOLDEN = {
    ("ga", ()): -5.0324864936,
    ("gd", ()): 0.3791156027,
    ("kl", ()): -4.7291972977,
    ("kl", (("kl_positions", "answer"),)): -4.7224870449,
    ("kl", (("kl_positions", "all"),)): -4.7152058711,
    ("po", ()): 11.5615259644,
    ("po", (("mean", "concatenated"),)): 5.6974040725,
    ("idk_dpo", ()): 19.4709271252,
    ("npo", ()): 18.3894333902,
    ("npo", (("retain_term", "kl"),)): 13.2811204899,
    ("simnpo", ()): 5.4116020965,
    ("rmu", ()): 26.5386609032,
    ("rmu", (("rmu_broadcast", True),)): 35.8729516356,
    ("wga", ()): 5.3414287092,
    ("satimp", ()): 5.4116008840,
    ("undial", ()): 3.1292739877,
    ("ceu", ()): 2.7608110812,
    ("pdu", ()): 20.8065005214,
    ("pdu", (("positions", "all"),)): 20.9392760530,
}


@pytest.mark.parametrize(("name", "options"), GOLDEN)
def test_value(name, options, model, reference, batch, loss, close):
    close(loss(name, model, batch, reference, **dict(options)), GOLDEN[name, options], rtol=1e-6)
