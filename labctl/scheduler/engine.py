"""The engine of `--scheduler`: gives blocks, or checks, to hosts, one part at a time to each."""

from __future__ import annotations

import contextlib
import platform
import secrets
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import labctl
from labctl.errors import BadOutput, HostError
from labctl.experiments.runner import Runner
from labctl.guests.prepare import Prepared
from labctl.printable import printable
from labctl.runs.folder import RunFolder
from labctl.scheduler import client, worker
from labctl.scheduler.check_job import CheckJob
from labctl.scheduler.client import Connection, Future
from labctl.scheduler.hosts import Ended, Gone, Host, Hosts, LeftOut, Life
from labctl.scheduler.job import RESUME, Job
from labctl.scheduler.shipping import PART_BYTES, parts, setup_of
from labctl.scheduler.task import PROTOCOL, HostReport, Result, Setup, Shipped, packed
from labctl.scheduler.work import Losses, Work
from labctl.verify.engine import Checking, Spread, Todo

_JOIN_SECONDS = 600.0
_BUSY_SECONDS = 15.0  # before a host on which another measurement runs is asked again
_SILENT = "it does not respond"


@dataclass(slots=True)
class Engine:
    """Measures experiments and checks kernels on the workers of a scheduler; see `opened`.

    A worker without a heartbeat for `patience_seconds` counts as cut off. `again` says how to
    continue if there are no workers any more.
    """

    connection: Connection
    warning: Callable[[str], None]
    again: str = RESUME
    patience_seconds: float = 60.0
    join_seconds: float = _JOIN_SECONDS
    accel: str = ""
    facts: dict[str, dict[str, str | int | bool]] = field(default_factory=dict)
    hosts: Hosts = field(init=False)
    _work: Work[Any, Any] | None = None
    _is_told: bool = False  # that there are no workers

    def __post_init__(self) -> None:
        more = self.patience_seconds, self._life, self._tell
        self.hosts = Hosts(self.connection, self.warning, *more)

    def choose(self, asked: str) -> str:
        """Return the accelerator of a run: with "auto", KVM if a host has it.

        Waits for the workers that are there to report. All runs of an engine have the same
        accelerator, unless another one is asked for.
        """
        if asked == "auto" and self.accel:
            return self.accel
        began = time.monotonic()
        while True:
            self.hosts.turn()
            alive = [host for host in self.hosts.every if not host.left_out]
            reports = [host.report for host in alive if host.report is not None]
            is_late = time.monotonic() - began > self.patience_seconds
            if reports and (is_late or len(reports) == len(alive)):
                break
            self._check_hosts(began)
        works = any(not one.why_not_kvm for one in reports)
        self.accel = ("kvm" if works else "tcg") if asked == "auto" else asked
        return self.accel

    def run(self, runner: Runner, prepared: Prepared, folder: RunFolder) -> None:
        """Measure the missing blocks of an experiment; raises as `measure` does."""
        self.measure(runner, setup_of(runner, prepared), folder)

    def measure(self, runner: Runner, setup: Setup, folder: RunFolder) -> None:
        """Measure the missing blocks of an experiment.

        Raises:
            BaselineFailed: the first repetition of the baseline failed.
            HostError: no worker can measure, or the scheduler is lost.
        """
        folder.store.recover()
        job = Job(runner, folder, packed(setup), setup.files, Losses(self.again))
        began = runner.clock()
        try:
            self._do(job, setup.accel)
        finally:
            runner.timing.total_seconds += runner.clock() - began

    def check(self, todo: Sequence[Todo], checking: Checking) -> Spread:
        """Run the checks of kernels; return them with the facts about the hosts.

        Raises:
            HostError: no worker can run them, or the scheduler is lost.
        """
        job = CheckJob.of(todo, checking, Losses(self.again))
        self._do(job, todo[0].prepared.accel)
        return job.spread()

    @property
    def size(self) -> int:
        """The number of hosts that can be used at the same time, at least 1."""
        known = [one.report for one in self.hosts.every if not one.left_out]
        return max(1, len({one.boot_id for one in known if one is not None}))

    def _do(self, work: Work[Any, Any], accel: str) -> None:
        """Let the hosts do all parts of a work."""
        self.accel, self._work = accel, work
        waiting_since = time.monotonic()
        try:
            while not work.is_complete:
                self.hosts.turn()
                if any(host.life is not None for host in self.hosts.every):
                    waiting_since = time.monotonic()
                else:
                    self._check_hosts(waiting_since)
        finally:
            self.hosts.cancel()
            self._work = None

    def _check_hosts(self, since: float) -> None:
        """Raise if no host can be used any more; report once that there is none yet."""
        hosts = self.hosts.every
        is_late = time.monotonic() - since > self.join_seconds
        if hosts and (is_late or all(host.left_out for host in hosts)):
            reasons = "\n".join(f"  {host.name}: {host.left_out or _SILENT}" for host in hosts)
            raise HostError(
                f"no worker can measure:\n{reasons}",
                hint=f"start other workers, then {self.again}",
            )
        if hosts:
            return
        why = client.no_workers(self.connection.workers())
        if is_late:
            raise HostError(f"{self.connection.address} has {why}")
        if not self._is_told:
            self._is_told = True
            self.warning(f"waiting: {why}")

    def _tell(self, host: Host, event: Mapping[str, Any]) -> None:
        if "waiting" in event:
            if host.is_told_busy:
                return
            host.is_told_busy = True
            self.warning(
                f"worker {host.name}: waiting: another measurement runs on its host "
                f"({event['waiting']})"
            )
        elif self._work is not None:
            busy = sum(bool(one.part) for one in self.hosts.every)
            self._work.tell(host.name, event, busy)

    def _life(self, host: Host) -> Life:
        """The course of a host: it reports, and does part after part."""
        report = yield from self._admit(host)
        while True:
            work = self._work
            part = None if work is None else work.take()
            if work is None or part is None:
                yield None
                continue
            host.part = work.title(part)
            try:
                yield from self._ship(host, work.files)
                is_done = yield from self._done(host, work, part, report)
            except Ended:
                work.lose(part)
                raise
            except (Gone, LeftOut):
                work.give_back(part)
                raise
            except BadOutput as error:
                work.give_back(part)
                raise LeftOut(str(error)) from error
            finally:
                host.part = ""
            if not is_done:
                work.give_back(part)
                later = time.monotonic() + _BUSY_SECONDS
                while time.monotonic() < later:  # other hosts may take the part
                    yield None

    def _admit(self, host: Host) -> Generator[Future | None, Any, HostReport]:
        """Return the report of a host once it may measure for this run."""
        report: HostReport = yield self.hosts.call(host, worker.report)
        host.name, host.report = printable(report.name), report
        if (report.protocol, report.version) != (PROTOCOL, labctl.__version__):
            raise LeftOut(f"it has labctl {report.version}, this one is {labctl.__version__}")
        while not self.accel or self._work is None:
            yield None
        self._check(host, report)
        while self._is_used_by_another(report):
            yield None
        host.is_used = True
        self.facts[report.id] = dict(report.facts)
        return report

    def _check(self, host: Host, report: HostReport) -> None:
        if report.machine != platform.machine():
            raise LeftOut(f"its CPU is {report.machine}, this run measures on {platform.machine()}")
        if self.accel == "kvm" and report.why_not_kvm:
            raise LeftOut(f"this run measures with KVM, and there {report.why_not_kvm}")
        for other in self.hosts.every:
            known = other.report
            if other is host or known is None or other.life is None:
                continue
            if known.id == report.id and known.boot_id != report.boot_id:
                raise LeftOut(
                    f"it has the same machine id as {known.name}: "
                    "`systemd-machine-id-setup` creates another /etc/machine-id"
                )

    def _is_used_by_another(self, report: HostReport) -> bool:
        """Return whether another worker of the same host measures."""
        return any(
            other.is_used and other.report is not None and other.report.boot_id == report.boot_id
            for other in self.hosts.every
        )

    def _ship(self, host: Host, files: Mapping[str, Shipped]) -> Life:
        """Send a host the files that it lacks; leave it out if one arrives damaged."""
        wanted = {one.sha256: (what, one) for what, one in files.items()}
        unknown = [one for sha256, (_, one) in wanted.items() if sha256 not in host.has]
        if not unknown:
            return
        lacking = yield self.hosts.call(host, worker.lacking, tuple(unknown))
        for sha256 in lacking:
            what, file = wanted[sha256]
            token = secrets.token_hex(4)
            for content in parts(file, PART_BYTES):
                yield self.hosts.call(host, worker.receive, sha256, token, content)
            found = yield self.hosts.call(host, worker.verify, file, token)
            if found != sha256:
                raise LeftOut(
                    f"{Path(what).name} arrived damaged: expected SHA-256 {sha256}, got {found}"
                )
        host.has |= wanted.keys()

    def _done(
        self, host: Host, work: Work[Any, Any], part: object, report: HostReport
    ) -> Generator[Future, Result, bool]:
        """Let a host do a part; return False if another measurement did not end there."""
        function, task = work.call(part, self.hosts.topic, self.hosts.next_key)
        result = yield self.hosts.call(host, function, task)
        if result.failure is not None:
            raise LeftOut(str(result.failure))
        if result.busy:
            return False
        host.is_told_busy = False
        work.keep(part, result, report)
        return True


@contextlib.contextmanager
def opened(
    given: str, *, warning: Callable[[str], None], folder: Path = Path(), again: str = RESUME
) -> Iterator[Engine]:
    """Connect to a scheduler; raises as `client.connected` does."""
    with client.connected(given, folder, again) as connection:
        engine = Engine(connection, warning, again)
        engine.hosts.begin()
        yield engine
