"""Files installed with labctl: the lab.yaml of `labctl init`, its patches and kconfig fragments."""

from __future__ import annotations

from pathlib import Path

import labctl

BASE_CONFIG = "guest/kconfig/base.config"
GUEST_CONFIG = "guest/kconfig/guest.config"
PROGRAMS = "guest/shelf"  # sources of the ready workloads


def shipped(name: str) -> Path:
    """Return a file or folder of the installed package, or of the checkout."""
    package = Path(labctl.__file__).resolve().parent
    top, _, rest = name.partition("/")
    installed = package / f"_{top}" / rest
    return installed if installed.exists() else package.parent / name
