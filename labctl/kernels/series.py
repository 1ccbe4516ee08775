"""Read a quilt patch series, and apply it to copies of the files that it touches."""

from __future__ import annotations

import email
import hashlib
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from email import policy
from email.parser import BytesHeaderParser
from pathlib import Path

from labctl import files, proc
from labctl.errors import UserError
from labctl.kernels import diff, treefiles
from labctl.kernels.diff import Change, Unfit
from labctl.kernels.treefiles import File
from labctl.lab import series_file
from labctl.lab.series_file import Entry, SeriesFault

_PATCH_SECONDS = 120.0
_REJECT_LINES = 24
_REBASE = (
    "rebase the series onto this source, or use the source that it was written for;"
    " refresh patches that apply with fuzz only"
)

_MALFORMED = re.compile(r"malformed patch at line (\d+)")
_ENCODED = re.compile(r"=[0-9A-F]{2}|=\r?$", re.MULTILINE)
_COMPRESSED = {
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ": "unxz",
    b"(\xb5/\xfd": "unzstd",
}
_KINDS = {diff.PLAIN: "a plain file", diff.PROGRAM: "an executable file", diff.LINK: "a link"}


@dataclass(frozen=True, slots=True)
class Patch:
    """A patch: its file, the number of path components to strip (`-pN`), its content.

    `name` is its name in the `series` file; `reverse` is true for `-R`.
    """

    path: Path
    strip: int
    content: bytes
    name: str
    reverse: bool = False

    @property
    def options(self) -> str:
        """Its options for patch(1) in the `series` file."""
        return f"-p{self.strip}{' -R' if self.reverse else ''}"

    @property
    def hash(self) -> str:
        """Hex content address."""
        return hashlib.sha256(f"{self.options}\n".encode() + self.content).hexdigest()

    @property
    def subject(self) -> str:
        """The mail's subject without [PATCH], or the file's name."""
        found = BytesHeaderParser(policy=policy.default).parsebytes(self.content)["subject"]
        words = " ".join(str(found or "").split())
        return re.sub(r"^(?:\[[^\]]*\] *)+", "", words) or Path(self.name).name

    def changes(self) -> list[Change]:
        """Return the changes that the patch makes to files of a tree.

        Raises:
            UserError: `patch` cannot apply it, or it touches files outside the tree.
        """
        try:
            found = diff.changes(self.content.decode("utf-8", "surrogateescape"), self.strip)
        except Unfit as error:
            raise UserError(error.what, where=f"{self.path}:{error.line}") from error
        if not found:
            raise UserError("patch contains no diff", where=str(self.path))
        for change in found:
            for name in sorted(change.names()):
                parts = name.lower().split("/")
                if name.startswith("/") or ".." in parts:
                    what = f"patch touches {_shown(name)}, outside the tree"
                    raise UserError(what, where=f"{self.path}:{change.line}")
                if ".git" in parts:
                    what = f"patch touches {_shown(name)}, reserved for git"
                    raise UserError(what, where=f"{self.path}:{change.line}")
        return [change.reverse() if self.reverse else change for change in found]

    def touches(self) -> set[str]:
        """Return the files that the patch reads or writes; raise as `changes` does."""
        return {name for change in self.changes() for name in change.names()}


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
        """Return a series of the first `count` patches only."""
        return replace(self, patches=self.patches[:count])

    def write(self, folder: Path) -> None:
        """Replace a folder's content by the patches and their `series` file.

        Each patch is written to its own folder, as two may have the same name.
        """
        files.remove(folder)
        folder.mkdir(parents=True)
        lines = []
        for number, patch in enumerate(self.patches, 1):
            name = f"{number:04}/{patch.path.name}"
            (folder / name).parent.mkdir()
            (folder / name).write_bytes(patch.content)
            lines.append(f"{name} {patch.options}\n")
        (folder / "series").write_text("".join(lines))

    def touches(self) -> set[str]:
        """Return the files that any of the patches touches."""
        return {name for patch in self.patches for name in patch.touches()}

    def apply(self, original: Callable[[str], File | None]) -> dict[str, File | None]:
        """Return every touched file after the series is applied; None is no file.

        `original` returns a file without the series. Fuzz is not allowed: a patch whose
        place is guessed is not the one that was reviewed.

        Raises:
            UserError: a patch does not apply; names its file, the target and the hunk.
            HostError: no space for copies of the files.
        """
        before: dict[str, File | None] = {}
        for name, patch in self._names().items():
            try:
                before[name] = original(name)
            except UserError as error:
                raise UserError(error.what, where=str(patch.path), hint=error.hint) from error
        with treefiles.scratch("series") as root:
            for name, file in before.items():
                if file is not None:
                    treefiles.write(root, name, file)
            for number, patch in enumerate(self.patches, 1):
                self._apply_one(patch, number, root)
            _check_names(before, root)
            return {name: treefiles.read(root, name) for name in before}

    def _names(self) -> dict[str, Patch]:
        """Return the touched files, each with the first patch that touches it."""
        names: dict[str, Patch] = {}
        for patch in self.patches:
            for name in patch.touches():
                names.setdefault(name, patch)
        for name, patch in names.items():
            for parent in map(str, Path(name).parents):
                if parent in names:
                    what = (
                        f"series uses {_shown(parent)} as a file, and as a folder of {_shown(name)}"
                    )
                    hint = "a file or link cannot become a folder within a series"
                    raise UserError(what, where=str(patch.path), hint=hint)
        return dict(sorted(names.items()))

    def _apply_one(self, patch: Patch, number: int, root: Path) -> None:
        # Unified diffs only: for ed scripts, `patch` would run ed(1).
        argv = ["patch", "--unified", "--batch", "--forward", "--fuzz=0", "--get=0"]
        done = proc.run(
            [*argv, "--no-backup-if-mismatch", *patch.options.split()],
            cwd=root,
            stdin=patch.content,
            timeout_seconds=_PATCH_SECONDS,
            check=False,
        )
        said = f"{done.text}{done.stderr.decode('utf-8', 'replace')}"
        if done.status != 0:
            if full := treefiles.FULL.search(said):
                raise treefiles.full(root, full[0])
            line = _MALFORMED.search(said)
            raise UserError(
                f"patch {number} of {len(self.patches)} does not apply: {_why(said, root)}",
                where=f"{patch.path}:{line[1]}" if line else str(patch.path),
                hint="recreate the patch" if line else _REBASE,
            )
        _check_modes(patch, root)


