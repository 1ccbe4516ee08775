"""Host programs with their shared libraries, for the initramfs."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from labctl import proc
from labctl.errors import HostError

_SBIN = "/usr/sbin:/sbin"
_LDD_SECONDS = 30.0
_LIBRARY = re.compile(r"^\s*(?:\S+ => )?(/\S+) \(0x[0-9a-f]+\)$", re.MULTILINE)
_MISSING = re.compile(r"^\s*(\S+) => not found$", re.MULTILINE)


def bundle(program: str, package: str) -> dict[str, Path]:
    """Return the files of an installed program by their paths in the guest.

    Raises:
        HostError: the program or one of its libraries is not installed.
    """
    # Servers are in sbin, which is not on a user's PATH.
    found = shutil.which(program, path=os.environ.get("PATH", "") + os.pathsep + _SBIN)
    hint = f"`make setup` installs the Debian package {package}"
    if found is None:
        raise HostError(f"{program} is not installed", hint=hint)
    listed = proc.run(["ldd", found], timeout_seconds=_LDD_SECONDS, check=False).text
    missing = _MISSING.findall(listed)
    if missing:
        raise HostError(f"{program}: missing libraries: {', '.join(missing)}", hint=hint)
    # Keep the names that ldd prints: the program needs them, and the files may be symlinks.
    files = {path: Path(path).resolve() for path in _LIBRARY.findall(listed)}
    return {f"/bin/{Path(found).name}": Path(found).resolve(), **files}
