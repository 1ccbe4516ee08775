"""The document of `labctl report --json`, as frozen structs. Pure.

The order of the fields is the order of the JSON keys. A field that is `UNSET` has no key:
an older labctl did not record the fact.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from labctl.lab.metrics import MetricKind
from labctl.runs.types import Host, Imported, Kernel, Placement, Settings
from labctl.stats.crash_rates import CrashRate
from labctl.stats.explanation_types import Observed
from labctl.stats.failures import Failure
from labctl.stats.health_types import HostHealth
from labctl.stats.host_types import BetweenHosts, Bounds, UsedHost
from labctl.stats.kinds import Verdict
from labctl.stats.scaling import Curve


class Second(msgspec.Struct, frozen=True, kw_only=True):
    """A second metric of a cell, compared by the same method."""

    median_seconds: Annotated[
        float,
        Meta(
            description="Not a median: the geometric mean over blocks of the robust mean of "
            "the repetitions, in seconds."
        ),
    ]
    spread_percent: Annotated[
        float | None, Meta(description="Coefficient of variation over blocks, in percent.")
    ]
    blocks: Annotated[int, Meta(description="Blocks with a value, or pairs if it was compared.")]
    ratio: Annotated[
        float | None, Meta(description="Time of the baseline over the cell's; above 1 is better.")
    ] = None
    ci: Annotated[Bounds | None, Meta(description="Confidence interval of the ratio.")] = None
    p: Annotated[float | None, Meta(description="p value of no difference.")] = None
    p_corrected: Annotated[
        float | None, Meta(description="The same after the false discovery rate correction.")
    ] = None


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One kernel with one setting, compared with the baseline."""

    cell: Annotated[str, Meta(description="Id of the cell: kernel and setting.")]
    kernel: Annotated[str, Meta(description="Name of the kernel.")]
    label: Annotated[str, Meta(description="Name for tables and plots.")]
    setting: Annotated[Settings, Meta(description="Tunables and parameters of this cell alone.")]
    parameters: Annotated[Settings, Meta(description="Parameters of the workload.")]
    n: Annotated[int, Meta(description="Good repetitions.")]
    blocks: Annotated[int, Meta(description="Blocks that pair the cell with its baseline.")]
    blocks_visited: Annotated[int, Meta(description="Blocks in which the cell was measured.")]
    median_seconds: Annotated[
        float | None,
        Meta(
            description="Value of the cell, in seconds only if the metric is a time, else in its "
            "unit. Not a median: the geometric mean over blocks of the robust mean of the "
            "repetitions; with scale difference the mean over blocks of the mean repetition."
        ),
    ]
    spread_percent: Annotated[
        float | None,
        Meta(
            description="Coefficient of variation over blocks, in percent; null with scale "
            "difference."
        ),
    ]
    ratio: Annotated[
        float | None,
        Meta(
            description="Baseline over cell if lower is better, cell over baseline if higher is: "
            "above 1 is better. null with scale difference."
        ),
    ]
    ci: Annotated[
        Bounds | None, Meta(description="Confidence interval of the ratio or the difference.")
    ]
    p: Annotated[float | None, Meta(description="p value of no difference, by the paired t test.")]
    p_corrected: Annotated[float | None, Meta(description="p after Holm's correction.")]
    p_beyond: Annotated[
        float | None,
        Meta(
            description="p value of no difference beyond minimum_effect, after Holm's correction; "
            "faster and slower rest on it."
        ),
    ]
    p_same: Annotated[
        float | None,
        Meta(
            description="p value of a difference of at least minimum_effect, after Holm's "
            "correction; same rests on it."
        ),
    ]
    p_sign_flip: Annotated[float | None, Meta(description="p of the sign-flip test.")]
    p_wilcoxon: Annotated[float | None, Meta(description="p of Wilcoxon's signed-rank test.")]
    sd_log: Annotated[
        float | None,
        Meta(
            description="Standard deviation of the blocks' log ratios; null with scale difference."
        ),
    ]
    smallest_effect: Annotated[
        float | None,
        Meta(
            description="Minimum detectable effect: called faster in 80 % of the runs; 0.05 is "
            "5 %. In the unit of the values with scale difference."
        ),
    ]
    verdict: Annotated[Verdict, Meta(description="What the statistics say of the cell.")]
    reason: Annotated[str, Meta(description="Why the cell is undecided; empty otherwise.")]
    blocks_needed: Annotated[
        int | None, Meta(description="About how many more blocks would decide the cell.")
    ]
    failed: Annotated[
        dict[str, int],
        Meta(
            description="Samples that are not ok, by their status; without faults of the host "
            "that a fresh boot measured again."
        ),
    ]
    handovers: Annotated[
        int | float | None,
        Meta(description="Median handovers per repetition; null if not counted."),
    ]
    counters: Annotated[
        dict[str, int | float], Meta(description="Median of each counter per repetition.")
    ]
    memory_back: Annotated[
        Second | None, Meta(description="Time until every node has its memory back.")
    ]
    cpu: Annotated[Second | None, Meta(description="CPU time of the operation and its workers.")]
    difference: Annotated[
        float | UnsetType | None,
        Meta(
            description="Mean difference, cell minus baseline, in the unit of the values; only "
            "with scale difference."
        ),
    ] = UNSET
    spread: Annotated[
        float | UnsetType | None,
        Meta(
            description="Standard deviation over blocks, in the unit of the values; only with "
            "scale difference."
        ),
    ] = UNSET
    sd_difference: Annotated[
        float | UnsetType | None,
        Meta(
            description="Standard deviation of the blocks' differences; only with scale difference."
        ),
    ] = UNSET
    retried: Annotated[
        dict[str, int] | UnsetType,
        Meta(
            description="Failures that a fresh boot of the same block measured again, by fault of "
            "the guest; missing without any."
        ),
    ] = UNSET
    hosts_needed: Annotated[
        int | UnsetType,
        Meta(
            description="About how many more hosts would decide the cell; only with several hosts, "
            "and then instead of `blocks_needed`."
        ),
    ] = UNSET
    between_hosts: Annotated[
        BetweenHosts | UnsetType,
        Meta(
            description="The effect on each host; missing with one. Ratio, interval and p values "
            "are then over hosts, but for an A/A control."
        ),
    ] = UNSET

    @property
    def estimate(self) -> float | None:
        """The ratio, or the difference with scale difference."""
        return self.ratio if self.difference is UNSET else self.difference

    @property
    def is_baseline(self) -> bool:
        """Whether other cells are compared with this one."""
        return self.verdict is Verdict.BASELINE

    @property
    def interval(self) -> tuple[float, float] | None:
        """The confidence interval, None if there is none or a bound is not finite."""
        low, high = self.ci or (None, None)
        return None if low is None or high is None else (low, high)


