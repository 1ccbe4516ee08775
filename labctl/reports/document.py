"""From a run's record and its comparisons to the document of `labctl report --json`. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from labctl.lab.metrics import MetricKind
from labctl.reports.explanation import first_of
from labctl.runs.record import RunRecord
from labctl.stats.comparison import Comparison, ExperimentResult
from labctl.stats.failures import Failure
from labctl.stats.health import Health
from labctl.stats.health_types import HostHealth, Seen
from labctl.stats.report_types import Cell, Experiment, FurtherMetric, Report
from labctl.stats.scaling import curves

_DIGITS = 6
Value = TypeVar("Value")


def document(record: RunRecord, results: Sequence[ExperimentResult], *, folder: str = "") -> Report:
    """Return the report of a run: no NaN, six significant digits.

    The run's record adds what the comparisons do not know of an experiment (workload,
    guest). `folder` is the run's, for the paths of console logs.
    """
    return Report(
        run=record.run,
        created_at=record.created_at,
        seed=None if record.seed is UNSET else record.seed,
        finished=record.finished,
        host=record.host,
        hosts=record.hosts or UNSET,
        imported=record.imported,
        accel=record.accel,
        kernels=record.kernels,
        notes=(),
        experiments=tuple(rounded(_experiment(record, each, folder)) for each in results),
    )


def _experiment(record: RunRecord, result: ExperimentResult, folder: str) -> Experiment:
    known = record.experiment(result.name)
    aa = result.aa_control
    found = Experiment(
        name=result.name,
        workload=known.workload,
        command=known.command,
        guest=record.guests.get(known.guest or ""),
        metric=known.metric,
        set=known.set,
        better=result.better,
        scale="difference" if result.metric.is_difference else UNSET,
        unit=result.metric.unit or UNSET,
        confidence=result.confidence,
        minimum_effect=result.minimum_effect,
        placement=known.placement,
        baseline=result.baseline,
        blocks=result.blocks,
        aa_control=None if aa is None else _cell(aa, result.metric),
        cells=tuple(_cell(each, result.metric) for each in result.cells),
        curves=(),
        host_health=_health(result.health),
        failures=tuple(_failure(each, folder) for each in result.failures),
        warnings=result.warnings,
        further_metrics=tuple(_further(each, result) for each in result.further) or UNSET,
        observed=UNSET if result.observed is None else first_of(result.observed),
        crashes=result.crashes or UNSET,
        hosts=result.hosts or UNSET,
    )
    # The scalability law is about times: for a throughput it would recommend the worst level.
    fitted = curves(result.cells) if found.kind.is_speed else []
    return replace(found, curves=tuple(fitted))


def _further(result: ExperimentResult, first: ExperimentResult) -> FurtherMetric:
    aa, metric = result.aa_control, result.metric
    return FurtherMetric(
        metric=metric.name,
        better=metric.better,
        scale="difference" if metric.is_difference else UNSET,
        unit=metric.unit or UNSET,
        minimum_effect=result.minimum_effect,
        blocks=result.blocks,
        aa_control=None if aa is None else _value_alone(_cell(aa, metric)),
        cells=tuple(_value_alone(_cell(each, metric)) for each in result.cells),
        warnings=tuple(line for line in result.warnings if line not in first.warnings),
    )


def _value_alone(cell: Cell) -> Cell:
    """Return a cell without what the first metric's cell has as well."""
    return replace(cell, handovers=None, counters={}, memory_back=None, cpu=None)


def _health(health: Health | None) -> HostHealth | None:
    """Return what the host did; None if the samples are too old to report it."""
    if health is None or not (health.seen or health.disturbed):
        return None
    return HostHealth(
        blocks=health.blocks,
        disturbed={str(block): why for block, why in health.disturbed.items()},
        left_out=health.left_out,
        stays_loaded=health.stays_loaded,
        seen={
            name: Seen(median=middle, worst=worst) for name, (middle, worst) in health.seen.items()
        },
    )


def _failure(failure: Failure, folder: str) -> Failure:
    console = failure.console and "/".join(filter(None, [folder, failure.console]))
    return replace(failure, console=console)


def _cell(cell: Comparison, metric: MetricKind) -> Cell:
    found = Cell(
        cell=cell.cell,
        kernel=cell.kernel,
        label=cell.label,
        setting=dict(cell.setting),
        parameters=dict(cell.parameters),
        n=cell.n,
        blocks=cell.blocks,
        blocks_visited=cell.blocks_visited,
        median_seconds=cell.median_seconds,
        spread_percent=cell.spread_percent,
        ratio=cell.ratio,
        ci=cell.ci,
        p=cell.p,
        p_corrected=cell.p_corrected,
        p_beyond=cell.p_beyond,
        p_same=cell.p_same,
        p_sign_flip=cell.p_sign_flip,
        p_wilcoxon=cell.p_wilcoxon,
        sd_log=cell.sd_log,
        smallest_effect=cell.smallest_effect,
        verdict=cell.verdict,
        reason=cell.reason,
        blocks_needed=cell.blocks_needed,
        failed=dict(cell.failed),
        handovers=cell.counters.get("handovers"),
        counters=dict(cell.counters),
        memory_back=cell.secondary.get("memory_back"),
        cpu=cell.secondary.get("cpu"),
        retried=dict(cell.retried) or UNSET,
        hosts_needed=cell.hosts_needed or UNSET,
        between_hosts=cell.hosts or UNSET,
    )
    if not metric.is_difference:
        return found
    own = {"difference": cell.difference, "spread": cell.spread}
    return replace(found, **own, sd_difference=cell.sd_difference)


def rounded(value: Value) -> Value:
    """Return a tree of structs with its floats rounded; a float that JSON lacks is None."""
    return cast(Value, _plain(value))


def _plain(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, msgspec.Struct):
        fields = {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
        return type(value)(**fields)
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    return value
