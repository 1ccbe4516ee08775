"""The start of a packed lab, before it is unpacked. Python 3.7 must be able to read it.

`labctl.packing.zipped` copies it into the pack. It imports nothing of labctl.
"""

from __future__ import annotations

import platform
import sys
from importlib import import_module

_HOST_CANNOT = 3


def fault(python: str, machine: str, found: tuple[str, str, str, str]) -> str | None:
    """Return why a host cannot run a pack for `python` and `machine`, None if it can.

    `found` are its implementation and version of Python, its machine and its C library.
    """
    implementation, version, host, libc = found
    if implementation != "CPython" or version != python:
        return (
            f"packed for CPython {python}, but this is {implementation} {version}\n"
            f"  hint: start it with `python{python}`, or pack it with Python {version}"
        )
    if host != machine:
        return f"packed for {machine}, but this host is {host}\n  hint: use another host"
    if libc != "glibc":
        return "packed for glibc, but this Python has another C library\n  hint: use another host"
    return None


def start(python: str, machine: str) -> None:
    """Check the host, unpack the lab if necessary, and run its program."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    implementation, libc = platform.python_implementation(), platform.libc_ver()[0]
    why = fault(python, machine, (implementation, version, platform.machine(), libc))
    if why is None:
        try:
            import_module("_bootstrap").bootstrap()
            return
        except (OSError, ImportError) as error:  # labctl reports its own errors
            name, what = getattr(error, "filename", None), getattr(error, "strerror", None)
            where, what = f"{name}: " if name else "", what or str(error)
            why = (
                f"{where}{what}\n"
                "  hint: the lab unpacks itself into the current folder: use one that is "
                "writable, on a disk with 1 GiB free that allows programs to run"
            )
    sys.stderr.write(f"{sys.argv[0]}: {why}\n")
    sys.exit(_HOST_CANNOT)
