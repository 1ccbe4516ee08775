"""Folders in memory, of programs that a signal may end at any time."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

# Programs of the ended process may write there for a while.
_REMOVE = """\
trap "" INT TERM HUP
cat > /dev/null
for try in $(seq 600); do
    rm -rf "$0" 2> /dev/null
    sleep 1
    [ -e "$0" ] || exit 0
done
"""
_keepers: list[subprocess.Popen[bytes]] = []  # their pipes are open until this process ends


def folder(prefix: str) -> Path:
    """Return a new folder, in memory if possible; another process removes it after this one.

    A handler of this process would not run when it is killed.
    """
    memory = "/dev/shm"
    place = Path(
        tempfile.mkdtemp(prefix=prefix, dir=memory if os.access(memory, os.W_OK) else None)
    )
    remove = ["/bin/sh", "-c", _REMOVE, place]
    # In a group of its own: a terminal and a timeout signal all processes of theirs.
    _keepers.append(subprocess.Popen(remove, stdin=subprocess.PIPE, process_group=0))
    return place
