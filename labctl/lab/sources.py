"""Check the `source:` of kernels against the disk, and make its path absolute."""

from __future__ import annotations

import re
from pathlib import Path

from labctl.lab import source_kinds
from labctl.lab.document import KeyPath
from labctl.lab.paths import absolute, is_file, is_folder, relative_hint
from labctl.lab.problems import Findings, suggestion
from labctl.units import quote

_HEAD = "HEAD"


def check_source(source: str, path: KeyPath, found: Findings, root: Path) -> None:
    """Record the error of a source; revisions are checked when they are read."""
    kind, colon, place = source.partition(":")
    if not colon or kind not in source_kinds.KINDS:
        near = suggestion(kind, list(source_kinds.KINDS), "kinds") if colon else ""
        hint = f"{near} " if near.startswith("did") else ""
        hint += f"known sources: {source_kinds.forms()}"
        found.add(path, f"{quote(source)} is not a source", hint)
    elif kind == "debian":
        if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", place):
            what = f"{quote(place)} is not a package name"
            found.add(path, what, "example: debian:linux-source-6.1")
    elif not place:
        found.add(path, "path is missing", f"expected {source_kinds.KINDS[kind].form}")
    elif kind == "git":
        _check_git(place, path, found, root)
    elif kind == "dir" and not is_folder(absolute(root, place)):
        found.add(path, f"folder {quote(place)} does not exist", relative_hint(root))
    elif kind == "tar" and is_folder(absolute(root, place)):
        found.add(path, f"expected a file, got the folder {quote(place)}", f"use dir:{place}")
    elif kind in ("tar", "image") and not is_file(absolute(root, place)):
        found.add(path, f"file {quote(place)} does not exist", relative_hint(root))


def _check_git(place: str, path: KeyPath, found: Findings, root: Path) -> None:
    folder, revision = split_revision(place, root)
    form = source_kinds.KINDS["git"].form
    if not folder:
        found.add(path, "path is missing", f"expected {form}")
    elif not is_folder(absolute(root, folder)):
        found.add(path, f"folder {quote(folder)} does not exist", relative_hint(root))
    elif not revision:
        hint = f"expected {form}; git:{folder} is its HEAD"
        found.add(path, "revision is missing", hint)


def split_revision(place: str, root: Path) -> tuple[str, str]:
    """Return the path and the revision of PATH@REVISION or PATH, whose revision is HEAD.

    Both may contain @: the longest path that is a folder counts.
    """
    signs = [at for at, sign in enumerate(place) if sign == "@"]
    for end in (len(place), *reversed(signs)):
        if end and is_folder(absolute(root, place[:end])):
            return place[:end], place[end + 1 :] if end < len(place) else _HEAD
    cut = next((at for at in reversed(signs) if not place.startswith("@{", at)), len(place))
    return place[:cut], place[cut + 1 :]


def resolve_source(source: str, root: Path) -> str:
    """Return a valid source with its path made absolute, and the revision of git."""
    kind, _, place = source.partition(":")
    if kind == "debian" or not kind:
        return source
    if kind != "git":
        return f"{kind}:{absolute(root, place)}"
    folder, revision = split_revision(place, root)
    path = absolute(root, folder)
    plain = f"{path}@{revision}"
    # With a slash, a folder named PATH@REVISION is not taken for it.
    is_same = split_revision(plain, root) == (str(path), revision)
    return f"git:{plain}" if is_same else f"git:{path}/@{revision}"
