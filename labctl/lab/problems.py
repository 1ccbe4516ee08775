"""The errors in one lab.yaml, each reported once, with its position."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from labctl.errors import Problem
from labctl.lab.document import Document, KeyPath, Mark, Plain
from labctl.units import quote


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name closest to `name`, None if none is close."""
    by_shape = {_shape(other): other for other in known}
    close = difflib.get_close_matches(_shape(name), by_shape, n=1, cutoff=0.6)
    return by_shape[close[0]] if close else None


def _shape(name: str) -> str:
    return name.lower().replace("-", "_")


def suggestion(name: str, known: Sequence[str], noun: str) -> str:
    """Return "did you mean X?", or the list of known names."""
    near = nearest(name, known)
    if near is not None:
        return f"did you mean {near}?"
    return f"known {noun}: {', '.join(known)}" if known else f"there are no {noun}"


def dotted(path: KeyPath) -> str:
    """Return a key path as text: `experiments.smoke.kernels[1]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _parameters(workloads: Plain) -> dict[str, tuple[str, ...]]:
    """Return the parameter names of each workload, including invalid parameters."""
    result = {}
    for name, workload in workloads.items() if isinstance(workloads, dict) else ():
        parameters = workload.get("parameters") if isinstance(workload, dict) else None
        result[name] = tuple(parameters) if isinstance(parameters, dict) else ()
    return result


class Findings:
    """Collects errors; values that depend on a path with an error are not checked."""

    def __init__(self, file: str, document: Document) -> None:
        self.file = file
        self.document = document
        self._problems: dict[tuple[Mark, str], Problem] = {}
        self._faulty: set[KeyPath] = set()
        self._unknown: dict[tuple[str, str], list[tuple[Mark, KeyPath, Sequence[str]]]] = {}
        plain = document.plain if isinstance(document.plain, dict) else {}
        self._names = {key: tuple(part) for key, part in plain.items() if isinstance(part, dict)}
        self.parameters = _parameters(plain.get("workloads"))

    @property
    def problems(self) -> list[Problem]:
        """All errors so far; an unknown name is one error, however often it is used."""
        grouped = [self._no_such(*key, uses) for key, uses in self._unknown.items()]
        return [*self._problems.values(), *grouped]

    def add(
        self,
        path: KeyPath,
        what: str,
        hint: str | None = None,
        *,
        at_key: bool = False,
        mark: Mark | None = None,
    ) -> None:
        """Record an error at the value, or at the key, unless the path already has one."""
        if path and path in self._faulty:
            return
        self._faulty.add(path)
        place = mark or (self.document.key_mark if at_key else self.document.mark)(path)
        self.note(path, what, hint, place)

    def note(self, path: KeyPath, what: str, hint: str | None, mark: Mark) -> None:
        """Record an error that does not make the value at its path invalid."""
        problem = Problem(self.file, mark.line, mark.column, dotted(path), what, hint)
        self._problems.setdefault((mark, what), problem)

    def silence(self, path: KeyPath) -> None:
        """Mark a path as invalid: its error has been reported at another path."""
        self._faulty.add(path)

    def unknown(
        self, noun: str, name: str, path: KeyPath, known: Sequence[str], *, at_key: bool = False
    ) -> None:
        """Record the use of an undefined name."""
        if path not in self._faulty:
            self._faulty.add(path)
            mark = (self.document.key_mark if at_key else self.document.mark)(path)
            self._unknown.setdefault((noun, name), []).append((mark, path, known))

    def sound(self, *path: str | int) -> bool:
        """Return whether a path, all below it, and its section are free of errors."""
        return path[:1] not in self._faulty and not any(
            fault[: len(path)] == path for fault in self._faulty
        )

    def sound_section(self, section: str) -> bool:
        """Return whether a top-level section can be checked."""
        return (section,) not in self._faulty

    def names(self, section: str) -> tuple[str, ...]:
        """Return the names that a section defines, including invalid entries."""
        if section == "guests" and section not in self._names:
            return ("numa4",)
        return self._names.get(section, ())

    def settings_known(self, workload: str) -> bool:
        """Return whether all tunables and all parameters of a workload are known."""
        path: KeyPath = ("workloads", workload)
        parts = ("tunables",), ("workloads",), path, (*path, "parameters")
        return self._faulty.isdisjoint(parts)

    def _no_such(
        self, noun: str, name: str, uses: list[tuple[Mark, KeyPath, Sequence[str]]]
    ) -> Problem:
        mark, path, known = min(uses, key=lambda use: use[0])
        lines = sorted({place.line for place, _, _ in uses} - {mark.line})
        also = f" (also in line {', '.join(map(str, lines))})" if lines else ""
        what = f"there is no {noun} {quote(name)}{also}"
        hint = suggestion(name, known, "names" if " " in noun else f"{noun}s")
        return Problem(self.file, mark.line, mark.column, dotted(path), what, hint)
