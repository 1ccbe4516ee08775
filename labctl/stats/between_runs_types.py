"""The document of `labctl compare --json`, as frozen structs. Pure.

Pairs have the first run's value, then the second one's.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from labctl.lab.metrics import MetricKind
from labctl.runs.types import Host, Settings
from labctl.stats.crash_rates import CrashRate
from labctl.stats.failures import Failure
from labctl.stats.host_types import Bounds
from labctl.stats.kinds import Verdict

Pair = tuple[float | None, float | None]


class ChangedCell(msgspec.Struct, frozen=True, kw_only=True):
    """One cell in two runs."""

    kernel: Annotated[str, Meta(description="Name of the kernel.")]
    setting: Annotated[Settings, Meta(description="Tunables and parameters of this cell alone.")]
    parameters: Annotated[Settings, Meta(description="Parameters of the workload.")]
    blocks: Annotated[tuple[int, int], Meta(description="Blocks of each run.")]
    ratio: Annotated[Pair, Meta(description="Ratio to the baseline in each run.")]
    ci: Annotated[
        tuple[Bounds | None, Bounds | None],
        Meta(description="Confidence interval of the ratio or the difference in each run."),
    ]
    median_seconds: Annotated[
        Pair | None,
        Meta(
            description="Value in each run, as in the report: no median, and in seconds only if "
            "the metric is a time; null if host, QEMU or baseline differ."
        ),
    ]
    change: Annotated[
        float | None,
        Meta(
            description="Second run's ratio over the first one's; above 1 is better. With scale "
            "difference the second run's difference minus the first one's."
        ),
    ]
    change_ci: Annotated[Bounds | None, Meta(description="Confidence interval of the change.")]
    p_beyond: Annotated[
        float | None,
        Meta(description="p of no change beyond the minimum effect, after Holm's correction."),
    ]
    p_same: Annotated[
        float | None,
        Meta(description="p of a change of at least the minimum effect, after Holm's correction."),
    ]
    verdict: Annotated[Verdict, Meta(description="What the statistics say of the change.")]
    reason: Annotated[str, Meta(description="Why the change is undecided; empty otherwise.")]
    difference: Annotated[
        Pair | UnsetType,
        Meta(description="Difference to the baseline in each run; only with scale difference."),
    ] = UNSET


class ChangedExperiment(msgspec.Struct, frozen=True, kw_only=True):
    """One experiment in two runs."""

    name: Annotated[str, Meta(description="Name of the experiment.")]
    metric: Annotated[str | None, Meta(description="Name of the metric.")]
    better: Annotated[Literal["lower", "higher"], Meta(description="Which values are better.")]
    scale: Annotated[
        Literal["difference"] | UnsetType,
        Meta(description="How kernels are compared; missing for ratios."),
    ] = UNSET
    unit: Annotated[
        str | UnsetType,
        Meta(description="Unit of the values; missing if unknown, and for times (seconds)."),
    ] = UNSET
    command: Annotated[str | None, Meta(description="Command of the workload.")]
    baseline: Annotated[str, Meta(description="Kernel that the cells are compared with.")]
    confidence: Annotated[float, Meta(description="Confidence level of the intervals.")]
    refused: Annotated[str, Meta(description="Why it is not compared; empty otherwise.")]
    failures: Annotated[
        tuple[tuple[Failure, ...], tuple[Failure, ...]],
        Meta(description="Failures in each run."),
    ]
    crashes: Annotated[
        tuple[tuple[CrashRate, ...], tuple[CrashRate, ...]],
        Meta(description="How often the boots of each kernel crashed in each run."),
    ]
    cells: Annotated[tuple[ChangedCell, ...], Meta(description="Cells that both runs measured.")]
    same_baseline: Annotated[
        bool, Meta(description="Whether both runs have the same image of the baseline.")
    ]

    @property
    def crashes_now(self) -> bool:
        """Whether a kernel crashes more often than the baseline in the second run."""
        return any(rate.more_often for rate in self.crashes[1])

    @property
    def kind(self) -> MetricKind:
        """The metric; freebench's time if it is not on record."""
        named = self.metric, self.better, self.command
        return MetricKind.known(*named, self.scale or None, self.unit or None)


class Across(msgspec.Struct, frozen=True, kw_only=True):
    """The document of `labctl compare --json`."""

    schema: Annotated[Literal[1], Meta(description="Version of the document.")] = 1
    runs: Annotated[tuple[str, str], Meta(description="Ids of the runs.")]
    hosts: Annotated[tuple[Host, Host], Meta(description="Hosts of the runs.")]
    accel: Annotated[str, Meta(description="Accelerator of both runs.")]
    same_host: Annotated[bool, Meta(description="Whether host and QEMU are the same.")]
    run_noise: Annotated[
        float,
        Meta(
            description="Standard deviation of a ratio between runs of the same kernels, which "
            "the intervals of changes contain; 0.026 is 2.6 %."
        ),
    ]
    notes: Annotated[tuple[str, ...], Meta(description="Notes for the reader.")]
    experiments: Annotated[
        tuple[ChangedExperiment, ...], Meta(description="Experiments that both runs have.")
    ]
