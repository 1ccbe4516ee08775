"""Progress and tables of the commands: a live line on a terminal, plain lines in a log.

Progress goes to stderr, since stdout is for results.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from labctl.printable import layout

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from labctl.doctor.diagnosis import Diagnosis
    from labctl.experiments.progress import Progress
    from labctl.experiments.session import Events
    from labctl.kernels.build import BuildProgress
    from labctl.review.steps import Step
    from labctl.verify.programs import CheckVerdict
    from labctl.verify.run import Events as VerifyEvents

_HASH_DIGITS = 12
_PLAIN_EVERY_SECONDS = 15.0
_SUBJECT_COLUMNS = 44


class _Line:
    """A line that is rewritten on a terminal and printed every 15 s in a log.

    rich is imported with the first text, so that commands without progress stay fast.
    """

    def __init__(self) -> None:
        self._console: Console | None = None
        self._live: Live | None = None
        self._printed_at = -_PLAIN_EVERY_SECONDS
        self._entered = False

    def __enter__(self) -> Self:
        self._entered = True
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.__exit__(None, None, None)
            self._live = None

    def show(self, text: str) -> None:
        """Replace the live line; in a log, print at most one line every 15 s."""
        self._begin()
        if self._live is not None:
            self._live.update(_one_line(text))
        elif time.monotonic() - self._printed_at >= _PLAIN_EVERY_SECONDS:
            self.say(text)

    def say(self, text: str) -> None:
        """Print a permanent line."""
        self._printed_at = time.monotonic()
        self._begin().print(text, markup=False)

    def _begin(self) -> Console:
        if self._console is None:
            self._console = _console(stderr=True)
            if self._entered and self._console.is_terminal:
                from rich.live import Live

                self._live = Live(console=self._console, transient=True, refresh_per_second=8)
                self._live.__enter__()
        return self._console


# Imported late, like tabulate: together they take a tenth of the own time of `labctl up`.
def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            # rich would exit with status 1.
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    return Plain(stderr=stderr, highlight=False, soft_wrap=True)


def _one_line(text: str) -> Text:
    from rich.text import Text

    return Text(text, no_wrap=True, overflow="ellipsis")


def _tabulated(rows: Sequence[dict[str, Any]], **options: Any) -> str:  # noqa: ANN401
    from tabulate import tabulate

    return layout(tabulate(rows, headers="keys", tablefmt="simple", **options))


class Building(_Line):
    """Progress of builds; a `Builder` calls it."""

    def __call__(self, progress: BuildProgress) -> None:
        self.show(build_line(progress))


class Simulating(_Line):
    def __call__(self, kind: str, done: int, runs: int) -> None:
        self.show(f"{kind}: {done} of {runs} runs")


class Measuring(_Line):
    """Progress of a run."""

    def events(self) -> Events:
        """Return the callbacks that show a run here."""
        from labctl.experiments.session import Events

        return Events(
            building=self.building,
            waiting=self.waiting,
            started=self.started,
            measuring=self.measuring,
            warning=self.say,
        )

    def building(self, progress: BuildProgress) -> None:
        self.show(build_line(progress))

    def waiting(self, holder: str) -> None:
        """Print, once, that the run waits for another measurement."""
        self.say(f"waiting: another measurement runs on this host ({holder or 'unknown'})")

    def started(self, run_id: str, seed: int, accel: str) -> None:
        self.say(f"run {run_id}, seed {seed}, accelerator {accel}")

    def measuring(self, progress: Progress) -> None:
        """Show the current repetition; failures are printed permanently."""
        host = progress.host and f"{progress.host}: "
        line = (
            f"{host}{progress.experiment}"
            f"  block {progress.block + 1} of at most {progress.blocks_max}"
            f"  repetition {progress.repetition}/{progress.repetitions}  {progress.cell}"
            f"  {progress.status}{progress.reason and f': {progress.reason}'}"
            f"{_remaining(progress.remaining_seconds, 'at most')}"
        )
        if progress.status in ("booting", "measuring", "ok"):
            self.show(line)
        else:
            self.say(line)


class Checking(_Line):
    """Progress of `labctl verify`."""

    def __init__(self) -> None:
        super().__init__()
        self._planned = self._ended = 0
        self._began = 0.0

    def events(self) -> VerifyEvents:
        """Return the callbacks that show checks here."""
        from labctl.verify.run import Events

        return Events(building=self.building, checking=self.checking, planned=self.planned)

    def building(self, progress: BuildProgress) -> None:
        self.show(build_line(progress))

    def planned(self, checks: int) -> None:
        """Receive the number of checks, which begin now."""
        self._planned, self._ended, self._began = checks, 0, time.monotonic()

    def checking(self, kernel: str, check: str, verdict: CheckVerdict | None) -> None:
        """Show the running check; checks that did not pass are printed permanently."""
        self._ended += verdict is not None
        done = f"  {self._ended} of {self._planned} checks{self._left()}"
        if verdict is None:
            self.show(f"{kernel}: {check}{done}")
        elif verdict.status == "passed":
            self.show(f"{kernel}: {check}  ok{done}")
        else:
            self.say(f"{kernel}: {check}  {verdict.status}: {verdict.why}")

    def _left(self) -> str:
        missing = max(0, self._planned - self._ended)
        if not self._ended or not missing:
            return ""
        return _remaining((time.monotonic() - self._began) / self._ended * missing, "about")


class Testing(_Line):
    """Progress of `labctl doctor`."""

    def trying(self, what: str) -> None:
        self.show(f"testing: {what}")


class Watching:
    """A text that is redrawn in place; in a log, printed when it changes."""

    def __init__(self) -> None:
        self._console = _console(stderr=False)
        self._live: Live | None = None
        self._shown = ""

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            from rich.live import Live

            self._live = Live(console=self._console, auto_refresh=False)
            self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.__exit__(None, None, None)
            self._live = None

    def show(self, text: str) -> None:
        """Replace the text shown."""
        if self._live is not None:
            self._live.update(_one_line(text), refresh=True)
        elif text != self._shown:
            self._console.print(text, markup=False)
        self._shown = text


def build_line(progress: BuildProgress) -> str:
    """Return a build's progress as one line."""
    from labctl.reports import words

    files = ""
    if progress.total_files_estimate:
        files = f"  {progress.done_files} of about {progress.total_files_estimate} files"
    return (
        f"{progress.kernel}: {progress.stage}{files}  {words.duration(progress.seconds)}"
        f"{_remaining(progress.remaining_seconds, 'about')}"
    )


