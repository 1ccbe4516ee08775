"""The files of workloads as one archive for a target."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

_LEVEL = 1  # the network is faster than a better compression
# The files belong to root; links are followed when they are packed.
UNPACK = 'tar -xzf "$1" -C / && rm "$1"'


def write(to: IO[bytes], files: Mapping[str, Path], scripts: Mapping[str, str]) -> None:
    """Write a compressed tar of files and executable scripts, by their absolute paths.

    Raises:
        OSError: a file cannot be read.
    """
    with (
        gzip.GzipFile("", "wb", _LEVEL, fileobj=to) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for path, local in files.items():
            status = local.stat()
            info = _info(path, stat.S_IMODE(status.st_mode), status.st_size)
            info.mtime = int(status.st_mtime)
            with local.open("rb") as content:
                archive.addfile(info, content)
        for path, text in scripts.items():
            encoded = text.encode()
            archive.addfile(_info(path, 0o755, len(encoded)), io.BytesIO(encoded))


def _info(path: str, mode: int, size_bytes: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path.lstrip("/"))
    info.mode, info.size = mode, size_bytes
    return info
