"""What runs on a worker: report its host, take files, measure a block. Called through Dask."""

from __future__ import annotations

import contextlib
import math
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import labctl
from labctl import files
from labctl.errors import BaselineFailed, ConfigError, LabError
from labctl.experiments.description import Facts
from labctl.experiments.plan import Plan, plan
from labctl.experiments.progress import Progress
from labctl.experiments.runner import Runner
from labctl.guests import qemu
from labctl.host import lock
from labctl.kernels.hashed import Hashed
from labctl.runs.sample import Sample, sealed
from labctl.scheduler.place import PLACE
from labctl.scheduler.task import (
    PROTOCOL,
    BlockResult,
    CheckTask,
    Failure,
    HostReport,
    Needed,
    Result,
    Setup,
    Shipped,
    Task,
    unpacked,
)
from labctl.status import SampleStatus

_LOG_BYTES = 1 << 20
_PATIENCE_SECONDS = 30.0  # for other measurements on this host
IDLE = "idle"

Tell = Callable[[dict[str, Any]], None]
Found = TypeVar("Found", bound=Result)


class Unwanted(Exception):
    """Nobody waits for this block any more."""


class Busy(Exception):
    """Another measurement on this host did not end; another host may take the block."""


@dataclass(slots=True)
class _Work:
    """What this worker does and did."""

    doing: str = IDLE
    blocks: int = 0
    # Logarithms of the ratios of the A/A control, one for each block and setting.
    controls: list[float] = field(default_factory=list)
    diagnoses: list[dict[str, str | None]] | None = None


_WORK = _Work()


def report() -> HostReport:
    """Return the report of this worker's host."""
    facts = PLACE.facts()
    return HostReport(
        protocol=PROTOCOL,
        version=labctl.__version__,
        name=PLACE.name,
        machine=platform.machine(),
        facts=facts.as_dict(),
        why_not_kvm=PLACE.kvm(facts),
    )


def lacking(wanted: Sequence[Shipped]) -> tuple[str, ...]:
    """Return the hashes of the files that are not here, or damaged."""
    return tuple(file.sha256 for file in wanted if not PLACE.has(file))


def receive(sha256: str, token: str, content: bytes) -> None:
    """Append a part of a file; `token` is the sender's."""
    files.make_folder(PLACE.files)
    PLACE.files.chmod(0o700)
    with _part(sha256, token).open("ab") as file:
        file.write(content)


def verify(file: Shipped, token: str) -> str:
    """Publish a file whose parts were all received; return the hash that it has."""
    part = _part(file.sha256, token)
    found = Hashed.of(part).sha256
    if found == file.sha256:
        files.sync(part)
        part.replace(PLACE.path_of(file.sha256))
    else:
        part.unlink()
    return found


def _part(sha256: str, token: str) -> Path:
    return PLACE.files / f"{sha256}.{token}.part"


def measure(task: Task) -> BlockResult:
    """Measure a block while no other measurement runs on this host."""
    setup = setup_of(task.setup)
    assert isinstance(setup, Setup)
    planned = plan(setup.lab, setup.experiment, setup.seed)
    holder = f"run {setup.run}"
    what = f"{holder}, {setup.experiment}, block {task.block.number + 1}"
    work = partial(_measured, task, setup, planned)
    return alone(task, holder, what, PLACE.run(setup.run), work, BlockResult)


def alone(
    task: Task | CheckTask,
    holder: str,
    what: str,
    folder: Path,
    work: Callable[[Tell], Found],
    kind: type[Found],
) -> Found:
    """Do the work of a task while no measurement runs on this host; return its result.

    `holder` describes the task to others that wait for it, `what` in the list of workers. Its
    files are in `folder`, which is removed.
    """
    tell = _teller(task)
    holders: list[str] = []
    deadline = time.monotonic() + _PATIENCE_SECONDS

    def waiting(other: str) -> None:
        holders.append(other)
        _WORK.doing = f"waits for {other}"
        tell({"key": task.key, "waiting": other})

    def poll() -> None:
        check_wanted()
        if time.monotonic() > deadline:
            raise Busy

    try:
        with lock.measuring(holder, waiting=waiting, folder=PLACE.lock_folder, poll=poll):
            _WORK.doing = what
            with _removed(folder):
                return work(tell)
    except Unwanted:
        return kind(failure=Failure("cancelled"))
    except Busy:
        return kind(busy=", ".join(holders))
    except ConfigError as error:
        return kind(failure=Failure("; ".join(map(str, error.problems))))
    except (LabError, OSError) as error:
        found = error if isinstance(error, LabError) else LabError(f"{error.strerror or error}")
        return kind(failure=Failure(found.what, found.where, found.hint))
    finally:
        _WORK.doing = IDLE


