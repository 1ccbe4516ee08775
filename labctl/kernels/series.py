"""A patch series in quilt's form, applied to copies of the files that it touches."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.parser import BytesHeaderParser
from email.policy import default as mail_policy
from pathlib import Path

from labctl import files, proc
from labctl.errors import UserError
from labctl.kernels import diff
from labctl.kernels.sources import File

_PATCH_SECONDS = 120.0
_REJECT_LINES = 24
_REBASE = "rebase the series onto this source, or give it the source it was made for"


@dataclass(frozen=True, slots=True)
class Patch:
    """One patch: its file, the path components to strip (`-pN`), its content."""

    path: Path
    strip: int
    content: bytes

    @property
    def hash(self) -> str:
        """Hex content address."""
        return hashlib.sha256(f"-p{self.strip}\n".encode() + self.content).hexdigest()

    @property
    def subject(self) -> str:
        """The mail's subject without its brackets, or the file's name."""
        found = BytesHeaderParser(policy=mail_policy).parsebytes(self.content)["subject"]
        words = " ".join(str(found or "").split())
        return re.sub(r"^(?:\[[^\]]*\] *)+", "", words) or self.path.name

    def touches(self) -> set[str]:
        """Return the files that the patch reads or writes, relative to the tree.

        Raises:
            UserError: it cannot be applied by `patch`, or leaves the tree.
        """
        where = str(self.path)
        try:
            names = diff.touched(self.content.decode("utf-8", "surrogateescape"), self.strip)
        except diff.BinaryDiff as error:
            raise UserError("holds a binary change, which a series cannot", where=where) from error
        if not names:
            raise UserError("changes no file: it holds no diff", where=where)
        for name in sorted(names):
            if name.startswith("/") or ".." in name.split("/"):
                raise UserError(f"touches {name}, outside of the tree", where=where)
        return names


@dataclass(frozen=True, slots=True)
class Series:
    """The patches of a `series` file, in order."""

    folder: Path
    patches: tuple[Patch, ...]

    @property
    def hash(self) -> str:
        """Hex content address of all patches in their order."""
        return hashlib.sha256("\n".join(p.hash for p in self.patches).encode()).hexdigest()

    def first(self, count: int) -> Series:
        """Return the series as it was when only its first patches were there."""
        return replace(self, patches=self.patches[:count])

    def write(self, folder: Path) -> None:
        """Write the patches and their `series` file into a folder in place of what is in it."""
        files.remove(folder)
        folder.mkdir(parents=True)
        for patch in self.patches:
            (folder / patch.path.name).write_bytes(patch.content)
        lines = [f"{patch.path.name} -p{patch.strip}\n" for patch in self.patches]
        (folder / "series").write_text("".join(lines))

    def touches(self) -> set[str]:
        """Return the files that any of the patches touches."""
        return {name for patch in self.patches for name in patch.touches()}

    def apply(self, original: Callable[[str], File | None]) -> dict[str, File | None]:
        """Return every touched file as it is behind the series; None is no file.

        `original` gives a file as it is without the series. Fuzz is refused: a
        patch that has to be guessed into place is not the one that was reviewed.

        Raises:
            UserError: a patch does not apply; names its file, the target and the hunk.
        """
        names = sorted(self.touches())
        with tempfile.TemporaryDirectory(prefix="labctl-series-") as scratch:
            root = Path(scratch)
            for name in names:
                file = original(name)
                if file is not None:
                    (root / name).parent.mkdir(parents=True, exist_ok=True)
                    (root / name).write_bytes(file.data)
                    (root / name).chmod(0o755 if file.executable else 0o644)
            for number, patch in enumerate(self.patches, 1):
                self._apply_one(patch, number, root)
            return {name: _read(root / name) for name in names}

    def _apply_one(self, patch: Patch, number: int, root: Path) -> None:
        argv = ["patch", "--batch", "--forward", "--fuzz=0", "--no-backup-if-mismatch"]
        done = proc.run(
            [*argv, f"-p{patch.strip}"],
            cwd=root,
            stdin=patch.content,
            timeout_seconds=_PATCH_SECONDS,
            check=False,
        )
        if done.status != 0:
            raise UserError(
                f"patch {number} of {len(self.patches)} does not apply: {_why(done.text, root)}",
                where=str(patch.path),
                hint=_REBASE,
            )


def _read(path: Path) -> File | None:
    return File(path.read_bytes(), bool(path.stat().st_mode & 0o100)) if path.is_file() else None


def _why(output: str, root: Path) -> str:
    """Return which files and hunks failed, and the beginning of what was rejected."""
    target, failures, other = "", [], []
    for line in output.splitlines():
        if named := re.match(r"(?:patching|checking) file (.+?)(?: \(.*)?$", line):
            target = named[1].strip("'")
        elif hunk := re.match(r"Hunk (#\d+) FAILED at (\d+)", line):
            failures.append(f"{target}, hunk {hunk[1]} at line {hunk[2]}")
        elif not re.match(r"Hunk #\d+ succeeded|\d+ out of \d+ hunk", line):
            other.append(f"  | {line}")
    said = [] if failures else other[:_REJECT_LINES]
    for reject in sorted(root.rglob("*.rej")):
        said.append(f"  rejected for {str(reject.relative_to(root)).removesuffix('.rej')}:")
        lines = reject.read_text("utf-8", "replace").splitlines()
        said += [f"  | {line}" for line in lines if not line.startswith(("---", "+++"))]
    rest = [f"  … and {len(said) - _REJECT_LINES} more lines"] if len(said) > _REJECT_LINES else []
    return "\n".join(["; ".join(failures) or "patch says", *said[:_REJECT_LINES], *rest])


def read(folder: Path) -> Series:
    """Read a folder's `series` file and its patches.

    Raises:
        UserError: the file or one of its patches is missing, or it names none.
    """
    listing = folder / "series"
    try:
        lines = listing.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot be read: {getattr(error, 'strerror', None) or error}",
            where=str(listing),
            hint="a series is a folder with a `series` file that names its patches in order",
        ) from error
    patches = []
    for number, line in enumerate(lines, 1):
        words = re.split(r"(?:^|\s)#", line, maxsplit=1)[0].split()
        if not words:
            continue
        option = next((w for w in words[1:] if re.fullmatch(r"-p\d+", w)), "-p1")
        path = folder / words[0]
        try:
            patches.append(Patch(path, int(option[2:]), path.read_bytes()))
        except OSError as error:
            raise UserError(
                f"the patch {words[0]} cannot be read: {error.strerror}",
                where=f"{listing}:{number}",
            ) from error
    if not patches:
        raise UserError("names no patch", where=str(listing))
    return Series(folder, tuple(patches))
