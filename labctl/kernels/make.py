"""Run make in a work tree, with a fixed environment, progress and errors from its output."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from labctl import completed, proc
from labctl.arch import X86_64, Architecture
from labctl.errors import BuildError, HostError
from labctl.files import read_json, write_json
from labctl.host import cgroup, git
from labctl.kernels import faults, kconfig, symbols
from labctl.kernels.configuration import Configuration
from labctl.kernels.outcome import Outcome
from labctl.kernels.tree import Tree

_POLL_SECONDS = 0.25
_CONFIG_SECONDS = 600.0
_BUILD_SECONDS = 4 * 3600.0
_ERROR_LINES = 20
# Steps of a small kernel, used until the first whole build has been counted.
_USUAL_STEPS = 1500
_WHOLE = "/whole"  # no kernel has a name like this
_FEW_STEPS = 50  # fewer steps give no usable rate
_STEP = re.compile(rb"^  [A-Z][A-Z0-9_]+ +\S", re.MULTILINE)
_WARNING = re.compile(r"\bwarning: ", re.IGNORECASE)
_WRONG = re.compile(
    r"\berror: |undefined reference|multiple definition|: \*\*\* |^ERROR|: not found|No space left"
)
# Variables that make inherits. Others, such as KCFLAGS, ARCH or MAKEFLAGS, would change
# the image without changing its address.
_KEPT = re.compile(r"PATH|HOME|USER|LOGNAME|TMPDIR|CCACHE_\w+")
# Constant, so that the same inputs give the same image and no version file changes.
_FIXED = {
    "LC_ALL": "C",
    "KBUILD_BUILD_TIMESTAMP": "2017-03-15 00:00:00 UTC",
    "KBUILD_BUILD_USER": "labctl",
    "KBUILD_BUILD_HOST": "labctl",
    "KBUILD_BUILD_VERSION": "1",
}

Report = Callable[[str, int, int | None], None]


@dataclass(frozen=True, slots=True)
class Make:
    """Make for one kernel in a tree that the caller has locked.

    `report` is called with a stage, the steps done and the steps expected. `variables` are on
    make's command line.
    """

    kernel: str
    tree: Tree
    log: Path
    report: Report
    arch: Architecture = X86_64
    variables: Mapping[str, str] = field(default_factory=dict, hash=False)

    def configure(self, configuration: Configuration) -> Outcome:
        """Write the .config if it differs from the present one, as make compares times.

        Raises:
            UserError: a requested option is missing from the final .config.
            BuildError: Kconfig itself failed.
        """
        self.report("configuring", 0, None)
        build = self.tree.build
        build.mkdir(parents=True, exist_ok=True)
        configuration.check_target(self.tree.src, self.arch)
        fresh = build / ".config.new"
        fresh.unlink(missing_ok=True)
        whole = configuration.whole  # `Outcome` has what differs from it
        own = (o for o in configuration.requested if not o.earlier or o.earlier.file != whole)
        self._log(kconfig.overridden(own))
        before: Mapping[str, str] = {}
        if configuration.start:
            before = self._complete(configuration, fresh)
        else:
            wanted = build / ".labctl-allconfig"
            wanted.write_bytes(_bytes(kconfig.render(configuration.options)))
            self._kconfig("allnoconfig", fresh, {"KCONFIG_ALLCONFIG": str(wanted)})
        text = fresh.read_text("utf-8", "surrogateescape")
        kconfig.check(configuration.requested, text, self.tree.src, self.arch)
        outcome = Outcome(configuration, before, kconfig.values(text))
        self._log(outcome.lines())
        config = build / ".config"
        if not config.is_file() or config.read_text("utf-8", "surrogateescape") != text:
            fresh.replace(config)
        else:
            fresh.unlink()
        return outcome

    def _complete(self, configuration: Configuration, fresh: Path) -> dict[str, str]:
        """Complete options on top of a target's .config, or alone; return the start's values."""
        before = configuration.start_values()
        if configuration.has_target:
            self._kconfig(configuration.start, fresh)
            text = fresh.read_text("utf-8", "surrogateescape")
            before = kconfig.values(text)
            # Kconfig warns of an option that is set twice.
            fresh.write_bytes(_bytes(kconfig.without(text, configuration.options)))
        with fresh.open("ab") as file:
            file.write(_bytes(kconfig.render(configuration.options)))
        self._kconfig("olddefconfig", fresh)
        return before

    def _kconfig(self, target: str, fresh: Path, more: dict[str, str] | None = None) -> None:
        """Run a target that writes the file `fresh`."""
        argv = self._argv(target, more={"KCONFIG_CONFIG": str(fresh)} | (more or {}))
        with self.tree.at_work():
            done = proc.run(argv, timeout_seconds=_CONFIG_SECONDS, check=False)
        with self.log.open("ab") as log:
            log.write(done.stdout + done.stderr)
        if done.status != 0:
            raise self._failed("cannot be configured")

    def _log(self, text: str) -> None:
        with self.log.open("ab") as log:
            log.write(_bytes(text))

    def build(self) -> None:
        """Build the image, and gdb's files if the .config enables them.

        Raises:
            BuildError: the compiler failed; carries its last errors.
            HostError: the disk is full, or a compiler was killed.
        """
        jobs = cgroup.jobs()
        began, deadline = self.log.stat().st_size, time.monotonic() + _BUILD_SECONDS
        scope = self._scope()
        expected, steps = self._expected(scope), 0
        image = self.arch.image.name
        argv = self._argv(f"-j{jobs}", image, *symbols.goals(self.tree.build / ".config"))
        with self.tree.at_work(), proc.spawn(argv, log=self.log) as make:
            offset = began
            while (status := make.wait(_POLL_SECONDS)) is None:
                offset, new = self._steps_since(offset)
                steps += new
                self.report("compiling", steps, max(expected, steps) if expected else None)
                if time.monotonic() > deadline:
                    raise self._failed(f"did not build within {_BUILD_SECONDS:g} s")
        if status != 0:
            raise self._failed(f"does not build (make {completed.ending(status)})")
        self._remember(scope, self._steps_since(began)[1])

    def compile(self, objects: Sequence[str], *options: str) -> str:
        """Compile single objects with make's `options`, such as W=1; return the output.

        Raises:
            BuildError: they do not compile.
        """
        if not objects:
            return ""
        self.report("compiling", 0, None)
        with self.tree.at_work():
            done = proc.run(
                # Messages of a compiler stay together.
                self._argv(f"-j{cgroup.jobs()}", "--output-sync=target", *options, *objects),
                timeout_seconds=_BUILD_SECONDS,
                check=False,
            )
        with self.log.open("ab") as log:
            log.write(done.stdout + done.stderr)
        if done.status != 0:
            raise self._failed(
                " ".join(["does not compile", *(f"with {option}" for option in options)])
            )
        return (done.stdout + done.stderr).decode("utf-8", "replace")

    def release(self) -> str:
        """Return the release of the kernel that was built last."""
        return (self.tree.build / "include/config/kernel.release").read_text().strip()

    def warnings(self) -> int:
        """Return the number of warnings in the log."""
        return len(_WARNING.findall(self.log.read_text("utf-8", "replace")))

    def _argv(self, *goals: str, more: dict[str, str] | None = None) -> list[str | Path]:
        kept = {k: v for k, v in os.environ.items() if _KEPT.fullmatch(k)}
        # flock(1) execs make, and all of make's children inherit the lock: it is held
        # until the last of them ends.
        lock: list[str | Path] = ["flock", "--no-fork", "--timeout", "60", self.tree.make_lock]
        arch = {"ARCH": self.arch.kbuild, "CROSS_COMPILE": self.arch.cross_compile}
        fixed = _FIXED | {name: value for name, value in arch.items() if value}
        # Else scripts/setlocalversion could find the user's repository above the tree.
        kept |= git.environment(self.tree.folder)
        env = [f"{name}={value}" for name, value in (kept | fixed | (more or {})).items()]
        make: list[str | Path] = ["make", "-C", self.tree.src, f"O={self.tree.build}"]
        variables = {"LOCALVERSION": ""} | dict(self.variables)
        own = [f"{name}={value}" for name, value in variables.items()]
        return [*lock, "env", "-i", *env, *make, *own, *goals]

    def _steps_since(self, offset: int) -> tuple[int, int]:
        """Return the offset after the log's last whole line, and the number of new steps."""
        with self.log.open("rb") as log:
            log.seek(offset)
            data = log.read()
        whole = data.rfind(b"\n") + 1
        return offset + whole, len(_STEP.findall(data[:whole]))

    @property
    def _memory(self) -> Path:
        return self.tree.build.with_suffix(".steps.json")

    def _scope(self) -> str:
        return self.kernel if (self.tree.build / self.arch.image).exists() else _WHOLE

    def _expected(self, scope: str) -> int | None:
        """Return the number of steps of the last build of this kind."""
        steps = read_json(self._memory).get(scope)
        return steps if isinstance(steps, int) else _USUAL_STEPS if scope == _WHOLE else None

    def _remember(self, scope: str, steps: int) -> None:
        memory = read_json(self._memory)
        known = memory.get(scope)
        if scope == _WHOLE and isinstance(known, int):
            steps = max(steps, known)  # a build continued after an error has fewer steps
        if steps != known:
            write_json(self._memory, memory | {scope: steps})

    def _failed(self, what: str) -> BuildError | HostError:
        text = self.log.read_text("utf-8", "replace")
        what = f"kernel {self.kernel} {what}"
        fault = faults.of_host(text, what, str(self.log), str(self.tree.folder))
        if fault is not None:
            return fault
        lines = text.splitlines()
        errors = [line for line in lines if _WRONG.search(line)][-_ERROR_LINES:]
        return BuildError(what, log=str(self.log), errors=errors or lines[-_ERROR_LINES:])


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def remaining_seconds(seconds: float, done: int, total: int | None) -> float | None:
    """Return the remaining time at the present rate, None while it is unknown."""
    if total is None or done < _FEW_STEPS:
        return None
    return max(0.0, seconds / done * (total - done))
