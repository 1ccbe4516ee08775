"""run.json as `labctl run` writes it, and whether a resumed run measures the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from labctl.errors import UserError
from labctl.experiments.plan import Plan
from labctl.guests import placement
from labctl.guests.prepare import Prepared
from labctl.lab.models import Lab
from labctl.lab.topology import Topology
from labctl.runs.folder import RunFolder, timestamp
from labctl.stats.health import HealthRule
from labctl.workloads.supply import Supply, roots


def document_of(
    lab: Lab,
    run_id: str,
    plans: Sequence[Plan],
    prepared: Prepared,
    seed: int,
    supplies: Mapping[str, Supply] | None = None,
    *,
    is_placed: bool = True,
) -> dict[str, Any]:
    """Return the JSON of a run that starts now; `supplies` are by the workloads' names.

    Unless it `is_placed`, guests run on other hosts.
    """
    digests = {name: supply.digest() for name, supply in (supplies or {}).items()}
    disks = {name: disk.digest for name, disk in roots(supplies or {}).items()}
    return {
        "schema": 1,
        "run": run_id,
        "created_at": timestamp(),
        "seed": seed,
        "lab": lab.path.read_text(),
        "host": prepared.host.as_dict(),
        "accel": prepared.accel,
        "launcher": lab.defaults.launcher,
        "transport": lab.defaults.transport,
        "initramfs": prepared.initramfs.hash,
        "guests": {name: _shape(topology) for name, topology in lab.guests.items()},
        "kernels": {
            name: {
                "image": image.hash,
                "series": image.series_hash,
                "patches": list(image.patch_hashes),
                "release": image.release,
                "compiler": image.compiler,
                "arch": image.arch,
                **({"commit": image.commit, "subject": image.subject} if image.commit else {}),
            }
            for name, image in prepared.images.items()
        },
        "experiments": [
            _experiment(prepared, each, digests, disks, is_placed=is_placed) for each in plans
        ],
        "health": HealthRule().as_dict(),
        "finished": False,
    }


def _shape(topology: Topology) -> dict[str, Any]:
    return topology.model_dump(mode="json")


def _experiment(
    prepared: Prepared,
    each: Plan,
    digests: Mapping[str, str | None],
    disks: Mapping[str, str],
    *,
    is_placed: bool = True,
) -> dict[str, Any]:
    lab = prepared.lab
    topology = lab.guests[lab.guest_of(each.experiment)]
    statistics, workload = each.statistics, lab.workloads[each.experiment.workload]
    metric, *further = lab.all_compared(each.experiment)
    return {
        "name": each.experiment.name,
        "workload": workload.name,
        "guest": lab.guest_of(each.experiment),
        "target": each.experiment.target,
        "command": workload.command,
        "files": digests.get(workload.name),
        "root": disks.get(workload.name),
        "parse": {n: [m.parse, m.unit] for n, m in workload.metrics.items() if m.parse},
        "metric": metric.name,
        "better": metric.better,
        "scale": metric.scale,
        "baseline": each.baseline,
        "confidence": statistics.confidence,
        "minimum_effect": metric.minimum_effect,
        "further_metrics": [
            {
                "metric": one.name,
                "better": one.better,
                "scale": one.scale,
                "minimum_effect": one.minimum_effect,
            }
            for one in further
        ],
        "blocks_min": statistics.blocks.min,
        "blocks_max": statistics.blocks.max,
        "repetitions": statistics.repetitions,
        "warmup": statistics.warmup,
        "set": dict(each.experiment.set),
        "observe": [one.name for one in each.observers],
        "cells": [cell.id for cell in each.cells],
        "placement": placement.document(topology, prepared.placement(topology), prepared.facts)
        if is_placed and each.experiment.target is None
        else None,
    }


def completed(folder: RunFolder, guests: dict[str, Any]) -> dict[str, Any]:
    """Return recorded guests with the defaults of keys that an older labctl did not record.

    Raises:
        UserError: they are not valid.
    """
    try:
        return {name: _shape(Topology(**guest)) for name, guest in guests.items()}
    except ValueError as error:  # pydantic's message has several lines
        where = str(folder.path / "run.json")
        raise UserError("guests: invalid value", where=where) from error


def as_recorded(
    now: Sequence[dict[str, Any]], recorded: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return experiments without the keys that an older labctl did not record."""
    return [
        {key: value for key, value in new.items() if key in old}
        for new, old in zip(now, recorded, strict=True)
    ]


def check_unchanged(
    folder: RunFolder, old: dict[str, Any], now: dict[str, Any], *, is_spread: bool = False
) -> None:
    """Check that a resumed run measures what it measured before.

    A run that `is_spread` over hosts may go on on any host, with guests placed as there.

    Raises:
        UserError: the lab, a kernel, the initramfs or the host changed.
    """
    for what in ("experiments", "kernels", "accel", "guests", "initramfs"):
        if what == "experiments" and is_spread:
            is_same = _unplaced(now[what]) == _unplaced(old[what])
        else:
            is_same = now[what] == old[what]
        if not is_same:
            raise UserError(
                f"{what} changed since run {folder.id} started",
                where=str(folder.path / "run.json"),
                hint="samples from different setups must not be mixed: start a new run",
            )
    if not is_spread and now["host"]["id"] != old["host"].get("id"):
        raise UserError(f"run {folder.id} was started on another host", hint="start a new run here")


def _unplaced(experiments: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: one[key] for key in one if key != "placement"} for one in experiments]
