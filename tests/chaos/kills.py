"""Kill labctl before a call, or let that call and all later ones fail; check what is left."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import broken
from broken import FULL, KILL, READ_ONLY, TEAR

MODES = {"kill": KILL, "torn write": TEAR, "disk full": FULL, "read-only": READ_ONLY}
KILLS = ("kill", "torn write")
RUN = ("run", "--seed", "7", "--json", "e")
UP, DOWN, STATUS = ("up", "stock", "slow"), ("down",), ("status",)
BUILD = ("build", "built", "patched")
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


COMMANDS = (
    Command("run", RUN, weight=6),
    Command("run --resume", ("run", "--resume", "latest"), before=(RUN,), weight=6),
    Command("run, guests are up", RUN, before=(UP,), weight=3),
    Command("two runs in one lab", RUN, beside=RUN, weight=3),
    Command("two runs in two labs", RUN, beside=RUN, is_beside_in_another=True, weight=3),
    Command("up", UP, after=(UP, STATUS), weight=3),
    Command("up, guests are up", UP, before=(UP,), after=(UP,)),
    Command("two times up", UP, after=(UP, STATUS), beside=UP),
    Command("down", DOWN, before=(UP,), after=(STATUS,), weight=3),
    Command("build", BUILD, after=(BUILD,), weight=4),
    Command("two builds", ("build", "patched"), after=(BUILD,), beside=BUILD),
    Command("clean", ("clean", "--runs"), before=(RUN,), after=(("clean", "--runs"), UP)),
    Command("nightly", ("nightly", "e"), after=(("nightly", "e"),), weight=3),
    Command("bisect", ("bisect", "patched", "b"), weight=2),
    Command("verify", ("verify", "patched", "--check", "integrity/*", "--seconds", "1s"), weight=2),
)  # fmt: skip


@dataclass
class Result:
    """One case: how it was broken off, and what was wrong afterwards."""

    command: str
    mode: str
    at: int
    what: str = ""
    faults: list[str] = field(default_factory=list)
    samples: int = 0
    resumed: int = 0
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
        self.totals = {}
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
        for argv in command.before:
            is_half = command.name == "run --resume"
            at = {"mode": KILL, "at": self.run_calls // 2} if is_half else {}
            lab.labctl(*argv, **at)
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
            wrong(f"still running: {orphans}")
        self._check_afterwards(lab, other, command, result, earlier)

    def _check_afterwards(self, lab, other, command, result, earlier):
        wrong = result.faults.append
        if command.name != "clean":
            for run, samples in earlier.items():
                if lab.samples(run)[: len(samples)] != samples:
                    wrong("samples of before are gone")
        for each in {id(one): one for one in (lab, other)}.values():
            for run in each.runs() if RUN[0] in (command.argv[0], *command.beside[:1]) else ():
                self._finish(each, run, result)
        for argv in (WORK, *command.after, DOWN):
            after = lab.labctl(*argv)
            if after.status not in (0, 1) or "Traceback" in after.err:
                wrong(f"afterwards, {' '.join(argv)}: status {after.status}: {after.err[-400:]}")
        if left := lab.processes():
            wrong(f"running at the end: {left}")
        if files := lab.leftovers():
            wrong(f"left: {files}")

    def _finish(self, lab, run, result):
        """Resume a run unless it is finished, and compare it with an undisturbed one."""
        kept = lab.samples(run)
        result.samples += len(kept)
        if not lab.is_finished(run):
            result.resumed += 1
            done = lab.labctl("run", "--resume", run)
            if done.status not in (0, 1):
                result.faults.append(f"resume: status {done.status}: {done.err[-400:]}")
                return
        samples = lab.samples(run)
        if samples[: len(kept)] != kept:
            result.faults.append("the resume changed samples")
        if _measured(samples) != self.plan:
            found = _measured(samples)
            missing, more = set(self.plan) - set(found), set(found) - set(self.plan)
            result.faults.append(f"measured {len(found)} samples: missing {missing}, more {more}")
        if not lab.is_finished(run):
            result.faults.append("the resumed run is not finished")


def _measured(samples):
    """Return the repetitions, sorted: warm-ups are repeated after each boot."""
    names = broken.NAMES.index("warmup")
    return sorted(each for each in samples if not each[names])


def drawn(draw, cases, names=None, modes=None):
    """Yield pairs of command and mode, the commands as often as their weights say."""
    commands = [one for one in COMMANDS if not names or one.name in names]
    weights = [one.weight for one in commands]
    shares = {"kill": 5, "torn write": 1, "disk full": 2, "read-only": 2}
    for mode in [one for one in modes or MODES if one not in shares]:
        raise ValueError(mode)
    kinds = list(modes or shares)
    for _ in range(cases):
        (command,) = draw.choices(commands, weights)
        (mode,) = draw.choices(kinds, [shares[one] for one in kinds])
        yield command, mode
