"""What a bisection goes over: the patches of a series, or the commits of a range."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from labctl.bisect.types import Candidate
from labctl.errors import UserError
from labctl.lab.kernels import series_place
from labctl.lab.models import Kernel, Lab
from labctl.series import reader
from labctl.series.commits import Range, first_parents, subjects
from labctl.series.patch import Series
from labctl.series.place import InvalidPlace

RANGE = "git:"
_DIGITS = 12
_KINDS = ("dir:", "git:")


class Steps(Protocol):
    """Steps from 1 to `count`; 0 is the good end without any of them."""

    @property
    def own(self) -> Kernel:
        """The kernel of the lab that the steps vary."""

    @property
    def count(self) -> int:
        """Number of the last step."""

    def candidate(self, step: int) -> Candidate:
        """Return what a step, from 1, is called."""

    def kernel(self, step: int) -> Kernel:
        """Return the kernel at a step, which may be written to disk."""


@dataclass(frozen=True, slots=True)
class Patches:
    """The patches of a kernel's series; step N has the first N."""

    lab: Lab
    own: Kernel
    series: Series

    @property
    def count(self) -> int:
        """Number of patches."""
        return len(self.series.patches)

    def candidate(self, step: int) -> Candidate:
        """Return a patch's name and subject."""
        patch = self.series.patches[step - 1]
        return Candidate(step=step, patch=patch.name, subject=patch.subject)

    def kernel(self, step: int) -> Kernel:
        """Return the kernel with the first patches, which are written to the state folder."""
        place: str | None = None
        if step:
            folder = self.lab.state_folder.bisect(self.own.name, step)
            self.series.first(step).write(folder)
            place = str(folder)
        return self.own.model_copy(update={"name": _name(self.own, step), "series": place})


@dataclass(frozen=True, slots=True)
class Commits:
    """The first parents of a range; step N is the tree of the Nth, 0 that of the merge base."""

    own: Kernel
    range: Range
    subjects: tuple[str, ...]

    @property
    def count(self) -> int:
        """Number of commits."""
        return len(self.range.commits)

    def candidate(self, step: int) -> Candidate:
        """Return a commit's short hash and subject."""
        name = self.range.commits[step - 1][:_DIGITS]
        return Candidate(step=step, patch=name, subject=self.subjects[step - 1])

    def kernel(self, step: int) -> Kernel:
        """Return the kernel with a commit as its source."""
        commit = self.range.commits[step - 1] if step else self.range.base
        source = f"git:{self.range.repository.folder}@{commit}"
        return self.own.model_copy(update={"name": _name(self.own, step), "source": source})


def patches_of(lab: Lab, kernel: str) -> Patches:
    """Return the steps of a kernel's series.

    Raises:
        UserError: the kernel has no series, or it cannot be read.
    """
    own = lab.kernels[kernel]
    if own.series is None:
        hint = "to bisect the commits of its source: `labctl bisect git:GOOD..BAD`"
        raise UserError(f"kernel {kernel} has no series: nothing to bisect", hint=hint)
    return Patches(lab, own, reader.read(own.series, lab.state_folder.fetched))


def commits_of(lab: Lab, text: str, like: str) -> Commits:
    """Return the steps of a range of commits, built and run as the kernel `like`.

    Raises:
        UserError: `like` has a series or no source in git, or the range is invalid.
    """
    own = lab.kernels[like]
    if own.series is not None:
        hint = "select a kernel without one by --kernel"
        raise UserError(f"kernel {like} has a series: expected a range of its source", hint=hint)
    try:
        place = series_place(text, own.source, lab.root)
    except InvalidPlace as error:
        raise UserError(error.what, where=text, hint=error.hint) from error
    found = first_parents(Path(place.path), place.base, place.topic)
    return Commits(own, found, tuple(subjects(found)))


def kernel_like(lab: Lab, names: Iterable[str]) -> str:
    """Return the first of some kernels that can be built from any commit.

    Raises:
        UserError: there is none.
    """
    for name in names:
        own = lab.kernels[name]
        if own.series is None and own.source.startswith(_KINDS):
            return name
    raise UserError(
        "no kernel from git without a series found",
        hint="select a kernel by --kernel, or define one with source git:PATH@REVISION or dir:PATH",
    )


def _name(own: Kernel, step: int) -> str:
    return f"{own.name}.step{step}"