@contextlib.contextmanager
def _removed(folder: Path) -> Iterator[None]:
    """Remove a folder of a block's guests before and after the block."""
    files.remove(folder)
    try:
        yield
    finally:
        files.remove(folder)


@dataclass(slots=True)
class _Kept:
    """The samples of a block in memory, after the failures of earlier blocks."""

    every: list[Sample]
    lines: list[bytes] = field(default_factory=list)

    def append(self, sample: Sample) -> None:
        self.lines.append(sealed(sample))
        self.every.append(sample)

    def samples(self) -> list[Sample]:
        return list(self.every)


def _measured(task: Task, setup: Setup, planned: Plan, tell: Tell) -> BlockResult:
    kept, folder = _Kept(list(task.failures)), PLACE.run(setup.run)
    guests = PLACE.guests(PLACE, setup, planned)

    def measuring(now: Progress) -> None:
        check_wanted()
        step = [now.block, now.repetition, now.repetitions, now.cell, str(now.status), now.reason]
        tell({"key": task.key, "step": step})

    runner = Runner(
        lab=setup.lab,
        plan=planned,
        store=kept,
        boot=guests.boot,
        facts=Facts(
            run=setup.run,
            host=PLACE.facts().id,
            host_name=PLACE.name,
            accel=setup.accel,
            images={name: (i.hash, i.series_hash) for name, i in setup.images.items()},
        ),
        load=guests.load,
        supply=setup.supply,
        progress=measuring,
        log_of=guests.log_of,
        health=setup.health,
        baseline_is_good=task.baseline_is_good,
    )
    try:
        runner.measure(task.block)
    except BaselineFailed as error:
        logs = logs_of(folder, [error.console] if error.console else [])
        failure = Failure(error.what, error.console or None, error.hint)
        return BlockResult(baseline=failure, logs=logs)
    own = kept.every[len(task.failures) :]
    _WORK.blocks += 1
    _WORK.controls += _controls(planned, own)
    failed = [s.console for s in own if s.status != SampleStatus.OK and s.console]
    commands = [str(Path(s.console).with_name(qemu.COMMAND)) for s in own if s.console]
    is_first = task.block.number == 0
    logs = logs_of(folder, [*failed, *(commands if is_first else ())])
    return BlockResult(lines=tuple(kept.lines), timing=runner.timing, logs=logs)


def logs_of(folder: Path, paths: Sequence[str]) -> dict[str, bytes]:
    """Return the ends of logs, by their path in a folder."""
    found = {}
    for path in dict.fromkeys(paths):
        with contextlib.suppress(OSError), (folder / path).open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _LOG_BYTES))
            found[path] = file.read(_LOG_BYTES)
    return found


def _controls(planned: Plan, own: Sequence[Sample]) -> list[float]:
    """Return the logarithm of baseline / A/A control of each setting, where both are there."""
    values: dict[tuple[str, bool], list[float]] = {}
    for one in own:
        usable = one.status == SampleStatus.OK and not one.warmup and one.scale == "ratio"
        if usable and one.kernel == planned.baseline and one.value is not None:
            values.setdefault((repr(one.setting), one.control), []).append(one.value)
    return [
        math.log(statistics.median(times) / statistics.median(values[setting, True]))
        for (setting, control), times in values.items()
        if not control and (setting, True) in values
    ]


def status() -> dict[str, Any]:
    """Return what this worker does and did, as JSON."""
    ratios = _WORK.controls
    return {
        "name": PLACE.name,
        "doing": _WORK.doing,
        "blocks": _WORK.blocks,
        "aa_ratio": math.exp(statistics.fmean(ratios)) if ratios else None,
        "aa_spread": statistics.stdev(ratios) if len(ratios) > 1 else None,
        "diagnoses": _WORK.diagnoses,
    }


def diagnose() -> list[dict[str, str | None]]:
    """Return the doctor's diagnoses of this host, for a worker; they are kept."""
    from labctl.doctor.host_tests import HostTests
    from labctl.host.facts import read_facts

    if _WORK.diagnoses is None:
        tests = HostTests(lab=None, state=PLACE.folder, facts=read_facts(), progress=lambda _: None)
        _WORK.diagnoses = [one.document() for one in tests.diagnoses(builds=False)]
    return _WORK.diagnoses


@lru_cache(maxsize=4)
def setup_of(content: bytes) -> Needed:
    """Return the setup of a task, which several tasks share."""
    return unpacked(content)


def _teller(task: Task | CheckTask) -> Tell:
    from distributed import get_worker

    worker = get_worker()
    return lambda event: worker.log_event(task.topic, event)


def check_wanted() -> None:
    """Raise Unwanted if the client cancelled this task, or is gone."""
    from distributed import get_worker

    running = get_worker()
    task = running.state.tasks.get(running.get_current_task())
    if task is None or task.state != "executing":
        raise Unwanted
