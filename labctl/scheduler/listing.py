"""The workers of a scheduler with what they do, for `labctl workers`."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any, cast

from labctl.doctor.diagnosis import Diagnosis, worst
from labctl.scheduler import worker
from labctl.scheduler.client import RESOURCE, Connection, Future

_DOCTOR_SECONDS = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A worker.

    `doing` says what it does; `doctor` is the worst status of its host's diagnoses, None if
    it was busy. `aa_ratio` is the mean ratio of baseline to A/A control over the `blocks` that
    it measured since its start, `aa_spread` the standard deviation of their logarithms.
    """

    name: str
    address: str
    doing: str
    doctor: str | None = None
    diagnoses: tuple[dict[str, str | None], ...] = ()
    blocks: int = 0
    aa_ratio: float | None = None
    aa_spread: float | None = None

    def document(self) -> dict[str, Any]:
        """Return the worker as JSON."""
        return asdict(self)


def listed(connection: Connection) -> list[Listed]:
    """Return all workers, after the doctor has tested the hosts of idle ones."""
    infos = connection.workers()
    offering = [one.address for one in infos if one.offers]
    found = connection.call_at_once(offering, worker.status)
    idle = [
        a for a, one in found.items() if one["diagnoses"] is None and one["doing"] == worker.IDLE
    ]
    diagnosed = _diagnosed(connection, idle)
    rows = []
    for info in infos:
        status = found.get(info.address)
        if status is None:
            doing = "no response" if info.offers else f"does not offer the resource {RESOURCE}"
            rows.append(Listed(name=info.name, address=info.address, doing=doing))
            continue
        diagnoses = diagnosed.get(info.address, status["diagnoses"])
        rows.append(
            Listed(
                name=status["name"],
                address=info.address,
                doing=status["doing"],
                doctor=None if diagnoses is None else _verdict(diagnoses),
                diagnoses=tuple(diagnoses or ()),
                blocks=status["blocks"],
                aa_ratio=status["aa_ratio"],
                aa_spread=status["aa_spread"],
            )
        )
    return rows


def _verdict(diagnoses: list[dict[str, str | None]]) -> str:
    return worst(Diagnosis(**cast("dict[str, Any]", one)) for one in diagnoses)


def _diagnosed(
    connection: Connection, workers: list[str]
) -> dict[str, list[dict[str, str | None]]]:
    """Return the doctor's diagnoses of the hosts that have them within the time limit."""
    deadline = time.monotonic() + _DOCTOR_SECONDS
    calls: dict[str, Future] = {}
    for address in workers:
        key = f"labctl-diagnose-{address}-{time.time_ns()}"
        calls[address] = connection.call(address, worker.diagnose, key=key)
    found = {}
    for address, future in calls.items():
        while future.status == "pending" and time.monotonic() < deadline:
            time.sleep(0.1)
        if future.status == "finished":
            found[address] = future.result(timeout=_DOCTOR_SECONDS)
        future.cancel()
    return found
