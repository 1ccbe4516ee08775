"""The history of nightly runs on disk, and the runs of each cell.

`<history>/nights.jsonl` has one line for each run: the nightly run itself, its repeats, and
its kernels against earlier ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from msgspec import UNSET

from labctl import files
from labctl.errors import HostError, UserError
from labctl.nightly.changes import Analysis, NightlyRun, Trial, Watch
from labctl.nightly.records import (
    CellFailures,
    CellRecord,
    Crashes,
    Key,
    Kind,
    NightlyRecord,
    decode,
    encode,
)
from labctl.runs import jsonl
from labctl.runs.record import RunExperiment, RunRecord
from labctl.runs.types import Settings
from labctl.stats.comparison import Comparison, ExperimentResult
from labctl.stats.verdict import Rule

_HINT = "restore the file from a copy, or remove the line: its run is then missing"


@dataclass(slots=True)
class Watched:
    """One cell over nightly runs; `records` are the runs with a value of it, in order."""

    experiment: str
    cell: str
    kernel: str
    setting: Settings
    baseline: str
    watch: Watch
    records: list[NightlyRecord] = field(default_factory=list)
    rows: list[CellRecord] = field(default_factory=list)
    last_analysis: Analysis = field(default_factory=Analysis)

    @property
    def key(self) -> Key:
        """The key of the cell in a history."""
        return self.experiment, self.cell


def path_of(history: Path) -> Path:
    """Return the path of the history's file in its folder."""
    return history / "nights.jsonl"


def append(history: Path, record: NightlyRecord) -> None:
    """Append one run's record and sync it to disk.

    Raises:
        HostError: the disk is full or fails.
    """
    line = encode(record)
    try:
        files.make_folder(history)
        jsonl.append(path_of(history), line)
    except OSError as error:
        raise HostError(
            f"cannot write the history: {error.strerror or error}",
            where=str(path_of(history)),
        ) from error


def read(history: Path) -> list[NightlyRecord]:
    """Return all records in order, without an incomplete last line.

    Raises:
        UserError: a line is damaged.
    """
    path = path_of(history)
    found: list[NightlyRecord] = []
    try:
        with path.open("rb") as file:
            for number, line in enumerate(jsonl.whole_lines(file), start=1):
                found.append(_decoded(line, f"{path}:{number}"))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise HostError(f"cannot read: {error.strerror}", where=str(path)) from error
    return found


def _decoded(line: bytes, where: str) -> NightlyRecord:
    try:
        return decode(line)
    except ValueError as error:
        what = f"invalid nightly record: {error}"
        raise UserError(what, where=where, hint=_HINT) from error


def record_of(
    kind: Kind,
    night: str,
    run: RunRecord,
    results: Iterable[ExperimentResult],
    *,
    setups: Mapping[str, Mapping[str, str]],
    only: Iterable[Key] | None = None,
) -> NightlyRecord:
    """Return the record of a run for the history; `only` selects cells.

    `setups` has for each experiment what must be equal for runs to be comparable.
    """
    wanted = None if only is None else set(only)
    found = list(results)
    cells = tuple(
        _row(each, cell, run.experiment(each.name), setups[each.name])
        for each in found
        for cell in each.cells
        if cell.verdict != "baseline" and (wanted is None or (each.name, cell.cell) in wanted)
    )
    # Without a baseline nothing is compared, so its failures must be on record too.
    baselines = tuple(
        _failures(each, cell)
        for each in found
        for cell in each.cells
        if cell.verdict == "baseline" and cell.failed
    )
    crashes = tuple(
        Crashes(**msgspec.structs.asdict(one), experiment=each.name, baseline=each.baseline)
        for each in found
        for one in each.crashes
    )
    return NightlyRecord(
        kind=kind,
        night=night,
        run=run.run,
        at=run.created_at or "",
        host=run.host,
        hosts=run.hosts or UNSET,
        accel=run.accel,
        kernels=run.kernels,
        cells=cells,
        baselines=baselines,
        crashes=crashes or UNSET,
    )


def _row(
    result: ExperimentResult, cell: Comparison, known: RunExperiment, setup: Mapping[str, str]
) -> CellRecord:
    return CellRecord(
        **msgspec.structs.asdict(_failures(result, cell)),
        workload=known.workload,
        command=known.command or None,
        metric=known.metric or None,
        better=known.better,
        baseline=known.baseline,
        confidence=known.confidence,
        minimum_effect=known.minimum_effect,
        setup=dict(setup),
        blocks=cell.blocks,
        ratio=cell.ratio,
        ci=cell.ci,
        sd_log=cell.sd_log,
        verdict=cell.verdict,
        reason=cell.reason,
        suspect=result.control_differs,
    )


def _failures(result: ExperimentResult, cell: Comparison) -> CellFailures:
    return CellFailures(
        experiment=result.name,
        cell=cell.cell,
        kernel=cell.kernel,
        setting=dict(cell.setting),
        failed=dict(cell.failed),
        failures=tuple(each for each in result.failures if cell.cell in each.cells),
    )


def watched(records: Sequence[NightlyRecord]) -> dict[Key, Watched]:
    """Return every cell with all of its nightly runs.

    A run has no value of a cell that failed, that has only one block, or whose A/A control
    differs.

    Raises:
        HostError: ruptures, which finds the changes, is not installed.
    """
    cells: dict[Key, Watched] = {}
    for main, more in by_night(records):
        for row in main.cells:
            night = _night(main, row, more)
            if night is None:
                continue
            cell = cells.setdefault(row.key, _watched(row))
            cell.last_analysis = cell.watch.add(night)
            cell.records.append(main)
            cell.rows.append(row)
    return cells


def by_night(
    records: Sequence[NightlyRecord],
) -> Iterator[tuple[NightlyRecord, list[NightlyRecord]]]:
    """Yield the record of each nightly run, with the records of its repeats."""
    mains = [record for record in records if record.kind == "night"]
    for main in mains:
        yield main, [record for record in records if record.of == main.run]


def _watched(row: CellRecord) -> Watched:
    return Watched(
        experiment=row.experiment,
        cell=row.cell,
        kernel=row.kernel,
        setting=row.setting,
        baseline=row.baseline,
        watch=Watch(Rule.of(row.confidence, row.minimum_effect).margin),
    )


def _night(
    main: NightlyRecord, row: CellRecord, more: Sequence[NightlyRecord]
) -> NightlyRun | None:
    if row.log_ratio is None:
        return None
    logs, trials = [row.log_ratio], []
    for record in more:
        for other in record.cells:
            if other.key != row.key:
                continue
            if record.kind == "again" and other.log_ratio is not None:
                logs.append(other.log_ratio)
            elif record.kind == "against":
                trials.append(_trial(record, other))
    return NightlyRun(
        date=main.night,
        logs=tuple(logs),
        error=row.error,
        image=main.image(row.kernel),
        setup=tuple(sorted(row.setup.items())),
        trials=tuple(trials),
    )


def _trial(record: NightlyRecord, row: CellRecord) -> Trial:
    return Trial(
        verdict=row.verdict,
        ratio=row.ratio,
        ci=row.ci,
        run=record.run,
        against=record.against or "",
    )
