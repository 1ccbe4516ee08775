"""Kill labctl before a call, or let that call and all later ones fail; check what is left.

Or cut the power before a call: see `powercut`.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from dataclasses import dataclass, field

import broken
import powercut
from broken import CHILD, FOLDER, FULL, KILL, READ_ONLY, RECORD, TEAR

MODES = {"kill": KILL, "torn write": TEAR, "child killed": CHILD, "disk full": FULL,
         "read-only": READ_ONLY, "read-only folder": FOLDER, "power cut": RECORD,
         "power cut, journal": RECORD}  # fmt: skip
KILLS = ("kill", "torn write")
SHARES = {"kill": 5, "torn write": 1, "child killed": 4, "disk full": 2, "read-only": 1,
          "read-only folder": 2, "power cut": 2, "power cut, journal": 2}  # fmt: skip
RUN = ("run", "--seed", "7", "--json", "e")
UP, DOWN, STATUS = ("up", "stock", "slow"), ("down",), ("status",)
BUILD = ("build", "built", "patched")
CLEAN = ("clean", "--runs")
NIGHTLY = ("nightly", "e")
PYTEST = ("pytest", "-p", "no:cacheprovider", "-q")
XDIST = (*PYTEST, "-n", "2")
WORK = ("build", "stock")  # the shortest command that writes to the state folder
ENDED = {0, 1, 2, 3}


@dataclass(frozen=True)
class Command:
    """A command to break off, what comes before it, and what has to work after it.

    Another `argv` may run at the same time, in the same lab or in `another`.
    """

    name: str
    argv: tuple[str, ...]
    before: tuple[tuple[str, ...], ...] = ()
    after: tuple[tuple[str, ...], ...] = ()
    beside: tuple[str, ...] = ()
    is_beside_in_another: bool = False
    weight: int = 2

    @property
    def is_recorded(self) -> bool:
        """Whether a power cut may end it: its calls are all those that change the lab."""
        return not self.beside and self.argv[0] != "pytest"


COMMANDS = (
    Command("run", RUN, weight=6),
    Command("run --resume", ("run", "--resume", "latest"), weight=6),
    Command("run, guests are up", RUN, before=(UP,), weight=3),
    Command("two runs in one lab", RUN, beside=RUN, weight=3),
    Command("two runs in two labs", RUN, beside=RUN, is_beside_in_another=True, weight=3),
    Command("up", UP, after=(UP, STATUS), weight=3),
    Command("up, guests are up", UP, before=(UP,), after=(UP,)),
    Command("two times up", UP, after=(UP, STATUS), beside=UP),
    Command("up in two labs", UP, after=(UP,), beside=UP, is_beside_in_another=True),
    Command("up beside down", UP, after=(UP, STATUS), beside=DOWN),
    Command("down", DOWN, before=(UP,), after=(STATUS,), weight=3),
    Command("build", BUILD, after=(BUILD,), weight=4),
    Command("two builds", ("build", "patched"), after=(BUILD,), beside=BUILD),
    Command("builds in two labs", BUILD, after=(BUILD,), beside=BUILD, is_beside_in_another=True),
    Command("clean", CLEAN, before=(RUN,), after=(CLEAN, UP)),
    Command("clean beside a build", CLEAN, after=(BUILD,), beside=BUILD),
    Command("nightly", NIGHTLY, after=(NIGHTLY,), weight=3),
    Command("nightly beside a run", NIGHTLY, after=(NIGHTLY,), beside=RUN),
    Command("bisect", ("bisect", "patched", "b"), weight=2),
    Command("verify", ("verify", "patched", "--check", "integrity/*", "--seconds", "1s"), weight=2),
    Command("pytest", PYTEST, after=(PYTEST,)),
    Command("pytest -n 2", XDIST, after=(XDIST,), weight=3),
    Command("pytest beside a run", XDIST, after=(PYTEST,), beside=RUN),
)  # fmt: skip


@dataclass
class Result:
    """One case: how it was broken off, and what was wrong afterwards."""

    command: str
    mode: str
    at: int
    what: str = ""
    faults: list[str] = field(default_factory=list)
    samples: int = 0  # checked
    lost: int = 0
    doubled: int = 0
    orphans: int = 0  # processes, sockets, temporary files
    unfinished: int = 0  # runs
    resumed: int = 0  # of these, to the end of their plan
    is_broken_off: bool = False

    def __str__(self):
        where = f"{self.command}, {self.mode} at call {self.at} ({self.what})"
        return f"{where}: {'; '.join(self.faults) or 'nothing wrong'}"


class Kills:
    """Cases over copies of a lab; the calls of each command are counted once."""

    def __init__(self, suite, template, seed):
        self.suite = suite
        self.template = template
        self.draw = random.Random(seed)
        self.seed = seed
        self.totals = {}
        self.disks = {}
        self.edited = None  # images
        self.plan = self._undisturbed()

    def _undisturbed(self):
        """Return what an undisturbed run measures, sorted."""
        lab = self.suite.copy(self.template)
        done = lab.labctl(*RUN)
        assert done.status in (0, 1), done
        self.run_calls = done.calls
        (run,) = lab.runs()
        plan = _measured(lab.samples(run))
        lab.remove()
        return plan

    def lab(self, command):
        """Return a lab in which a command can be broken off."""
        lab = self.suite.copy(self.template)
        if command.name == "run --resume":
            at = self.run_calls // 2
            while not lab.runs():  # waiting for a lock takes a number of calls that varies
                lab.labctl(*RUN, mode=KILL, at=at)
                at += 50
            return lab
        for argv in command.before:
            lab.labctl(*argv)
        return lab

    def total(self, command):
        """Return the number of calls of an undisturbed command."""
        if command.name not in self.totals:
            lab = self.lab(command)
            done = lab.labctl(*command.argv)
            assert done.status in (0, 1), done
            self.totals[command.name] = done.calls
            lab.labctl(*DOWN)
            lab.remove()
        return self.totals[command.name]

    def case(self, command, mode, at=None):
        """Break off one command, and return what was found."""
        if MODES[mode] == RECORD:
            return self._cut(command, mode, at)
        at = at or self.draw.randint(1, self.total(command))
        lab = self.lab(command)
        other = self.suite.copy(self.template) if command.is_beside_in_another else lab
        result = Result(command.name, mode, at)
        try:
            self._play(lab, other, command, result)
        finally:
            lab.remove()
            if other is not lab:
                other.remove()
        return result

    def disk(self, command):
        """Return the lab of a command that ran to its end, and what its disk had at each call."""
        if command.name not in self.disks:
            lab = self.lab(command)
            before = lab.folder.with_suffix(".before")
            shutil.copytree(lab.folder, before, symlinks=True, ignore=_without_sockets)
            log = self.suite.folder / "journal"
            done = lab.labctl(*command.argv, mode=RECORD, log=log)
            assert done.status in (0, 1), done
            lab.labctl(*DOWN)
            disk = powercut.Disk(before, lab.folder, powercut.calls(log))
            log.unlink()
            shutil.rmtree(before)
            lab.remove()
            self.disks[command.name] = lab, disk
        return self.disks[command.name]

    def _cut(self, command, mode, at):
        """Cut the power before a call, and return what was found."""
        lab, disk = self.disk(command)
        at = at or self.draw.randint(1, len(disk.calls))
        keeps_more = mode.endswith("journal")
        draw = random.Random(f"{self.seed} {command.name} {at}") if keeps_more else None
        result = Result(command.name, mode, at, is_broken_off=True)
        call = disk.calls[at] if at < len(disk.calls) else None
        result.what = f"{call.name} {call.path}" if call else "the end"
        try:
            disk.write(lab.folder, at, draw)
            lost = powercut.faults(disk, lab.folder, at)
            result.lost = sum(lines for _, lines in lost)
            result.faults += [fault for fault, _ in lost] + powercut.torn(lab.folder)
            earlier = {run: lab.samples(run) for run in lab.runs()}
            if command.argv[0] == "build":
                self._check_images(lab, result)
            self._check_afterwards(lab, lab, command, result, earlier)
        finally:
            lab.remove()
        return result

    def _check_images(self, lab, result):
        """Build after an edit, which uses what the power cut left of a work tree."""
        if self.edited is None:
            fresh = self.suite.copy(self.template)
            self.edited, done = _edited(fresh)
            fresh.remove()
            assert len(self.edited) == 2, done
        found, done = _edited(lab)
        if found != self.edited:
            result.faults.append(f"{len(found - self.edited)} wrong images: {done.err[-400:]}")

    def _play(self, lab, other, command, result):
        wrong = result.faults.append
        earlier = {run: lab.samples(run) for run in lab.runs()}
        beside = other.start(*command.beside) if command.beside else None
        done = lab.labctl(*command.argv, mode=MODES[result.mode], at=result.at)
        result.what, result.is_broken_off = done.what, bool(done.failed)
        if beside:
            finished = other.finish(beside)
            if finished.status not in (0, 1) or "Traceback" in finished.err:
                wrong(f"the command beside: status {finished.status}: {finished.err[-400:]}")
        if result.mode in KILLS and done.failed:
            if done.status != -9:
                wrong(f"status {done.status} of a killed command")
        elif done.status not in ENDED or "Traceback" in done.err:
            wrong(f"status {done.status}: {done.err[-400:]}")
        if orphans := lab.orphans():
            result.orphans += len(orphans)
            wrong(f"still running: {orphans}")
        self._check_afterwards(lab, other, command, result, earlier)

    def _check_afterwards(self, lab, other, command, result, earlier):
        wrong = result.faults.append
        if command.name != "clean":
            for run, samples in earlier.items():
                if lab.samples(run)[: len(samples)] != samples:
                    result.lost += len(samples)
                    wrong("samples of before are gone")
        for each in {id(one): one for one in (lab, other)}.values():
            for run in each.runs() if RUN[0] in (command.argv[0], *command.beside[:1]) else ():
                self._finish(each, run, result)
        for argv in (WORK, *command.after):
            after = lab.labctl(*argv)
            # A test fails only if something is left that disturbs it.
            good = (0,) if argv[0] == "pytest" else (0, 1)
            if after.status not in good or "Traceback" in after.err:
                said = (after.err or after.out)[-400:]
                wrong(f"afterwards, {' '.join(argv)}: status {after.status}: {said}")
        for each in {id(one): one for one in (lab, other)}.values():
            self._check_end(each, result)

    def _check_end(self, lab, result):
        """Stop the guests of a lab; nothing may be left."""
        down = lab.labctl(*DOWN)
        if down.status not in (0, 1) or "Traceback" in down.err:
            result.faults.append(f"afterwards, down: status {down.status}: {down.err[-400:]}")
        if left := lab.processes():
            result.orphans += len(left)
            result.faults.append(f"running at the end: {left}")
        if files := lab.leftovers():
            result.orphans += len(files)
            result.faults.append(f"left: {files}")

    def _finish(self, lab, run, result):
        """Resume a run unless it is finished, and compare it with an undisturbed one."""
        kept = lab.samples(run)
        result.samples += len(kept)
        is_finished = lab.is_finished(run)
        if not is_finished:
            result.unfinished += 1
            done = lab.labctl("run", "--resume", run)
            if done.status not in (0, 1):
                result.faults.append(f"resume: status {done.status}: {done.err[-400:]}")
                return
        samples = lab.samples(run)
        if samples[: len(kept)] != kept:
            result.lost += 1
            result.faults.append("the resume changed samples")
        found = _measured(samples)
        if result.mode == "child killed":  # a killed guest is a result, and is measured again
            found = [each for each in found if each[-1] == "ok"]
        if found != self.plan:
            missing = list((Counter(self.plan) - Counter(found)).elements())
            more = list((Counter(found) - Counter(self.plan)).elements())
            result.lost += len(missing)
            result.doubled += len(more)
            result.faults.append(f"measured {len(found)} samples: missing {missing}, more {more}")
        elif not lab.is_finished(run):
            result.faults.append("the resumed run is not finished")
        elif not is_finished:
            result.resumed += 1


def _measured(samples):
    """Return the repetitions, sorted: warm-ups are repeated after each boot."""
    names = broken.NAMES.index("warmup")
    return sorted(each for each in samples if not each[names])


def _edited(lab):
    """Edit a source file, build, and return the images with the edit."""
    path = lab.folder / "tree" / "init" / "main.c"
    text = path.read_text()
    path.unlink()  # labs share it
    path.write_text(f"{text}int edited;\n")
    done = lab.labctl(*BUILD)
    images = (path.read_bytes() for path in lab.state.glob("images/*/bzImage"))
    return {image for image in images if b"int edited;" in image}, done


def _without_sockets(folder, names):
    return [name for name in names if name.endswith(".sock")]


def drawn(draw, cases, names=None, modes=None):
    """Yield pairs of command and mode, as often as the weights of both say."""
    commands = [one for one in COMMANDS if not names or one.name in names]
    kinds = list(modes or SHARES)
    for _ in range(cases):
        (mode,) = draw.choices(kinds, [SHARES[one] for one in kinds])
        # The calls of a command are recorded alone.
        fitting = [one for one in commands if MODES[mode] != RECORD or one.is_recorded]
        if fitting:
            (command,) = draw.choices(fitting, [one.weight for one in fitting])
            yield command, mode
