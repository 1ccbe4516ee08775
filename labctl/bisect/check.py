"""Find the step of a series that breaks a check; passes are repeated until they are certain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from labctl.bisect.metric import Answer
from labctl.bisect.search import BAD, GOOD, SKIPPED, passes_needed
from labctl.bisect.types import Decision
from labctl.errors import BuildError
from labctl.lab.models import Kernel, Lab
from labctl.verify.engine import Engine
from labctl.verify.run import Events, Options, verify

TRIES = 3  # runs at the bad end, to estimate how often the check fails
# Returns whether a kernel's checks failed; raises BuildError if it cannot be built.
Failed = Callable[[Kernel], bool]


def by_verify(
    lab: Lab, only: Sequence[str], seconds: int, events: Events, engine: Engine | None = None
) -> Failed:
    """Return a function that runs the checks of `labctl verify` that match `only`."""

    def failed(kernel: Kernel) -> bool:
        changed = lab.model_copy(update={"kernels": {**lab.kernels, kernel.name: kernel}})
        options = Options(only=tuple(only), stop_at_first=True)
        done = verify(
            changed,
            [kernel.name],
            seconds=seconds,
            options=options,
            with_base=False,
            events=events,
            engine=engine,
        )
        return not done.passed

    return failed


@dataclass(slots=True, kw_only=True)
class BisectCheck:
    """Finds the first step at which a check fails; call `run`.

    A step at which the check fails once is bad. A pass may be luck, so it is repeated;
    the number of repetitions depends on the failure rate at the bad end.
    """

    lab: Lab
    answer: Answer
    failed: Failed
    report: Callable[[str], None] = lambda _: None

    def run(self) -> Answer:
        """Search for the step; return the answer, which may be incomplete.

        Raises:
            LabError: the good or bad end does not build, preparation failed, or the
                disk is full.
        """
        search = self.answer.search
        bad = self.answer.steps.kernel(search.bad)
        failures = sum(self.failed(bad) for _ in range(TRIES))
        if not failures:
            self.answer.problem = f"check passed {TRIES} times at the bad step {search.bad}"
            return self.answer
        tries = passes_needed(failures, TRIES, search.allowance(ends=True))
        if self._any_failed(search.good, tries):
            self.answer.problem = f"check fails at the good step {search.good}"
            return self.answer
        search.spend(search.allowance(ends=True))
        while (step := search.next_step()) is not None:
            risk = search.allowance()
            tries = passes_needed(failures, TRIES, risk)
            try:
                is_bad = self._any_failed(step, tries)
            except BuildError as error:
                decision = Decision(step=step, verdict=SKIPPED, why=f"does not build: {error.what}")
            else:
                verdict = BAD if is_bad else GOOD
                decision = Decision(step=step, verdict=verdict, risk=0.0 if is_bad else risk)
                search.spend(decision.risk)
            self.answer.decisions.append(decision)
            self.report(f"step {step}: {decision.verdict} {decision.why}".rstrip())
            search.record(step, decision.verdict)
        if len(search.candidates) > 1:
            self.answer.problem = "steps between them could not be tested"
        return self.answer

    def _any_failed(self, step: int, tries: int) -> bool:
        kernel = self.answer.steps.kernel(step)
        return any(self.failed(kernel) for _ in range(tries))
