"""Kernels of lab.yaml against the disk: sources, series, kconfig fragments, bases."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from labctl import lab_series
from labctl.lab_entries import KernelEntry, LabFile
from labctl.lab_findings import Findings, suggestion
from labctl.lab_models import Kernel
from labctl.lab_series import SeriesFault
from labctl.lab_shipped import BASE_CONFIG, shipped
from labctl.lab_yaml import KeyPath
from labctl.units import quote

SOURCE_KINDS = {"debian": "debian:NAME", "dir": "dir:PATH", "image": "image:PATH"}
_SERIES_FILE = "series"


def check_kernels(file: LabFile, found: Findings, root: Path) -> None:
    """Record what is wrong with each kernel; a faulty base is reported once, where it stands."""
    reported: set[str] = set()
    for name, entry in file.kernels.items():
        path: KeyPath = ("kernels", name)
        _origin(entry, path, found)
        if entry.source is not None and found.sound(*path, "source"):
            _source(entry.source, (*path, "source"), found, root)
        if entry.base is not None and found.sound(*path, "base"):
            _base(file, name, found, reported)
        if entry.series is not None and found.sound(*path, "series"):
            _series(file, name, found, root)
        check_fragments(entry.kconfig, (*path, "kconfig"), found, root)


def check_fragments(fragments: Sequence[str], path: KeyPath, found: Findings, root: Path) -> None:
    """Record the kconfig fragments that are not there."""
    for index, fragment in enumerate(fragments):
        if not _is_file(absolute(root, fragment)):
            what = f"the file {quote(fragment)} does not exist"
            found.add((*path, index), what, _relative_hint(root))


def lineage(file: LabFile, name: str) -> list[KernelEntry] | None:
    """Return a kernel's entries from its first base to itself, None if a base is faulty."""
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
    """Return a sound kernel with everything of its bases filled in."""
    entries = lineage(file, name) or [file.kernels[name]]
    source = next((e.source for e in entries if e.source), "")
    kind, _, place = source.partition(":")
    series = next((e.series for e in reversed(entries) if e.series), None)
    lines = [e.command_line for e in entries if e.command_line is not None]
    fragments = [absolute(root, text) for entry in entries for text in entry.kconfig]
    if not fragments and kind != "image":  # without any, no kernel boots here
        fragments = [shipped(BASE_CONFIG)]
    return Kernel(
        name=name,
        source=source if kind == "debian" else f"{kind}:{absolute(root, place)}",
        base=file.kernels[name].base,
        series=None if series is None else absolute(root, series),
        kconfig=tuple(fragments),
        command_line=lines[-1] if lines else "",
        arch=entries[0].arch or file.defaults.arch,
    )


def absolute(root: Path, text: str) -> Path:
    """Return a path of the file as an absolute one; `~` is the user's home."""
    try:
        path = Path(text).expanduser()
    except RuntimeError:  # a user that does not exist
        path = Path(text)
    return Path(*(root / path).parts)


def _relative_hint(root: Path) -> str:
    return f"paths start from the folder of the lab file, {root}"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _origin(entry: KernelEntry, path: KeyPath, found: Findings) -> None:
    both = (*path, "source"), (*path, "base")
    if not all(found.sound(*one) for one in both):
        return
    if entry.source is None and entry.base is None:
        hint = "give it `source: debian:linux-source-6.1`, or `base:` and another kernel's name"
        found.note(path, "has neither `source:` nor `base:`", hint, found.document.key_mark(path))
        found.silence((*path, "source"))
    elif entry.source is not None and entry.base is not None:
        hint = "a base brings its source along: remove one of the two"
        found.add(both[1], "stands beside `source:`", hint, at_key=True)


def _source(source: str, path: KeyPath, found: Findings, root: Path) -> None:
    kind, colon, place = source.partition(":")
    kinds = list(SOURCE_KINDS)
    forms = ", ".join(SOURCE_KINDS.values())
    if not colon or kind not in SOURCE_KINDS:
        near = suggestion(kind, kinds, "kinds") if colon else ""
        hint = f"{near} " if near.startswith("did") else ""
        found.add(path, f"{quote(source)} is not a source", f"{hint}known sources: {forms}")
    elif kind == "debian":
        if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", place):
            what = f"{quote(place)} is not a package's name"
            found.add(path, what, "write it like debian:linux-source-6.1")
    elif not place:
        found.add(path, "names no path", f"write it like {SOURCE_KINDS[kind]}")
    elif kind == "dir" and not _is_folder(absolute(root, place)):
        found.add(path, f"the folder {quote(place)} does not exist", _relative_hint(root))
    elif kind == "image" and not _is_file(absolute(root, place)):
        found.add(path, f"the file {quote(place)} does not exist", _relative_hint(root))


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
            return  # it ends, or runs into a circle of others
        circle.append(entry.base)
        if entry.base == name:
            break
    if not reported.intersection(circle):
        reported.update(circle)
        what = f"the bases go round in a circle: {' -> '.join(circle)}"
        found.add(path, what, "one kernel of them needs a `source:` in place of its `base:`")


def _series(file: LabFile, name: str, found: Findings, root: Path) -> None:
    path: KeyPath = ("kernels", name, "series")
    entries = lineage(file, name)
    for entry in (entries or [])[:-1]:
        if entry.series is not None:
            hint = "put the patches of both in one series"
            found.add(path, "stands on a base that has a series itself", hint, at_key=True)
            return
    if entries and str(entries[0].source).startswith("image:"):
        hint = "build it from debian:NAME or dir:PATH, or remove `series:`"
        found.add(path, "an image is built already and takes no patches", hint, at_key=True)
        return
    folder = absolute(root, str(file.kernels[name].series))
    if not _is_folder(folder):
        what = f"the folder {quote(str(file.kernels[name].series), 60)} does not exist"
        found.add(path, what, _relative_hint(root))
        return
    what_hint = _series_fault(folder)
    if what_hint is not None:
        found.add(path, *what_hint)


def _series_fault(folder: Path) -> tuple[str, str] | None:
    listing = folder / _SERIES_FILE
    if not _is_file(listing):
        hint = "it lists the patches in their order, one file name a line"
        return f"there is no file `{_SERIES_FILE}` in the folder", hint
    try:
        patches = [entry.name for entry in lab_series.entries(listing.read_bytes())]
    except OSError as error:
        return f"its file `{_SERIES_FILE}` cannot be read: {error.strerror}", "check its mode"
    except SeriesFault as fault:
        return f"{listing}:{fault.line}: {fault.what}", fault.hint
    if not patches:
        return f"its file `{_SERIES_FILE}` names no patch", "one file name a line"
    missing = [name for name in patches if not _is_file(folder / name)]
    if missing:
        names = ", ".join(quote(name, 80) for name in missing[:5])
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        verb = "is" if len(missing) == 1 else "are"
        what = f"its file `{_SERIES_FILE}` names {names}{more}, which {verb} not there"
        return what, "add the patch, or take its line out"
    return None
