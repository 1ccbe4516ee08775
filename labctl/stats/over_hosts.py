"""Estimates over several hosts: random effects of hosts above the blocks. Pure.

Pairs stay within a block, and a block within a host. The log ratio of a block is the mean over
all hosts, plus that of its host, plus that of the block. Only hosts that were measured say how
much hosts differ, so that a mean over hosts has one degree of freedom less than there are hosts,
however many blocks each of them has.

The interval is that of J. Hartung and G. Knapp (Statistics in Medicine 20, 2001, 3875-3889) and
of K. Sidik and J. N. Jonkman (Statistics in Medicine 21, 2002, 3153-3159), with the variance
between hosts of R. C. Paule and J. Mandel (J. Res. NBS 87, 1982, 377-385). With few hosts it
contains the true value as often as promised, while that of DerSimonian and Laird does not (J.
IntHout et al., BMC Medical Research Methodology 14, 2014, 25). The variance within hosts is
pooled over hosts: some have one block. See docs/explanation/methodology.md for simulations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from labctl.stats.paired import Paired, adjust, paired, t_tests
from labctl.stats.streaks import independent_blocks

if TYPE_CHECKING:
    import numpy as np

_CONSTANT = 1e-12  # a spread of logs below the precision of a double
_STEPS = 60  # halvings of an interval: to the precision of a double


@dataclass(frozen=True, slots=True)
class HostMean:
    """The mean of one host's blocks, with its own interval.

    `differs` is set if it differs from that of the other hosts; in an A/A control, if the
    baseline differs from itself on this host.
    """

    host: str
    blocks: int
    mean: float
    half_width: float | None
    differs: bool = False


@dataclass(frozen=True, slots=True)
class Hosts:
    """How much hosts differ.

    `error` is the standard error of the mean over hosts. `q` is Cochran's Q and `p` its p value,
    `i_squared` the share of the variance of the hosts' means that their blocks do not explain
    (J. P. T. Higgins and S. G. Thompson, Statistics in Medicine 21, 2002), `tau` the standard
    deviation between hosts. They are None if every host has one block only.
    """

    means: tuple[HostMean, ...]
    error: float
    q: float | None
    p: float | None
    i_squared: float | None
    tau: float | None

    def scaled(self, unit: float) -> Hosts:
        """Return the same in a unit that is `unit` times as small."""
        means = tuple(
            replace(
                one,
                mean=one.mean * unit,
                half_width=None if one.half_width is None else one.half_width * unit,
            )
            for one in self.means
        )
        tau = None if self.tau is None else self.tau * unit
        return replace(self, means=means, error=self.error * unit, tau=tau)


class Effects(NamedTuple):
    """What `random_effects` returns, each of the leading shape."""

    mean: Any
    error: Any
    variance: Any  # between hosts
    q: Any


def random_effects(means: np.ndarray, blocks: np.ndarray, variance: np.ndarray) -> Effects:
    """Return mean over hosts, its standard error, variance between hosts, and Cochran's Q.

    `means` is (..., hosts), `blocks` has the number of blocks of each, and `variance` (...) is
    that of a block within its host. The error has a t distribution with one degree of freedom
    less than there are hosts.
    """
    import numpy as np

    freedom = means.shape[-1] - 1
    within = np.maximum(np.asarray(variance)[..., None] / blocks, _CONSTANT**2)
    low = np.zeros(means.shape[:-1])
    # With this variance, Q is at most its expectation.
    high = ((means - means.mean(axis=-1, keepdims=True)) ** 2).sum(axis=-1) / freedom
    q = _weighted(means, within)[1]
    high = np.where(q <= freedom, 0.0, high)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        is_less = _weighted(means, within + middle[..., None])[1] > freedom
        low, high = np.where(is_less, middle, low), np.where(is_less, high, middle)
    mean, squares, total = _weighted(means, within + high[..., None])
    return Effects(mean, np.sqrt(squares / freedom / total), high, q)


def _weighted(means: np.ndarray, variance: np.ndarray) -> tuple[Any, Any, Any]:
    """Return the weighted mean, the weighted sum of squares around it, and the sum of weights."""
    weights = 1 / variance
    total = weights.sum(axis=-1)
    mean = (weights * means).sum(axis=-1) / total
    return mean, (weights * (means - mean[..., None]) ** 2).sum(axis=-1), total


def over_hosts(
    d: Sequence[float], hosts: Sequence[str], *, confidence: float, margin: float
) -> Paired:
    """Compare over hosts; `hosts` has the host of each block, of which there are at least two.

    The result's `sd` is such that its standard error is that of the mean over hosts. Without a
    difference between hosts, as of counts that are often equal, the blocks decide.
    """
    import numpy as np

    groups = by_host(d, hosts)
    counts = np.array([len(each) for each in groups.values()])
    means = np.array([math.fsum(each) / len(each) for each in groups.values()])
    blocks, freedom = len(d), len(d) - len(groups)
    within = variance_within(groups)
    found = random_effects(means, counts, np.array(within))
    mean, error, degrees = float(found.mean), float(found.error), len(groups) - 1
    if error <= _CONSTANT:
        error, degrees = math.sqrt(within / blocks), freedom
    if error <= _CONSTANT:
        result = paired([mean] * blocks, confidence=confidence, margin=margin)
    else:
        tests = t_tests(mean, error, degrees, confidence=confidence, margin=margin)
        sd = error * math.sqrt(blocks)
        half_width, p, p_beyond, p_same = (float(each) for each in tests)
        result = Paired(blocks, mean, sd, half_width, p, p_beyond, p_same)
    spread = _spread(groups, within, found, error, confidence)
    sizes = {host: (len(own), math.fsum(own) / len(own)) for host, own in groups.items()}
    named = _differing(sizes, within, freedom, 1 - confidence)
    rows = tuple(replace(one, differs=one.host in named) for one in spread.means)
    return replace(result, hosts=replace(spread, means=rows))


def of_control(
    d: Sequence[float], hosts: Sequence[str], *, confidence: float, margin: float
) -> Hosts:
    """Return the hosts of an A/A control, of which no host has a difference.

    A host differs if the test of its own blocks says so, by Holm's correction over hosts.
    """
    found = over_hosts(d, hosts, confidence=confidence, margin=margin).hosts
    assert found is not None
    tests = [_alone(own, confidence, margin) for own in by_host(d, hosts).values()]
    corrected = adjust([one.p_beyond for one in tests])
    rows = tuple(
        replace(one, differs=p is not None and p <= 1 - confidence)
        for one, p in zip(found.means, corrected, strict=True)
    )
    return replace(found, means=rows)


def by_host(d: Sequence[float], hosts: Sequence[str]) -> dict[str, list[float]]:
    """Return the values of each host, by rising host."""
    groups: dict[str, list[float]] = {host: [] for host in sorted(set(hosts))}
    for value, host in zip(d, hosts, strict=True):
        groups[host].append(value)
    return groups


def variance_within(groups: Mapping[str, Sequence[float]]) -> float:
    """Return the variance of blocks within their host, 0 if every host has one block."""
    freedom = sum(map(len, groups.values())) - len(groups)
    squares = 0.0
    for values in groups.values():
        mean = math.fsum(values) / len(values)
        squares += math.fsum((value - mean) ** 2 for value in values)
    return squares / freedom if freedom else 0.0


def _alone(values: Sequence[float], confidence: float, margin: float) -> Paired:
    count = independent_blocks(values)
    return paired(values, confidence=confidence, margin=margin, independent=count)


def _spread(
    groups: Mapping[str, Sequence[float]],
    within: float,
    found: Effects,
    error: float,
    confidence: float,
) -> Hosts:
    from scipy.special import fdtrc

    rows = []
    for host, values in groups.items():
        own = _alone(values, confidence, 0.0)
        rows.append(HostMean(host, own.blocks, own.mean, own.half_width))
    between = len(groups) - 1
    freedom = sum(map(len, groups.values())) - len(groups)
    if not freedom or within <= _CONSTANT**2:
        return Hosts(tuple(rows), error, None, None, None, None)
    q = float(found.q)
    # Not the chi-squared distribution, since the variance within hosts is an estimate.
    p = float(fdtrc(between, freedom, q / between))
    i_squared = max(0.0, (q - between) / q) if q else 0.0
    return Hosts(tuple(rows), error, q, p, i_squared, math.sqrt(float(found.variance)))


def _differing(
    hosts: Mapping[str, tuple[int, float]], within: float, freedom: int, alpha: float
) -> frozenset[str]:
    """Return the hosts whose mean differs from that of the others; of two, both or none.

    The host that differs most is taken away until none does, with Bonferroni's correction.
    `hosts` has the blocks and the mean of each.
    """
    from scipy.special import stdtr

    named: set[str] = set()
    left = dict(hosts)
    while freedom and within > _CONSTANT**2 and len(left) > 1:
        total = sum(blocks for blocks, _ in left.values())
        middle = math.fsum(blocks * mean for blocks, mean in left.values()) / total

        def distance(host: str, total: int = total, middle: float = middle) -> float:
            blocks, mean = left[host]
            others = total - blocks
            # From the mean of the others, in standard errors of this difference.
            return abs(mean - middle) * math.sqrt(total * blocks / others / within)

        farthest = max(left, key=distance)
        tests = len(left) if len(left) > 2 else 1
        if 2 * stdtr(freedom, -distance(farthest)) * tests > alpha:
            break
        if len(left) == 2:
            named |= left.keys()
            break
        named.add(farthest)
        del left[farthest]
    return frozenset(named)
