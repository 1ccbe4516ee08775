"""Warnings about the validity of a comparison, most severe first. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from labctl.lab.metrics import MetricKind
from labctl.stats.cells import Cell, base_of_blocks, bases_for, primary
from labctl.stats.comparison import Comparison
from labctl.stats.crash_rates import CrashRate
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
) -> tuple[str, ...]:
    """Return one line per warning; `rows` are the comparisons of `others`, in the same order."""
    alpha, spoken = rule.alpha, rule.metric.spoken
    lines = _on_host(aa, rule.metric)
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
            needed = row.blocks_needed
            more = f"; about {counted(needed, 'more block')} would decide it" if needed else ""
            lines.append(f"{cell.name} is undecided: {row.reason}{more}")
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


def _on_host(aa: Comparison | None, metric: MetricKind) -> list[str]:
    if aa is None:
        return ["no A/A control: the repeatability of this host was not tested"]
    value = aa.ratio if aa.difference is None else aa.difference
    if not aa.verdict.is_difference or value is None or aa.ci is None:
        return []
    low, high = aa.ci
    name, unit = ("ratio", "") if aa.difference is None else ("difference", metric.value_unit)
    interval = f"{low:.3g} to {high:.3g} {unit}".rstrip()
    return [
        "this host cannot be trusted today: the baseline differs from itself (A/A control "
        f"{metric.spoken(aa.verdict)}, {name} {value:.3g}, interval {interval}); "
        "all verdicts of this experiment are invalid"
    ]


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
