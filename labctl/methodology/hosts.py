"""Validation of the comparison over hosts with simulated runs. Pure.

As in `runs`, but each block is measured on one of several hosts, between which the effect of a
kernel may differ.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from labctl.methodology.noise import NOISES, Noise
from labctl.methodology.runs import EFFECT, Design, log_ratios
from labctl.stats.over_hosts import random_effects
from labctl.stats.paired import TTests, holm, t_tests
from labctl.stats.stopping import CONTROL_FACTOR, is_narrow
from labctl.stats.verdict import Rule

if TYPE_CHECKING:
    import numpy as np

_BATCH = 250  # runs at a time
_SLOW_NOISE = 1.5  # of the standard deviations on a host that is slow by half
_USUAL = Design(name="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """The blocks of each host, and the standard deviation of log ratios between hosts.

    With `is_slow`, the last host takes twice as long, which cancels out within its blocks, and its
    times vary 1.5 times as much. With `stops`, cells end by the stopping rule, from 8 blocks on.
    """

    blocks: tuple[int, ...]
    host_sd: float = 0.0
    is_slow: bool = False
    stops: bool = False

    @property
    def name(self) -> str:
        """The blocks of the hosts, and what is special."""
        counts = [f"{n} x {k}" if n > 1 else f"{k}" for k, n in _runs_of(self.blocks)]
        more = [", the last slow by half"] if self.is_slow else []
        least = f"8 to {sum(self.blocks)} blocks, " if self.stops else ""
        return "".join([least, " + ".join(counts), *more])

    def order(self) -> list[int]:
        """Return the host of each block: they take turns until each has its number."""
        left = list(self.blocks)
        found = []
        for host in itertools.cycle(range(len(left))):
            if left[host]:
                left[host] -= 1
                found.append(host)
            if not any(left):
                return found
        raise AssertionError("unreachable")


def _runs_of(blocks: Sequence[int]) -> list[tuple[int, int]]:
    return [(count, len(list(each))) for count, each in itertools.groupby(blocks)]


_SPREADS = (0.0, 0.03, 0.1)
SCENARIOS = (
    *(
        Scenario(blocks=blocks, host_sd=sd)
        for blocks in (
            (5, 5), (8, 2), (4, 4, 4), (7, 3, 2), (3, 3, 3, 3), (6, 3, 2, 1), (2,) * 8,
            (4, 3, 2, 2, 1, 1, 1, 1),
        )
        for sd in _SPREADS
    ),
    *(
        Scenario(blocks=blocks, host_sd=sd, is_slow=True)
        for blocks in ((8, 4), (4, 4, 2), (4, 4, 4, 2), (2, 2, 2, 2, 2, 2, 2, 1))
        for sd in _SPREADS[:2]
    ),
    *(
        Scenario(blocks=blocks, host_sd=sd, stops=True)
        for blocks in ((15, 15), (10, 10, 10), (8, 8, 7, 7), (4, 4, 4, 4, 4, 4, 3, 3))
        for sd in _SPREADS[:2]
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRates:
    """The counts of many simulated runs of one scenario; shares: 0.05 is 5 %.

    `coverage`, `any_difference`, `any_same` and `power` are as in `ErrorRates`; a true value is the
    mean over all hosts, of which those of a run are a sample. `half_width` is the median on the log
    scale. `ignored` is the coverage of the t interval over blocks, as if hosts did not differ.
    `found` is the share of cells whose hosts differ by Cochran's Q. `blocks` is the mean number.
    """

    noise: str
    scenario: str
    hosts: int
    host_sd: float
    blocks: float
    coverage: float
    coverage_error: float
    half_width: float
    ignored: float
    any_difference: float
    any_difference_error: float
    any_same: float
    any_same_error: float
    power: float
    found: float
    effect: float
    runs: int

    @property
    def kept(self) -> bool:
        """Whether the requirements are met, with a tolerance of two standard errors.

        They are a coverage of 93 to 97 %, and at most 5 % of the runs with a false difference or
        a cell falsely called the same.
        """
        grant = 2 * self.coverage_error
        return (
            0.93 - grant <= self.coverage <= 0.97 + grant
            and self.any_difference <= 0.05 + 2 * self.any_difference_error
            and self.any_same <= 0.05 + 2 * self.any_same_error
        )

    def document(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {**asdict(self), "kept": self.kept}


def simulate_hosts(
    *,
    runs: int,
    seed: int,
    rule: Rule,
    cells: int,
    noises: Sequence[Noise] = NOISES[:1],
    scenarios: Sequence[Scenario] = SCENARIOS,
    report: Callable[[str, int], None] = lambda _what, _done: None,
) -> Iterator[HostRates]:
    """Yield the counts for each noise model and scenario; see `runs.simulate`."""
    import numpy as np

    if runs < 2:
        raise ValueError("expected at least 2 runs")
    for number, noise in enumerate(noises):
        for of_noise, scenario in enumerate(scenarios):
            draw = np.random.default_rng([seed, number, of_noise, 1])
            counted = []
            for done in range(0, runs, _BATCH):
                report(f"{noise.name}, {scenario.name}", done)
                batch = min(_BATCH, runs - done)
                counted.append(_counts(noise, scenario, rule, draw, (batch, cells)))
            yield _rates(noise, scenario, np.concatenate(counted))


def _rates(noise: Noise, scenario: Scenario, counted: np.ndarray) -> HostRates:
    import numpy as np

    means = counted.mean(axis=0)
    errors = counted.std(axis=0, ddof=1) / math.sqrt(len(counted))
    return HostRates(
        noise=noise.name,
        scenario=scenario.name,
        hosts=len(scenario.blocks),
        host_sd=scenario.host_sd,
        coverage=float(means[0]),
        coverage_error=float(errors[0]),
        ignored=float(means[1]),
        any_difference=float(means[2]),
        any_difference_error=float(errors[2]),
        any_same=float(means[3]),
        any_same_error=float(errors[3]),
        power=float(means[4]),
        found=float(means[5]),
        blocks=float(means[6]),
        half_width=float(np.median(counted[:, 7])),
        effect=EFFECT,
        runs=len(counted),
    )


def _counts(
    noise: Noise, scenario: Scenario, rule: Rule, draw: np.random.Generator, size: tuple[int, int]
) -> np.ndarray:
    """Return a row of counts for each run."""
    import numpy as np
    from scipy.special import fdtrc

    runs, cells = size
    d = _log_ratios(noise, scenario, draw, runs, cells)
    so_far = _Sums.of(d, scenario.order())
    last = _last_blocks(so_far, scenario, rule.confidence)
    count, total, squares = so_far.at(last)
    hosts, blocks = len(scenario.blocks), count.sum(axis=-1)
    freedom = blocks - hosts
    variance = (squares - total**2 / count).sum(axis=-1) / np.maximum(freedom, 1)
    found = random_effects(total / count, count, variance)

    def tests(shift: float) -> TTests:
        level = rule.confidence
        return t_tests(
            found.mean + shift, found.error, hosts - 1, confidence=level, margin=rule.margin
        )

    mean = total.sum(axis=-1) / blocks
    spread = (squares.sum(axis=-1) - blocks * mean**2) / (blocks - 1)
    over_blocks = t_tests(
        mean, np.sqrt(spread / blocks), blocks - 1, confidence=rule.confidence, margin=0.0
    )
    here, at_margin, improved = tests(0.0), tests(rule.margin), tests(math.log1p(EFFECT))
    between = fdtrc(hosts - 1, np.maximum(freedom, 1), found.q / (hosts - 1))
    is_faster = (holm(improved.p_beyond) <= rule.alpha) & (found.mean + math.log1p(EFFECT) > 0)
    return np.stack(
        [
            (np.abs(found.mean) <= here.half_width).mean(axis=1),
            (np.abs(mean) <= over_blocks.half_width).mean(axis=1),
            (holm(here.p) <= rule.alpha).any(axis=1),
            (holm(at_margin.p_same) <= rule.alpha).any(axis=1),
            is_faster.mean(axis=1),
            ((between <= rule.alpha) & (freedom > 0)).mean(axis=1),
            blocks.mean(axis=1),
            np.median(here.half_width, axis=1),
        ],
        axis=1,
    )


def _log_ratios(
    noise: Noise, scenario: Scenario, draw: np.random.Generator, runs: int, cells: int
) -> np.ndarray:
    """Return the log ratios of runs x blocks x cells, the A/A control as first cell."""
    import numpy as np

    blocks, hosts = sum(scenario.blocks), len(scenario.blocks)
    design = replace(_USUAL, cells=cells, blocks_max=blocks)
    d, order = log_ratios(noise, design, draw, runs), np.array(scenario.order())
    if scenario.is_slow:
        d[:, order == hosts - 1] *= _SLOW_NOISE
    d[..., 1:] += draw.normal(0, scenario.host_sd, (runs, hosts, cells))[:, order]
    return d


class _Sums(NamedTuple):
    """The number of each host's blocks after each block, their sums and sums of squares.

    `counts` is blocks x hosts, the others are runs x blocks x cells x hosts.
    """

    counts: np.ndarray
    total: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, d: np.ndarray, order: Sequence[int]) -> _Sums:
        import numpy as np

        is_of_host = np.arange(max(order) + 1) == np.array(order)[:, None]
        own = d[..., None] * is_of_host[None, :, None]
        return cls(np.cumsum(is_of_host, axis=0), np.cumsum(own, axis=1), np.cumsum(own**2, axis=1))

    def at(self, last: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the sums of the compared cells after their last block: runs x cells x hosts."""
        import numpy as np

        place = (last - 1)[:, None, :, None]
        total, squares = (
            np.take_along_axis(each[:, :, 1:], place, axis=1)[:, 0]
            for each in (self.total, self.squares)
        )
        return self.counts[last - 1], total, squares

    def sd_within(self) -> np.ndarray:
        """Return the standard deviation within hosts after each block: runs x blocks x cells."""
        import numpy as np

        count = np.maximum(self.counts, 1)[:, None]
        squares = (self.squares - self.total**2 / count).sum(axis=-1)
        freedom = self.counts.sum(axis=-1) - (self.counts > 0).sum(axis=-1)
        found: np.ndarray = np.sqrt(np.maximum(squares, 0) / np.maximum(freedom, 1)[:, None])
        return found


def _last_blocks(so_far: _Sums, scenario: Scenario, confidence: float) -> np.ndarray:
    """Return the number of blocks after which each compared cell ends: runs x cells."""
    import numpy as np

    sd = so_far.sd_within()
    most, hosts = sum(scenario.blocks), len(scenario.blocks)
    ends = np.full((sd.shape[0], sd.shape[2]), most)
    target = _USUAL.stop_at_half_width
    if not scenario.stops or target is None:
        return ends[:, 1:]
    sd[..., 0] *= CONTROL_FACTOR
    for number in range(_USUAL.blocks_min, most):
        blocks = np.minimum(ends, number)  # ended cells keep their number of blocks
        own = np.take_along_axis(sd, blocks[:, None] - 1, axis=1)[:, 0]
        narrow = is_narrow(own, blocks, confidence=confidence, half_width=target, hosts=hosts)
        narrow[:, 0] = False  # the A/A control is never ended
        ends[narrow & (ends > number)] = number
    return ends[:, 1:]
