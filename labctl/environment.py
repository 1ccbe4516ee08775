"""The environment of the programs that labctl starts."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

# Variables that change the behaviour of tools: another repository, more flags, more files
# to read. By tool: locale, git, patch, tar and xz, make, compilers, shells.
_STEERING = re.compile(
    r"LANGUAGE|LC_\w+"
    r"|GIT_\w+"
    r"|POSIXLY_CORRECT|PATCH_\w+|VERSION_CONTROL|SIMPLE_BACKUP_SUFFIX|QUOTING_STYLE"
    r"|TAR_OPTIONS|XZ_OPT|XZ_DEFAULTS"
    r"|(GNU)?MAKE(FILES|FLAGS|LEVEL|OVERRIDES)|MFLAGS"
    r"|CPATH|C_INCLUDE_PATH|LIBRARY_PATH|COMPILER_PATH|GCC_\w+|LD_RUN_PATH|SOURCE_DATE_EPOCH"
    r"|DEPENDENCIES_OUTPUT|SUNPRO_DEPENDENCIES"
    r"|BASH_ENV|ENV|CDPATH|GREP_OPTIONS"
)


def of_child(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment in the C locale, plus `extra`.

    Variables that change the results of tools are removed.
    """
    env = {k: v for k, v in os.environ.items() if not _STEERING.fullmatch(k)}
    return env | {"LC_ALL": "C"} | dict(extra or {})
