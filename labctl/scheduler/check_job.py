"""The checks of kernels that workers run, those of a variant at one setting at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from labctl.errors import BadOutput
from labctl.scheduler import check_worker
from labctl.scheduler.shipping import check_setup_of
from labctl.scheduler.task import CheckResult, CheckTask, HostReport, Shipped, packed
from labctl.scheduler.work import Losses, keep_logs
from labctl.verify.engine import Checking, Facts, Spread, Todo
from labctl.verify.kernel import Check, has_failed
from labctl.verify.programs import CheckVerdict
from labctl.verify.settings import Point
from labctl.verify.types import CheckStatus


@dataclass(frozen=True, slots=True)
class Group:
    """The checks of a variant of a kernel at one setting, which share a guest."""

    number: int
    todo: Todo
    setup: bytes
    point: Point


@dataclass(slots=True)
class CheckJob:
    """Groups of checks: which is next, and what came back.

    With `stop_at_first`, groups after the first one of a kernel that failed do not count.
    """

    groups: list[Group]
    files: Mapping[str, Shipped]
    checking: Checking
    losses: Losses
    _found: dict[int, list[Check]] = field(default_factory=dict)
    _hosts: dict[str, Facts] = field(default_factory=dict)
    _taken: set[int] = field(default_factory=set)
    _reported: set[tuple[str, str]] = field(default_factory=set)  # verdicts of kernel and check

    @classmethod
    def of(cls, todo: Sequence[Todo], checking: Checking, losses: Losses) -> CheckJob:
        """Return the job of some checks, in their order.

        Raises:
            HostError: a file of the guests cannot be read.
        """
        groups: list[Group] = []
        files: dict[str, Shipped] = {}
        for one in todo:
            setup = check_setup_of(one)
            files |= setup.files
            content = packed(setup)
            for point in one.points():
                groups.append(Group(len(groups), one, content, point))
        return cls(groups, files, checking, losses)

    @property
    def is_complete(self) -> bool:
        """Whether every group that counts is done."""
        return all(self._is_over(one) or one.number in self._found for one in self.groups)

    def _is_over(self, group: Group) -> bool:
        """Return whether an earlier check of the kernel failed, and that ends its checks."""
        return group.todo.options.stop_at_first and any(
            has_failed(checks)
            for number, checks in self._found.items()
            if number < group.number and self.groups[number].todo.kernel == group.todo.kernel
        )

    def take(self) -> Group | None:
        """Return the next group, None if there is none for now."""
        for group in self.groups:
            if group.number not in self._taken and not self._is_over(group):
                self._taken.add(group.number)
                return group
        return None

    def title(self, group: Group) -> str:
        """Return what a group is called."""
        setting = "".join(f" {name}={value}" for name, value in group.point.setting.items())
        return f"checks of {group.todo.kernel.name} {group.todo.variant.name}{setting}"

    def call(self, group: Group, topic: str, key: str) -> tuple[Callable[[Any], object], object]:
        """Return the function that runs a group's checks on a worker, and its argument."""
        task = CheckTask(setup=group.setup, point=group.point, topic=topic, key=key)
        return check_worker.check, task

    def tell(self, host: str, event: Mapping[str, Any], hosts: int) -> None:  # noqa: ARG002
        """Report the progress of a check."""
        kernel, title, status, why = event["check"]
        verdict = None if status is None else CheckVerdict(CheckStatus(status), str(why))
        self._report(host, str(kernel), str(title), verdict)

    def _report(self, host: str, kernel: str, title: str, verdict: CheckVerdict | None) -> None:
        """Report a check, and its verdict once: an event may come after the result, or never."""
        if (kernel, title) not in self._reported:
            self.checking(f"{host}: {kernel}", title, verdict)
        if verdict is not None:
            self._reported.add((kernel, title))

    def keep(self, group: Group, result: CheckResult, report: HostReport) -> None:
        """Keep the checks of a group, and the logs of its guests if one failed.

        Raises:
            BadOutput: a check is not of this group.
            HostError: the disk is full or fails.
        """
        names = {one.check for one in group.todo.programs} | {"exercised", "kmemleak"}
        for check in result.checks:
            own = group.todo.variant.name, group.point.setting
            if (check.variant, check.setting) != own or check.name not in names:
                raise BadOutput(f"check of another group: {check.title}")
        kernel, variant = group.todo.kernel.name, group.todo.variant.name
        place = group.todo.prepared.lab.state_folder.verify(kernel, variant)
        keep_logs(place / f"setting-{group.number}", result.logs)
        self._found[group.number] = [replace(one, host=report.name) for one in result.checks]
        self._hosts[report.name] = dict(report.facts)
        for check in result.checks:
            self._report(report.name, kernel, check.title, check.verdict)

    def give_back(self, group: Group) -> None:
        """Let another worker run the checks of a group that its worker did not."""
        self._taken.discard(group.number)

    def lose(self, group: Group) -> None:
        """Let another worker run the checks of a group whose worker died.

        Raises:
            HostError: several workers died with it.
        """
        self.give_back(group)
        self.losses.add(group.number, f"ran the {self.title(group)}")

    def spread(self) -> Spread:
        """Return the checks that count, by kernel."""
        checks: dict[str, list[Check]] = {}
        for group in self.groups:
            own = checks.setdefault(group.todo.kernel.name, [])
            if not self._is_over(group):
                own += self._found[group.number]
        return Spread(checks, self._hosts)
