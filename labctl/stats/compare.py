"""Compare samples: paired t test on block log ratios, Holm correction, four verdicts. Pure.

The statistical unit is the block, since repetitions of one boot are not independent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter

import msgspec

from labctl.errors import UserError
from labctl.lab.metrics import ELAPSED, Better, MetricKind
from labctl.runs.sample import Sample
from labctl.stats.cells import (
    SECONDARY,
    Cell,
    Metric,
    base_of_blocks,
    bases_for,
    cells_of,
    crashes,
    primary,
)
from labctl.stats.comparison import Comparison, ExperimentResult
from labctl.stats.crash_rates import crash_rates
from labctl.stats.failures import failures_of
from labctl.stats.hosts_used import hosts_used
from labctl.stats.paired import Paired, adjust, sign_flip, signed_ranks, smallest_effect
from labctl.stats.rows import baseline_row_of, could_see, estimates_of, hosts_of, row_of, second_of
from labctl.stats.scale import compared, without_unit
from labctl.stats.verdict import Rule, conclude, strict
from labctl.stats.warnings import warnings_of

__all__ = [
    "Comparison",
    "ExperimentResult",
    "compare",
    "differences",
    "half_width",
    "roles",
    "smallest_effect",
]

# Tests of A/A controls, and of compared cells.
Tests = tuple[Sequence[Paired | None], Sequence[Paired | None]]


def compare(
    samples: Iterable[Sample],
    *,
    baseline: str,
    confidence: float,
    minimum_effect: float,
    better: Better = "lower",
    metric: MetricKind | None = None,
    name: str = "",
    beside: Tests = ((), ()),
) -> ExperimentResult:
    """Compare every cell of one experiment with the baseline, block by block.

    The baseline of a block is the mean of the baseline's cell and its A/A control, if it has
    one: the control may be of another kernel, and then tests only the host.
    `baseline` is a kernel's name; `minimum_effect` is the smallest relevant change (0.02 is
    2 %; in the unit of the values if `metric` is compared by differences); `name` is the
    experiment's name, in case there are no samples; `beside` are tests of other metrics, which the
    corrections are over as well. Raises UserError if experiments or accelerators differ, or if a
    block has several hosts.
    """
    found = list(samples)
    own_name = _only(found, "experiment", "experiment")
    _only(found, "accelerator", "accel")
    hosts = hosts_used(found)
    kind = _with_unit(metric or MetricKind(better=better), found)
    cells = cells_of(found, kind.scale)
    baselines, controls, others = roles(cells, baseline)
    rule = Rule.of(confidence, minimum_effect, kind)

    # The A/A control counts even with failures: only its times are tested.
    controls_bases = [bases_for(cell, (*baselines, *others), ()) for cell in controls]
    tested = _family(controls, controls_bases, rule, better, {}, beside[0], host_is_trusted=True)
    aa = _worst(tested)
    trusted = aa is None or not aa.control_differs
    crashed = crashes(others)
    failed = {cell.id: {**crashed[cell.kernel], **cell.not_ok()} for cell in others}
    bases = [bases_for(cell, baselines, controls) for cell in others]
    compared = _family(others, bases, rule, better, failed, beside[1], host_is_trusted=trusted)
    rows = tuple(baseline_row_of(cell) for cell in baselines) + tuple(compared)
    rates = crash_rates([*baselines, *controls], others, confidence)
    return ExperimentResult(
        name=own_name or name,
        baseline=baseline,
        aa_control=aa,
        cells=rows,
        warnings=warnings_of(
            baselines=baselines,
            controls=controls,
            others=others,
            aa=aa,
            rows=compared,
            rule=rule,
            rates=rates,
            hosts=hosts,
        ),
        blocks=len({block for cell in cells for block in cell.of_blocks(primary)}),
        confidence=confidence,
        minimum_effect=minimum_effect,
        better=better,
        metric=kind,
        failures=failures_of(found),
        crashes=rates,
        hosts=hosts,
    )


def half_width(
    samples: Iterable[Sample], *, baseline: str, confidence: float, better: Better = "lower"
) -> float:
    """Return the largest half-width of the cells' intervals, on the log scale.

    It describes the whole experiment; `stopping` decides when a cell ends. Cells without a
    valid block are left out. Infinite while a cell has only one block, and without cells.
    """
    baselines, controls, others = roles(cells_of(samples), baseline)
    widths: list[float] = []
    for cell in others:
        bases = bases_for(cell, baselines, controls)
        d, hosts = differences_on_hosts(cell, bases, primary, better)
        level = strict(confidence)
        result = compared(d, confidence=level, margin=0.0, metric=ELAPSED, hosts=hosts)
        if result:
            widths.append(math.inf if result.half_width is None else result.half_width)
    return max(widths, default=math.inf)


def roles(cells: Sequence[Cell], baseline: str) -> tuple[list[Cell], list[Cell], list[Cell]]:
    """Return the baseline's cells, the A/A controls, and the compared cells."""
    controls = [cell for cell in cells if cell.is_control]
    baselines = [cell for cell in cells if not cell.is_control and cell.kernel == baseline]
    others = [cell for cell in cells if not cell.is_control and cell.kernel != baseline]
    return baselines, controls, others


def _with_unit(metric: MetricKind, samples: Iterable[Sample]) -> MetricKind:
    """Return the metric with the unit that its samples are in."""
    name = metric.name
    return replace(metric, unit=next((s.units[name] for s in samples if name in s.units), ""))


