"""The `config:` of a kernel: a whole .config, that of this host, or a target of make. Pure."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

RUNNING = "running"
TARGETS = "defconfig, NAME_defconfig, tinyconfig, allnoconfig, alldefconfig, allyesconfig"
_TARGET = re.compile(r"([a-z0-9][a-z0-9_-]*_)?defconfig|(tiny|allno|alldef|allyes)config")

Config = Annotated[
    str | None,
    Field(
        description="Configuration to start from, completed by `make olddefconfig`: the path of a"
        " whole .config, running (that of this host's kernel), or a target of make, like"
        " defconfig. guest/kconfig/guest.config and the fragments of `kconfig` are applied on"
        " top of it. If omitted, that of the base; if that has none, options that no fragment"
        " names are off (allnoconfig).",
        min_length=1,
    ),
]


def is_target(config: str) -> bool:
    """Return whether a `config:` names a target of make; a path of this name starts with ./."""
    return _TARGET.fullmatch(config) is not None


def is_path(config: str) -> bool:
    """Return whether a `config:` is the path of a file."""
    return config != RUNNING and not is_target(config)
