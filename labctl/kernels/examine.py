"""What a reviewer's tools say of each step of a series: git am, W=1, sparse, checkpatch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from labctl import git, proc
from labctl.errors import HostError
from labctl.kernels import treefiles
from labctl.kernels.make import Make
from labctl.kernels.series import Patch, Series
from labctl.kernels.treefiles import File

_COMPLAINT = re.compile(r"^(\S+?):\d+(?::\d+)?: ((?:warning|error): .*)$", re.IGNORECASE)
_GIT_SECONDS = 60.0
_CHECKPATCH_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Complaint:
    """A warning or error of a compiler; `key` says the same without its line number."""

    line: str
    key: str


def complaints(output: str) -> list[Complaint]:
    """Return the warnings and errors in what a compiler or sparse printed."""
    found = []
    for line in output.splitlines():
        if said := _COMPLAINT.match(line):
            name = re.sub(r"^(?:.*/src/|(?:\.\./)+)", "", said[1])
            found.append(Complaint(line, f"{name}: {said[2]}"))
    return found


def new_complaints(before: Iterable[Complaint], after: Iterable[Complaint]) -> list[str]:
    """Return the lines of `after` that `before` has not, or has fewer times."""
    known = Counter(each.key for each in before)
    new = []
    for each in after:
        if known[each.key]:
            known[each.key] -= 1
        else:
            new.append(each.line)
    return new


def compiled_files(series: Series) -> list[str]:
    """Return the C files of the whole series, which are compiled at each of its steps."""
    return sorted(name for name in series.touches() if name.endswith(".c"))


def extra_warnings(make: Make, files: Sequence[str]) -> list[Complaint]:
    """Return what `make W=1` says of the files."""
    return complaints(make.compile(_there(make, files), "W=1"))


def warnings(make: Make, files: Sequence[str]) -> list[Complaint]:
    """Return what the compiler says of the files."""
    return complaints(make.compile(_there(make, files)))


def sparse(make: Make, files: Sequence[str]) -> list[Complaint]:
    """Return what sparse says of the files.

    Raises:
        HostError: sparse is not installed.
    """
    proc.run(["sparse", "--version"], timeout_seconds=_GIT_SECONDS)
    return complaints(make.compile(_there(make, files), "C=2", "CHECK=sparse"))


def _there(make: Make, files: Sequence[str]) -> list[str]:
    """Return the objects of the files that the tree has at this step."""
    return [f"{name[:-2]}.o" for name in files if (make.tree.src / name).is_file()]


def checkpatch(source: Path, patch: Patch) -> list[str]:
    """Return what the source's own checkpatch says of a patch; nothing if it is clean.

    Raises:
        HostError: the source has none, or it cannot run.
    """
    script = source / "scripts" / "checkpatch.pl"
    if not script.is_file():
        raise HostError(f"{source} has no scripts/checkpatch.pl")
    done = proc.run(
        [script, "--strict", "--no-signoff", "--no-summary", "--terse", "-"],
        cwd=source,
        # Without a home: ~/.checkpatch.conf is the user's, not the reviewer's.
        env=git.environment(source.parent) | {"HOME": "/dev/null"},
        stdin=patch.content,
        timeout_seconds=_CHECKPATCH_SECONDS,
        check=False,
    )
    name = f"{patch.name}:"  # checkpatch read it from "-"
    lines = [re.sub(r"^-:", name, line) for line in done.text.splitlines() if line.strip()]
    if done.status == 0:
        return []
    return lines or done.stderr.decode("utf-8", "replace").splitlines() or ["it failed silently"]


def git_am(series: Series, originals: dict[str, File | None]) -> list[str | None]:
    """Apply a series by `git am`; return for each patch what git objected to, None if nothing.

    `originals` are the files that the series touches, as they are without it; None
    is no file. What stands behind a patch that failed is not tried.

    Raises:
        HostError: git is not installed.
    """
    outcome: list[str | None] = []
    with treefiles.scratch("am") as root:
        for name, file in originals.items():
            treefiles.write(root, name, file)
        git.run(root, "init", "-q", "--template=", timeout_seconds=_GIT_SECONDS)
        git.run(root, "add", "-A", "-f", timeout_seconds=_GIT_SECONDS)
        base = ["commit", "-q", "--allow-empty", "-m", "base"]
        git.run(root, *base, timeout_seconds=_GIT_SECONDS)
        for patch in series.patches:
            if patch.reverse:
                outcome.append("git am cannot take a patch back (-R in the series file)")
                break
            done = git.run(
                root,
                *["am", "-q", f"-p{patch.strip}"],
                stdin=patch.content,
                timeout_seconds=_GIT_SECONDS,
                check=False,
            )
            said = (done.stdout + done.stderr).decode("utf-8", "replace").strip()
            if done.status != 0:
                treefiles.probe(root)
            if treefiles.FULL.search(said):
                raise treefiles.full(root, said.splitlines()[-1])
            outcome.append(None if done.status == 0 else said or "git am failed")
            if done.status != 0:
                break
    return outcome
