"""The lab.yaml that `labctl init` writes, and the JSON Schema that `labctl schema` prints."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

from labctl import files
from labctl.errors import HostError, UserError
from labctl.host.shipped import BASE_CONFIG, shipped
from labctl.lab.schema import file_schema

# Files that lab.yaml refers to.
_COMPANIONS = (
    BASE_CONFIG,
    "guest/kconfig/base.arm64.config",
    "guest/kconfig/debug.config",
    "guest/kconfig/poison.config",
    "guest/kconfig/no-smp.config",
    "guest/kconfig/32-bit.config",
    "guest/kconfig/no-numa.config",
    "patches/node-grouped-free/6.1",
    "patches/parallel-free/6.1",
    "patches/parallel-unmap/6.1",
)


def text() -> str:
    """Return labctl's own commented lab.yaml."""
    return shipped("lab.yaml").read_text(encoding="utf-8")


def write(folder: Path, *, force: bool = False) -> list[Path]:
    """Write a lab.yaml and the files it refers to, and return the paths written.

    Existing fragments and patches are kept.

    Raises:
        UserError: a lab.yaml exists and `force` is not set.
        HostError: the folder cannot be written.
    """
    lab = folder / "lab.yaml"
    if not force and (lab.exists() or lab.is_symlink()):
        hint = "`labctl init --force` replaces it"
        raise UserError("file already exists", where=str(lab), hint=hint)
    written = []
    try:
        for source, target in _companions(folder):
            if not os.path.lexists(target):
                files.replace(target, source.read_bytes())
                written.append(target)
        files.replace(lab, text())  # replaces a link itself: its target is another lab
    except OSError as error:
        raise HostError(f"folder cannot be written: {error.strerror}", where=str(folder)) from error
    return [lab, *written]


def _companions(folder: Path) -> list[tuple[Path, Path]]:
    """Return (source, target) of each file that the written lab.yaml names."""
    pairs = []
    for name in _COMPANIONS:
        source = shipped(name)
        if source.is_file():
            pairs.append((source, folder / name))
        elif not (folder / name).exists():  # never add patches to the user's series
            files = sorted(one for one in source.iterdir() if one.is_file())
            pairs += [(one, folder / name / one.name) for one in files]
    return pairs


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of lab.yaml; sizes are numbers, or text with units."""
    schema = copy.deepcopy(file_schema())
    for part in [schema, *schema["$defs"].values()]:
        for value in part.get("properties", {}).values():
            if "patternProperties" in value:  # other names are invalid
                value["additionalProperties"] = False
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "lab.yaml",
        "description": "A labctl lab: kernels, guests and experiments.",
    }
