"""The folders of runs: `<runs>/<id>/` holds run.json, samples.jsonl and the guests' logs."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from labctl import files
from labctl.errors import HostError, UserError
from labctl.files import sync_folder
from labctl.runs.record import RunRecord
from labctl.runs.store import Store

_SHOWN = 10
_MOST_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One run on disk."""

    path: Path

    @property
    def id(self) -> str:
        """The name of the run and of its folder."""
        return self.path.name

    @property
    def store(self) -> Store:
        """The run's samples."""
        return Store(self.path)

    def read(self) -> RunRecord:
        """Return the run's record; raises UserError when run.json is missing or damaged."""
        return self._read()[1]

    def document(self) -> dict[str, Any]:
        """Return run.json with all its keys, to write it again; raises as `read` does."""
        return self._read()[0]

    def _read(self) -> tuple[dict[str, Any], RunRecord]:
        where = str(self.path / "run.json")
        try:
            data = json.loads(files.read_limited(self.path / "run.json", _MOST_BYTES))
        except FileNotFoundError:
            raise UserError("run.json not found: the run never started", where=where) from None
        except OSError as error:
            raise HostError(f"cannot read file: {error.strerror}", where=where) from error
        except (ValueError, RecursionError) as error:
            raise UserError(f"not JSON: {error}", where=where) from error
        if not isinstance(data, dict) or data.get("schema") != 1:
            raise UserError("not a run.json of schema 1", where=where)
        try:
            return data, RunRecord.of(data)
        except ValueError as error:
            hint = "restore run.json from a copy, or remove the run's folder"
            fault = f"not a run.json of schema 1: {error}"
            raise UserError(fault, where=where, hint=hint) from error

    def first_guests(self) -> dict[str, str]:
        """Return the command line of each guest of the first block, by its folder's name."""
        found = sorted(self.path.glob("guests/*-000-*/command.txt"))
        return {file.parent.name: file.read_text().strip() for file in found}

    def write(self, data: dict[str, Any]) -> None:
        """Replace run.json as a whole: a reader or a crash sees the old or the new one.

        Raises HostError when the disk is full or fails, ValueError for NaN.
        """
        text = json.dumps(data, indent=1, sort_keys=True, allow_nan=False) + "\n"
        try:
            files.replace(self.path / "run.json", text)
        except OSError as error:
            raise HostError(
                f"cannot write run.json: {error.strerror or error}", where=str(self.path)
            ) from error


def timestamp(now: datetime | None = None) -> str:
    """Return the time as text: UTC, ISO 8601, to the second."""
    return (now or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds")


def create(runs: Path, *, now: datetime | None = None, place: Path | None = None) -> RunFolder:
    """Make the folder of a new run in `runs`, named by UTC time and four random hex digits.

    A pass of a run has `place` as its folder. Raises HostError when it cannot be made.
    """
    stamp = (now or datetime.now(UTC)).astimezone(UTC).strftime("%Y%m%d-%H%M%S")
    try:
        if place is not None:
            place.mkdir()
            sync_folder(place.parent)
            return RunFolder(place)
        files.make_folder(runs)
        while True:
            path = runs / f"{stamp}-{secrets.token_hex(2)}"
            try:
                path.mkdir()
            except FileExistsError:
                continue
            sync_folder(runs)
            return RunFolder(path)
    except OSError as error:
        raise HostError(
            f"cannot create the run folder: {error.strerror or error}", where=str(runs)
        ) from error


def list_runs(runs: Path) -> list[RunFolder]:
    """Return all runs that began (have a run.json), the newest first."""
    if not runs.is_dir():
        return []
    began = (path.parent for path in runs.glob("*/run.json"))
    return [RunFolder(path) for path in sorted(began, key=lambda p: p.name, reverse=True)]


def resolve(runs: Path, name: str) -> RunFolder:
    """Return the run called `name`: an id, a prefix that only one run has, or "latest".

    A pass of a run follows after a slash: `latest/functions`.

    Raises UserError naming the candidates when none or several fit.
    """
    name, slash, inner = name.partition("/")
    if slash:
        return _pass_of(resolve(runs, name), inner)
    known = list_runs(runs)
    if not known:
        raise UserError("no runs found", where=str(runs), hint="start one with `labctl run`")
    if name == "latest":
        return known[0]
    fitting = [run for run in known if run.id == name] or [
        run for run in known if name and run.id.startswith(name)
    ]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UserError(f"{name!r} is ambiguous: it matches {_names(fitting)}", where=str(runs))
    raise UserError(
        f"run {name!r} not found", where=str(runs), hint=f"existing runs: {_names(known)}"
    )


def passes(run: RunFolder) -> list[RunFolder]:
    """Return the passes of a run with observers that slow the kernel."""
    return [RunFolder(path.parent) for path in sorted(run.path.glob("*/run.json"))]


def _pass_of(run: RunFolder, name: str) -> RunFolder:
    found = {each.id: each for each in passes(run)}
    if name in found:
        return found[name]
    hint = f"existing passes: {', '.join(found)}" if found else "`labctl run --why` measures one"
    raise UserError(f"run {run.id} has no pass {name!r}", where=str(run.path), hint=hint)


def _names(found: list[RunFolder]) -> str:
    names = ", ".join(run.id for run in found[:_SHOWN])
    return names if len(found) <= _SHOWN else f"{names} and {len(found) - _SHOWN} more"
