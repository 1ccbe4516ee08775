"""Somebody's git work tree: only ever looked at, not even its index is written."""

from __future__ import annotations

import os
from pathlib import Path

from labctl import proc

_GIT_SECONDS = 300.0


def look(folder: Path, *words: str) -> bytes:
    """Return what a git command says in a folder, whoever owns it.

    `diff` and `describe --dirty` are not for this: both write the index, whatever
    they are told of locks. `changed` asks `status`, which does not.

    Raises:
        CommandError: git failed, or there is no commit or work tree.
        HostError: git is not installed, or took longer than 300 seconds.
    """
    options = ["--no-optional-locks", "-c", f"safe.directory={folder}", "-C", str(folder)]
    return proc.run(["git", *options, *words], timeout_seconds=_GIT_SECONDS).stdout


def changed(folder: Path, *, unknown: bool) -> list[str]:
    """Return the files that differ from the commit; `unknown`: also those git does not know.

    Names are relative to the work tree's top. A file that is staged and then put
    back counts as changed. Errors are those of `look`.
    """
    asked = ["--no-renames", f"--untracked-files={'all' if unknown else 'no'}"]
    lines = look(folder, "status", "--porcelain", "-z", *asked).split(b"\0")[:-1]
    return sorted(os.fsdecode(line[3:]) for line in lines)