def _only(samples: Sequence[Sample], what: str, field: str) -> str:
    values = sorted(set(map(attrgetter(field), samples)))
    if len(values) > 1:
        raise UserError(f"samples differ in {what}: {', '.join(values)}")
    return values[0] if values else ""


def differences(cell: Cell, bases: Sequence[Cell], metric: Metric, better: Better) -> list[float]:
    """Return the log ratio or difference of each block that has both.

    Above 0 is better than the baseline. `bases` are those of `bases_for`.
    """
    return differences_on_hosts(cell, bases, metric, better)[0]


def differences_on_hosts(
    cell: Cell, bases: Sequence[Cell], metric: Metric, better: Better
) -> tuple[list[float], list[str]]:
    """Return those of `differences`, and the host of each block."""
    own, other = cell.of_blocks(metric), base_of_blocks(bases, metric)
    sign = 1 if better == "lower" else -1
    blocks = sorted(own.keys() & other.keys())
    return [sign * (other[block] - own[block]) for block in blocks], hosts_of(cell, blocks)


def _family(
    cells: Sequence[Cell],
    bases: Sequence[Sequence[Cell]],
    rule: Rule,
    better: Better,
    failed: Mapping[str, Mapping[str, int]],
    beside: Sequence[Paired | None],
    *,
    host_is_trusted: bool,
) -> list[Comparison]:
    """Compare the cells of one family: Holm for the metric, FDR for the secondary metric.

    `beside` are the tests of other metrics, which belong to the family.
    """
    results = paired_all(cells, bases, rule, primary, better)
    whole = [*results, *beside]
    corrected = adjust([r.p if r else None for r in whole])[: len(cells)]
    beyond = adjust([r.p_beyond if r else None for r in whole])[: len(cells)]
    same = adjust([r.p_same if r else None for r in whole])[: len(cells)]
    family = sum(r is not None and r.p_beyond is not None for r in whole)
    comparisons = []
    for cell, of_cell, result, p_corrected, p_beyond, p_same in zip(
        cells, bases, results, corrected, beyond, same, strict=True
    ):
        conclusion = conclude(
            result,
            p_corrected=p_corrected,
            p_beyond=p_beyond,
            p_same=p_same,
            not_ok=failed.get(cell.id, {}),
            rule=rule,
            family=family,
            host_is_trusted=host_is_trusted,
        )
        row = row_of(cell)
        d, _ = without_unit(differences(cell, of_cell, primary, better), rule.metric)
        if result and result.hosts and not cell.is_control:
            d = []  # tests of all blocks alike say nothing of other hosts
        if result:
            row = replace(row, **estimates_of(result, rule.metric))
        comparisons.append(
            replace(
                row,
                blocks=result.blocks if result else 0,
                independent=result.independent if result else None,
                p=result.p if result else None,
                p_corrected=p_corrected,
                p_beyond=p_beyond,
                p_same=p_same,
                verdict=conclusion.verdict,
                blocks_needed=conclusion.blocks_needed,
                hosts_needed=conclusion.hosts_needed,
                p_sign_flip=sign_flip(d),
                p_wilcoxon=signed_ranks(d),
                smallest_effect=could_see(result, rule, family),
                reason=conclusion.reason,
            )
        )
    for name, metric in SECONDARY.items():
        comparisons = _with_secondary(name, metric, comparisons, cells, bases, rule)
    return comparisons


def _with_secondary(
    name: str,
    metric: Metric,
    comparisons: Sequence[Comparison],
    cells: Sequence[Cell],
    bases: Sequence[Sequence[Cell]],
    rule: Rule,
) -> list[Comparison]:
    results = paired_all(cells, bases, rule, metric, "lower")
    corrected = adjust([r.p if r else None for r in results], method="fdr_bh")
    rows = []
    for row, cell, result, p_corrected in zip(comparisons, cells, results, corrected, strict=True):
        second = second_of(cell, metric)
        if second and result:
            second = msgspec.structs.replace(
                second,
                blocks=result.blocks,
                ratio=result.ratio,
                ci=result.ci,
                p=result.p,
                p_corrected=p_corrected,
            )
        rows.append(replace(row, secondary={**row.secondary, name: second}) if second else row)
    return rows


def paired_all(
    cells: Sequence[Cell],
    bases: Sequence[Sequence[Cell]],
    rule: Rule,
    metric: Metric,
    better: Better,
) -> list[Paired | None]:
    """Return the test of each cell, without corrections; None without a pair.

    `bases` has for each cell those of `bases_for`.
    """
    pairs = zip(cells, bases, strict=True)
    # Secondary metrics are times, compared as ratios.
    kind = rule.metric if metric is primary else ELAPSED
    found = []
    for cell, of_cell in pairs:
        d, hosts = differences_on_hosts(cell, of_cell, metric, better)
        one = compared(
            d,
            confidence=rule.confidence,
            margin=rule.margin,
            metric=kind,
            hosts=hosts,
            is_control=cell.is_control,
        )
        found.append(one)
    return found


def _worst(controls: Sequence[Comparison]) -> Comparison | None:
    """Return the A/A control with the clearest difference; usually there is only one."""

    def clearest(one: Comparison) -> tuple[bool, float]:
        return not one.control_differs, 2.0 if one.p_beyond is None else one.p_beyond

    return min(controls, key=clearest, default=None)
