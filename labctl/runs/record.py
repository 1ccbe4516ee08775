"""The types of the keys read from run.json, checked on reading. Pure.

Keys that older versions of labctl did not write are optional; other keys are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from labctl.runs.types import Count, Host, Kernel, Placement, Settings, Share


class _Guest(msgspec.Struct):
    memory_per_node: Count | UnsetType = UNSET


class RunExperiment(msgspec.Struct, frozen=True):
    """One experiment of a run."""

    name: str
    workload: str
    baseline: str
    confidence: Share
    minimum_effect: Share
    better: Literal["lower", "higher"] | None = None
    metric: str | None = None
    command: str | None = None
    guest: str | None = None
    target: str | None = None
    blocks_min: Count | UnsetType = UNSET
    repetitions: Count | UnsetType = UNSET
    set: Settings | UnsetType = UNSET
    cells: list[str] | UnsetType = UNSET
    observe: list[str] | UnsetType = UNSET
    placement: Placement | None = None


class _Timing(msgspec.Struct):
    boots: Count
    visits: Count
    boot_seconds: float
    workload_seconds: float


class _Health(msgspec.Struct, forbid_unknown_fields=True):
    disturbed_share: float | UnsetType = UNSET


class RunRecord(msgspec.Struct, frozen=True):
    """What a run records: its experiments, its host and its kernels."""

    run: str
    accel: str
    experiments: list[RunExperiment]
    seed: int | UnsetType = UNSET
    created_at: str | None = None
    lab: str | UnsetType = UNSET
    initramfs: str | UnsetType = UNSET
    host: Host | UnsetType = UNSET
    kernels: dict[str, Kernel] | UnsetType = UNSET
    guests: dict[str, _Guest] | UnsetType = UNSET
    timing: dict[str, list[_Timing]] | UnsetType = UNSET
    health: _Health | UnsetType = UNSET

    @classmethod
    def of(cls, data: Mapping[str, object]) -> RunRecord:
        """Return the record that `RunFolder.read` returned."""
        return msgspec.convert(data, RunRecord)

    def experiment(self, name: str) -> RunExperiment:
        """Return an experiment by its name, which must be on record."""
        return next(each for each in self.experiments if each.name == name)


def fault(data: object) -> str | None:
    """Return the first missing key or wrong type of a record, None if there is none."""
    try:
        msgspec.convert(data, RunRecord)
    except (msgspec.ValidationError, OverflowError) as error:
        return str(error)
    return None
