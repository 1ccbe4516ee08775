"""The only place that starts git: a named work tree, and nothing of the user's settings.

The environment that hooks and `git rebase -x` give to their children names a repository;
settings, templates and hooks are the user's own. None of them may reach what labctl asks.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from labctl import completed, proc
from labctl.errors import CommandError

_SECONDS = 300.0
# Settings of a command outrank those of a repository. The first group would run a
# program, the second changes what counts as a difference.
_SETTINGS = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "init.templateDir": "",
    "commit.gpgSign": "false",
    "tag.gpgSign": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "protocol.allow": "never",
    "core.attributesFile": "/dev/null",
    "core.excludesFile": "/dev/null",
    "core.autocrlf": "false",
    "core.fileMode": "true",
    "core.symlinks": "true",
    "core.ignoreCase": "false",
    "core.trustctime": "true",
    "core.checkStat": "default",
    "core.ignoreStat": "false",
    "core.untrackedCache": "false",
}
_IDENTITY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in {"NAME": "labctl", "EMAIL": "labctl@localhost"}.items()
}
_NO_FILTER = {"clean": "", "smudge": "", "process": "", "required": "false"}


def environment(ceiling: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return what git, or a program that runs git, is given beside `environment.of_child`.

    No repository is found in the folder `ceiling` or above; `more` are further settings.
    """
    settings = _SETTINGS | dict(more or {})
    numbered = enumerate(settings.items())
    return {
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_CEILING_DIRECTORIES": str(ceiling.resolve()),
        **_IDENTITY,
        "GIT_CONFIG_COUNT": str(len(settings)),
        **{
            f"GIT_CONFIG_{part}_{number}": text
            for number, pair in numbered
            for part, text in zip(("KEY", "VALUE"), pair, strict=True)
        },
    }


def top(folder: Path) -> Path | None:
    """Return the work tree that a folder is in, None if it is in none."""
    physical = folder.resolve()
    return next((p for p in (physical, *physical.parents) if os.path.lexists(p / ".git")), None)


def run(
    work_tree: Path,
    *words: str,
    stdin: bytes = b"",
    check: bool = True,
    settings: Mapping[str, str] | None = None,
    timeout_seconds: float = _SECONDS,
) -> completed.Completed:
    """Run a git command on a work tree, given by its top folder, whoever owns it.

    The repository is named, not searched for: git then neither takes one above it, nor
    asks whose it is, nor follows core.worktree.

    Raises:
        CommandError: it failed and `check` is set, or it outlived its deadline.
        HostError: git is not installed.
    """
    return proc.run(
        ["git", f"--git-dir={work_tree / '.git'}", f"--work-tree={work_tree}", *words],
        cwd=work_tree,
        env=environment(work_tree.parent, settings),
        stdin=stdin,
        timeout_seconds=timeout_seconds,
        check=check,
    )


def without_filters(work_tree: Path) -> dict[str, str]:
    """Return settings that keep git from running the filters of a repository's own config.

    Raises as `run` does.
    """
    asked = ["config", "-z", "--name-only", "--get-regexp", r"^filter\."]
    done = run(work_tree, *asked, check=False)
    if done.status > 1:
        raise CommandError(
            f"git cannot read {work_tree}", status=done.status, output=_said(done.stderr)
        )
    names = {os.fsdecode(name).rpartition(".")[0] for name in done.stdout.split(b"\0")[:-1]}
    return {f"{name}.{key}": value for name in names for key, value in _NO_FILTER.items()}


def _said(stderr: bytes) -> str:
    return stderr.decode("utf-8", "replace").strip()
