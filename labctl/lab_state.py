"""The folder that `state:` names, against the disk: what may lie in it, and whose it is.

Only what labctl made is ever removed: named here, in a folder with the marker.
"""

from __future__ import annotations

import os
import pwd
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from labctl.lab_files import absolute
from labctl.lab_findings import Findings
from labctl.units import quote

MARKER = ".labctl-state"
MARKER_LINE = "labctl state folder: `labctl clean` removes what labctl made in it"
LOCK = "state.lock"
GUESTS = "guests"
PAUSED = "paused.json"  # in the folder of a guest that a labctl has paused
MEASURED = ("nightly", "runs")
BUILT = (
    "bisect",
    "checked",  # of earlier versions
    "guest",
    "images",
    "leases",
    "logs",  # of earlier versions
    "selftests",
    "series",
    "sources",
    "ssh",
    "trees",
    "verify",
)
_FOLDERS = {GUESTS, *MEASURED, *BUILT}
_FILES = {MARKER, LOCK, "accelerator.json", "sources.json"}
# Of others, and at home in such a folder: left alone.
_HARMLESS = re.compile(r"\.gitignore|CACHEDIR\.TAG|\.nfs[0-9a-f]+")
# What a kill leaves of a file that was being written, or of a folder being removed.
_LEFT = re.compile(r"(?P<file>.+?)\.[\w-]+\.tmp|(?P<folder>.+)\.removed")
# By these a folder of a version without the marker is known, whatever its name.
_TRACES = (
    "sources.json",
    "accelerator.json",
    "images/*/image.json",
    "runs/*/run.json",
    "guests/*/guest.json",
    "guest/initramfs-*.cpio",
)
_USUAL_NAME = ".labctl"
_SHOWN = 3


def check_state(text: str, found: Findings, root: Path, lab: Path) -> None:
    """Record what is wrong with the state folder of a lab file."""
    if not found.sound("state"):
        return
    try:
        folder = absolute(root, text).resolve()
        what = _place_fault(folder, lab) or content_fault(folder)
    except (OSError, RuntimeError, ValueError) as error:  # a circle of links, a NUL
        what = f"cannot be looked at: {getattr(error, 'strerror', None) or error}"
        folder = root
    if what:
        hint = "name a new or empty folder that only labctl writes to, such as `state: .labctl`"
        found.add(("state",), f"the state folder {quote(str(folder), 200)} {what}", hint)


def is_marked(folder: Path) -> bool:
    """Say whether labctl made a folder, or took it over when it held nothing of others."""
    path = folder / MARKER
    with suppress(OSError, UnicodeDecodeError):
        if stat.S_ISREG(path.lstat().st_mode):
            return path.read_text("utf-8").startswith(MARKER_LINE)
    return False


def content_fault(folder: Path) -> str | None:
    """Return what is wrong with what a folder is or holds, None if it may be a state folder.

    A folder that is not there, or is empty, may be one. So may one of a version of labctl
    that wrote no marker, if all in it has names that labctl gives.
    """
    try:
        with os.scandir(folder) as entries:
            known = {entry.name: _is_known(entry) for entry in entries}
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        return "is not a folder"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    foreign = sorted(name for name, is_known in known.items() if not is_known)
    if foreign:
        shown = ", ".join(quote(name) for name in foreign[:_SHOWN])
        more = f" and {len(foreign) - _SHOWN} more" if len(foreign) > _SHOWN else ""
        return f"holds {shown}{more}, which labctl did not make"
    if known and not (is_marked(folder) or _is_of_before(folder)):
        return f"has no marker ({MARKER}): labctl did not make what it holds"
    return None


def _is_known(entry: os.DirEntry[str]) -> bool:
    """Say whether labctl gives this name to a thing of this kind; links are judged by the name."""
    name, of_folder = entry.name, entry.is_dir(follow_symlinks=False)
    if not of_folder and not entry.is_symlink() and not entry.is_file(follow_symlinks=False):
        return False  # a device, a socket, a pipe
    if not of_folder and _HARMLESS.fullmatch(name):
        return True
    left = _LEFT.fullmatch(name)
    if left:
        return left["folder"] in _FOLDERS if of_folder else left["file"] in _FILES
    if entry.is_symlink():
        return name in _FOLDERS | _FILES
    return name in (_FOLDERS if of_folder else _FILES)


def _is_of_before(folder: Path) -> bool:
    """Say whether a version of labctl that wrote no marker made a folder."""
    return folder.name == _USUAL_NAME or any(
        next(folder.glob(trace), None) is not None for trace in _TRACES
    )


def _place_fault(folder: Path, lab: Path) -> str | None:
    for path in (lab.absolute(), lab.resolve()):
        if path.is_relative_to(folder):
            return "holds the lab itself"
    for home in _homes():
        if home.is_relative_to(folder):
            return f"is a home folder, or holds one: {home}"
    for point in mount_points():
        if point == folder:
            return "is a mount point"
        if point.is_relative_to(folder):
            return f"holds a mount point: {point}"
    return None


def _homes() -> Iterator[Path]:
    """Yield the home folders of this user, by the environment and by the user database."""
    with suppress(RuntimeError):
        yield Path.home()
        yield Path.home().resolve()
    names = {"SUDO_UID", "PKEXEC_UID"} & os.environ.keys()
    uids = {os.getuid(), *(int(os.environ[n]) for n in names if os.environ[n].isdecimal())}
    for uid in uids:
        with suppress(KeyError, OverflowError):
            yield Path(pwd.getpwuid(uid).pw_dir).resolve()


def mount_points() -> list[Path]:
    """Return where something is mounted (proc(5), mountinfo), none on a host that hides it."""
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:
        return []
    return [_unescaped(line.split(b" ")[4]) for line in lines if line.count(b" ") > 4]


def _unescaped(field: bytes) -> Path:
    plain = re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), field)
    return Path(os.fsdecode(plain))
