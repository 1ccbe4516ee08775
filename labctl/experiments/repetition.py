"""One repetition in a guest: set the tunables, run the workload, return what was measured."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labctl.errors import BadOutput, DeadlineExceeded, GuestError
from labctl.experiments import clocks, tunables
from labctl.experiments.guest_like import GuestLike
from labctl.experiments.observing import Observing
from labctl.experiments.output import check_length, check_value, measure
from labctl.experiments.parse import parsed
from labctl.experiments.steps import Steps, failed
from labctl.host import load as host_load
from labctl.lab.compared import Compared
from labctl.lab.metrics import WALL_TIME, Scale, is_time
from labctl.lab.models import Tunable, Workload
from labctl.lab.quantity import Quantity
from labctl.observers.observer import Observer
from labctl.status import SampleStatus
from labctl.transports import Outcome
from labctl.units import Scalar


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The result of one repetition.

    `handed` has the increments of the series' counters, `observed` those of observers.
    `load` has the differences of the host's accumulated times and counts, other values
    as they are after the repetition; `seconds` is the wall time of the workload.
    """

    outcome: Outcome
    read_back: dict[str, str]
    handed: dict[str, int]
    observed: dict[str, int]
    load: dict[str, float]
    seconds: float


def repeat(
    guest: GuestLike,
    steps: Steps,
    parameters: Mapping[str, Scalar],
    *,
    lab_tunables: Mapping[str, Tunable],
    values: Mapping[str, Scalar],
    counters: Mapping[str, str],
    observers: Sequence[Observer] = (),
    is_last: bool = False,
    load: Callable[[], Mapping[str, float]] = host_load.load,
    clock: Callable[[], float] = time.monotonic,
    suspended: Callable[[], float] = host_load.suspended_seconds,
    counts_instructions: bool = False,
) -> Measured:
    """Resume the guest, run the workload once, and pause the guest again.

    `values` are the tunables to write, `counters` the files of the series' counters;
    neither these nor the files of `observers` are read while the workload runs.
    With `is_last`, the guest is not used again. A clock that `counts_instructions` is not
    compared with the host's. Scripts of the workload are not measured.
    Raises GuestError, also if the guest cannot be paused: it would disturb the others.
    """
    guest.resume()
    suspended_before = suspended()
    observing = Observing(observers)
    try:
        read_back, before = tunables.apply(guest, lab_tunables, values, counters)
        with steps.repetition(guest):
            if steps.has_repetition_setup:
                before = tunables.read_counters(guest, counters)
            observing.begin(guest)
            try:
                began, load_before = clock(), load()
                outcome = steps.command(guest, parameters)
                seconds = clock() - began
                difference = _load_between(load_before, load(), seconds)
                if not counts_instructions:
                    clocks.check(outcome.seconds, seconds)
            except DeadlineExceeded:
                observing.abandon(guest)
                raise
            observed = observing.end(guest)
            after = tunables.read_counters(guest, counters)
        if is_last:
            steps.tear_down_boot(guest)
    except BaseException as error:
        if isinstance(error, GuestError):
            clocks.explain_sleep(error, suspended() - suspended_before)
        with contextlib.suppress(GuestError):
            if is_last and isinstance(error, BadOutput | DeadlineExceeded):
                steps.tear_down_boot(guest)
        with contextlib.suppress(GuestError):
            guest.pause()
        raise
    guest.pause()
    handed = {name: after[name] - before[name] for name in before if name in after}
    return Measured(
        outcome=outcome,
        read_back=read_back,
        handed=handed,
        observed=observed,
        load=difference,
        seconds=seconds,
    )


def values_of(
    outcome: Outcome, workload: Workload, metrics: Sequence[Compared], cpus: int | None = None
) -> dict[str, Any]:
    """Return a sample's `value`, `values`, `units` and `measurements`; see `value_of`.

    Raises:
        BadOutput: the workload failed, or did not print one of the metrics.
    """
    found: dict[str, Quantity] = {}
    measurements: dict[str, Any] = {}
    for metric in metrics:
        one, printed = _quantity_of(outcome, workload, metric.name, cpus, metric.scale)
        found[metric.name] = one
        measurements |= printed
    values = {name: each.value for name, each in found.items()}
    return {
        "value": values.pop(metrics[0].name),
        "values": values,
        # The name of a time says that its values are seconds.
        "units": {
            name: each.unit
            for name, each in found.items()
            if each.unit and not is_time(name, workload.command)
        },
        "measurements": measurements,
    }


def value_of(
    outcome: Outcome,
    workload: Workload,
    metric: str,
    cpus: int | None = None,
    scale: Scale = "ratio",
) -> tuple[float, dict[str, Any]]:
    """Return a metric of a workload that exited, and all its measurements; see `measure`.

    Times are in seconds, sizes in megabytes.

    Raises:
        BadOutput: the workload failed, or did not print the metric.
    """
    found, measurements = _quantity_of(outcome, workload, metric, cpus, scale)
    return found.value, measurements


def _quantity_of(
    outcome: Outcome, workload: Workload, metric: str, cpus: int | None, scale: Scale
) -> tuple[Quantity, dict[str, Any]]:
    if outcome.status != 0:
        raise BadOutput(f"workload {failed(outcome)}")
    if metric == WALL_TIME:
        return Quantity(outcome.seconds, is_time=True), {WALL_TIME: outcome.seconds}
    seconds = outcome.seconds
    entry = workload.metrics.get(metric)
    if entry is None or entry.parse is None:
        return measure(outcome.text, metric, took_seconds=seconds, cpus=cpus, scale=scale)
    check_length(outcome.text)
    found = parsed(outcome.text, metric, entry.parse, entry.unit)
    check_value(found, metric, took_seconds=seconds, cpus=cpus, scale=scale)
    measurements = {metric: found.value}
    for name, each in workload.metrics.items():
        with contextlib.suppress(BadOutput):  # only the compared metric must be there
            if each.parse is not None:
                value = parsed(outcome.text, name, each.parse, each.unit).value
                measurements |= {name: value} if math.isfinite(value) else {}
    return found, measurements


def exercise_status(handed: Mapping[str, int], handovers: str) -> tuple[SampleStatus, str]:
    """Return the status of a repetition by its handovers, and the reason unless it is "ok".

    `handovers` is "required" or the experiment expects none.
    """
    if "handovers" not in handed or (handed["handovers"] > 0) == (handovers == "required"):
        return SampleStatus.OK, ""
    if handovers == "required":
        return SampleStatus.NOT_EXERCISED, "series not exercised: handovers unchanged"
    return SampleStatus.EXERCISED, f"expected no handovers, got {handed['handovers']}"


def _load_between(
    before: Mapping[str, float], after: Mapping[str, float], seconds: float
) -> dict[str, float]:
    found = {
        name: round(value - before.get(name, value), 3) if _accumulates(name) else value
        for name, value in after.items()
    }
    return {**found, "wall_seconds": round(seconds, 3)}


def _accumulates(name: str) -> bool:
    return name.endswith(("_seconds", "_count"))
