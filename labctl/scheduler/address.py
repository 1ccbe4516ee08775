"""The address of a Dask scheduler, and whether it is safe to exchange pickles with it."""

from __future__ import annotations

import ipaddress
import re
import time
from pathlib import Path

from labctl import files
from labctl.errors import UserError
from labctl.host.home import expanded

_ADDRESS = re.compile(
    r"(?P<protocol>tcp|tls)://(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s/:\[\]]+):(?P<port>\d+)"
)
_EXPECTED = "expected tls://HOST:PORT, tcp://HOST:PORT or the path of a scheduler file (*.json)"
_WRITTEN_SECONDS = 3.0
_POLL_SECONDS = 0.1
_GUIDE = "docs/howto/scheduler.md"


def address_of(given: str, folder: Path) -> str:
    """Return the address in `given`, or in the scheduler file that it names in `folder`.

    Raises:
        UserError: it is not an address, the file cannot be read, or the scheduler has no TLS
            and is on another host.
    """
    if "://" in given or not given.endswith(".json"):
        return _checked(given, given)
    path = folder / expanded(given)
    if not path.is_file():
        raise UserError(
            "scheduler file not found",
            where=str(path),
            hint="`dask scheduler --scheduler-file FILE` writes it when it starts",
        )
    found = _content(path).get("address")
    if not isinstance(found, str):
        raise UserError(
            "not a scheduler file: expected a JSON object with `address`", where=str(path)
        )
    return _checked(found, str(path))


def _content(path: Path) -> dict[str, object]:
    """Return the content of a scheduler file, {} if it is damaged.

    A scheduler that starts writes it in place, so that it is empty or half written at first.
    """
    while not (content := files.read_json(path)) and _is_new(path):
        time.sleep(_POLL_SECONDS)
    return content


def _is_new(path: Path) -> bool:
    try:
        return 0 <= time.time() - path.stat().st_mtime < _WRITTEN_SECONDS
    except OSError:
        return False


def _checked(address: str, where: str) -> str:
    found = _ADDRESS.fullmatch(address)
    if found is None or not 0 < int(found["port"]) < 65536:
        raise UserError(
            f"invalid scheduler {address!r}: {_EXPECTED}", where=None if where == address else where
        )
    if found["protocol"] == "tcp" and not _is_loopback(found["host"]):
        raise UserError(
            f"scheduler {address} has no TLS: anyone on its network could run code on this "
            "host and on its workers",
            where=None if where == address else where,
            hint=f"expected tls://HOST:PORT, or a scheduler on loopback; {_GUIDE} describes "
            "how to create certificates",
        )
    return address


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:  # a name may point anywhere
        return False


def is_encrypted(address: str) -> bool:
    """Return whether connections to an address use TLS."""
    return address.startswith("tls://")
