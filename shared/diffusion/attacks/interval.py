"""Confidence intervals of rates. Torch-free."""


def interval(successes: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's confidence interval of a rate (scipy)."""
    from scipy.stats import binomtest

    bounds = binomtest(successes, total).proportion_ci(level, method="wilson")
    return float(bounds.low), float(bounds.high)
