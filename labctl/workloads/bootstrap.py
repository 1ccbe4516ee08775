"""Debian roots: built by mmdebstrap from a suite and a list of packages, once."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from labctl import files, proc
from labctl.arch import Architecture
from labctl.errors import CommandError, HostError

PREFIX = "debian:"
PROGRAM = "mmdebstrap"
_SECONDS = 3600.0
# Debian's names of architectures.
_DEBIAN = {"x86_64": "amd64", "arm64": "arm64"}


def is_debian(root: str | None) -> bool:
    """Return whether a root is built from Debian packages."""
    return root is not None and root.startswith(PREFIX)


def archive(text: str, packages: Sequence[str], store: Path, arch: Architecture) -> Path:
    """Return the tar archive of a root, `debian:SUITE` or `debian:SUITE@MIRROR`.

    Raises:
        HostError: mmdebstrap is not installed or fails.
    """
    suite, _, mirror = text.removeprefix(PREFIX).partition("@")
    include = ",".join(sorted(set(packages)))
    words = [PROGRAM, "--variant=minbase", f"--architectures={_DEBIAN[arch.name]}"]
    words += [f"--include={include}"] if include else []
    key = hashlib.sha256("\0".join((*words, suite, mirror)).encode()).hexdigest()
    tar = store / f"{suite}-{key[:16]}.tar"
    if tar.is_file():
        return tar
    if shutil.which(PROGRAM) is None:
        raise HostError(
            f"{PROGRAM} is not installed: `root: {text}` needs it",
            hint="install the Debian package mmdebstrap, or make `root:` a folder, a tar archive "
            "or a disk image",
        )
    store.mkdir(parents=True, exist_ok=True)
    # The ending selects the format.
    partial = tar.with_name(f"partial-{tar.name}")
    try:
        proc.run([*words, suite, partial, *filter(None, [mirror])], timeout_seconds=_SECONDS)
        partial.replace(tar)
    except CommandError as error:
        raise HostError(
            f"{PROGRAM} cannot build `root: {text}`: {error.last_line}",
            hint="labctl builds a root once: connect this host for the first run",
        ) from error
    finally:
        files.unlink(partial)
    return tar
