"""Console logs of a run's guests for its page: links to all, the ends of those of failures."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from labctl import files
from labctl.printable import layout
from labctl.runs.folder import RunFolder
from labctl.runs.sample import Sample
from labctl.stats.failures import failures_of
from labctl.status import SampleStatus

_MOST_EXCERPTS = 20
_MOST_LINES = 60
_MOST_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Consoles:
    """Links and ends of console logs, by the path that a sample has of its log."""

    links: Mapping[str, str] = field(default_factory=dict)
    excerpts: Mapping[str, str] = field(default_factory=dict)


def of_run(run: RunFolder, samples: Sequence[Sample], link: Callable[[str], str]) -> Consoles:
    """Return the consoles of a run; `link` gives the address of a path in its folder.

    A path without an address has no link. Paths that lead out of the run's folder, and
    logs that are gone, are left out.
    """
    links = {p: address for p in _paths(samples) if _file(run, p) and (address := link(p))}
    excerpts: dict[str, str] = {}
    for path in of_failures(samples):
        file = _file(run, path)
        if file and len(excerpts) < _MOST_EXCERPTS:
            excerpts[path] = _end(file)
    return Consoles(links, excerpts)


def of_failures(samples: Sequence[Sample]) -> list[str]:
    """Return the path of one console log for each kind of failure of each experiment."""
    of_experiment: dict[str, list[Sample]] = {sample.experiment: [] for sample in samples}
    for sample in samples:
        if sample.status != SampleStatus.OK:
            of_experiment[sample.experiment].append(sample)
    found = [one.console for own in of_experiment.values() for one in failures_of(own)]
    return list(dict.fromkeys(filter(None, found)))


def _paths(samples: Iterable[Sample]) -> list[str]:
    return list(dict.fromkeys(sample.console for sample in samples if sample.console))


def _file(run: RunFolder, path: str) -> Path | None:
    """Return the file of a console log if it is in the folder of the run."""
    try:
        file = (run.path / path).resolve()
        inside = file.is_relative_to(run.path.resolve()) and file.is_file()
    except (OSError, RuntimeError, ValueError):  # a loop of links, a NUL
        return None
    return file if inside else None


def _end(path: Path) -> str:
    """Return the last lines of a log, printable; an empty text if it cannot be read."""
    try:
        with files.reading(path) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _MOST_BYTES))
            text = file.read(_MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
    return layout("\n".join(text.replace("\r", "").splitlines()[-_MOST_LINES:]))
