"""Programs at other paths than on the host: each starts with its own loader and libraries."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from labctl import proc
from labctl.workloads.closure import Closure, Python

_LIBRARIES = ".lib"
_REAL = ".program"
_PYTHON = ".python"
_SECONDS = 60.0


@dataclass(slots=True)
class Relocated:
    """`files` of the host and texts of `scripts`, by their paths elsewhere."""

    files: dict[str, Path] = field(default_factory=dict)
    scripts: dict[str, str] = field(default_factory=dict)


def program(inside: str, real: Path, needs: Closure, folder: str) -> Relocated:
    """Return a dynamic program of a workload's folder, with a script in its place."""
    place = f"{folder}/{_REAL}/{PurePosixPath(inside).relative_to(folder)}"
    found = Relocated({place: real, **_libraries(needs, folder)})
    found.scripts[inside] = _script({}, [*_loader(needs, folder), place])
    return found


def python_folder(folder: str) -> str:
    """Return the folder with the interpreters of a workload's Python scripts."""
    return f"{folder}/{_PYTHON}/bin"


def python(names: Mapping[str, None], needs: Closure, folder: str) -> Relocated:
    """Return Python with its library in a workload's folder, and scripts that start it by name."""
    assert needs.python is not None
    home = f"{folder}/{_PYTHON}"
    place = f"{home}/{needs.python.program.name}"
    found = Relocated({place: needs.python.program, **_libraries(needs, folder)})
    for path, source in needs.system.items():
        if isinstance(source, Path) and needs.python.owns(path):
            found.files[f"{home}/{needs.python.relative(path)}"] = source
    for name in names:
        own = f"{python_folder(folder)}/{name}"
        words = [*_loader(needs, folder, own), place]
        found.scripts[own] = _script({"PYTHONHOME": home}, words)
    return found


def _libraries(needs: Closure, folder: str) -> dict[str, Path]:
    python = needs.python
    own = {
        PurePosixPath(path).name: source
        for path, source in needs.system.items()
        if isinstance(source, Path) and not _is_of_python(path, source, python)
    }
    return {f"{folder}/{_LIBRARIES}/{name}": file for name, file in (own | needs.libraries).items()}


def _is_of_python(path: str, source: Path, python: Python | None) -> bool:
    return python is not None and (source == python.program or python.owns(path))


def _loader(needs: Closure, folder: str, name: str | None = None) -> list[str]:
    """Return what starts a program, which is called `name` if the loader can do that."""
    if needs.loader is None:
        return []
    libraries = f"{folder}/{_LIBRARIES}"
    words = [f"{libraries}/{PurePosixPath(needs.loader).name}", "--library-path", libraries]
    if name is not None:
        said = proc.run([needs.loader, "--help"], timeout_seconds=_SECONDS, check=False).text
        words += ["--argv0", name] if "--argv0" in said else []
    return words


def _script(variables: Mapping[str, str], words: list[str]) -> str:
    lines = [f"{name}={shlex.quote(value)}; export {name}" for name, value in variables.items()]
    return "\n".join(["#!/bin/sh", *lines, f'exec {shlex.join(words)} "$@"', ""])
