"""Files for guests whose root is the host's: shared beside the lab's programs, copied at boot."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from labctl import files as disk
from labctl.errors import UserError
from labctl.lab.state import StateFolder

_SCRIPT = "files-start"  # run by guest/init with the programs folder as its argument
_FOLDER = "files"


def beside_programs(state: Path, files: Mapping[str, Path | str]) -> dict[str, Path]:
    """Return the files for the programs folder, by path in it, with the script that copies them.

    `files` are by their absolute path in the guest.

    Raises:
        UserError: a file is a symbolic link.
    """
    if not files:
        return {}
    shared: dict[str, Path] = {}
    lines = ["set -e", f'cd "$1/{_FOLDER}"']
    folders = dict.fromkeys(str(PurePosixPath(path).parent) for path in files)
    lines += [f"mkdir -p {shlex.quote(folder)}" for folder in folders]
    for path, source in files.items():
        if isinstance(source, str):
            raise UserError(f"{path} is a symbolic link", hint="use a regular file")
        shared[f"{_FOLDER}{path}"] = source
        lines.append(f"cp -p {shlex.quote(f'.{path}')} {shlex.quote(path)}")
    script = "\n".join(["#!/bin/sh", *lines, ""]).encode()
    return {_SCRIPT: generated(state, _SCRIPT, script), **shared}


def generated(state: Path, name: str, script: bytes, mode: int = 0o644) -> Path:
    """Return a file in the state folder with the text of a generated script."""
    place = disk.store(StateFolder(state).initramfs, name, script)
    place.chmod(mode)
    return place