class FurtherMetric(msgspec.Struct, frozen=True, kw_only=True):
    """A metric of an experiment after the first, from the same repetitions."""

    metric: Annotated[str, Meta(description="Name of the metric.")]
    better: Annotated[Literal["lower", "higher"], Meta(description="Which values are better.")]
    scale: Annotated[
        Literal["difference"] | UnsetType,
        Meta(description="How kernels are compared; missing for ratios."),
    ] = UNSET
    unit: Annotated[
        str | UnsetType,
        Meta(description="Unit of the values; missing if unknown, and for times (seconds)."),
    ] = UNSET
    minimum_effect: Annotated[
        float, Meta(description="Smallest change that matters, as for the first metric.")
    ]
    blocks: Annotated[int, Meta(description="Blocks with a good value.")]
    aa_control: Annotated[
        Cell | None, Meta(description="The baseline against itself; null without a control.")
    ]
    cells: Annotated[tuple[Cell, ...], Meta(description="Cells of the baseline, then all others.")]
    warnings: Annotated[
        tuple[str, ...], Meta(description="Warnings that the first metric does not have.")
    ]


class Experiment(msgspec.Struct, frozen=True, kw_only=True):
    """One experiment: cells compared with a baseline."""

    name: Annotated[str, Meta(description="Name of the experiment.")]
    workload: Annotated[str | UnsetType, Meta(description="Name of the workload.")] = UNSET
    command: Annotated[str | UnsetType | None, Meta(description="Command of the workload.")] = UNSET
    guest: Annotated[
        dict[str, Any] | UnsetType | None,
        Meta(description="Topology of the guest, as in lab.yaml; null on a target."),
    ] = UNSET
    metric: Annotated[str | UnsetType | None, Meta(description="Name of the metric.")] = UNSET
    set: Annotated[Settings | UnsetType, Meta(description="Tunables of all cells.")] = UNSET
    better: Annotated[Literal["lower", "higher"], Meta(description="Which values are better.")]
    scale: Annotated[
        Literal["difference"] | UnsetType,
        Meta(description="How kernels are compared; missing for ratios."),
    ] = UNSET
    unit: Annotated[
        str | UnsetType,
        Meta(description="Unit of the values; missing if unknown, and for times (seconds)."),
    ] = UNSET
    confidence: Annotated[float, Meta(description="Confidence level of the intervals.")]
    minimum_effect: Annotated[
        float,
        Meta(
            description="Smallest change that matters; 0.02 is 2 %. In the unit of the values with "
            "scale difference."
        ),
    ]
    placement: Annotated[
        Placement | UnsetType | None, Meta(description="Placement of a guest; null on a target.")
    ] = UNSET
    baseline: Annotated[str, Meta(description="Kernel that the cells are compared with.")]
    blocks: Annotated[int, Meta(description="Blocks with a good value.")]
    aa_control: Annotated[
        Cell | None, Meta(description="The baseline against itself; null without a control.")
    ]
    cells: Annotated[tuple[Cell, ...], Meta(description="Cells of the baseline, then all others.")]
    curves: Annotated[
        tuple[Curve, ...], Meta(description="Scalability law over a number of workers.")
    ]
    host_health: Annotated[
        HostHealth | None, Meta(description="Load of the host; null if it is not on record.")
    ]
    failures: Annotated[
        tuple[Failure, ...], Meta(description="Failures by kind, the most frequent first.")
    ]
    warnings: Annotated[tuple[str, ...], Meta(description="Warnings for the reader.")]
    observed: Annotated[
        Observed | UnsetType,
        Meta(description="What the observers found, at most ten counters per cell."),
    ] = UNSET
    passes: Annotated[
        tuple[Observed, ...] | UnsetType,
        Meta(description="As `observed`, of the passes of `labctl run --why`."),
    ] = UNSET
    further_metrics: Annotated[
        tuple[FurtherMetric, ...] | UnsetType,
        Meta(
            description="Metrics after the first, which decides; all p values are corrected for "
            "the cells of all metrics. Missing without any."
        ),
    ] = UNSET
    crashes: Annotated[
        tuple[CrashRate, ...] | UnsetType,
        Meta(description="How often the boots of each kernel crashed; missing if none did."),
    ] = UNSET
    hosts: Annotated[
        tuple[UsedHost, ...] | UnsetType,
        Meta(description="Hosts that measured blocks; missing if it was this host alone."),
    ] = UNSET

    @property
    def kind(self) -> MetricKind:
        """The metric; freebench's time if it is not on record."""
        scale = self.scale or None
        named = self.metric or None, self.better, self.command or None
        return MetricKind.known(*named, scale, self.unit or None)

    @property
    def metric_count(self) -> int:
        """The number of metrics."""
        return 1 + len(self.further_metrics or ())

    @property
    def control_differs(self) -> bool:
        """Whether the baseline differs from itself, so that no verdict is valid."""
        aa = self.aa_control
        if aa is None:
            return False
        return aa.verdict.is_difference or bool(aa.between_hosts and aa.between_hosts.differing)

    @property
    def crashes_more_often(self) -> tuple[CrashRate, ...]:
        """The kernels that crash more often than the baseline."""
        return tuple(one for one in self.crashes or () if one.more_often)

    @property
    def compared(self) -> tuple[Cell, ...]:
        """All cells but those of the baseline."""
        return tuple(cell for cell in self.cells if not cell.is_baseline)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The document of `labctl run --json` and `labctl report --json`."""

    schema: Annotated[Literal[1], Meta(description="Version of the document.")] = 1
    run: Annotated[str, Meta(description="Id of the run.")]
    created_at: Annotated[str | None, Meta(description="Start of the run: UTC, ISO 8601.")]
    seed: Annotated[int | None, Meta(description="Seed of the order of cells.")]
    finished: Annotated[bool, Meta(description="Whether the run measured all planned blocks.")]
    host: Annotated[Host, Meta(description="The host.")]
    hosts: Annotated[
        dict[str, Host] | UnsetType,
        Meta(description="Facts about the workers' hosts, by id; missing without a scheduler."),
    ] = UNSET
    imported: Annotated[
        Imported | UnsetType,
        Meta(description="The packed lab that measured the run; missing if this lab measured it."),
    ] = UNSET
    accel: Annotated[str, Meta(description="Accelerator: kvm, tcg, or native on a target.")]
    kernels: Annotated[dict[str, Kernel], Meta(description="Kernels by name.")]
    notes: Annotated[tuple[str, ...], Meta(description="Notes on the run as a whole.")]
    experiments: Annotated[tuple[Experiment, ...], Meta(description="Experiments in their order.")]
