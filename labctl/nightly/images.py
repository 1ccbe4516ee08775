"""Images of nightly runs, kept in the history, where `labctl clean` does not remove them."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from labctl import files
from labctl.arch import ARCHITECTURES, X86_64
from labctl.errors import HostError
from labctl.kernels import images
from labctl.kernels.hashed import Hashed
from labctl.lab.models import Lab
from labctl.nightly.records import NightlyRecord

_MOST = 30
_NOTE = ".sha256"
_HASH = re.compile(r"[0-9a-f]{64}")


def keep(lab: Lab, history: Path, record: NightlyRecord) -> None:
    """Keep the images of a nightly run, so that later runs can be measured against them.

    The newest 30 are kept; `record` names the newest. A file's name is
    the hash of the image's inputs; the hash of its content is stored in a second file.

    Raises:
        HostError: the disk is full or fails.
    """
    folder = history / "images"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, kernel in record.kernels.items():
            image = record.image(name)
            file = ARCHITECTURES[kernel.arch or X86_64.name].image.name
            built = lab.state_folder.image(image) / file
            kept = folder / image
            if _is_whole(kept):
                os.utime(kept)
            elif built.exists() and not images.damaged(built.parent):
                content = built.read_bytes()
                files.replace(_note(kept), hashlib.sha256(content).hexdigest() + "\n")
                files.replace(kept, content)
        # The history may be a user's folder: only remove files that `keep` wrote.
        ours = [path for path in folder.iterdir() if _is_kept(path)]
        by_age = sorted(ours, key=lambda path: path.stat().st_mtime, reverse=True)
        for old in by_age[_MOST:]:
            old.unlink()
            _note(old).unlink(missing_ok=True)
    except OSError as error:
        raise HostError(
            f"cannot store the images of the nightly run: {error.strerror or error}",
            where=str(folder),
        ) from error


def _is_kept(path: Path) -> bool:
    return bool(_HASH.fullmatch(path.name)) and path.is_file() and not path.is_symlink()


def find(history: Path, image: str) -> Path | None:
    """Return the bzImage with an image's hash, None if it is missing or damaged."""
    path = history / "images" / image
    return path if _is_whole(path) else None


def _note(kept: Path) -> Path:
    return kept.with_name(f"{kept.name}{_NOTE}")


def _is_whole(kept: Path) -> bool:
    try:
        noted = _note(kept).read_text("ascii", "replace").strip()
    except FileNotFoundError:  # kept by an older labctl
        return kept.is_file()
    return Hashed(kept, noted).holds()
