"""The paths in lab.yaml: relative to its folder, `~` is the user's home."""

from __future__ import annotations

from pathlib import Path

from labctl.host.home import expanded


def absolute(root: Path, text: str) -> Path:
    """Return a path in the file as an absolute path; `~` is the user's home."""
    return Path(*(root / expanded(text)).parts)


def relative_hint(root: Path) -> str:
    """Return the hint for a path that does not exist."""
    return f"paths are relative to the folder of the lab file, {root}"


def is_file(path: Path) -> bool:
    """Return whether a path is a file; any text may be given as a path."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder; any text may be given as a path."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def exists(path: Path) -> bool:
    """Return whether a path exists; any text may be given as a path."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
