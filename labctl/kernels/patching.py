"""Apply a patch series to copies of the files that it touches."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from pathlib import Path

from labctl import proc
from labctl.completed import Completed
from labctl.errors import UserError
from labctl.host import git
from labctl.kernels import treefiles
from labctl.kernels.treefiles import File
from labctl.series import diff
from labctl.series.patch import Patch, Series, shown

_PATCH_SECONDS = 120.0
_REJECT_LINES = 24
_REBASE = (
    "rebase the series onto this source, or use the source that it was written for;"
    " refresh patches that apply with fuzz only"
)
_APPLIED = "the source seems to contain the patch: use the source that the series was written for"
_MALFORMED = re.compile(r"(?:malformed|corrupt) patch at (?:line |[^:\s]*:)(\d+)")
_REVERSED = "previously applied"
_KINDS = {diff.PLAIN: "a plain file", diff.PROGRAM: "an executable file", diff.LINK: "a link"}


def apply(series: Series, original: Callable[[str], File | None]) -> dict[str, File | None]:
    """Return every touched file after a series, and those below it; None is no file.

    `original` returns a file without any series. Fuzz is not allowed: a patch whose
    place is guessed is not the one that was reviewed.

    Raises:
        UserError: a patch does not apply; names its file, the target and the hunk.
        HostError: no space for copies of the files.
    """
    before: dict[str, File | None] = {}
    for name, patch in _names(series).items():
        try:
            before[name] = original(name)
        except UserError as error:
            raise UserError(error.what, where=patch.at(), hint=error.hint) from error
    with treefiles.scratch("series") as root:
        for name, file in before.items():
            if file is not None:
                treefiles.write(root, name, file)
        for which, patch in series.numbered():
            _apply_one(patch, which, root)
        _check_names(before, root)
        return {name: treefiles.read(root, name) for name in before}


def _names(series: Series) -> dict[str, Patch]:
    """Return the touched files, each with the first patch that touches it."""
    names: dict[str, Patch] = {}
    for patch in series.every:
        for name in patch.touches():
            names.setdefault(name, patch)
    for name, patch in names.items():
        for parent in map(str, Path(name).parents):
            if parent in names:
                what = f"series uses {shown(parent)} as a file, and as a folder of {shown(name)}"
                hint = "a file or link cannot become a folder within a series"
                raise UserError(what, where=patch.at(), hint=hint)
    return dict(sorted(names.items()))


def _apply_one(patch: Patch, which: str, root: Path) -> None:
    # Only git knows binary changes, copies and quoted names; only patch(1) skips what other
    # programs write between diffs.
    by_git = any(change.is_named for change in patch.changes())
    done = _git_apply(patch, root) if by_git else _patch(patch, root)
    if done.status == 0:
        _check_modes(patch, root)
        return
    hint = _REBASE
    if by_git and _git_apply(patch, root, "--check", opposite=True).status == 0:
        hint = _APPLIED
    if by_git:  # say what is rejected
        done = _git_apply(patch, root, "--reject")
    output = f"{done.text}{done.stderr.decode('utf-8', 'replace')}"
    if full := treefiles.FULL.search(output):
        raise treefiles.full(root, full[0])
    line = _MALFORMED.search(output)
    why = _git_why(output, root) if by_git else _patch_why(output, root)
    raise UserError(
        f"{which} ({patch.subject}) does not apply: {why}",
        where=patch.at(int(line[1])) if line else patch.at(),
        hint="recreate the patch" if line else _APPLIED if _REVERSED in output else hint,
    )


def _git_apply(patch: Patch, root: Path, *more: str, opposite: bool = False) -> Completed:
    reverse = patch.reverse != opposite
    words = [
        "apply",
        "--whitespace=nowarn",
        f"-p{patch.strip}",
        *(["-R"] if reverse else []),
        *more,
    ]
    return git.outside(root, *words, "-", stdin=patch.content, check=False)


def _patch(patch: Patch, root: Path) -> Completed:
    # Unified diffs only: for ed scripts, `patch` would run ed(1).
    argv = ["patch", "--unified", "--batch", "--forward", "--fuzz=0", "--get=0"]
    return proc.run(
        [*argv, "--no-backup-if-mismatch", *patch.options.split()],
        cwd=root,
        stdin=patch.content,
        timeout_seconds=_PATCH_SECONDS,
        check=False,
    )


def _check_names(expected: Collection[str], root: Path) -> None:
    """Raise if `patch` wrote a file that was not parsed from the patches: it would be lost."""
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        if name not in expected and (path.is_symlink() or not path.is_dir()):
            raise UserError(
                f"`patch` wrote an unexpected file {shown(name)}",
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
            f"`patch` left {_kind(_mode(file))} at {shown(name)}: expected {_kind(expected)}",
            where=patch.at(),
        )


def _mode(file: File | None) -> str | None:
    if file is None:
        return None
    return diff.LINK if file.link else diff.PROGRAM if file.executable else diff.PLAIN


def _kind(mode: str | None) -> str:
    return _KINDS.get(mode or "", "no file")


def _patch_why(output: str, root: Path) -> str:
    """Return the files and hunks in which patch(1) failed, and the first rejected lines."""
    target, failures, other = "", [], []
    for line in output.splitlines():
        if named := re.match(r"(?:patching|checking) file (.+?)(?: \(.*)?$", line):
            target = named[1].strip("'")
        elif hunk := re.match(r"Hunk (#\d+) FAILED at (\d+)", line):
            failures.append(f"{target}, hunk {hunk[1]} at line {hunk[2]}")
        elif not re.match(r"Hunk #\d+ succeeded|\d+ out of \d+ hunk", line):
            other.append(f"  | {line}")
    shown = [] if failures else other[:_REJECT_LINES]
    return _cut("; ".join(failures) or "patch says", [*shown, *_rejects(root)])


def _git_why(output: str, root: Path) -> str:
    """Return the files and hunks in which `git apply` failed, and the first rejected lines."""
    target, failures, other = "", [], []
    lines: dict[str, list[str]] = {}
    for line in output.splitlines():
        if failed := re.match(r"error: patch failed: (.+):(\d+)$", line):
            lines.setdefault(failed[1], []).append(failed[2])
        elif named := re.match(r"Applying patch (.+) with \d+ reject", line):
            target = named[1].rpartition(" => ")[2]
        elif hunk := re.match(r"Rejected hunk (#\d+)", line):
            at = lines.get(target, [])
            failures.append(f"{target}, hunk {hunk[1]}" + (f" at line {at.pop(0)}" if at else ""))
        elif line.startswith("error: ") and not line.startswith("error: while searching"):
            other.append(f"  | {line}")
    return _cut("; ".join(failures) or "git apply says", [*other, *_rejects(root)])


def _rejects(root: Path) -> list[str]:
    shown = []
    for reject in sorted(root.rglob("*.rej")):
        shown.append(f"  rejected for {str(reject.relative_to(root)).removesuffix('.rej')}:")
        lines = reject.read_text("utf-8", "replace").splitlines()
        body = (line for line in lines if not line.startswith(("---", "+++", "diff a/")))
        shown += [f"  | {line}" for line in body]
    return shown


def _cut(first: str, lines: list[str]) -> str:
    more = len(lines) - _REJECT_LINES
    rest = [f"  … and {more} more lines"] if more > 0 else []
    return "\n".join([first, *lines[:_REJECT_LINES], *rest])
