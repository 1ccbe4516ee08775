"""Shared libraries of a packed lab. It imports nothing that needs one of them."""

from __future__ import annotations

import ctypes
from pathlib import Path

import labctl
from labctl.packing import place


def load() -> None:
    """Load the pack's shared libraries that the host lacks, for its extension modules.

    The loader then knows them by name. The order of names is that of their dependencies:
    libgcc_s, libstdc++.
    """
    site = Path(labctl.__file__).parent.parent
    for path in sorted((site / place.FOLDER / place.LIBRARIES).glob("*")):
        try:
            ctypes.CDLL(path.name)
        except OSError:
            ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