def _remaining(seconds: float | None, word: str) -> str:
    from labctl.reports import words

    return "" if seconds is None else f"  {word} {words.duration(seconds)} left"


def table(rows: Sequence[dict[str, Any]], shorten: Sequence[str] = ()) -> str:
    """Return rows as a table; hashes in the columns `shorten` are abbreviated to 12 digits."""
    shown = [
        {k: v[:_HASH_DIGITS] if k in shorten and isinstance(v, str) else v for k, v in row.items()}
        for row in rows
    ]
    return _tabulated(shown, missingval="-")


def series_steps(name: str, steps: Sequence[Step]) -> str:
    """Return a table with the checks of each step of a series, followed by their findings."""
    rows = []
    objections = []
    for step in steps:
        outcomes = {name: _outcome(findings) for name, findings in step.result().checks.items()}
        rows.append({"": step.number, "patch": step.subject, **outcomes})
        for check, findings in step.checks.items():
            if findings:
                objections += ["", f"{step.patch}: {check}:", *(f"  | {line}" for line in findings)]
    text = _tabulated(rows, maxcolwidths=[None, _SUBJECT_COLUMNS])
    # A file that is left out at one step is so at the others.
    left_out = dict.fromkeys(
        f"{check}: {file} is not compiled, {reason}"
        for step in steps
        for check, files in step.left_out.items()
        for file, reason in files.items()
    )
    notes = ["", *left_out] if left_out else []
    return "\n".join([f"series of {name}", "", text, *notes, *objections])


def _outcome(objections: Sequence[str] | None) -> str:
    return "-" if objections is None else "FAILED" if objections else "ok"


def diagnoses(found: Sequence[Diagnosis]) -> str:
    """Return the doctor's results, one per line, each followed by its fix."""
    width = max((len(one.name) for one in found), default=0)
    lines = []
    for one in found:
        lines.append(f"{one.status:<5} {one.name:<{width}}  {one.what}")
        if one.mend:
            lines.append(f"{'':<5} {'':<{width}}  -> {one.mend}")
    return "\n".join(lines)
