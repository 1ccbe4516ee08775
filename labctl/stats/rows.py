"""The rows of a comparison: what a cell's own samples say, and its test. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean, stdev
from typing import Any

import msgspec

from labctl.lab.metrics import MetricKind
from labctl.stats.cells import SECONDARY, Cell, Metric, primary
from labctl.stats.comparison import Comparison
from labctl.stats.host_types import between_hosts
from labctl.stats.kinds import Verdict
from labctl.stats.over_hosts import by_host, variance_within
from labctl.stats.paired import Paired, smallest_shift
from labctl.stats.report_types import Second
from labctl.stats.scale import difference, effect_of
from labctl.stats.verdict import Rule


def row_of(cell: Cell) -> Comparison:
    """Return a cell without its test."""
    found = cell.of_blocks(primary)
    values, hosts = list(found.values()), hosts_of(cell, found)
    if cell.scale == "difference":
        (mean, spread), percent = mean_and_sd(values, hosts), None
    else:
        (mean, percent), spread = mean_and_spread(values, hosts), None
    return Comparison(
        cell=cell.id,
        kernel=cell.kernel,
        label=cell.label,
        setting=dict(cell.setting),
        parameters=dict(cell.parameters),
        blocks=len(values),
        blocks_visited=len(cell.seen_blocks),
        n=cell.count(primary),
        failed=cell.not_ok(),
        retried=cell.retried(),
        median_seconds=mean,
        spread_percent=percent,
        spread=spread,
        ratio=None,
        ci=None,
        p=None,
        p_corrected=None,
        p_beyond=None,
        verdict=Verdict.UNDECIDED,
        counters=cell.counters(),
    )


def baseline_row_of(cell: Cell) -> Comparison:
    """Return a cell of the baseline."""
    found = {
        name: msgspec.structs.replace(second, ratio=1.0)
        for name, metric in SECONDARY.items()
        if (second := second_of(cell, metric))
    }
    return replace(
        row_of(cell),
        ratio=None if cell.scale == "difference" else 1.0,
        difference=0.0 if cell.scale == "difference" else None,
        verdict=Verdict.BASELINE,
        secondary=found,
    )


def second_of(cell: Cell, metric: Metric) -> Second | None:
    """Return a second metric of a cell without its test, None without a value."""
    logs = cell.of_blocks(metric)
    seconds, spread = mean_and_spread(list(logs.values()), hosts_of(cell, logs))
    if seconds is None:
        return None
    return Second(median_seconds=seconds, spread_percent=spread, blocks=len(logs))


def estimates_of(result: Paired, metric: MetricKind) -> dict[str, Any]:
    """Return the fields of a comparison that depend on the scale."""
    hosts = {} if result.hosts is None else {"hosts": between_hosts(result.hosts, metric)}
    if not metric.is_difference:
        return {"ratio": result.ratio, "ci": result.ci, "sd_log": result.sd, **hosts}
    mean, interval = difference(result, metric)
    return {"difference": mean, "ci": interval, "sd_difference": result.sd, **hosts}


def could_see(result: Paired | None, rule: Rule, family: int) -> float | None:
    """Return the minimum detectable effect, with several hosts that of as many hosts."""
    if result is None or result.sd is None:
        return None
    sd, count = result.sd, result.blocks
    if result.hosts is not None:
        count = len(result.hosts.means)
        sd = result.hosts.error * math.sqrt(count)
    shown = smallest_shift(sd, count, confidence=rule.confidence, cells=family, margin=rule.margin)
    return effect_of(shown, rule.metric)


def hosts_of(cell: Cell, blocks: Iterable[int]) -> list[str]:
    """Return the hosts on which a cell's blocks were measured."""
    of_block = cell.hosts
    return [of_block[block] for block in blocks]


def mean_and_spread(
    logs: Sequence[float], hosts: Sequence[str] = ()
) -> tuple[float | None, float | None]:
    """Return the geometric mean and the coefficient of variation in percent of block means.

    With the host of each block, if there are several, the variation is within hosts.
    """
    if not logs:
        return None, None
    mean = math.exp(fmean(sorted(logs)))
    if len(set(hosts)) > 1:
        sd = _sd_within(logs, hosts)
        return mean, None if sd is None else 100 * sd
    values = [math.exp(log) for log in sorted(logs)]
    spread = 100 * stdev(values) / fmean(values) if len(values) > 1 else None
    return mean, spread


def mean_and_sd(
    values: Sequence[float], hosts: Sequence[str] = ()
) -> tuple[float | None, float | None]:
    """Return the mean and the standard deviation of blocks' values that are no logs.

    With several hosts, as in `mean_and_spread`.
    """
    if not values:
        return None, None
    if len(set(hosts)) > 1:
        return fmean(sorted(values)), _sd_within(values, hosts)
    return fmean(sorted(values)), stdev(values) if len(values) > 1 else None


def _sd_within(values: Sequence[float], hosts: Sequence[str]) -> float | None:
    """Return the standard deviation within hosts, None if each has one block."""
    groups = by_host(values, hosts)
    return math.sqrt(variance_within(groups)) if len(values) > len(groups) else None
