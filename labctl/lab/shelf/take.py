"""Replace `use:` of workloads by the entries of the shelf that it names. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from labctl.lab.document import Document, KeyPath, Text
from labctl.lab.metrics import WALL_TIME
from labctl.lab.problems import Findings, suggestion
from labctl.lab.shelf import SHELF, Entry
from labctl.units import quote

# The program of a workload: a shelf's entry has its own.
_PROGRAM = ("command", "script", "build", "make", "packages")
_MERGED = ("parameters", "metrics", "env", "files")
_STEPS = ("setup", "teardown")
_NOTHING: dict[str, Any] = {"script": "exit 1", "metric": WALL_TIME}


@dataclass(frozen=True, slots=True)
class Fault:
    """An error at a key; `silence` are paths that are not checked because of it."""

    path: KeyPath
    what: str
    hint: str
    at_key: bool = True
    silence: tuple[KeyPath, ...] = ()

    def add_to(self, found: Findings) -> None:
        """Record the error."""
        found.add(self.path, self.what, self.hint, at_key=self.at_key)
        for path in self.silence:
            found.silence(path)


def take(document: Document, programs: str) -> list[Fault]:
    """Merge entries of the shelf into the workloads that use them; return the errors.

    The keys of a workload override those of the entry. `programs` is the folder of the
    sources of labctl's own programs.
    """
    faults: list[Fault] = []
    workloads = document.plain.get("workloads") if isinstance(document.plain, dict) else None
    if not isinstance(workloads, dict):
        return faults
    for name, own in workloads.items():
        used = own.get("use") if isinstance(own, dict) else None
        if not isinstance(own, dict) or not isinstance(used, Text) or not used:
            continue
        path: KeyPath = ("workloads", name)
        entry = SHELF.get(used)
        if entry is None:
            what, hint = f"unknown ready workload {quote(used)}", _suggestion(used)
            silence = (path, (*path, "metric"))
            faults.append(Fault((*path, "use"), what, hint, at_key=False, silence=silence))
            workloads[name] = {**_NOTHING, "parameters": own.get("parameters")}
            continue
        faults += _conflicts(entry, own, path)
        workloads[name] = _merged(entry.plain(programs), own)
    return faults


def _suggestion(used: str) -> str:
    return f"{suggestion(used, tuple(SHELF), 'names')}; `labctl workloads` lists them"


def _conflicts(entry: Entry, own: dict[str, Any], path: KeyPath) -> Iterator[Fault]:
    for key in _PROGRAM:
        if key in own:
            hint = "remove one of the two: a ready workload brings its program"
            yield Fault((*path, key), "conflicts with `use:`", hint)
    for key in _STEPS:
        steps, of_entry = own.get(key), entry.workload.get(key, {})
        for step in steps if isinstance(steps, dict) else ():
            if step in of_entry:
                what = f"conflicts with that of {entry.name}"
                yield Fault((*path, key, step), what, "remove it: the ready workload needs its own")
    parameters = own.get("parameters")
    for name in parameters if isinstance(parameters, dict) else ():
        if name not in entry.parameters:
            what = f"{entry.name} has no parameter {quote(name)}"
            hint = suggestion(name, tuple(entry.parameters), "parameters")
            yield Fault((*path, "parameters", name), what, hint)


def _merged(entry: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    found = {**entry, **{key: value for key, value in own.items() if key not in _PROGRAM}}
    for key in (*_MERGED, *_STEPS):
        of_entry, mine = entry.get(key), own.get(key)
        if of_entry and (mine is None or mine == ""):
            found[key] = of_entry
        elif of_entry and isinstance(mine, dict):
            # Conflicting steps are errors; everything else of the workload wins.
            found[key] = {**of_entry, **mine}
    return found
