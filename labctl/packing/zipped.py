"""Files as one executable zip archive, by shiv: Python runs it without an installation."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import labctl
from labctl import files
from labctl.errors import HostError, UserError
from labctl.packing import place

_ENTRY = "labctl.cli.packed:main"
_START = "labctl_start"
# Any Python can read it, also 2.7.
_START_TEXT = """\
import sys


def main():
    if sys.version_info < (3, 7):
        text = "%s: packed for CPython {python}, but this is Python %d.%d\\n"
        sys.stderr.write(text % ((sys.argv[0],) + tuple(sys.version_info[:2])))
        sys.stderr.write("  hint: start it with `python{python}`\\n")
        sys.exit(3)
    import labctl_checks

    labctl_checks.start("{python}", "{machine}")
"""
_CHECKS = "labctl_checks.py"
_CHECKS_SOURCE = "cli/packed_start.py"
_INTERPRETER = "/usr/bin/env python3"
_PACK = f"#!{_INTERPRETER}\nPK".encode()
# shiv's default of `--reproducible`: the same files give the same archive.
_BUILT_AT = "2000-01-01 00:00:00"
_NO_SHIV = "`pip install shiv`, or install labctl as labctl[pack]"


def check(output: Path) -> None:
    """Check that a pack can be written to a file, before a build that takes minutes.

    Raises:
        HostError: shiv is not installed.
        UserError: the folder does not exist, or the file exists and is not a pack.
    """
    try:
        import shiv.builder  # noqa: F401
    except ImportError as error:
        raise HostError("package shiv is not installed", hint=_NO_SHIV) from error
    if not output.absolute().parent.is_dir():
        raise UserError(
            "no such folder", where=str(output.parent), hint="create it with `mkdir -p`"
        )
    try:
        with files.reading(output) as file:
            start = file.read(len(_PACK))
    except FileNotFoundError:
        return
    except OSError as error:
        what = f"file cannot be read: {error.strerror}"
        raise UserError(what, where=str(output), hint="select another file with -o") from error
    if start != _PACK:
        what = "file exists and is not a packed lab"
        raise UserError(what, where=str(output), hint="remove it, or select another file with -o")


def write(output: Path, inside: Mapping[str, Path], python: str, machine: str) -> None:
    """Write files, by path below site-packages, as one file that starts `labctl.cli.packed`.

    When it starts, it unpacks itself into a folder of the current folder, once. Before
    that, modules of its own check the version of Python, which shiv does not.

    Raises:
        HostError: the disk is full or fails.
    """
    import zipfile

    import shiv
    from shiv.bootstrap.environment import Environment
    from shiv.builder import create_archive

    output = output.absolute()
    staging = files.unfinished(output.with_name(f"{output.name}-files"))
    checks = (Path(labctl.__file__).parent / _CHECKS_SOURCE).read_text()
    start = _START_TEXT.format(python=python, machine=machine)
    environment = Environment(
        built_at=_BUILT_AT,
        shiv_version=shiv.__version__,
        entry_point=_ENTRY,
        compile_pyc=False,  # in several processes, which some containers do not allow
        root=place.UNPACKED,
        reproducible=True,
    )
    try:
        for path, source in inside.items():
            link = staging / path
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(source.absolute())
        with files.replacing(output) as partial:
            create_archive([staging], partial, _INTERPRETER, f"{_START}:main", environment)
            with zipfile.ZipFile(partial, "a", zipfile.ZIP_DEFLATED) as archive:
                for name, text in ((f"{_START}.py", start), (_CHECKS, checks)):
                    archive.writestr(zipfile.ZipInfo(name), text)
    except OSError as error:
        what = f"cannot write file: {error.strerror or error}"
        raise HostError(what, where=str(error.filename or output)) from error
    finally:
        if os.path.lexists(staging):
            files.remove(staging)
