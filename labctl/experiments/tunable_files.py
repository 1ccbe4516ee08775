"""Checks of kernels before they are built: for guests, tunables set in them, and observers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from labctl.errors import ConfigError, Problem
from labctl.experiments import observer_checks
from labctl.experiments.plan import Plan
from labctl.guests.limits import Limits
from labctl.lab.models import Lab, Tunable


@dataclass(frozen=True, slots=True)
class GuestChecks(Limits):
    """Limits of topologies, and the tunables that are set on each kernel, by its name.

    `plans` are those whose observers need options of the kernels.
    """

    lab: Lab
    tunables: Mapping[str, Sequence[Tunable]]
    plans: Sequence[Plan] = ()

    @classmethod
    def of(cls, lab: Lab, plans: Sequence[Plan]) -> GuestChecks:
        """Return the checks of the kernels of some experiments."""
        found: dict[str, dict[str, Tunable]] = {}
        for cell in (cell for each in plans for cell in each.cells):
            own = {name: lab.tunables[name] for name in cell.tunables}
            found.setdefault(cell.kernel, {}).update(own)
        topologies = lab.topologies([each.experiment.name for each in plans])
        tunables = {name: tuple(own.values()) for name, own in found.items()}
        return cls(topologies, lab, tunables, plans)

    def check_config(self, kernel: str, config: Mapping[str, str], arch: str) -> None:
        """Check a complete .config.

        Raises:
            UserError: an option is too small for a guest; names the option.
            ConfigError: an observer needs an option; names the observer.
        """
        Limits.check_config(self, kernel, config, arch)
        problems = observer_checks.problems_of(self.lab, self.plans, kernel, config)
        if problems:
            raise ConfigError(problems)

    def check_source(self, kernel: str, may_have: Callable[[str], bool]) -> None:
        """Check that a kernel can have the files of its tunables.

        Raises:
            ConfigError: its source does not contain the name of a file; names the tunable.
        """
        problems = []
        for tunable in self.tunables.get(kernel, ()):
            if tunable.file is not None and not may_have(tunable.file):
                problems.append(self._problem(kernel, tunable, tunable.file))
        if problems:
            raise ConfigError(problems)

    def _problem(self, kernel: str, tunable: Tunable, file: str) -> Problem:
        what = f"kernel {kernel} does not have {file}: "
        what += f"its source does not contain {PurePosixPath(file).name}"
        hint = "correct the path, or name the kernels that have the tunable with `kernels:`"
        return self.lab.problem(("tunables", tunable.name, "file"), what, hint)
