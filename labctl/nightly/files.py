"""The reports of a nightly run as files in one folder."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

import msgspec

from labctl.errors import HostError, LabError
from labctl.nightly.types import Nightly
from labctl.reports import report


def write(
    folder: Path, texts: Mapping[str, str], content: Nightly, runs: Path | None
) -> list[Path]:
    """Write texts, by file name, and the document as nightly.json; return the paths.

    If the run is still in `runs`, also write kcidb.json.

    Raises:
        HostError: the disk is full or fails.
    """
    wanted = {**texts, "nightly.json": json.dumps(msgspec.to_builtins(content), indent=2) + "\n"}
    if content.run and runs:
        with contextlib.suppress(LabError):  # the run was removed, its record in the history stays
            kcidb, _ = report.export_of(runs, content.run, "kcidb")
            wanted["kcidb.json"] = str(kcidb)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in wanted.items():
            (folder / name).write_text(text)
    except OSError as error:
        raise HostError(
            f"cannot write the reports: {error.strerror or error}", where=str(folder)
        ) from error
    return [folder / name for name in wanted]
