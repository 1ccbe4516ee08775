"""Check the state folder (`state:`) on disk: its location, contents and marker.

labctl removes only in a state folder with the marker.
"""

from __future__ import annotations

import os
import pwd
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from labctl.lab.paths import absolute
from labctl.lab.problems import Findings
from labctl.lab.state import FILES, FOLDERS, MARKER, MARKER_LINE, TRACES, USUAL_NAME, StateFolder
from labctl.lab.use import Use
from labctl.units import quote, quoted

# Created in any folder by file systems, desktops, sync and backup tools and editors.
# Ignored and never removed.
_HARMLESS_FILES = re.compile(
    r"\.git(ignore|keep|attributes)|\.keep|\.(ignore|rgignore|fdignore|dockerignore|stignore)"
    r"|CACHEDIR\.TAG|\.nobackup|\.nomedia|\.metadata_never_index|\.nfs[0-9a-f]+"
    r"|\.fuse_hidden[0-9a-f]+|\.DS_Store|\._.+|\.localized|Thumbs\.db|desktop\.ini|\.directory"
    r"|\..+\.sw[a-p]|.+~|#.+#"
)
_HARMLESS_FOLDERS = re.compile(
    r"lost\+found|\.Trash(-\d+|es)?|\.snapshots?|\.st(folder|versions)|\.fseventsd"
    r"|\.Spotlight-V100|\.TemporaryItems|@eaDir"
)
# Left by a labctl that was killed while writing a file or deleting a folder.
_LEFT = re.compile(r"(?P<file>.+?)\.[\w-]+\.tmp|(?P<folder>.+)\.removed")
_STRAY = "move it elsewhere; the state folder is for labctl only"
_NEW_FOLDER = f"use a new or empty folder for labctl only, such as `state: {USUAL_NAME}`"


def check_state(text: str, found: Findings, root: Path, lab: Path, use: Use) -> None:
    """Record errors of a lab file's state folder, as far as they matter for `use`."""
    if not found.sound("state"):
        return
    try:
        folder = absolute(root, text).resolve()
        folder.exists()
        fault = None if use is Use.ENDS else _fault(folder, lab, use)
    except (OSError, RuntimeError, ValueError) as error:  # a symlink loop, a NUL
        folder = root / text.replace("\0", "?")
        fault = f"is not readable: {getattr(error, 'strerror', None) or error}", _NEW_FOLDER
    if fault:
        what, hint = fault
        found.add(("state",), f"state folder {quote(str(folder), 200)} {what}", hint)


def is_marked(folder: Path) -> bool:
    """Return whether the folder has labctl's marker."""
    path = StateFolder(folder).marker
    with suppress(OSError, UnicodeDecodeError):
        if stat.S_ISREG(path.lstat().st_mode):
            return path.read_text("utf-8").startswith(MARKER_LINE)
    return False


def is_fit(folder: Path) -> bool:
    """Return whether everything in the folder with a name of labctl's was created by labctl."""
    return is_marked(folder) or content_fault(folder) is None


def _fault(folder: Path, lab: Path, use: Use) -> tuple[str, str] | None:
    """Return the error and hint for a folder that cannot be the state folder, else None."""
    if fault := _place_fault(folder, lab):
        return fault
    is_ours = is_marked(folder)
    if is_ours and use is Use.READS:
        return None
    what = content_fault(folder)
    if what is None:
        return None
    is_stray = is_ours or folder.name == USUAL_NAME
    return what, _STRAY if is_stray else _NEW_FOLDER


def content_fault(folder: Path) -> str | None:
    """Return why the contents rule out a folder as state folder, None if they do not.

    A missing or empty folder is accepted. So is a folder of a labctl version without the
    marker, if all its entries have names that labctl uses. Files that file systems,
    desktops and editors create in any folder are ignored.
    """
    try:
        with os.scandir(folder) as entries:
            known = {entry.name: _is_known(entry) for entry in entries if not _is_harmless(entry)}
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        return "is not a folder"
    except OSError as error:
        return f"is not readable: {error.strerror}"
    foreign = sorted(name for name, is_known in known.items() if not is_known)
    if foreign:
        return f"contains {quoted(foreign)}, which labctl did not create"
    if known and not (is_marked(folder) or _is_of_before(folder)):
        return f"has no marker ({MARKER}): labctl did not create its contents"
    return None


def _is_harmless(entry: os.DirEntry[str]) -> bool:
    if entry.is_dir(follow_symlinks=False):
        return bool(_HARMLESS_FOLDERS.fullmatch(entry.name))
    return entry.is_file(follow_symlinks=False) and bool(_HARMLESS_FILES.fullmatch(entry.name))


def _is_known(entry: os.DirEntry[str]) -> bool:
    """Return whether labctl creates entries of this name and type; links count by name."""
    name, of_folder = entry.name, entry.is_dir(follow_symlinks=False)
    if not of_folder and not entry.is_symlink() and not entry.is_file(follow_symlinks=False):
        return False  # a device, a socket, a pipe
    left = _LEFT.fullmatch(name)
    if left:
        return left["folder"] in FOLDERS if of_folder else left["file"] in FILES
    if entry.is_symlink():
        return name in FOLDERS | FILES
    return name in (FOLDERS if of_folder else FILES)


def _is_of_before(folder: Path) -> bool:
    """Return whether a labctl version without the marker created the folder."""
    return folder.name == USUAL_NAME or any(
        next(folder.glob(trace), None) is not None for trace in TRACES
    )


def _place_fault(folder: Path, lab: Path) -> tuple[str, str] | None:
    inside = f"use a folder in it, such as `state: {folder / 'labctl'}`"
    for path in (lab.absolute(), lab.resolve()):
        if path.is_relative_to(folder):
            return "contains the lab file", _NEW_FOLDER
    for home in _homes():
        if home == folder:
            return "is a home folder", inside
        if home.is_relative_to(folder):
            return f"contains a home folder: {home}", _NEW_FOLDER
    for point in mount_points():
        if point == folder:
            return "is a mount point", inside
        if point.is_relative_to(folder):
            return f"contains a mount point: {point}", f"unmount it, or {_NEW_FOLDER}"
    return None


def _homes() -> Iterator[Path]:
    """Yield this user's home folders from the environment and the user database."""
    with suppress(RuntimeError):
        yield Path.home()
        yield Path.home().resolve()
    names = {"SUDO_UID", "PKEXEC_UID"} & os.environ.keys()
    uids = {os.getuid(), *(int(os.environ[n]) for n in names if os.environ[n].isdecimal())}
    for uid in uids:
        with suppress(KeyError, OverflowError):
            yield Path(pwd.getpwuid(uid).pw_dir).resolve()


def mount_points() -> list[Path]:
    """Return the mount points of /proc/self/mountinfo, an empty list if it is unreadable."""
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:
        return []
    return [_unescaped(line.split(b" ")[4]) for line in lines if line.count(b" ") > 4]


def _unescaped(field: bytes) -> Path:
    plain = re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), field)
    return Path(os.fsdecode(plain))
