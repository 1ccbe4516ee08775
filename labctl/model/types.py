"""What a prediction starts from, and what it is, as frozen structs. Pure.

The order of the fields is the order of the JSON keys.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from labctl.runs.types import Host

Bounds = tuple[float, float]


class Design(StrEnum):
    """How a kernel shares the work."""

    SERIAL = "serial"
    FREE = "parallel-free"
    HAND_OVER = "hand-over-all"
    UNMAP = "parallel-unmap"


class Basis(StrEnum):
    """What a prediction takes the price of running in parallel for."""

    MEASURED = "locks-measured"
    LEVELS = "locks-from-levels"
    NO_WAITS = "no-lock-waits"
    ALL_WAITS = "only-lock-waits"


class Cost(msgspec.Struct, frozen=True, array_like=True):
    """What a cell spent in one block: nanoseconds per page, and the share of pages handed over."""

    elapsed: float
    own: float
    other: float
    handed: float


class CellCosts(msgspec.Struct, frozen=True, kw_only=True):
    """The costs of one cell by block; `workers` is 0 in a serial kernel."""

    kernel: str
    workers: int
    list_pages: float
    blocks: dict[int, Cost]


class KernelInputs(msgspec.Struct, frozen=True, kw_only=True):
    """A kernel of the run; `base` is the kernel whose patches it starts with."""

    design: Design
    base: str | None
    image: str
    series: str | None


class Inputs(msgspec.Struct, frozen=True, kw_only=True):
    """All that a prediction takes from a run.

    `locks` has the share of a serial kernel's CPU time in which each lock of a node was held,
    by block of the pass that measured it.
    """

    run: str
    experiment: str
    finished: bool
    operation: str
    placement: str
    size_bytes: int
    accel: str
    host: Host
    cores: int
    nodes: int
    confidence: float
    baseline: str
    kernels: dict[str, KernelInputs]
    cells: tuple[CellCosts, ...]
    locks: dict[str, dict[str, tuple[float, ...]]] = {}
    hosts: int = 1


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter that was estimated from the run."""

    name: Annotated[str, Meta(description="Name: zap, free, serial, price, own_share, ...")]
    about: Annotated[str, Meta(description="What it is.")]
    value: Annotated[float, Meta(description="Estimate.")]
    ci: Annotated[Bounds, Meta(description="Confidence interval.")]


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """The prediction for one number of workers."""

    workers: Annotated[int, Meta(description="Number of workers: max_active.")]
    busy: Annotated[int, Meta(description="Workers that run at the same time as the thread.")]
    ratio: Annotated[
        float | None,
        Meta(description="Time of the baseline over that of the kernel; null if out of reach."),
    ]
    ci: Annotated[Bounds | None, Meta(description="Confidence interval of the ratio.")]
    seconds: Annotated[
        float | None, Meta(description="Time; null where only ratios can be predicted.")
    ] = None
    seconds_ci: Annotated[Bounds | None, Meta(description="Confidence interval of the time.")] = (
        None
    )
    limit: Annotated[
        str, Meta(description="What limits the speed: zap, work, workers or lists.")
    ] = ""


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """The predicted speed of a kernel over the number of workers."""

    kernel: Annotated[str, Meta(description="Name of the kernel.")]
    design: Annotated[
        Design,
        Meta(
            description="How it shares the work. With `hand-over-all` the thread frees nothing, "
            "as in the patches of 2017."
        ),
    ]
    basis: Annotated[Basis, Meta(description="What is assumed of the locks of a node.")]
    points: Annotated[tuple[Point, ...], Meta(description="The curve.")]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """The model against a cell of the same run with more workers.

    Of these cells at most the CPU time was used for the estimate.
    """

    kernel: Annotated[str, Meta(description="Name of the kernel.")]
    workers: Annotated[int, Meta(description="Number of workers.")]
    basis: Annotated[Basis, Meta(description="What is assumed of the locks of a node.")]
    deviation: Annotated[
        float, Meta(description="Predicted over measured ratio, less 1: above 0 is too fast.")
    ]
    ci: Annotated[Bounds, Meta(description="Confidence interval of the deviation.")]


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """What was estimated of one kernel."""

    kernel: Annotated[str, Meta(description="Name of the kernel.")]
    base: Annotated[str, Meta(description="The serial kernel that it is compared with for costs.")]
    workers: Annotated[int, Meta(description="Workers of the cell that it was estimated from.")]
    blocks: Annotated[int, Meta(description="Blocks in which all its cells were measured.")]
    parameters: Annotated[tuple[Value, ...], Meta(description="Its parameters.")]
    image: Annotated[str, Meta(description="Hash of the image.")]
    series: Annotated[str | None, Meta(description="Hash of the series; null without one.")]


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """The host that is predicted."""

    cores: Annotated[int, Meta(description="Cores.")]
    nodes: Annotated[int, Meta(description="Nodes.")]
    size_bytes: Annotated[int, Meta(description="Memory that is freed, in bytes.")]
    workers: Annotated[tuple[int, ...], Meta(description="Numbers of workers.")]
    baseline_seconds: Annotated[
        float | None, Meta(description="Given time of the baseline there; null if not given.")
    ] = None


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """A prediction; it is no measurement."""

    schema: Annotated[Literal[1], Meta(description="Version of this format.")] = 1
    kind: Annotated[Literal["prediction"], Meta(description="Always `prediction`.")] = "prediction"
    run: Annotated[str, Meta(description="Id of the run that it was estimated from.")]
    experiment: Annotated[str, Meta(description="Experiment of the run.")]
    operation: Annotated[str, Meta(description="Operation of freebench.")]
    placement: Annotated[str, Meta(description="Placement of the memory.")]
    accel: Annotated[
        str, Meta(description="Accelerator of the run; with tcg, the costs are an emulator's.")
    ]
    host: Annotated[Host, Meta(description="The host of the run.")]
    measured_cores: Annotated[int, Meta(description="Cores of the run's guests; 0 if unknown.")]
    measured_nodes: Annotated[int, Meta(description="Nodes with memory in the run.")]
    measured_bytes: Annotated[int, Meta(description="Memory that was freed in the run.")]
    confidence: Annotated[float, Meta(description="Level of the intervals.")]
    baseline: Annotated[str, Meta(description="Kernel that the ratios are relative to.")]
    target: Annotated[Target, Meta(description="The host that is predicted.")]
    assumptions: Annotated[tuple[str, ...], Meta(description="What the prediction assumes.")]
    series: Annotated[tuple[Series, ...], Meta(description="What was estimated.")]
    curves: Annotated[tuple[Curve, ...], Meta(description="The prediction.")]
    checks: Annotated[
        tuple[Check, ...],
        Meta(description="The model against cells of the same run with more workers."),
    ]
    unidentified: Annotated[
        tuple[str, ...],
        Meta(description="What the run cannot show, each with what must be measured."),
    ]
