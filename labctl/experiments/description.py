"""The fields of a sample that are known before it is measured."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from labctl.experiments.plan import Plan, Repetition
from labctl.lab.models import Lab


def _awake_or_asleep() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class RunClock:
    """The time of day at the start of a run and since then, whatever the host's is set to."""

    start: datetime = field(default_factory=lambda: datetime.now(UTC))
    _began: float = field(default_factory=_awake_or_asleep)

    def now(self) -> datetime:
        """Return the time of day; never less than the last one returned."""
        return self.start + timedelta(seconds=_awake_or_asleep() - self._began)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The fields that all samples of a run share.

    `images` maps each kernel to the hashes of its image and series.
    """

    run: str
    host: str
    accel: str
    images: Mapping[str, tuple[str, str | None]]
    host_name: str = ""
    boot_deadline_seconds: float = 180.0
    clock: RunClock = field(default_factory=RunClock, compare=False)


def description(
    lab: Lab, plan: Plan, facts: Facts, block: int, order: int, repetition: Repetition
) -> dict[str, Any]:
    """Return the fields of a sample without those of its guest."""
    experiment, cell = plan.experiment, repetition.cell
    metric = lab.compared(experiment)
    image, series = facts.images[cell.kernel]
    return {
        "run": facts.run,
        "experiment": experiment.name,
        "workload": experiment.workload,
        "metric": metric.name,
        "scale": metric.scale,
        "block": block,
        "order": order,
        "repetition": repetition.number,
        "warmup": repetition.warmup,
        "kernel": cell.kernel,
        "label": cell.label,
        "control": cell.control,
        "cell": cell.id,
        "setting": dict(cell.setting),
        "parameters": dict(cell.parameters),
        "image": image,
        "series": series,
        "host": facts.host,
        "host_name": facts.host_name,
        "accel": facts.accel,
        "started_at": facts.clock.now().isoformat(timespec="milliseconds"),
    }
