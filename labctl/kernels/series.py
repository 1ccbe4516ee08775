"""A patch series in quilt's form, applied to copies of the files that it touches."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from labctl import proc
from labctl.errors import UserError

_PATCH_SECONDS = 120.0
_REJECT_LINES = 30
_SUBJECT = re.compile(r"^Subject: (?:\[[^\]]*\] )?(.*(?:\n[ \t].*)*)", re.MULTILINE)


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
        found = _SUBJECT.search(self.content.decode("utf-8", "replace"))
        return re.sub(r"\s+", " ", found[1]) if found else self.path.name

    def touches(self) -> set[str]:
        """Return the files that the patch reads or writes, relative to the tree."""
        found = set()
        for line in self.content.decode("utf-8", "surrogateescape").splitlines():
            header = re.match(r"(?:---|\+\+\+) ([^\t]+)", line)
            moved = re.match(r"(?:rename|copy) (?:from|to) (.+)", line)
            if header and header[1] != "/dev/null":
                found.add("/".join(header[1].strip().split("/")[self.strip :]))
            elif moved:
                found.add(moved[1].strip())
        return {name for name in found if name}


@dataclass(frozen=True, slots=True)
class Series:
    """The patches of a `series` file, in order."""

    folder: Path
    patches: tuple[Patch, ...]

    @property
    def hash(self) -> str:
        """Hex content address of all patches in their order."""
        return hashlib.sha256("\n".join(p.hash for p in self.patches).encode()).hexdigest()

    def touches(self) -> set[str]:
        """Return the files that any of the patches touches."""
        return {name for patch in self.patches for name in patch.touches()}

    def apply(self, original: Callable[[str], bytes | None]) -> dict[str, bytes | None]:
        """Return the content of every touched file behind the series; None is no file.

        `original` gives a file's content without the series. Fuzz is refused: a
        patch that has to be guessed into place is not the one that was reviewed.

        Raises:
            UserError: a patch does not apply; names its file, the target and the hunk.
        """
        names = sorted(self.touches())
        with tempfile.TemporaryDirectory(prefix="labctl-series-") as scratch:
            root = Path(scratch)
            for name in names:
                content = original(name)
                if content is not None:
                    (root / name).parent.mkdir(parents=True, exist_ok=True)
                    (root / name).write_bytes(content)
            for number, patch in enumerate(self.patches, 1):
                self._apply_one(patch, number, root)
            return {
                name: (root / name).read_bytes() if (root / name).is_file() else None
                for name in names
            }

    def _apply_one(self, patch: Patch, number: int, root: Path) -> None:
        outside = [n for n in patch.touches() if n.startswith("/") or ".." in n.split("/")]
        if outside:
            raise UserError(f"touches {outside[0]}, outside of the tree", where=str(patch.path))
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
                f"patch {number} of {len(self.patches)} does not apply\n{_why(done.text, root)}",
                where=str(patch.path),
                hint="rebase the series onto this source, or give it the source it was made for",
            )


def _why(output: str, root: Path) -> str:
    """Return patch's own words and the beginning of what it rejected."""
    lines = [line for line in output.splitlines() if not line.startswith("patching file .git")]
    said = [f"  | {line}" for line in lines if "saving rejects" not in line][-_REJECT_LINES:]
    for reject in sorted(root.rglob("*.rej")):
        target = str(reject.relative_to(root)).removesuffix(".rej")
        said.append(f"  rejected for {target}:")
        said += [f"  | {x}" for x in reject.read_text("utf-8", "replace").splitlines()]
    return "\n".join(said[: 2 * _REJECT_LINES])


def read(folder: Path) -> Series:
    """Read a folder's `series` file and its patches.

    Raises:
        UserError: the file or one of its patches is missing.
    """
    listing = folder / "series"
    try:
        lines = listing.read_text().splitlines()
    except OSError as error:
        raise UserError(
            f"cannot be read: {error.strerror}",
            where=str(listing),
            hint="a series is a folder with a `series` file that names its patches in order",
        ) from error
    patches = []
    for number, line in enumerate(lines, 1):
        words = line.split("#", 1)[0].split()
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
    return Series(folder, tuple(patches))
