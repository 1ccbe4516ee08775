"""Compile C programs for guests; a program is compiled again only if it changed or is damaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from labctl import files, proc
from labctl.arch import Architecture
from labctl.errors import BuildError, CommandError
from labctl.host import tools
from labctl.kernels import faults
from labctl.kernels.hashed import Hashed

_COMPILE_SECONDS = 300.0
_LARGEST_ERRORS = 40


@dataclass(frozen=True, slots=True)
class Compiler:
    """The host's gcc, or a cross compiler, with the first line of its version."""

    name: str
    version: str

    @classmethod
    def of(cls, arch: Architecture) -> Compiler:
        """Return the compiler for an architecture; raise HostError if it is not installed."""
        name = f"{arch.cross_compile}gcc"
        tools.check_installed([name], arch)
        return cls(name, tools.version_text(name).partition("\n")[0])

    def build(
        self, program: Path, first: Sequence[str], then: Sequence[str], folder: Path, what: str
    ) -> None:
        """Compile a program in a folder, unless it exists: `gcc FIRST -o PROGRAM THEN`.

        `what` is the message of the error.

        Raises:
            BuildError: it does not compile; has the compiler's errors.
            HostError: the disk is full, or the compiler was killed.
        """
        if Hashed(program, _noted(program)).holds():
            return
        partial = files.unfinished(program)
        log = program.with_suffix(".log")
        try:
            proc.run(
                [self.name, *first, "-o", partial.absolute(), *then],
                cwd=folder,
                timeout_seconds=_COMPILE_SECONDS,
            )
            digest = Hashed.of(partial).sha256
            partial.replace(program)
            write(_note(program), f"{digest}\n".encode(), 0o644)
        except CommandError as error:
            raise build_error(error, what, log) from error
        finally:
            files.unlink(partial)


def build_error(error: CommandError, what: str, log: Path) -> Exception:
    """Write the log of a failed build, and return the error to raise."""
    if fault := faults.of_host(f"{error.output}\n{error}", what, str(log), str(log.parent)):
        return fault
    log.write_text(error.output + "\n")
    lines = error.output.splitlines()
    errors = [line for line in lines if "error:" in line or "undefined reference" in line] or lines
    return BuildError(what, log=str(log), errors=errors[:_LARGEST_ERRORS])


def _note(program: Path) -> Path:
    """Return the path of the file with the SHA-256 of a compiled program."""
    return program.with_suffix(".sha256")


def _noted(program: Path) -> str:
    try:
        return _note(program).read_text("ascii", "replace").strip()
    except OSError:
        return ""


def write(path: Path, content: bytes, mode: int) -> None:
    """Write a file as a whole or not at all."""
    partial = files.unfinished(path)
    try:
        with files.naming(partial):
            partial.write_bytes(content)
        partial.chmod(mode)
        partial.replace(path)
    finally:
        files.unlink(partial)
