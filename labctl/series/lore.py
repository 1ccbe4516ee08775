"""Fetch a series from lore.kernel.org by b4, once."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from urllib.parse import quote

from labctl import files, proc
from labctl.completed import tail
from labctl.errors import CommandError, HostError, UserError

_SECONDS = 300.0
_UNSAFE = re.compile(r"[^A-Za-z0-9.@_+-]")


def fetch(message_id: str, folder: Path) -> Path:
    """Return an mbox of the newest version in a message's thread; `b4 am` writes it.

    It is kept in `folder`, so that a lab means the same series next time.

    Raises:
        HostError: b4 is not installed, or there is no network.
        UserError: b4 finds no patches.
    """
    path = folder / f"{_UNSAFE.sub('_', message_id)}.mbox"
    if path.is_file():
        return path
    where = f"lore:{message_id}"
    thread = f"https://lore.kernel.org/all/{quote(message_id, safe='@')}/t.mbox.gz"
    by_hand = f"save {thread} and use `series: mbox:FILE`"
    if shutil.which("b4") is None:
        raise HostError("b4 is not installed", where=where, hint=f"`pip install b4`; or {by_hand}")
    folder.mkdir(parents=True, exist_ok=True)
    argv = ["b4", "am", "-o", "-", "--", message_id]
    try:
        # In a folder without a repository, whose .b4-config would count.
        done = proc.run(argv, cwd=folder, timeout_seconds=_SECONDS, check=False)
    except CommandError as error:
        what = f"b4 did not answer within {_SECONDS:g} s"
        raise HostError(what, where=where, hint=by_hand) from error
    reason = tail(done.stderr) or "b4 says nothing"
    if done.status != 0:
        raise HostError(f"b4 cannot fetch the series: {reason}", where=where, hint=by_hand)
    if b"\n+++ " not in done.stdout:
        hint = "the message must be in the thread of a patch series"
        raise UserError(f"b4 finds no patches: {reason}", where=where, hint=hint)
    files.replace(path, done.stdout)
    return path
