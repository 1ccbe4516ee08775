"""The record of a run as its readers see it: run.json, checked. Pure.

Keys that older versions of labctl did not write are optional; other keys are ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from labctl.lab.metrics import Better, MetricKind, Scale
from labctl.lab.quantity import LARGEST
from labctl.runs.types import Count, Host, Imported, Kernel, Placement, Settings, Share


class _Guest(msgspec.Struct, frozen=True):
    memory_per_node: Count | UnsetType = UNSET


class _Guests(msgspec.Struct, frozen=True):
    guests: dict[str, _Guest]


class RecordedMetric(msgspec.Struct, frozen=True):
    """A further metric of an experiment."""

    metric: str
    better: Better
    scale: Scale
    minimum_effect: Annotated[float, Meta(gt=0, le=LARGEST)]


class RunExperiment(msgspec.Struct, frozen=True):
    """One experiment of a run."""

    name: str
    workload: str
    baseline: str
    confidence: Share
    minimum_effect: Annotated[float, Meta(gt=0, le=LARGEST)]
    better: Better | None = None
    metric: str | UnsetType | None = UNSET
    scale: Scale | UnsetType = UNSET
    command: str | UnsetType | None = UNSET
    guest: str | None = None
    target: str | None = None
    blocks_min: Count | UnsetType = UNSET
    repetitions: Count | Literal["auto"] | UnsetType = UNSET
    warmup: Count | UnsetType = UNSET
    set: Settings | UnsetType = UNSET
    cells: tuple[str, ...] | UnsetType = UNSET
    observe: tuple[str, ...] = ()
    further_metrics: tuple[RecordedMetric, ...] = ()
    placement: Placement | UnsetType | None = UNSET

    @property
    def kind(self) -> MetricKind:
        """The metric; freebench's time if it is not on record."""
        scale = self.scale or None
        return MetricKind.known(self.metric or None, self.better, self.command or None, scale)

    @property
    def kinds(self) -> list[tuple[MetricKind, float]]:
        """All metrics, each with its minimum effect; the first one decides."""
        further = [
            (
                MetricKind.known(one.metric, one.better, self.command or None, one.scale),
                one.minimum_effect,
            )
            for one in self.further_metrics
        ]
        return [(self.kind, self.minimum_effect), *further]

    def __post_init__(self) -> None:
        if self.scale != "difference" and self.minimum_effect >= 1:
            raise ValueError("minimum_effect: expected less than 1 with scale ratio")


class _Timing(msgspec.Struct, frozen=True):
    boots: Count
    boot_seconds: float
    workload_seconds: float
    repetitions: Count | UnsetType = UNSET
    visits: Count | UnsetType = UNSET  # older versions of labctl recorded `repetitions` as this

    def __post_init__(self) -> None:
        if self.repetitions is UNSET and self.visits is UNSET:
            raise ValueError("Object missing required field `repetitions`")

    @property
    def measured(self) -> int:
        """The number of repetitions, warm-ups included."""
        return self.repetitions or self.visits or 0


class _Health(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    disturbed_share: float | UnsetType = UNSET
    others_share: float | UnsetType = UNSET


class RunRecord(msgspec.Struct, frozen=True):
    """What a run records: its experiments, its host and its kernels."""

    run: str
    accel: str
    experiments: tuple[RunExperiment, ...]
    finished: bool = False
    seed: int | UnsetType = UNSET
    created_at: str | None = None
    lab: str = ""
    initramfs: str | UnsetType = UNSET
    host: Host = Host()
    hosts: dict[str, Host] = {}  # by id, those of workers; empty without a scheduler
    kernels: dict[str, Kernel] = {}
    guests: dict[str, dict[str, Any]] = {}
    timing: dict[str, tuple[_Timing, ...]] = {}
    health: _Health = _Health()
    imported: Imported | UnsetType = UNSET

    def __post_init__(self) -> None:
        # The keys of a guest are those of lab.yaml, and only the reports read them.
        msgspec.convert({"guests": self.guests}, _Guests)

    @classmethod
    def of(cls, document: Mapping[str, object]) -> RunRecord:
        """Return the record in the JSON of run.json.

        Raises:
            ValueError: a key is missing or has another type.
        """
        try:
            return msgspec.convert(document, RunRecord)
        except OverflowError as error:
            raise ValueError(str(error)) from error

    def experiment(self, name: str) -> RunExperiment:
        """Return an experiment by its name, which must be on record."""
        return next(each for each in self.experiments if each.name == name)

    def mean_seconds(self, experiments: Iterable[str]) -> tuple[float, float] | None:
        """Return the mean seconds of a boot and of a repetition; None if none is on record."""
        timings = [one for name in experiments for one in self.timing.get(name, ())]
        boots = sum(one.boots for one in timings)
        repetitions = sum(one.measured for one in timings)
        if not boots or not repetitions:
            return None
        return (
            sum(one.boot_seconds for one in timings) / boots,
            sum(one.workload_seconds for one in timings) / repetitions,
        )
