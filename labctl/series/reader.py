"""Read a series from any place that `series:` of lab.yaml can name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from labctl.errors import UserError
from labctl.series import place
from labctl.series.folder import check_folder, read_folder
from labctl.series.patch import Series
from labctl.series.place import InvalidPlace, Place


def read(text: str | Path, fetched: Path | None = None) -> Series:
    """Return the series at a place, written as `Kernel.series`, with an absolute path.

    `fetched` is the folder that keeps what b4 fetches.

    Raises:
        UserError: the place is invalid, cannot be read, or has no patches.
        HostError: b4 is not installed, or there is no network.
    """
    where = _parsed(str(text))
    path = Path(where.path)
    if where.kind == "git":
        from labctl.series.commits import read_range

        return read_range(path, where.base, where.topic)
    if where.kind == "folder" and not path.is_file():
        return read_folder(path)
    from labctl.series.thread import read_mbox

    if where.kind == "lore":
        from labctl.series.lore import fetch

        if fetched is None:
            raise UserError("no folder to keep what b4 fetches", where=str(text))
        found = read_mbox(fetch(where.id, fetched))
        return replace(found, place=str(where))
    return read_mbox(path)


def read_all(places: Iterable[str], fetched: Path | None = None) -> Series | None:
    """Return several series, each on the one before it, as the last; raise as `read` does."""
    found: Series | None = None
    for text in places:
        found = replace(read(text, fetched), below=found)
    return found


def check(where: Place) -> None:
    """Raise the errors of `read` that are known without building, or using the network."""
    path = Path(where.path)
    if where.kind == "git":
        from labctl.series.commits import find_range

        find_range(path, where.base, where.topic)
    elif where.kind == "mbox" or (where.kind == "folder" and path.is_file()):
        from labctl.series.thread import read_mbox

        read_mbox(path)
    elif where.kind == "folder":
        check_folder(path)


def _parsed(text: str) -> Place:
    try:
        return place.parse(text)
    except InvalidPlace as error:
        raise UserError(error.what, where=f"series {text}", hint=error.hint) from error
