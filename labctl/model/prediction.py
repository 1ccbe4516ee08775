"""The document of a prediction. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from labctl.errors import UserError
from labctl.model.curve import Place, time
from labctl.model.estimate import Estimate, Locks, estimate, interval, serial_speed
from labctl.model.needed import EXPERIMENT, LOCKS
from labctl.model.types import (
    Basis,
    Check,
    Curve,
    Design,
    Inputs,
    Point,
    Prediction,
    Series,
    Target,
    Value,
)
from labctl.units import counted

if TYPE_CHECKING:
    import numpy as np

_PAGE_BYTES = 4096
# Of the patches of 2017.
HAND_OVER_LIST_PAGES = 256 << 10
_LEAST_WORKER_SECONDS = 0.05


def predict(inputs: Inputs, target: Target) -> Prediction:
    """Return the prediction for a host from the costs of a run.

    Raises:
        UserError: the run cannot show what a prediction needs; says what must be measured.
    """
    parallel = [k for k, one in inputs.kernels.items() if one.design is not Design.SERIAL]
    if not parallel:
        raise UserError("no kernel of the run has workers", hint=EXPERIMENT)
    found = [estimate(inputs, kernel) for kernel in parallel]
    curves = [_serial_curve(inputs, target, kernel) for kernel in _serial_kernels(inputs)]
    for one in found:
        curves += _curves(inputs, target, one)
    return Prediction(
        run=inputs.run,
        experiment=inputs.experiment,
        operation=inputs.operation,
        placement=inputs.placement,
        accel=inputs.accel,
        host=inputs.host,
        measured_cores=inputs.cores,
        measured_nodes=inputs.nodes,
        measured_bytes=inputs.size_bytes,
        confidence=inputs.confidence,
        baseline=inputs.baseline,
        target=target,
        assumptions=tuple(_assumptions(inputs, target, found)),
        series=tuple(_series(inputs, one) for one in found),
        curves=tuple(curves),
        checks=tuple(check for one in found for check in _checks(inputs, one)),
        unidentified=tuple(_unidentified(inputs, target, found)),
    )


def _nodes_used(inputs: Inputs, target: Target) -> int:
    """Return the nodes of the target that freed pages alternate between."""
    return target.nodes if inputs.placement == "interleave" else 1


def _serial_kernels(inputs: Inputs) -> list[str]:
    serial = [k for k, one in inputs.kernels.items() if one.design is Design.SERIAL]
    return [kernel for kernel in serial if kernel != inputs.baseline]


def _serial_curve(inputs: Inputs, target: Target, kernel: str) -> Curve:
    speed, nanoseconds = serial_speed(inputs, kernel)
    point = _point(inputs, target, 0, 0, speed, nanoseconds, "work")
    return Curve(kernel=kernel, design=Design.SERIAL, basis=Basis.NO_WAITS, points=(point,))


def _curves(inputs: Inputs, target: Target, of: Estimate) -> Iterator[Curve]:
    designs = [of.design] if of.design is not Design.FREE else [Design.FREE, Design.HAND_OVER]
    for design in designs:
        for locks in of.locks:
            points = tuple(_points(inputs, target, of, design, locks))
            yield Curve(kernel=of.kernel, design=design, basis=locks.basis, points=points)


def _points(
    inputs: Inputs, target: Target, of: Estimate, design: Design, locks: Locks
) -> Iterator[Point]:
    is_of_2017 = design is Design.HAND_OVER and of.design is Design.FREE
    list_pages = HAND_OVER_LIST_PAGES if is_of_2017 else of.list_pages
    lists = target.size_bytes / _PAGE_BYTES / list_pages if list_pages else 0.0
    place = Place(target.cores, _nodes_used(inputs, target), lists)
    for workers in target.workers:
        busy = place.busy(workers)
        if place.is_coarse(workers):
            yield Point(workers=workers, busy=busy, ratio=None, ci=None, limit="lists")
            continue
        found, limit = time(of, locks, design, workers, place)
        yield _point(inputs, target, workers, busy, found, of.nanoseconds, limit)


def _point(
    inputs: Inputs,
    target: Target,
    workers: int,
    busy: int,
    found: np.ndarray,
    nanoseconds: np.ndarray,
    limit: str,
) -> Point:
    low, high = interval(1 / found, inputs.confidence)
    seconds = None
    if target.baseline_seconds is not None:
        seconds = found * target.baseline_seconds
    elif inputs.accel != "tcg":
        seconds = found * nanoseconds * 1e-9 * target.size_bytes / _PAGE_BYTES
    return Point(
        workers=workers,
        busy=busy,
        ratio=float(1 / found[0]),
        ci=(low, high),
        seconds=None if seconds is None else float(seconds[0]),
        seconds_ci=None if seconds is None else interval(seconds, inputs.confidence),
        limit=limit,
    )


def _series(inputs: Inputs, of: Estimate) -> Series:
    values = [
        ("serial", f"time of {of.base} over that of {inputs.baseline}", of.serial),
        (
            "price",
            f"CPU time with {counted(of.workers, 'worker')} over that of {of.base}",
            of.price,
        ),
        ("own_share", "share of the time in which the thread runs", of.own_share),
        ("worker_share", "share of the time in which a worker runs", of.worker_share),
    ]
    if of.design in (Design.FREE, Design.HAND_OVER):
        free = [
            ("zap", f"zapping a page, over the time of {inputs.baseline} for it", of.zap),
            ("free", f"freeing a page, over the time of {inputs.baseline} for it", of.free),
        ]
        values = free + values
    for locks in of.locks:
        if locks.basis is not Basis.NO_WAITS:
            names = [*inputs.locks.get(of.base, {})] if locks.basis is Basis.MEASURED else ["lock"]
            values += [
                (f"hold {name}", _HELD[locks.basis], share)
                for name, share in zip(names, locks.shares, strict=True)
            ]
    own = inputs.kernels[of.kernel]
    return Series(
        kernel=of.kernel,
        base=of.base,
        workers=of.workers,
        blocks=of.blocks,
        parameters=tuple(
            Value(
                name=name,
                about=about,
                value=float(each[0]),
                ci=interval(each, inputs.confidence),
            )
            for name, about, each in values
        ),
        image=own.image,
        series=own.series,
    )


_HELD = {
    Basis.MEASURED: "share of the work in which a lock of its node is held, by lock_stat",
    Basis.LEVELS: "share of the work under a lock of its node that explains how the CPU time grows",
    Basis.ALL_WAITS: "share of the work under a lock of its node if the price is waits for it",
}


def _checks(inputs: Inputs, of: Estimate) -> Iterator[Check]:
    place = Place(inputs.cores or max(of.measured, default=1) + 1, inputs.nodes, 0.0)
    for workers, measured in sorted(of.measured.items()):
        for locks in of.locks:
            found, _ = time(of, locks, of.design, workers, place)
            deviation = measured / found - 1
            yield Check(
                kernel=of.kernel,
                workers=workers,
                basis=locks.basis,
                deviation=float(deviation[0]),
                ci=interval(deviation, inputs.confidence),
            )


def _assumptions(inputs: Inputs, target: Target, found: list[Estimate]) -> Iterator[str]:
    if inputs.accel == "tcg":
        yield (
            "the run was made under TCG emulation: the shares of zapping and freeing are those of "
            "an emulated CPU without caches and are taken for those of the large host"
        )
    else:
        yield "zapping, freeing and a lock cost as much as in the run, on each core and node"
    if target.baseline_seconds is not None:
        yield f"{inputs.baseline} takes {target.baseline_seconds:g} s there, as given"
    yield "nothing else runs there; workers beyond the number of cores less one add nothing"
    used = _nodes_used(inputs, target)
    yield (
        f"pages alternate between {used} nodes, and all their locks are used alike"
        if used > 1
        else "pages of one node are freed at a time, so all threads share the locks of that node"
    )
    yield (
        "nothing but locks of nodes becomes slower with more workers: no limit of the memory bus, "
        "no cache lines that move between cores, no cost of distance between nodes"
    )
    yield "the time is proportional to the memory"
    if inputs.hosts > 1:
        yield f"the {inputs.hosts} hosts of the run are alike: their blocks count as those of one"
    if any(locks.basis is Basis.MEASURED for one in found for locks in one.locks):
        yield "locks are held for the same share of the work in a kernel without lock_stat"
    if any(one.design is Design.FREE for one in found):
        yield (
            f"hand-over-all is parallel-free as in 2017: lists of {HAND_OVER_LIST_PAGES >> 10}Ki "
            "pages, the thread frees nothing, no limit of what is pending, workers always busy"
        )


def _unidentified(inputs: Inputs, target: Target, found: list[Estimate]) -> Iterator[str]:
    if any(len(one.locks) > 1 for one in found):
        yield (
            "locks: two threads show what running in parallel costs, not why. The curves are two "
            f"limits, without waits for locks and with nothing else. To know, {LOCKS}"
        )
    if inputs.cores and target.cores > inputs.cores:
        yield (
            f"all costs that begin with more than {inputs.cores} threads, such as those of the "
            "memory bus; the curves are upper limits. To know, measure on a host with more cores"
        )
    for one in found:
        if one.worker_seconds < _LEAST_WORKER_SECONDS:
            yield (
                f"{one.kernel}: the workers ran for {1000 * one.worker_seconds:.0f} ms in a "
                "repetition, which the kernel counts in ticks of up to 10 ms. To have narrower "
                "intervals, measure more memory"
            )
    if not inputs.finished:
        yield "the run is not finished: its intervals are wider than planned"