def _check_names(expected: Collection[str], root: Path) -> None:
    """Raise if `patch` wrote a file that was not parsed from the patches: it would be lost."""
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        if name not in expected and (path.is_symlink() or not path.is_dir()):
            raise UserError(
                f"`patch` wrote an unexpected file {_shown(name)}",
                hint="recreate the patches with git format-patch",
            )


def _check_modes(patch: Patch, root: Path) -> None:
    """Raise if a file's kind differs from the patch's git headers, which `patch` may ignore."""
    wanted: dict[str, str | None] = {}
    for change in patch.changes():
        wanted |= change.after()
    for name, mode in wanted.items():
        file = treefiles.read(root, name)
        is_plain = mode not in {"", None, diff.LINK} and not int(mode or "0", 8) & 0o100
        expected = diff.PLAIN if is_plain else mode
        if (expected == "" and file is not None) or expected == _mode(file):
            continue
        raise UserError(
            f"`patch` left {_kind(_mode(file))} at {_shown(name)}: expected {_kind(expected)}",
            where=str(patch.path),
        )


def _mode(file: File | None) -> str | None:
    if file is None:
        return None
    return diff.LINK if file.link else diff.PROGRAM if file.executable else diff.PLAIN


def _kind(mode: str | None) -> str:
    return _KINDS.get(mode or "", "no file")


def _shown(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _why(output: str, root: Path) -> str:
    """Return the failed files and hunks, and the first rejected lines."""
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
    """Return the series of a folder: its `series` file and the patches in it.

    Raises:
        UserError: the file or a patch is missing, the file names no patch, or it has
            unsupported options.
    """
    listing = folder / "series"
    try:
        entries = series_file.entries(listing.read_bytes())
    except OSError as error:
        raise UserError(
            f"series file cannot be read: {error.strerror}",
            where=str(listing),
            hint="a series is a folder with a `series` file that lists its patches in order",
        ) from error
    except SeriesFault as error:
        raise UserError(error.what, where=f"{listing}:{error.line}", hint=error.hint) from error
    if not entries:
        raise UserError("series file names no patch", where=str(listing))
    return Series(folder, tuple(_patch(listing, entry) for entry in entries))


def _patch(listing: Path, entry: Entry) -> Patch:
    path, where = listing.parent / entry.name, f"{listing}:{entry.line}"
    try:
        if not path.is_file():  # reading a FIFO would not end
            path.stat()
            raise UserError(f"patch {entry.name} is not a regular file", where=where)
        content = path.read_bytes()
    except OSError as error:
        what = f"patch {entry.name} cannot be read: {error.strerror}"
        raise UserError(what, where=where) from error
    if not content:
        hint = f"remove the patch and its line, {where}"
        raise UserError("patch is empty", where=str(path), hint=hint)
    for magic, program in _COMPRESSED.items():
        if content.startswith(magic):
            hint = f"decompress it: `{program} {entry.name}`"
            raise UserError("patch is compressed", where=str(path), hint=hint)
    if encoding := _encoding(content):
        hint = "decode it with `git mailinfo` or `b4 am`"
        raise UserError(f"expected a patch, got a mail in {encoding}", where=str(path), hint=hint)
    return Patch(path, entry.strip, content, entry.name, entry.reverse)


def _encoding(content: bytes) -> str:
    """Return the encoding of a mail's diff, an empty text if patch(1) can read it directly."""
    for part in email.message_from_bytes(content).walk():
        name = str(part["content-transfer-encoding"]).strip().lower()
        if name in {"quoted-printable", "base64"} and not part.is_multipart():
            text = part.get_payload(decode=True)
            is_diff = isinstance(text, bytes) and re.search(rb"^\+\+\+ ", text, re.MULTILINE)
            if is_diff and (name == "base64" or _ENCODED.search(str(part.get_payload()))):
                return name
    return ""
