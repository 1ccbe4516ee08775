"""Tests of how often something happened. Pure."""

from __future__ import annotations


def p_not_more_often(hits: int, count: int, base_hits: int, base_count: int) -> float:
    """Return p of `hits` in `count` happening no more often than on the base.

    Fisher's exact test, one-sided. 1 without counts on both sides.
    """
    if not hits or not count or not base_count:
        return 1.0
    from scipy.stats import fisher_exact

    table = [[hits, count - hits], [base_hits, base_count - base_hits]]
    return float(fisher_exact(table, alternative="greater").pvalue)


def p_not_above(hits: int, count: int, share: float) -> float:
    """Return p of at most a `share` of the cases: the binomial test, one-sided."""
    if not hits:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(hits, count, share, alternative="greater").pvalue)
