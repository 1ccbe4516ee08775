"""The images of the nights, kept in the history: `labctl clean` does not remove them there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from labctl.errors import HostError
from labctl.lab_arch import ARCHITECTURES, X86_64
from labctl.lab_models import Lab
from labctl.results.nights import Record

_MOST = 30
_FOLDER_DIGITS = 32


def keep(lab: Lab, history: Path, record: Record) -> None:
    """Keep a night's images, so that later nights can be measured against it.

    Of more than 30 the oldest go; `record` names tonight's, which stay.

    Raises:
        HostError: the disk is full or fails.
    """
    folder = history / "images"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for kernel in record["kernels"].values():
            name = ARCHITECTURES[kernel.get("arch", X86_64.name)].image.name
            built = lab.state / "images" / kernel["image"][:_FOLDER_DIGITS] / name
            kept = folder / kernel["image"]
            if kept.exists():
                os.utime(kept)
            elif built.exists():
                temporary = folder / f"{os.getpid()}.tmp"
                shutil.copyfile(built, temporary)
                temporary.replace(kept)
        by_age = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in by_age[_MOST:]:
            old.unlink()
    except OSError as error:
        raise HostError(
            f"the night's images could not be kept: {error.strerror or error}", where=str(folder)
        ) from error


def find(history: Path, image: str) -> Path | None:
    """Return the bzImage of an image's hash, None if it was not kept."""
    path = history / "images" / image
    return path if path.is_file() else None
