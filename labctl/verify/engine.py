"""`Engine`: what runs the checks of kernels on other hosts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

from labctl.guests.guest import Guest
from labctl.guests.prepare import Prepared
from labctl.lab.models import Kernel, Variant
from labctl.verify.kernel import Check, Checker, Options
from labctl.verify.programs import CheckVerdict, Program
from labctl.verify.settings import Point

# Receives kernel, check, and the verdict if the check has ended.
Checking = Callable[[str, str, CheckVerdict | None], None]
Facts = Mapping[str, str | int | bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Todo:
    """The checks of a variant of a kernel; `prepared` has its guests."""

    kernel: Kernel
    variant: Variant
    programs: Sequence[Program]
    options: Options
    prepared: Prepared

    def count(self) -> int:
        """Return the number of checks."""
        return self.checker(_no_guest, lambda *_: None).count()

    def points(self) -> list[Point]:
        """Return the settings of the checks."""
        return self.checker(_no_guest, lambda *_: None).points()

    def checker(
        self,
        boot: Callable[[], AbstractContextManager[Guest]],
        report: Callable[[str, CheckVerdict | None], None],
    ) -> Checker:
        """Return what runs the checks in guests from `boot`."""
        return Checker(
            lab=self.prepared.lab,
            kernel=self.kernel,
            variant=self.variant,
            programs=self.programs,
            options=self.options,
            boot=boot,
            report=report,
        )


@dataclass(frozen=True, slots=True)
class Spread:
    """The checks of kernels, in their order; `hosts` has facts about the hosts, by name."""

    checks: dict[str, list[Check]]
    hosts: Mapping[str, Facts] = field(default_factory=dict)


def _no_guest() -> NoReturn:
    raise AssertionError("no guest runs here")


class Engine(Protocol):
    """What runs the checks of kernels on other hosts: see `labctl.scheduler`."""

    def choose(self, asked: str) -> str:
        """Return the accelerator of the guests; `asked` may be "auto"."""
        ...

    def check(self, todo: Sequence[Todo], checking: Checking) -> Spread:
        """Run checks, those of a kernel in their order; return them."""
        ...
