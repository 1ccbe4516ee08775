"""The history of nightly runs on disk, and the runs of each cell.

`<history>/nights.jsonl` has one line for each run: the nightly run itself, its repeats, and
its kernels against earlier ones.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from labctl.errors import HostError, UserError
from labctl.nightly.changes import Look, Night, Trial, Watch
from labctl.runs import jsonl
from labctl.stats.cells import failures
from labctl.stats.comparison import Comparison, ExperimentResult
from labctl.stats.verdict import Rule

SCHEMA = 1
_LEAST_BLOCKS = 2  # one block has no spread
Record = Mapping[str, Any]
Kind = Literal["night", "again", "against"]
Key = tuple[str, str]  # experiment, cell
_OF_EXPERIMENT = (
    *("workload", "command", "metric", "better"),
    *("baseline", "confidence", "minimum_effect"),
)


@dataclass(slots=True)
class Watched:
    """One cell over nightly runs; `records` are the runs with a value of it, in order."""

    experiment: str
    cell: str
    kernel: str
    setting: Mapping[str, Any]
    baseline: str
    watch: Watch
    records: list[Record] = field(default_factory=list)
    rows: list[Record] = field(default_factory=list)
    last_look: Look = field(default_factory=Look)

    @property
    def key(self) -> Key:
        """The key of the cell in a history."""
        return self.experiment, self.cell


def path_of(history: Path) -> Path:
    """Return the path of the history's file in its folder."""
    return history / "nights.jsonl"


def append(history: Path, record: Record) -> None:
    """Append one run's record and sync it to disk.

    Raises:
        HostError: the disk is full or fails.
    """
    line = json.dumps(record, sort_keys=True, allow_nan=False, separators=(",", ":")) + "\n"
    try:
        history.mkdir(parents=True, exist_ok=True)
        jsonl.append(path_of(history), line.encode())
    except OSError as error:
        raise HostError(
            f"cannot write the history: {error.strerror or error}",
            where=str(path_of(history)),
        ) from error


def read(history: Path) -> list[Record]:
    """Return all records in order, without a torn last line.

    Raises:
        UserError: a line is damaged.
    """
    path = path_of(history)
    found: list[Record] = []
    try:
        with path.open("rb") as file:
            for number, line in enumerate(jsonl.whole_lines(file), start=1):
                found.append(_parse(line, f"{path}:{number}"))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise HostError(f"cannot read: {error.strerror}", where=str(path)) from error
    return found


def _parse(line: bytes, where: str) -> Record:
    try:
        data = json.loads(line)
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            raise ValueError(f"expected schema {SCHEMA}")
        missing = [name for name in ("kind", "night", "run", "cells") if name not in data]
        if missing:
            raise ValueError(f"missing keys: {', '.join(missing)}")
        cells = data["cells"]
        if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
            raise ValueError("cells: expected a list of objects")
    except (ValueError, RecursionError) as error:
        raise UserError(f"invalid nightly record: {error}", where=where) from error
    return data


def record_of(
    kind: Kind,
    night: str,
    run: Mapping[str, Any],
    results: Iterable[ExperimentResult],
    *,
    setups: Mapping[str, Mapping[str, str]],
    facts: Mapping[str, Any],
    only: Iterable[Key] | None = None,
) -> dict[str, Any]:
    """Return the record of a run for the history; `only` selects cells.

    `setups` has for each experiment what must be equal for runs to be comparable, `facts`
    more to store (commits, checks).
    """
    wanted = None if only is None else set(only)
    known = {each["name"]: each for each in run["experiments"]}
    found = list(results)
    cells = [
        _row(each, cell, known[each.name], setups[each.name])
        for each in found
        for cell in each.cells
        if cell.verdict != "baseline" and (wanted is None or (each.name, cell.cell) in wanted)
    ]
    # Without a baseline nothing is compared, so its failures must be on record too.
    baselines = [
        _failed_row(each, cell)
        for each in found
        for cell in each.cells
        if cell.verdict == "baseline" and cell.failed
    ]
    return {
        "schema": SCHEMA,
        "kind": kind,
        "night": night,
        "run": run["run"],
        "at": run["created_at"],
        "host": dict(run["host"]),
        "accel": run["accel"],
        "kernels": {name: dict(kernel) for name, kernel in run["kernels"].items()},
        "cells": cells,
        "baselines": baselines,
        **facts,
    }


