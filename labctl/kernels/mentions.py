"""Whether a kernel source can have a file in /sys or /proc/sys: its name is in the source.

The kernel names such files in its source, as a word (`__ATTR(scan_sleep, ...)`) or composed
of parts (`name##_sleep`, `"%s_sleep"`). A name without any of these cannot exist.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from labctl import proc
from labctl.series.patch import Series

_FOLDERS = ("/sys/", "/proc/sys/")
# Digits and other characters come from numbers and names of devices.
_WORD = re.compile(r"[A-Za-z]+(?:_[A-Za-z]+)*")
# Most tunables are there, so the rest is rarely read.
LIKELY = ("mm", "kernel", "fs", "include")
ENDINGS = ("c", "h", "S", "rs")
_SECONDS = 600.0


def pattern(file: str) -> str | None:
    """Return the extended regular expression of what names a file in a source.

    None if that is unknown: the file is elsewhere, or its name may come from a device.
    """
    name = PurePosixPath(file).name
    if not file.startswith(_FOLDERS) or not _WORD.fullmatch(name):
        return None
    parts = name.split("_")
    heads = ["_".join(parts[:end]) + "_" for end in range(1, len(parts))]
    tails = ["_" + "_".join(parts[start:]) for start in range(1, len(parts))]
    ways = [rf"\b{name}\b"]
    if tails:
        ways.append(rf"(##\s*|%[a-z]+)({'|'.join(tails)})\b")
        ways.append(rf"\b({'|'.join(heads)})(\s*##|%[a-z])")
    return "|".join(ways)


def in_folder(folder: Path, wanted: str) -> bool:
    """Return whether a file of a source matches, or may match: something is not readable."""
    likely = [folder / name for name in LIKELY if (folder / name).is_dir()]
    return any(_grep(wanted, places) for places in (likely, [folder]) if places)


def _grep(wanted: str, places: list[Path]) -> bool:
    endings = [f"--include=*.{ending}" for ending in ENDINGS]
    words: list[str | Path] = ["grep", "-rqsE", *endings, "-e", wanted, "--", *places]
    done = proc.run(words, env={"LC_ALL": "C"}, timeout_seconds=_SECONDS, check=False)
    # With any other status the search was not complete: the guest will report what is missing.
    return done.status != 1


def in_series(series: Series | None, wanted: str) -> bool:
    """Return whether a patch of a series matches."""
    search = re.compile(wanted.encode())
    return series is not None and any(search.search(p.content) for p in series.every)
