"""Check the kernels of lab.yaml against the disk: sources, series, kconfig fragments, bases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from labctl.arch import ARCHITECTURES
from labctl.errors import LabError
from labctl.host.shipped import BASE_CONFIG, GUEST_CONFIG, shipped
from labctl.lab import config, make_variables
from labctl.lab.document import KeyPath
from labctl.lab.entries import KernelEntry, LabFile
from labctl.lab.models import Kernel
from labctl.lab.paths import absolute, exists, is_file, relative_hint
from labctl.lab.problems import Findings
from labctl.lab.source_kinds import forms
from labctl.lab.sources import check_source, resolve_source, split_revision
from labctl.series import place, reader
from labctl.series.place import InvalidPlace, Place
from labctl.units import quote


def check_kernels(file: LabFile, found: Findings, root: Path) -> None:
    """Record the errors of each kernel; an invalid base is reported once, at the base."""
    reported: set[str] = set()
    for name, entry in file.kernels.items():
        path: KeyPath = ("kernels", name)
        _origin(entry, path, found)
        if entry.source is not None and found.sound(*path, "source"):
            check_source(entry.source, (*path, "source"), found, root)
        if entry.base is not None and found.sound(*path, "base"):
            _base(file, name, found, reported)
        if entry.series is not None and found.sound(*path, "series"):
            _series(file, name, found, root)
        check_fragments(entry.kconfig, (*path, "kconfig"), found, root)
        _built(file, name, found)
        if entry.config is not None and found.sound(*path, "config"):
            _config(entry.config, (*path, "config"), found, root)
        if found.sound(*path):
            make_variables.check(lineage(file, name) or [entry], path, found)


def check_fragments(fragments: Sequence[str], path: KeyPath, found: Findings, root: Path) -> None:
    """Record the kconfig fragments that do not exist."""
    for index, fragment in enumerate(fragments):
        if not is_file(absolute(root, fragment)):
            what = f"file {quote(fragment)} does not exist"
            found.add((*path, index), what, relative_hint(root))


def lineage(file: LabFile, name: str) -> list[KernelEntry] | None:
    """Return a kernel's entries from its first base to itself, None if a base is invalid."""
    entries: list[KernelEntry] = []
    seen: set[str] = set()
    current: str | None = name
    while current is not None:
        if current in seen or current not in file.kernels:
            return None
        seen.add(current)
        entries.append(file.kernels[current])
        current = entries[-1].base
    return entries[::-1]


def resolve(file: LabFile, name: str, root: Path) -> Kernel:
    """Return a valid kernel with the values of its bases filled in."""
    entries = lineage(file, name) or [file.kernels[name]]
    source = next((e.source for e in entries if e.source), "")
    stack = [str(series_place(e.series, source, root)) for e in entries if e.series]
    lines = [e.command_line for e in entries if e.command_line is not None]
    fragments = [absolute(root, text) for entry in entries for text in entry.kconfig]
    start = next((e.config for e in reversed(entries) if e.config), None)
    if start is not None:
        fragments = [shipped(GUEST_CONFIG), *fragments]
    elif not fragments and not source.startswith("image:"):  # without fragments no kernel boots
        fragments = [shipped(BASE_CONFIG)]
    arch = entries[0].arch or file.defaults.arch
    return Kernel(
        name=name,
        source=resolve_source(source, root),
        base=file.kernels[name].base,
        series=stack[-1] if stack else None,
        below=tuple(stack[:-1]),
        kconfig=tuple(fragments),
        config=str(absolute(root, start)) if start and config.is_path(start) else start,
        make=make_variables.resolved(entries, ARCHITECTURES[arch]),
        command_line=lines[-1] if lines else "",
        arch=arch,
    )


def series_place(text: str, source: str, root: Path) -> Place:
    """Return where a series is, with an absolute path; `source` is that of its kernel.

    Raises:
        InvalidPlace: the text is malformed, or the source is not a repository.
    """
    found = place.parse(text)
    if found.kind == "lore":
        return found
    path = found.path
    if found.kind == "git" and not path:
        kind, _, path = source.partition(":")
        if kind not in {"dir", "git"}:
            what = f"range of commits of {source}, which is not a git repository"
            raise InvalidPlace(what, f"expected git:PATH@{found.base}..{found.topic}")
        path = path if kind == "dir" else split_revision(path, root)[0]
    return replace(found, path=str(absolute(root, path)))


def _origin(entry: KernelEntry, path: KeyPath, found: Findings) -> None:
    both = (*path, "source"), (*path, "base")
    if not all(found.sound(*one) for one in both):
        return
    if entry.source is None and entry.base is None:
        what = "expected `source:` or `base:`, got neither"
        hint = "example: `source: debian:linux-source-6.1`, or `base:` with a kernel's name"
        found.note(path, what, hint, found.document.key_mark(path))
        found.silence((*path, "source"))
    elif entry.source is not None and entry.base is not None:
        hint = "a kernel has the source of its base: remove one of the two"
        found.add(both[1], "conflicts with `source:`", hint, at_key=True)


def _base(file: LabFile, name: str, found: Findings, reported: set[str]) -> None:
    path: KeyPath = ("kernels", name, "base")
    names = found.names("kernels")
    base = str(file.kernels[name].base)
    if base not in names:
        found.unknown("kernel", base, path, [other for other in names if other != name])
        return
    circle = [name]
    while True:
        entry = file.kernels.get(circle[-1])
        if entry is None or entry.base is None or entry.base in circle[1:]:
            return  # no cycle, or one without this kernel
        circle.append(entry.base)
        if entry.base == name:
            break
    if not reported.intersection(circle):
        reported.update(circle)
        what = f"cycle of bases: {' -> '.join(circle)}"
        found.add(path, what, "replace `base:` by `source:` in one of these kernels")


def _built(file: LabFile, name: str, found: Findings) -> None:
    """Record keys that a kernel with a built image cannot have."""
    entries = lineage(file, name)
    if not entries or not str(entries[0].source).startswith("image:"):
        return
    for key in ("config", "make", "compiler", "localversion"):
        if getattr(entries[-1], key):
            hint = f"use a source to build from, or remove `{key}:`"
            place = ("kernels", name, key)
            found.add(place, "a built image cannot be configured", hint, at_key=True)
            found.silence(place)


def _config(start: str, path: KeyPath, found: Findings, root: Path) -> None:
    if config.is_path(start) and not is_file(absolute(root, start)):
        known = f"or use {config.RUNNING} or a target of make: {config.TARGETS}"
        what = f"file {quote(start, 60)} does not exist"
        found.add(path, what, f"{relative_hint(root)}; {known}")


def _series(file: LabFile, name: str, found: Findings, root: Path) -> None:
    path: KeyPath = ("kernels", name, "series")
    entries = lineage(file, name)
    if entries and str(entries[0].source).startswith("image:"):
        hint = f"use a source {forms(built=True)}, or remove `series:`"
        found.add(path, "patches cannot be applied to a built image", hint, at_key=True)
        return
    text = str(file.kernels[name].series)
    source = str(entries[0].source) if entries else ""
    try:
        where = series_place(text, source, root)
        if where.kind == "folder" and not exists(Path(where.path)):
            found.add(path, f"folder {quote(text, 60)} does not exist", relative_hint(root))
            return
        reader.check(where)
    except InvalidPlace as error:
        found.add(path, error.what, error.hint)
    except LabError as error:
        at = "" if error.where is None else f"{error.where}: "
        found.add(path, f"{at}{error.what}", error.hint)
