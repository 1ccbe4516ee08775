"""What the observers' counters say about an experiment, as frozen structs. Pure.

The order of the fields is the order of the JSON keys.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from labctl.runs.types import Settings

Bounds = tuple[float, float]


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One counter that changed with the kernel or the setting."""

    counter: Annotated[
        str, Meta(description="Name of the counter: OBSERVER.NAME; times are in nanoseconds.")
    ]
    baseline: Annotated[
        float, Meta(description="Mean increment per repetition of the baseline, over blocks.")
    ]
    cell: Annotated[float, Meta(description="Mean increment per repetition of the cell.")]
    difference: Annotated[float, Meta(description="The cell's less the baseline's.")]
    difference_ci: Annotated[Bounds, Meta(description="Confidence interval of the difference.")]
    ratio: Annotated[
        float | None,
        Meta(description="Cell over baseline; null if an increment is not above 0 in a block."),
    ]
    ratio_ci: Annotated[Bounds | None, Meta(description="Confidence interval of the ratio.")]
    p: Annotated[float, Meta(description="p value of no difference, by the paired t test.")]
    p_corrected: Annotated[
        float, Meta(description="p after the false discovery rate correction over all counters.")
    ]


class FunctionTime(msgspec.Struct, frozen=True, kw_only=True):
    """The own time of a function of the kernel, without that of functions it calls."""

    function: Annotated[str, Meta(description="Name of the function.")]
    baseline: Annotated[
        float, Meta(description="Mean nanoseconds per repetition of the baseline, over blocks.")
    ]
    cell: Annotated[float, Meta(description="Mean nanoseconds per repetition of the cell.")]
    difference: Annotated[float, Meta(description="The cell's less the baseline's.")]
    changed: Annotated[bool, Meta(description="Whether it is among the counters that changed.")]


class FrameTime(msgspec.Struct, frozen=True, kw_only=True):
    """The time of a function of the kernel as called by others, with that of what it calls."""

    frame: Annotated[
        str, Meta(description="The function after its callers, the outermost first: a;b;c.")
    ]
    baseline: Annotated[
        float, Meta(description="Mean nanoseconds per repetition of the baseline, over blocks.")
    ]
    cell: Annotated[float, Meta(description="Mean nanoseconds per repetition of the cell.")]
    difference: Annotated[float, Meta(description="The cell's less the baseline's.")]
    changed: Annotated[
        bool,
        Meta(description="Whether it differs, at the false discovery rate over all frames."),
    ]


class CellChanges(msgspec.Struct, frozen=True, kw_only=True):
    """The counters of one cell that changed."""

    cell: Annotated[str, Meta(description="Id of the cell: kernel and setting.")]
    kernel: Annotated[str, Meta(description="Name of the kernel.")]
    label: Annotated[str, Meta(description="Name for tables.")]
    setting: Annotated[Settings, Meta(description="Tunables and parameters of this cell alone.")]
    blocks: Annotated[int, Meta(description="Blocks with counters of the cell and its baseline.")]
    counters: Annotated[int, Meta(description="Counters that were compared.")]
    changed: Annotated[int, Meta(description="Counters that changed.")]
    changes: Annotated[
        tuple[Change, ...], Meta(description="Counters that changed, the most important first.")
    ]
    functions: Annotated[
        tuple[FunctionTime, ...],
        Meta(description="The twenty functions with the longest own time, if they were observed."),
    ] = ()
    frames: Annotated[
        tuple[FrameTime, ...],
        Meta(description="Call stacks of the kernel's CPU time as a tree, if they were observed."),
    ] = ()


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What observing costs: the metric with observers over the metric without."""

    ratio: Annotated[float, Meta(description="Geometric mean over blocks; above 1 is a cost.")]
    ci: Annotated[Bounds | None, Meta(description="Confidence interval of the ratio.")]
    blocks: Annotated[int, Meta(description="Blocks with both.")]


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """What the observers of one experiment found."""

    name: Annotated[str, Meta(description="Name of the experiment.")]
    observers: Annotated[tuple[str, ...], Meta(description="Names of the observers.")]
    baseline: Annotated[str, Meta(description="Kernel that the cells are compared with.")]
    level: Annotated[float, Meta(description="False discovery rate; 0.01 is 1 %.")]
    confidence: Annotated[float, Meta(description="Confidence level of the intervals.")]
    cost: Annotated[
        Cost | None,
        Meta(description="Cost of observing; null if no block has repetitions with and without."),
    ]
    cells: Annotated[tuple[CellChanges, ...], Meta(description="The compared cells.")]
    unstable: Annotated[
        tuple[str, ...],
        Meta(description="Counters left out since they differ in the A/A control."),
    ]
    warnings: Annotated[tuple[str, ...], Meta(description="What could not be observed.")]


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """The document of `labctl explain --json`."""

    schema: Annotated[Literal[1], Meta(description="Version of the document.")] = 1
    run: Annotated[str, Meta(description="Id of the run.")]
    accel: Annotated[str, Meta(description="Accelerator: kvm, tcg, or native on a target.")]
    experiments: Annotated[
        tuple[Observed, ...], Meta(description="Experiments with observers, in their order.")
    ]
