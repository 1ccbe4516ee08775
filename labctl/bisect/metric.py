"""Find the step of a series that changed a metric; each step is measured with both ends."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from labctl.bisect.search import (
    ANALYSES,
    BAD,
    GOOD,
    SKIPPED,
    Search,
    ends_differ,
    has_failed,
    is_bad,
    logs_of,
)
from labctl.bisect.steps import Steps
from labctl.bisect.types import Bisection, Decision
from labctl.errors import BaselineFailed, BuildError, UserError
from labctl.experiments.plan import Plan, plan
from labctl.experiments.variants import beside, plan_of
from labctl.lab.models import Lab
from labctl.nightly.night import Open, OpenRun
from labctl.runs.sample import Sample
from labctl.stats.failures import failures_of
from labctl.stats.paired import exp
from labctl.stats.verdict import Rule
from labctl.units import counted

_SEEDS = 2**31


@dataclass(slots=True, kw_only=True)
class Answer:
    """The result of a search: the step, or the range of steps that contains it."""

    kernel: str
    what: str
    search: Search
    steps: Steps
    decisions: list[Decision] = field(default_factory=list)
    problem: str = ""

    @property
    def step(self) -> int | None:
        """The first bad step, None if it was not found."""
        found = self.search.candidates
        return found[0] if len(found) == 1 and not self.problem else None

    def document(self) -> Bisection:
        """Return the document of the answer."""
        return Bisection(
            kernel=self.kernel,
            of=self.what,
            step=self.step,
            candidates=tuple(self.steps.candidate(step) for step in self.search.candidates),
            risk=self.search.risk,
            risk_spent=self.search.spent,
            problem=self.problem,
            decisions=tuple(self.decisions),
        )


def begin(steps: Steps, *, good: int, bad: int | None, risk: float, what: str) -> Answer:
    """Return a new search without decisions.

    Raises:
        UserError: the good or the bad step does not exist.
    """
    last = steps.count if bad is None else bad
    if not 0 <= good < last <= steps.count:
        raise UserError(
            f"invalid steps of {steps.own.name}: good {good}, bad {last}",
            hint=f"steps count from 0 (without any of them) to {steps.count} (all of them); "
            "good must be below bad",
        )
    return Answer(kernel=steps.own.name, what=what, search=Search(good, last, risk), steps=steps)


@dataclass(slots=True, kw_only=True)
class Bisect:
    """Finds the first step that changed an experiment's metric; call `run`.

    `setting` chooses a cell of the experiment's matrix.
    """

    lab: Lab
    experiment: str
    setting: Mapping[str, object]
    answer: Answer
    open_run: Open
    blocks_max: int = ANALYSES[-1]
    at_once: Callable[[], int] = lambda: 1  # blocks that are measured at the same time
    report: Callable[[str], None] = lambda _: None
    _sign: int = 0

    def run(self) -> Answer:
        """Measure until the step is found, or cannot be narrowed further.

        Raises:
            UserError: the experiment has no cell with this setting, or compares differences.
            LabError: an end does not build, or preparing or the disk failed.
        """
        search = self.answer.search
        self.lab.require_ratio(self.experiment, "bisect")
        self._check_setting()
        if not self._ends():
            return self.answer
        while (step := search.next_step()) is not None:
            decision = self._decide(step)
            self._note(decision)
            if decision.verdict == "undecided":
                self.answer.problem = (
                    f"step {step} undecided after {counted(decision.blocks, 'block')}: "
                    "difference too small or host too noisy"
                )
                if decision.why:
                    self.answer.problem = f"step {step}: {decision.why}"
                break
            search.record(step, decision.verdict)
        if len(search.candidates) > 1 and not self.answer.problem:
            self.answer.problem = "steps between them could not be tested"
        return self.answer

    def _note(self, decision: Decision) -> None:
        self.answer.decisions.append(decision)
        if decision.verdict in (GOOD, BAD):
            self.answer.search.spend(decision.risk)
        blocks = f", {decision.blocks} blocks" if decision.blocks else ""
        reason = f" ({decision.reason})" if decision.reason else ""
        self.report(
            f"step {decision.step}: {decision.verdict}{blocks} {decision.why}".rstrip() + reason
        )

    def _check_setting(self) -> None:
        cells = plan(self.lab, self.experiment, 0).cells
        own = [cell.setting for cell in cells if cell.kernel == self.answer.kernel]
        if dict(self.setting) not in own:
            known = "; ".join(" ".join(f"{n}={v}" for n, v in one.items()) for one in own)
            raise UserError(
                f"no such cell of kernel {self.answer.kernel} in experiment {self.experiment}",
                hint=f"select one with --set: {known}"
                if known
                else "the kernel is not in this experiment",
            )

    def _ends(self) -> bool:
        """Return whether the ends differ; otherwise there is nothing to find."""
        search, lab = self.answer.search, self.lab
        risk = search.allowance(ends=True)
        effect = lab.resolve_statistics(self.experiment).minimum_effect
        margin = Rule.of(0.95, effect).margin
        good, bad = search.good, search.bad
        logs: list[list[float]] = [[], []]
        try:
            with self._opened((good, bad)) as (run, each, names):
                for blocks in self._looks():
                    run.measure(each, blocks)
                    samples = run.folder.store.samples()
                    logs = logs_of(samples, names)
                    self._sign = ends_differ(logs[0], logs[1], risk, margin)
                    if self._sign or not logs[0]:
                        break
                found = run.folder.id
        except BaselineFailed as error:
            self.answer.problem = f"cannot measure the good end: {error.what}"
            return False
        if not logs[0]:
            why = ": ".join(filter(None, _why_failed(samples, names[1])))
            self.answer.problem = (
                f"cannot measure the ends: step {bad}: {why}; see `labctl report {found}`"
            )
            return False
        ratio = exp(self._better * (_mean(logs[0]) - _mean(logs[1])))
        verdict = BAD if self._sign else "undecided"
        if not self._sign:
            self.answer.problem = (
                f"no difference above {100 * effect:g} % shown between steps {good} and {bad} "
                f"({counted(len(logs[0]), 'block')}, ratio {ratio:.3g})"
            )
        self._note(
            Decision(step=bad, verdict=verdict, blocks=len(logs[0]), ratio=ratio, risk=risk,
                     run=found)
        )  # fmt: skip
        return bool(self._sign)

    def _decide(self, step: int) -> Decision:
        search = self.answer.search
        risk = search.allowance()
        is_bad_step: bool | None = None
        failed = False
        logs: list[list[float]] = [[], [], []]
        try:
            with self._opened((search.good, step, search.bad)) as (run, each, names):
                for blocks in self._looks():
                    run.measure(each, blocks)
                    samples = run.folder.store.samples()
                    logs = logs_of(samples, names)
                    good, own, bad = logs
                    is_bad_step = is_bad(own, good, bad, sign=self._sign, risk=risk)
                    failed = has_failed(samples, names[1]) or not own
                    if is_bad_step is not None or failed:
                        break
                found = run.folder.id
        except BuildError as error:
            return Decision(step=step, verdict=SKIPPED, why=f"does not build: {error.what}")
        except BaselineFailed as error:
            return Decision(step=step, verdict="undecided", why=error.what)
        if is_bad_step is None and failed:
            why, reason = _why_failed(samples, names[1])
            return Decision(step=step, verdict=SKIPPED, run=found, why=why, reason=reason)
        verdict = "undecided" if is_bad_step is None else BAD if is_bad_step else GOOD
        return Decision(
            step=step,
            verdict=verdict,
            blocks=len(logs[0]),
            ratio=exp(self._better * (_mean(logs[0]) - _mean(logs[1]))),
            risk=risk,
            run=found,
        )

    @property
    def _better(self) -> int:
        return 1 if self.lab.better_of(self.experiment) == "lower" else -1

    def _looks(self) -> Iterator[int]:
        """Yield the numbers of blocks for interim analyses; each adds blocks for all hosts."""
        looks = [blocks for blocks in ANALYSES if blocks <= self.blocks_max]
        done = 0
        for blocks in looks:
            if blocks - done >= self.at_once() or blocks == looks[-1]:
                yield blocks
                done = blocks

    @contextlib.contextmanager
    def _opened(self, steps: Sequence[int]) -> Iterator[tuple[OpenRun, Plan, list[str]]]:
        kernels = {k.name: k for k in map(self.answer.steps.kernel, steps)}
        own = self.lab.kernels[self.answer.kernel]
        without = {
            name: self.lab.base_with(own, kernel.stack)
            for name, kernel in kernels.items()
            if kernel.series is None is not own.series
        }
        lab = beside(self.lab, self.experiment, own.name, kernels, without=without)
        seed = secrets.randbelow(_SEEDS)
        # Both ends are measured in every block: no A/A control is needed.
        each = plan_of(
            lab,
            self.experiment,
            seed,
            lambda cell: not cell.control and cell.setting.items() <= self.setting.items(),
        )
        with self.open_run(lab, [each], seed) as run:
            yield run, each, list(kernels)


def _why_failed(samples: Iterable[Sample], kernel: str) -> tuple[str, str]:
    """Return what failed for a kernel, and the recorded reason."""
    found = failures_of(sample for sample in samples if sample.kernel == kernel)
    if not found:
        return "no valid block", ""
    first = found[0]
    of_kernel = first.whose in ("kernel", "guest")
    what = "guests failed" if of_kernel else f"{first.whose} failed"
    return what, f"{first.count} {first.status}: {first.reason}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
