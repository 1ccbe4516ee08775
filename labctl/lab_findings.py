"""The mistakes found in one lab.yaml, each once, each at its place."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from labctl.errors import Problem
from labctl.lab_yaml import Document, KeyPath, Mark, Plain
from labctl.units import quote


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that `name` was probably meant to be."""
    by_shape = {_shape(other): other for other in known}
    close = difflib.get_close_matches(_shape(name), by_shape, n=1, cutoff=0.6)
    return by_shape[close[0]] if close else None


def _shape(name: str) -> str:
    return name.lower().replace("-", "_")


def suggestion(name: str, known: Sequence[str], noun: str) -> str:
    """Return "did you mean X?", or the list of what is known."""
    near = nearest(name, known)
    if near is not None:
        return f"did you mean {near}?"
    return f"known {noun}: {', '.join(known)}" if known else f"there are no {noun}"


def dotted(path: KeyPath) -> str:
    """Return a key path as people write it: `experiments.smoke.kernels[1]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _parameters(workloads: Plain) -> dict[str, tuple[str, ...]]:
    """Return the parameter names of each workload, the faulty ones too."""
    result = {}
    for name, workload in workloads.items() if isinstance(workloads, dict) else ():
        parameters = workload.get("parameters") if isinstance(workload, dict) else None
        result[name] = tuple(parameters) if isinstance(parameters, dict) else ()
    return result


class Findings:
    """Collects problems; a path that has one is faulty, and what depends on it is not judged."""

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
        """All problems so far; the same unknown name used in many places is one of them."""
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
        """Record a mistake unless its path has one; it stands at the value, or at the key."""
        if path and path in self._faulty:
            return
        self._faulty.add(path)
        place = mark or (self.document.key_mark if at_key else self.document.mark)(path)
        self.note(path, what, hint, place)

    def note(self, path: KeyPath, what: str, hint: str | None, mark: Mark) -> None:
        """Record a mistake that leaves the value at its path fit for use."""
        problem = Problem(self.file, mark.line, mark.column, dotted(path), what, hint)
        self._problems.setdefault((mark, what), problem)

    def silence(self, path: KeyPath) -> None:
        """Take a path for faulty: its mistake has been reported under another name."""
        self._faulty.add(path)

    def unknown(
        self, noun: str, name: str, path: KeyPath, known: Sequence[str], *, at_key: bool = False
    ) -> None:
        """Record the use of a name that is not defined."""
        if path not in self._faulty:
            self._faulty.add(path)
            mark = (self.document.key_mark if at_key else self.document.mark)(path)
            self._unknown.setdefault((noun, name), []).append((mark, path, known))

    def sound(self, *path: str | int) -> bool:
        """Say whether nothing is wrong at a path, below it, or with its whole section."""
        return path[:1] not in self._faulty and not any(
            fault[: len(path)] == path for fault in self._faulty
        )

    def sound_section(self, section: str) -> bool:
        """Say whether a top-level section is there to be looked into."""
        return (section,) not in self._faulty

    def names(self, section: str) -> tuple[str, ...]:
        """Return the names a section defines, the faulty ones too."""
        if section == "guests" and section not in self._names:
            return ("numa4",)
        return self._names.get(section, ())

    def settings_known(self, workload: str) -> bool:
        """Say whether all tunables and all parameter names of a workload are known."""
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
