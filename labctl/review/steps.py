"""`labctl series check`: run reviewers' checks at every step of a series."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from msgspec import UNSET

from labctl.errors import BuildError, GuestError, UserError
from labctl.guests.guest import Guest
from labctl.guests.prepare import prepare
from labctl.kernels.build import Builder, BuildProgress
from labctl.kernels.make import Make
from labctl.lab.models import Kernel, Lab
from labctl.review import tools
from labctl.review.tools import Complaint
from labctl.review.types import SeriesCheck, StepResult
from labctl.series import reader
from labctl.series.patch import Series

# In the order of the report; each check runs once per step. Configurations of the lab's
# `compile:` come before the last one.
CHECKS = ("applies", "git am", "builds", "W=1", "sparse", "checkpatch", "boots")
_BOOT_SECONDS = 180.0
_COMMAND_SECONDS = 60.0
_DETAIL_LINES = 20

Progress = Callable[[BuildProgress], None]
_Found = Mapping[str, list[Complaint]]


@dataclass(slots=True)
class Step:
    """A series up to and including one patch; a check that was not reached is missing.

    `checks` has the objections of each check, none if it passed; `left_out` has the files
    that a check did not compile, with the reason.
    """

    number: int
    patch: str
    subject: str
    wanted: tuple[str, ...] = CHECKS
    checks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    left_out: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every check ran without objections."""
        return len(self.checks) == len(self.wanted) and not any(self.checks.values())

    def result(self) -> StepResult:
        """Return the step's part of the document."""
        return StepResult(
            number=self.number,
            patch=self.patch,
            subject=self.subject,
            passed=self.passed,
            checks={name: self.checks.get(name) for name in self.wanted},
            left_out=self.left_out or UNSET,
        )

    def note(self, check: str, objections: Sequence[str]) -> None:
        """Record the objections of a check."""
        self.checks[check] = tuple(objections[:_DETAIL_LINES])


def check(lab: Lab, name: str, progress: Progress) -> list[Step]:
    """Check the series of one of the lab's kernels, and return its steps.

    The series of its bases are applied first, and their steps are not checked.

    Raises:
        UserError: the kernel has no series, or is a built image, or the series of a base
            does not apply.
        HostError: a tool is missing: sparse, git, QEMU.
    """
    kernel = lab.kernels[name]
    whole = reader.read_all(kernel.stack, lab.state_folder.fetched)
    if whole is None:
        raise UserError(f"kernel {name} has no series")
    folder = lab.state_folder.series(name)
    builder = Builder(lab.state, progress)
    with builder.workshop(kernel, folder / "check.log") as make:
        steps = check_steps(make, whole, tuple(lab.verify.compile))
    for configuration, fragments in lab.verify.compile.items():
        other = kernel.model_copy(update={"kconfig": fragments, "config": None})
        with builder.workshop(other, folder / f"{configuration}.log") as make:
            compile_steps(make, whole, steps, configuration)
    for step in steps:
        if step.checks.get("applies") == ():
            stage = folder / str(step.number)
            whole.first(step.number).write(stage / "patches")
            _boot(lab, kernel, step, stage, progress)
    return steps


def document(checked: Mapping[str, Sequence[Step]]) -> SeriesCheck:
    """Return the document of the checked series, by kernel."""
    return SeriesCheck(
        series={name: tuple(step.result() for step in found) for name, found in checked.items()}
    )


def check_steps(make: Make, whole: Series, others: tuple[str, ...] = ()) -> list[Step]:
    """Run the checks that need only the work tree, and return the steps.

    `others` are the names of further configurations that the steps will be compiled in.
    """
    wanted = (*CHECKS[:-1], *others, CHECKS[-1])
    steps = [Step(i, p.name, p.subject, wanted) for i, p in enumerate(whole.patches, 1)]
    make.tree.prepare(whole.below)
    mails = tools.git_am(whole, make.tree.originals(whole.touches(), whole.below))
    for step, outcome in zip(steps, mails, strict=False):
        step.note("git am", () if outcome is None else outcome.splitlines())
    files = tools.compiled_files(whole)
    tools.forget(make, files)
    known = _tools(make, files)
    for step, patch in zip(steps, whole.patches, strict=True):
        step.note("checkpatch", tools.checkpatch(make.tree.src, patch))
        _compile(make, whole.first(step.number), step, files, known)
    return steps


def compile_steps(make: Make, whole: Series, steps: Sequence[Step], name: str) -> None:
    """Compile the touched files at each step, in the configuration of `make`."""
    make.tree.prepare(whole.below)
    files = tools.compiled_files(whole)
    tools.forget(make, files)
    known = tools.warnings(make, files)
    for step in steps:
        if step.checks.get("applies") != ():
            break
        make.tree.prepare(whole.first(step.number))
        if off := tools.left_out(make, files):
            step.left_out[name] = off
        try:
            after = tools.warnings(make, files)
        except BuildError as error:
            step.note(name, str(error).splitlines())
        else:
            step.note(name, _note_new(known, after))


def _compile(make: Make, stage: Series, step: Step, files: Sequence[str], known: _Found) -> None:
    """Apply the series up to the step and compile it; add the compilers' messages to `known`."""
    try:
        make.tree.prepare(stage)
    except UserError as error:
        step.note("applies", str(error).splitlines())
        return
    step.note("applies", ())
    if off := tools.left_out(make, files):
        step.left_out |= dict.fromkeys(known, off)
    try:
        found = _tools(make, files)
    except BuildError as error:
        step.note("W=1", str(error).splitlines())
        return
    for tool, after in found.items():
        step.note(tool, _note_new(known[tool], after))


def _note_new(known: list[Complaint], after: Sequence[Complaint]) -> list[str]:
    """Add the complaints that are not in `known` to it, and return their lines.

    What was known before any step stays known: make compiles only what a step changes, and
    says nothing of the other files.
    """
    new = tools.new_complaints(known, after)
    known += new
    return [each.line for each in new]


def _tools(make: Make, files: Sequence[str]) -> _Found:
    return {"W=1": tools.extra_warnings(make, files), "sparse": tools.sparse(make, files)}


def _boot(lab: Lab, kernel: Kernel, step: Step, folder: Path, progress: Progress) -> None:
    """Build the step's image and boot it."""
    name = f"{kernel.name}-step{step.number}"
    one = kernel.model_copy(update={"name": name, "series": str(folder / "patches")})
    try:
        kernels = {**lab.kernels, name: one}  # its bases are asked for their source
        ready = prepare(lab.model_copy(update={"kernels": kernels}), [name], progress)
    except BuildError as error:
        step.note("builds", str(error).splitlines())
        return
    step.note("builds", ())
    spec = ready.spec(
        name, name=name, folder=folder / "guest", topology=lab.guests[lab.defaults.guest]
    )
    try:
        with Guest(spec) as guest:
            guest.wait_ready(_BOOT_SECONDS)
            guest.run(["true"], timeout_seconds=_COMMAND_SECONDS)
    except GuestError as error:
        step.note("boots", [error.what, *error.console_tail[-_DETAIL_LINES:]])
        return
    step.note("boots", ())
