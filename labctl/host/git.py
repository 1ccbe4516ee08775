"""The only place that starts git: always on an explicit work tree, without the user's settings.

Hooks and `git rebase -x` set variables that select a repository; users have settings,
templates and hooks. None of them may change the result of a git command of labctl.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from labctl import completed, proc
from labctl.errors import CommandError

_SECONDS = 300.0
# Settings given to a command override those of the repository. Those up to protocol.allow
# keep git from running programs, the others define what counts as a change.
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
    """Return variables for git and programs that run git, in addition to `environment.of_child`.

    Git does not search `ceiling` and its parents for a repository. `more` are git settings.
    """
    settings = _SETTINGS | dict(more or {})
    numbered = enumerate(settings.items())
    return {
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_NO_LAZY_FETCH": "1",
        # Also in repositories that allow protocols, and before git 2.45, where a missing
        # object of a partial clone is otherwise fetched.
        "GIT_ALLOW_PROTOCOL": "",
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
    """Return the top of the work tree that contains a folder, None if there is none."""
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
    """Run a git command on the work tree with this top folder.

    Raises:
        CommandError: git failed and `check` is set, or the deadline expired.
        HostError: git is not installed.
    """
    words = (f"--work-tree={work_tree}", *words)
    return _run(work_tree / ".git", work_tree, words, stdin, check, settings, timeout_seconds)


def read(git_dir: Path, *words: str, stdin: bytes = b"", check: bool = True) -> completed.Completed:
    """Run a git command that needs no work tree on a repository; its output is not logged.

    `git_dir` is a bare repository, or the .git of a work tree: a folder, or the file of a
    linked work tree. Raises the errors of `run`.
    """
    words = (f"--work-tree={git_dir.parent}", *words)  # else core.worktree, which may be gone
    return _run(git_dir, git_dir.parent, words, stdin, check, None, _SECONDS, is_logged=False)


def _run(
    git_dir: Path,
    folder: Path,
    words: Sequence[str],
    stdin: bytes,
    check: bool,
    settings: Mapping[str, str] | None,
    timeout_seconds: float,
    is_logged: bool = True,
) -> completed.Completed:
    """Run git in a folder.

    With an explicit --git-dir, git does not search parent folders, does not check who
    owns the repository (safe.directory).
    """
    return proc.run(
        ["git", f"--git-dir={git_dir}", *words],
        cwd=folder,
        env=environment(folder.parent, settings),
        stdin=stdin,
        timeout_seconds=timeout_seconds,
        check=check,
        is_output_logged=is_logged,
    )


def outside(
    folder: Path, *words: str, stdin: bytes = b"", check: bool = True
) -> completed.Completed:
    """Run a git command in a folder without any repository, as `git apply` can be.

    Raises the errors of `run`.
    """
    return proc.run(
        ["git", "--git-dir=/dev/null", *words],
        cwd=folder,
        env=environment(folder),
        stdin=stdin,
        timeout_seconds=_SECONDS,
        check=check,
    )


def without_filters(work_tree: Path) -> dict[str, str]:
    """Return settings that disable the filters of the repository's configuration.

    Raises the errors of `run`.
    """
    words = ["config", "-z", "--name-only", "--get-regexp", r"^filter\."]
    done = run(work_tree, *words, check=False)
    if done.status > 1:
        raise CommandError(
            f"git cannot read {work_tree}", status=done.status, output=_text(done.stderr)
        )
    names = {os.fsdecode(name).rpartition(".")[0] for name in done.stdout.split(b"\0")[:-1]}
    return {f"{name}.{key}": value for name in names for key, value in _NO_FILTER.items()}


def _text(stderr: bytes) -> str:
    return stderr.decode("utf-8", "replace").strip()
