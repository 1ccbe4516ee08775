"""Warnings about the validity of a comparison, most severe first. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from labctl.lab.metrics import MetricKind
from labctl.stats.cells import Cell, base_of_blocks, bases_for, primary
from labctl.stats.comparison import Comparison
from labctl.stats.crash_rates import CrashRate
from labctl.stats.host_types import HostEffect, UsedHost
from labctl.stats.verdict import Rule
from labctl.units import counted

_NAMED_OUTLIERS = 4


def warnings_of(
    *,
    baselines: Sequence[Cell],
    controls: Sequence[Cell],
    others: Sequence[Cell],
    aa: Comparison | None,
    rows: Sequence[Comparison],
    rule: Rule,
    rates: Sequence[CrashRate] = (),
    hosts: Sequence[UsedHost] = (),
) -> tuple[str, ...]:
    """Return one line per warning; `rows` are the comparisons of `others`, in the same order."""
    alpha, spoken = rule.alpha, rule.metric.spoken
    lines = _on_host(aa, rule.metric, hosts)
    if aa is not None:
        lines += _on_streaks("the A/A control", aa)
    for cell in (*baselines, *controls):
        lines += _on_failures(cell)
    for cell, row in zip(others, rows, strict=True):
        lines += _on_failures(cell)
        lines += _on_streaks(cell.name, row)
        # With few blocks the smallest p of the sign-flip test is above alpha.
        could_flip = 2.0 ** (1 - row.blocks) <= alpha
        if row.verdict.is_difference and could_flip and (row.p_sign_flip or 0) > alpha:
            lines.append(
                f"{cell.name} is {spoken(row.verdict)} by the t test but not by the sign-flip test "
                f"(p {row.p_sign_flip:.2g}): driven by a few blocks"
            )
        if row.verdict == "undecided":
            lines.append(f"{cell.name} is undecided: {row.reason}{_more(row)}")
        if _only_by_ranks(row, alpha, len(rows)):
            lines.append(
                f"{cell.name} differs by Wilcoxon's signed-rank test (p {row.p_wilcoxon:.2g}) "
                "but not by the t test: outlying blocks reduce the t test's power"
            )
    lines += _on_crashes(rates)
    for cell in (*baselines, *controls, *others):
        lines += [*_on_retries(cell), *_on_outliers(cell)]
    for cell in controls:
        lines += _on_pairs(cell, bases_for(cell, (*baselines, *others), controls))
    for cell in others:
        lines += _on_pairs(cell, bases_for(cell, baselines, controls))
    return tuple(lines)


def _only_by_ranks(row: Comparison, alpha: float, rows: int) -> bool:
    """Whether Wilcoxon's test shows a difference and the t test does not."""
    t_sees_it = row.p_corrected is not None and row.p_corrected <= alpha
    return row.verdict == "undecided" and not t_sees_it and (row.p_wilcoxon or 1) <= alpha / rows


def _more(row: Comparison) -> str:
    """Return how many more blocks or hosts would decide a cell, empty if unknown."""
    needed, unit = row.blocks_needed, "block"
    if needed is None:
        needed, unit = row.hosts_needed, "host"
    return f"; about {counted(needed, f'more {unit}')} would decide it" if needed else ""


def _on_host(aa: Comparison | None, metric: MetricKind, hosts: Sequence[UsedHost]) -> list[str]:
    if aa is None:
        return ["no A/A control: the repeatability of this host was not tested"]
    value = aa.ratio if aa.difference is None else aa.difference
    if not aa.control_differs or value is None or aa.ci is None:
        return []
    names = {host.id: host.name for host in hosts}
    differing = aa.hosts.differing if aa.hosts else ()
    found = [f"host {names[one.host]}: {_estimate_on(one, metric)}" for one in differing]
    if aa.verdict.is_difference:
        low, high = aa.ci
        shown = _interval(value, (low, high), metric)
        found.insert(0, f"A/A control {metric.spoken(aa.verdict)}, {shown}")
    who = "this host"
    if differing:
        who = " and ".join(f"host {names[one.host]}" for one in differing)
    elif hosts:
        who = "these hosts"
    return [
        f"{who} cannot be trusted today: the baseline differs from itself "
        f"({'; '.join(found)}); all verdicts of this experiment are invalid"
    ]


