"""The document of `labctl nightly --json`, as frozen structs. Pure.

A field that is `UNSET` has no key in the JSON.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from labctl.lab.metrics import MetricKind
from labctl.runs.types import Host, Settings
from labctl.stats.host_types import Bounds
from labctl.stats.kinds import FindingKind

Better = Literal["lower", "higher"]
# Of the last run without a change, and of the first one with it.
Hashes = tuple[str | None, str | None]


class TrialResult(msgspec.Struct, frozen=True, kw_only=True):
    """A run of the kernel against the kernel of an earlier nightly run."""

    verdict: Annotated[str, Meta(description="Verdict on the newer kernel.")]
    ratio: Annotated[float | None, Meta(description="Ratio to the earlier kernel.")]
    ci: Annotated[
        Bounds | None,
        Meta(description="Confidence interval of the ratio, with the noise between runs."),
    ]
    run: Annotated[str, Meta(description="Id of the run.")]
    against: Annotated[str, Meta(description="Date of the earlier nightly run.")]


class Between(msgspec.Struct, frozen=True, kw_only=True):
    """The two nightly runs that a change lies between, and what differs."""

    nights: Annotated[tuple[str, str], Meta(description="Dates of the two nightly runs.")]
    image: Annotated[Hashes, Meta(description="Hashes of the kernel's images.")]
    series: Annotated[Hashes, Meta(description="Hashes of the series; null without one.")]
    patches_changed: Annotated[
        tuple[int, ...], Meta(description="Numbers of patches that are new or changed.")
    ]
    patches: Annotated[tuple[int, int], Meta(description="How many patches the series have.")]
    commits: Annotated[
        dict[str, Hashes], Meta(description="Commits of the source trees, by name of the tree.")
    ]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A change or a failure that a nightly run found."""

    kind: Annotated[FindingKind, Meta(description="What was found.")]
    night: Annotated[str, Meta(description="Date of the nightly run that found it.")]
    run: Annotated[str, Meta(description="Id of its run.")]
    since: Annotated[str, Meta(description="Date of the first nightly run that shows it.")]
    experiment: Annotated[str | None, Meta(description="Name of the experiment; null for a check.")]
    cell: Annotated[str | None, Meta(description="Id of the cell; null for a check.")]
    kernel: Annotated[str, Meta(description="Name of the kernel.")]
    setting: Annotated[Settings, Meta(description="Tunables and parameters of the cell.")]
    why: Annotated[str | UnsetType, Meta(description="What failed; of a failure only.")] = UNSET
    baseline: Annotated[
        str | UnsetType, Meta(description="Kernel that the cell is compared with.")
    ] = UNSET
    command: Annotated[str | UnsetType | None, Meta(description="Command of the workload.")] = UNSET
    metric: Annotated[str | UnsetType | None, Meta(description="Name of the metric.")] = UNSET
    better: Annotated[Better | UnsetType | None, Meta(description="Which values are better.")] = (
        UNSET
    )
    before: Annotated[float | UnsetType, Meta(description="Usual ratio before.")] = UNSET
    after: Annotated[float | UnsetType, Meta(description="Usual ratio since then.")] = UNSET
    change: Annotated[
        float | UnsetType, Meta(description="The ratio after over the ratio before.")
    ] = UNSET
    trials: Annotated[
        tuple[TrialResult, ...] | UnsetType, Meta(description="Runs that confirmed it or not.")
    ] = UNSET
    between: Annotated[
        Between | UnsetType | None, Meta(description="What it lies between; null if unknown.")
    ] = UNSET

    @property
    def metric_kind(self) -> MetricKind:
        """The metric; freebench's time if it is not on record."""
        return MetricKind.known(self.metric or None, self.better or None, self.command or None)


class NightlyValue(msgspec.Struct, frozen=True, kw_only=True):
    """One cell in one nightly run."""

    night: Annotated[str, Meta(description="Date of the nightly run.")]
    run: Annotated[str, Meta(description="Id of its run.")]
    ratio: Annotated[float, Meta(description="Ratio to the baseline that counts.")]
    measured: Annotated[
        tuple[float, ...], Meta(description="Ratio of each run: the first one and repeats.")
    ]
    ci: Annotated[
        Bounds | None,
        Meta(
            description="Confidence interval of the first run's ratio, with the noise between runs."
        ),
    ]
    blocks: Annotated[int, Meta(description="Blocks of the first run.")]
    image: Annotated[str, Meta(description="Hash of the kernel's image.")]


class SegmentStart(msgspec.Struct, frozen=True, kw_only=True):
    """Where a segment of comparable nightly runs begins."""

    first: Annotated[str, Meta(description="Date of its first nightly run.")]
    why: Annotated[str, Meta(description="What ended the segment before; empty for the first.")]
    continues: Annotated[
        bool, Meta(description="Whether only nightly runs are missing, so that levels compare.")
    ]


class CellTrend(msgspec.Struct, frozen=True, kw_only=True):
    """All nightly runs of one cell."""

    experiment: Annotated[str, Meta(description="Name of the experiment.")]
    cell: Annotated[str, Meta(description="Id of the cell.")]
    kernel: Annotated[str, Meta(description="Name of the kernel.")]
    setting: Annotated[Settings, Meta(description="Tunables and parameters of the cell.")]
    baseline: Annotated[str, Meta(description="Kernel that the cell is compared with.")]
    measured_last_night: Annotated[
        bool, Meta(description="Whether the last nightly run has a value of the cell.")
    ]
    nights: Annotated[tuple[NightlyValue, ...], Meta(description="Nightly runs with a value.")]
    segments: Annotated[tuple[SegmentStart, ...], Meta(description="Segments, in their order.")]


class Nightly(msgspec.Struct, frozen=True, kw_only=True):
    """The document of `labctl nightly --json`."""

    schema: Annotated[Literal[1], Meta(description="Version of the document.")] = 1
    night: Annotated[str | None, Meta(description="Date of the last nightly run.")]
    run: Annotated[str | None, Meta(description="Id of its run.")]
    nights: Annotated[int, Meta(description="Nightly runs in the history.")]
    host: Annotated[Host, Meta(description="Host of the last nightly run.")]
    hosts: Annotated[
        dict[str, Host] | UnsetType,
        Meta(description="Its workers' hosts, by id; only with a scheduler."),
    ] = UNSET
    accel: Annotated[str | None, Meta(description="Accelerator of the last nightly run.")]
    commits: Annotated[
        dict[str, str | None], Meta(description="Commits of the source trees, by name.")
    ]
    findings: Annotated[tuple[Finding, ...], Meta(description="Findings of all nightly runs.")]
    cells: Annotated[tuple[CellTrend, ...], Meta(description="Cells with their nightly runs.")]
    warnings: Annotated[tuple[str, ...], Meta(description="Warnings for the reader.")]
