"""Which step of a series broke a check: steps are verified until each is sure to be good or bad."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from labctl.checks.verify import Events, Options, verify
from labctl.errors import BuildError
from labctl.experiments.bisect import Answer, Decision, step_of
from labctl.lab_models import Kernel, Lab
from labctl.results.bisection import BAD, GOOD, SKIPPED, passes_needed

TRIES = 3  # of the bad end, to learn how often the check fails there
# Returns whether the checks of a kernel failed; raises BuildError if it cannot be made.
Failed = Callable[[Kernel], bool]


def by_verify(lab: Lab, only: Sequence[str], seconds: int, events: Events) -> Failed:
    """Return how a step is checked: by those of `labctl verify` that `only` names."""

    def failed(kernel: Kernel) -> bool:
        changed = lab.model_copy(update={"kernels": {**lab.kernels, kernel.name: kernel}})
        options = Options(only=tuple(only), stop_at_first=True)
        done = verify(
            changed, [kernel.name], seconds=seconds, options=options, with_base=False, events=events
        )
        return not done.passed

    return failed


@dataclass(slots=True, kw_only=True)
class BisectCheck:
    """Finds the first step at which a check fails; call `run`.

    A step at which it fails once is bad. One at which it passes may have been lucky: it
    is tried again, as often as the failures at the bad end ask for.
    """

    lab: Lab
    answer: Answer
    failed: Failed
    tell: Callable[[str], None] = lambda _: None

    def run(self) -> Answer:
        """Check until the step is found, or as far as it can be.

        Raises:
            LabError: an end does not build, or preparing or the disk failed.
        """
        search = self.answer.search
        failures = sum(self._failed(search.bad) for _ in range(TRIES))
        if not failures:
            self.answer.problem = f"the check passed {TRIES} times at step {search.bad} too"
            return self.answer
        tries = passes_needed(failures, TRIES, search.allowance(ends=True))
        if self._any_failed(search.good, tries):
            self.answer.problem = f"the check fails at step {search.good} too"
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
            self.tell(f"step {step}: {decision.verdict} {decision.why}".rstrip())
            search.tell(step, decision.verdict)
        if len(search.candidates) > 1:
            self.answer.problem = "the steps between them could not be tested"
        return self.answer

    def _any_failed(self, step: int, tries: int) -> bool:
        return any(self._failed(step) for _ in range(tries))

    def _failed(self, step: int) -> bool:
        return self.failed(step_of(self.lab, self.answer, step))