def _estimate_on(one: HostEffect, metric: MetricKind) -> str:
    value = one.difference if metric.is_difference else one.ratio
    return _interval(value or 0.0, one.ci, metric)


def _interval(
    value: float, ci: tuple[float | None, float | None] | None, metric: MetricKind
) -> str:
    name, unit = ("difference", metric.value_unit) if metric.is_difference else ("ratio", "")
    low, high = ci or (None, None)
    if low is None or high is None:
        return f"{name} {value:.3g}"
    interval = f"{low:.3g} to {high:.3g} {unit}".rstrip()
    return f"{name} {value:.3g}, interval {interval}"


def _on_failures(cell: Cell) -> list[str]:
    not_ok = cell.not_ok()
    if not not_ok:
        return []
    counts = ", ".join(f"{count} {status}" for status, count in not_ok.items())
    number = sum(not_ok.values())
    were = "was" if number == 1 else "were"
    return [f"{cell.name}: {counted(number, 'sample')} {were} not ok ({counts})"]


def _on_streaks(name: str, row: Comparison) -> list[str]:
    """Warn that the blocks are not independent, and say how many more would help."""
    if row.independent is None or row.independent >= row.blocks:
        return []
    factor = row.blocks / row.independent
    more = math.ceil(row.blocks * factor) - row.blocks
    return [
        f"{name}: blocks in a row are alike: {row.blocks} blocks say as much as "
        f"{row.independent:.1f} independent ones, and the interval is wider accordingly; about "
        f"{counted(more, 'more block')} would make it as narrow as {row.blocks} independent ones"
    ]


def _on_crashes(rates: Sequence[CrashRate]) -> list[str]:
    """Compare crash rates, because timings exclude crashed boots (survivorship bias)."""
    return [
        f"{rate.kernel}: {rate.counts('baseline')} (Fisher's exact test: p {rate.p:.2g})"
        for rate in rates
    ]


def _on_retries(cell: Cell) -> list[str]:
    """Name the blocks in which a cell has repetitions of several boots."""
    found = cell.retried()
    if not found:
        return []
    again = (*cell.samples, *cell.warmups)
    blocks = sorted({sample.block for sample in again if sample.attempt})
    what = ", ".join(f"{count} {fault}" for fault, count in found.items())
    numbers = ", ".join(map(str, blocks))
    return [
        f"{cell.name}: {counted(sum(found.values()), 'sample')} measured again on a fresh boot "
        f"after a failure ({what}; {'block' if len(blocks) == 1 else 'blocks'} {numbers})"
    ]


def _on_outliers(cell: Cell) -> list[str]:
    found = cell.outliers()
    if not found:
        return []
    worst = sorted(found, key=lambda each: -abs(math.log(each[1])))[:_NAMED_OUTLIERS]
    named = ", ".join(
        f"block {block}: {factor:.2g} times the median" for block, factor in sorted(worst)
    )
    more = f", and {len(found) - len(worst)} more" if len(found) > len(worst) else ""
    return [
        f"{cell.name}: {counted(len(found), 'outlier')} in {cell.count(primary)} repetitions "
        f"({named}{more}); outliers count, with less weight, within their block's mean"
    ]


def _on_pairs(cell: Cell, bases: Sequence[Cell]) -> list[str]:
    if not bases:
        return [f"{cell.name} has no baseline with the same workload parameters"]
    # A cell that has ended is not measured in later blocks, so it misses none of them.
    last = max(cell.seen_blocks, default=math.inf)
    every = cell.seen_blocks.union(*(base.seen_blocks for base in bases))
    seen = {block for block in every if block <= last}
    good = cell.of_blocks(primary).keys() & base_of_blocks(bases, primary).keys()
    dropped = sorted(seen - good)
    if not dropped:
        return []
    numbers = ", ".join(str(block) for block in dropped)
    blocks = "block" if len(dropped) == 1 else "blocks"
    return [
        f"{cell.name}: {len(dropped)} of {counted(len(seen), 'block')} dropped: no valid value for "
        f"the cell or its baseline ({blocks} {numbers})"
    ]