def _row(
    result: ExperimentResult, cell: Comparison, known: Record, setup: Mapping[str, str]
) -> dict[str, Any]:
    return {
        **_failed_row(result, cell),
        **{name: known.get(name) for name in _OF_EXPERIMENT},
        "setup": dict(setup),
        "blocks": cell.blocks,
        "ratio": cell.ratio,
        "ci": cell.ci,
        "sd_log": cell.sd_log,
        "verdict": cell.verdict,
        "reason": cell.reason,
        "suspect": result.control_differs,
    }


def _failed_row(result: ExperimentResult, cell: Comparison) -> dict[str, Any]:
    """Return the identity and the failures of a cell."""
    return {
        "experiment": result.name,
        "cell": cell.cell,
        "kernel": cell.kernel,
        "setting": dict(cell.setting),
        "failed": dict(cell.failed),
        "failures": [
            msgspec.to_builtins(each) for each in result.failures if cell.cell in each.cells
        ],
    }


def has_failed(row: Record) -> bool:
    """Return whether a guest of the cell failed."""
    return failures(row["failed"]) > 0


def watched(records: Sequence[Record]) -> dict[Key, Watched]:
    """Return every cell with all of its nightly runs.

    A run has no value of a cell that failed, that has only one block, or whose A/A control
    differs.

    Raises:
        HostError: ruptures, which finds the changes, is not installed.
    """
    cells: dict[Key, Watched] = {}
    for main, more in by_night(records):
        for row in main["cells"]:
            night = _night(main, row, more)
            if night is None:
                continue
            cell = cells.setdefault((row["experiment"], row["cell"]), _watched(row))
            cell.last_look = cell.watch.add(night)
            cell.records.append(main)
            cell.rows.append(row)
    return cells


def by_night(records: Sequence[Record]) -> Iterator[tuple[Record, list[Record]]]:
    """Yield the record of each nightly run, with the records of its repeats."""
    mains = [record for record in records if record["kind"] == "night"]
    for main in mains:
        yield main, [record for record in records if record.get("of") == main["run"]]


def _watched(row: Record) -> Watched:
    return Watched(
        experiment=row["experiment"],
        cell=row["cell"],
        kernel=row["kernel"],
        setting=row["setting"],
        baseline=row["baseline"],
        watch=Watch(Rule.of(row["confidence"], row["minimum_effect"]).margin),
    )


def _night(main: Record, row: Record, more: Sequence[Record]) -> Night | None:
    if not _counts(row):
        return None
    logs, trials = [math.log(row["ratio"])], []
    for record in more:
        for other in record["cells"]:
            if (other["experiment"], other["cell"]) != (row["experiment"], row["cell"]):
                continue
            if record["kind"] == "again" and _counts(other):
                logs.append(math.log(other["ratio"]))
            elif record["kind"] == "against":
                trials.append(_trial(record, other))
    return Night(
        date=main["night"],
        logs=tuple(logs),
        error=row["sd_log"] / math.sqrt(row["blocks"]),
        image=main["kernels"][row["kernel"]]["image"],
        setup=tuple(sorted(row["setup"].items())),
        trials=tuple(trials),
    )


def _counts(row: Record) -> bool:
    is_known = row["ratio"] is not None and row["sd_log"] is not None
    return (
        is_known and row["blocks"] >= _LEAST_BLOCKS and not has_failed(row) and not row["suspect"]
    )


def _trial(record: Record, row: Record) -> Trial:
    ci = row["ci"]
    return Trial(
        verdict=row["verdict"],
        ratio=row["ratio"],
        ci=None if ci is None else (ci[0], ci[1]),
        run=record["run"],
        against=record["against"],
    )
