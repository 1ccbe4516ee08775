"""Run reviewers' tools on each step of a series: git am, W=1, sparse, checkpatch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from labctl import proc
from labctl.errors import HostError
from labctl.host import git
from labctl.kernels import kbuild, kconfig, treefiles
from labctl.kernels.make import Make
from labctl.kernels.treefiles import File
from labctl.series.patch import Patch, Series

_COMPLAINT = re.compile(r"^(\S+?):\d+(?::\d+)?: ((?:warning|error): .*)$", re.IGNORECASE)
# make asks sparse whether it knows __typeof_unqual__ of C23, and leaves it out if not. sparse
# 0.6.4 does not, but __typeof__ serves as well.
_SPARSE = "CHECK=sparse -D__typeof_unqual__=__typeof__"
_EXTRA = "W=1"
_NO_SPARSE = "is not available or not up to date"
_PROGRAMS = ("tools/", "scripts/", "usr/")
_ARCH = re.compile(r"arch/([^/]+)/")
_GIT_SECONDS = 60.0
_CHECKPATCH_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Complaint:
    """A warning or error of a compiler; `key` is the same without the line number."""

    line: str
    key: str


def complaints(output: str) -> list[Complaint]:
    """Return the warnings and errors in the output of a compiler or sparse."""
    found = []
    for line in output.splitlines():
        if parts := _COMPLAINT.match(line):
            name = re.sub(r"^(?:.*/src/|(?:\.\./)+)", "", parts[1])
            found.append(Complaint(line, f"{name}: {parts[2]}"))
    return found


def new_complaints(before: Iterable[Complaint], after: Iterable[Complaint]) -> list[Complaint]:
    """Return the complaints of `after` that are missing from `before`, or occur more often."""
    known = Counter(each.key for each in before)
    new = []
    for each in after:
        if known[each.key]:
            known[each.key] -= 1
        else:
            new.append(each)
    return new


def compiled_files(series: Series) -> list[str]:
    """Return the kernel's C files that the series touches; all are compiled at each step.

    Programs in tools/, such as selftests, have Makefiles of their own, those in scripts/ and
    usr/ are for the host.
    """
    return sorted(
        name for name in series.touches() if name.endswith(".c") and not name.startswith(_PROGRAMS)
    )


def forget(make: Make, files: Sequence[str]) -> None:
    """Remove the objects of the files: make is silent about those that are up to date."""
    for name in _there(make, files):
        (make.tree.build / name).unlink(missing_ok=True)


def extra_warnings(make: Make, files: Sequence[str]) -> list[Complaint]:
    """Return the warnings and errors of `make W=1` on the files that it compiles."""
    return complaints(make.compile(_there(make, files), _EXTRA))


def warnings(make: Make, files: Sequence[str]) -> list[Complaint]:
    """Return the compiler's warnings and errors on the files that it compiles."""
    return complaints(make.compile(_there(make, files)))


def sparse(make: Make, files: Sequence[str]) -> list[Complaint]:
    """Return the warnings and errors of sparse on the files.

    After `extra_warnings`, whose options it has, nothing is compiled again.

    Raises:
        HostError: sparse is not installed, or too old for the source.
    """
    version = proc.run(["sparse", "--version"], timeout_seconds=_GIT_SECONDS).text.strip()
    output = make.compile(_there(make, files), _EXTRA, "C=2", _SPARSE)
    if _NO_SPARSE in output:
        raise HostError(f"sparse {version} is too old for this source", hint="install a newer one")
    return complaints(output)


def left_out(make: Make, files: Sequence[str]) -> dict[str, str]:
    """Return the files that the kernel of this configuration does not have, with the reason.

    make compiles them when asked, but they need not compile: for one, their header has
    empty functions in place of theirs.
    """
    config = kconfig.values((make.tree.build / ".config").read_text("utf-8", "replace"))
    found = {}
    for name in files:
        arch = _ARCH.match(name)
        if arch and arch[1] != make.arch.kbuild:
            found[name] = f"it is for {arch[1]}"
        elif why := kbuild.left_out(make.tree.src, config, name):
            found[name] = why
    return found


def _there(make: Make, files: Sequence[str]) -> list[str]:
    """Return the object names of the files that exist at this step and are compiled."""
    off = left_out(make, files)
    there = [name for name in files if name not in off and (make.tree.src / name).is_file()]
    return [f"{name[:-2]}.o" for name in there]


def checkpatch(source: Path, patch: Patch) -> list[str]:
    """Return the output lines of the source's checkpatch for a patch; none if it is clean.

    Raises:
        HostError: the source has no checkpatch, or it cannot run.
    """
    script = source / "scripts" / "checkpatch.pl"
    if not script.is_file():
        raise HostError(f"{source} has no scripts/checkpatch.pl")
    done = proc.run(
        [script, "--strict", "--no-signoff", "--no-summary", "--terse", "-"],
        cwd=source,
        # Ignore the user's ~/.checkpatch.conf: reviewers do not have it.
        env=git.environment(source.parent) | {"HOME": "/dev/null"},
        stdin=patch.content,
        timeout_seconds=_CHECKPATCH_SECONDS,
        check=False,
    )
    name = f"{patch.name}:"  # checkpatch calls its standard input "-"
    lines = [re.sub(r"^-:", name, line) for line in done.text.splitlines() if line.strip()]
    if done.status == 0:
        return []
    return (
        lines
        or done.stderr.decode("utf-8", "replace").splitlines()
        or ["checkpatch failed without a message"]
    )


def git_am(series: Series, originals: dict[str, File | None]) -> list[str | None]:
    """Apply a series with `git am`; return git's error for each patch, None if it applied.

    `originals` are the files that the series touches, before its first patch; None is no
    file. Patches after a failed one are not tried.

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
                outcome.append("git am cannot apply in reverse (-R in the series file)")
                break
            done = git.run(
                root,
                *["am", "-q", f"-p{patch.strip}"],
                stdin=patch.content,
                timeout_seconds=_GIT_SECONDS,
                check=False,
            )
            output = (done.stdout + done.stderr).decode("utf-8", "replace").strip()
            if done.status != 0:
                treefiles.probe(root)
            if treefiles.FULL.search(output):
                raise treefiles.full(root, output.splitlines()[-1])
            outcome.append(None if done.status == 0 else output or "git am failed")
            if done.status != 0:
                break
    return outcome
