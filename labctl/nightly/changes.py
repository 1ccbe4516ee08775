"""One cell over nightly runs: where its ratio changed, and which runs must confirm it. Pure.

One run alone never reports a change. An unusual value is measured again at once; the
value nearer to the usual one counts. If the change persists, the kernel is compared with
the earlier one in blocks of one run. A change is reported if two such runs agree. A level of
few nightly runs shows nothing usual: its kernel is compared with that of its first nightly run
at any suspicion, and three such runs must agree.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from itertools import pairwise
from statistics import NormalDist, fmean, median
from typing import Literal

from labctl.errors import HostError
from labctl.stats.run_noise import RUN_SD

FEWEST_NIGHTS = 6  # a change after fewer is not seen in the values alone
YOUNG_NIGHTS = 12  # a level with fewer does not show what is usual
CONFIRMATIONS = 2  # runs against the earlier kernel that must agree
YOUNG_CONFIRMATIONS = 3  # of a young level, which is suspected more often
# Standard errors of a step that make a young level suspected: low, since only runs against the
# earlier kernel report a change.
_SUSPICIOUS = 1.3
UNCHANGED_NIGHTS = 3  # with one image, a change this long is a new level of the host
_RECENT = 20  # nightly runs that define the usual level
_WILD = 4.0  # standard deviations from the usual level
# Schwarz's criterion has 2 to 3, for the place and the size of a change.
_PENALTY = 3.0
_MAD_OF_NORMAL = NormalDist().inv_cdf(0.75)
_LEAST_SD = 0.005  # lower bound for the spread between nightly runs

Setup = tuple[tuple[str, str], ...]
Request = Literal["", "again", "against"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The kernel against that of an earlier nightly run: a verdict from blocks of one run."""

    verdict: str
    ratio: float | None = None
    ci: tuple[float, float] | None = None
    run: str = ""
    against: str = ""  # date of the earlier nightly run


@dataclass(frozen=True, slots=True, kw_only=True)
class NightlyRun:
    """One cell in one nightly run.

    `logs` are the log ratios to the pinned baseline, above 0 is better: of the run itself,
    then of its repeat. `error` is the standard error of the first. `setup` has what must be
    equal for two nightly runs to be comparable; `image` is the kernel under test.
    """

    date: str
    logs: tuple[float, ...]
    error: float
    image: str
    setup: Setup = ()
    trials: tuple[Trial, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Consecutive nightly runs from the index `first` on; `why` ended the segment before.

    A segment that `continues` has the same setup: only nightly runs are missing, and changes
    are detected across the gap.
    """

    first: int
    why: str
    continues: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """The interim analysis after one more nightly run.

    `first` is the index of the first nightly run of a new level, None if there is none; in a young
    level, where its place is uncertain, the one that found it.
    `before` and `after` are the levels, as log ratios. `request` is what must be measured
    to know more: the nightly run `again`, or its kernel `against` that of the one
    `compared`. `verdict` is slower, faster, same (the runs against the kernel of before
    showed no change), `unchanged` (it was the same kernel all the time), or nothing yet.
    """

    value: float | None = None
    first: int | None = None
    before: float = 0.0
    after: float = 0.0
    request: Request = ""
    compared: int | None = None
    verdict: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change that is settled: the nightly run that `found` it, and its `Analysis`."""

    found: int
    analysis: Analysis
    trials: tuple[Trial, ...]

    @property
    def verdict(self) -> str:
        """The verdict of the interim analysis."""
        return self.analysis.verdict


@dataclass(slots=True)
class Watch:
    """Watches the nightly runs of one cell.

    `margin` is the smallest change that matters, on the log scale.
    """

    margin: float
    nights: list[NightlyRun] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    _start: int = 0  # of the level that holds
    _began: int = 0  # the segment, whose nightly runs show the spread

    def add(self, night: NightlyRun, analysis: Analysis | None = None) -> Analysis:
        """Add a nightly run and return its analysis: `analysis`, if it is known already.

        Raises:
            HostError: ruptures, which finds the changes, is not installed.
        """
        segment = self._segment(night)
        analysis = analysis or self.analyse(night)
        if segment:
            self.segments.append(segment)
            if not segment.continues:
                self._start = self._began = len(self.nights)
        self.nights.append(night)
        self.values.append(night.logs[0] if analysis.value is None else analysis.value)
        if analysis.verdict:
            found = len(self.nights) - 1
            self.changes.append(Change(found=found, analysis=analysis, trials=night.trials))
            # A new level begins with a nightly run that has the change for certain.
            is_change = analysis.verdict in ("slower", "faster")
            self._start = found if is_change or analysis.first is None else analysis.first
        return analysis

    def analyse(self, night: NightlyRun) -> Analysis:
        """Return the analysis of a nightly run without adding it. Raises as `add` does."""
        start, began = self._start, self._began
        segment = self._segment(night)
        if segment and not segment.continues:
            start = began = len(self.nights)
        usual = self.values[start:]
        errors = [*(one.error for one in self.nights[began:]), night.error]
        if len(usual) < YOUNG_NIGHTS:
            value = median(night.logs)
            sd = _spread([*self.values[began:], value], errors)
            return self._analyse_young(night, [*usual, value], sd, start)
        centre = median(usual[-_RECENT:])
        value = min(night.logs, key=lambda log: abs(log - centre))
        values = [*usual, value]
        sd = _spread([*self.values[began:], value], errors)
        first = _last_change(values, sd)
        before, after = (median(values[:first]), median(values[first:])) if first else (0.0, 0.0)
        is_changed = (first or 0) >= FEWEST_NIGHTS and abs(after - before) > self.margin
        is_wild = abs(value - centre) > _WILD * sd
        if not is_changed or first is None:
            again: Request = "again" if is_wild and len(night.logs) == 1 else ""
            return Analysis(value=value, request=again)
        analysis = Analysis(value=value, first=start + first, before=before, after=after)
        return self._settle(night, analysis, start)

    def _analyse_young(
        self, night: NightlyRun, values: Sequence[float], sd: float, start: int
    ) -> Analysis:
        """Return the analysis of a level that does not show yet what is usual.

        A suspicion is no alarm: only runs against the kernel of the level's first nightly run make
        it a change, and show its size.
        """
        plain = Analysis(value=values[-1])
        first = _suspicion(values, sd, self.margin)
        compared = self._other_image(night, range(start, len(self.nights)))
        if first is None or compared is None:
            return plain
        if len(night.logs) == 1:
            return replace(plain, request="again")
        plain = replace(plain, compared=compared)
        verdicts = {trial.verdict for trial in night.trials}
        if not verdicts <= {"slower"} and not verdicts <= {"faster"}:
            return plain
        if len(night.trials) < YOUNG_CONFIRMATIONS:
            return replace(plain, request="against")
        before = median(values[:first])
        sizes = [math.log(trial.ratio) for trial in night.trials if trial.ratio]
        after = before + fmean(sizes) if sizes else median(values[first:])
        found, verdict = len(self.nights), verdicts.pop()
        return replace(plain, first=found, before=before, after=after, verdict=verdict)

    def _other_image(self, night: NightlyRun, among: Iterable[int]) -> int | None:
        """Return the first of some earlier nightly runs with another image, None if none had."""
        return next((i for i in among if self.nights[i].image != night.image), None)

    def _settle(self, night: NightlyRun, analysis: Analysis, start: int) -> Analysis:
        """Return the next run that a change needs, or its verdict."""
        if len(night.logs) == 1:
            return replace(analysis, request="again")
        first = start if analysis.first is None else analysis.first
        compared = self._other_image(night, range(first - 1, start - 1, -1))
        if compared is None:
            is_settled = len(self.nights) + 1 - first >= UNCHANGED_NIGHTS
            return replace(analysis, verdict="unchanged" if is_settled else "")
        direction = "slower" if analysis.after < analysis.before else "faster"
        verdicts = [trial.verdict for trial in night.trials]
        if "same" in verdicts:
            return replace(analysis, verdict="same", compared=compared)
        if any(verdict != direction for verdict in verdicts):
            return replace(analysis, compared=compared)
        if len(verdicts) < CONFIRMATIONS:
            return replace(analysis, request="against", compared=compared)
        return replace(analysis, verdict=direction, compared=compared)

    def _segment(self, night: NightlyRun) -> Segment | None:
        """Return the segment that a nightly run begins, None if it continues the last one."""
        if not self.nights:
            return Segment(first=0, why="", continues=False)
        last, index = self.nights[-1], len(self.nights)
        theirs, own = dict(last.setup), dict(night.setup)
        differs = [n for n in {**theirs, **own} if theirs.get(n) != own.get(n)]
        if differs:
            return Segment(first=index, why=f"another {', '.join(differs)}", continues=False)
        missing = (date.fromisoformat(night.date) - date.fromisoformat(last.date)).days - 1
        if missing > 0:
            plural = "nightly run is" if missing == 1 else "nightly runs are"
            return Segment(first=index, why=f"{missing} {plural} missing", continues=True)
        return None


def _spread(values: Sequence[float], errors: Sequence[float]) -> float:
    """Return the standard deviation of one nightly run, robust against steps.

    From the median absolute deviation of consecutive differences; not below the standard
    error of a run's own blocks. Few nightly runs do not show it: it is that error with the
    noise between runs.
    """
    if len(values) <= YOUNG_NIGHTS:
        return math.hypot(median(errors), RUN_SD)
    steps = [after - before for before, after in pairwise(values)]
    middle = median(steps)
    of_steps = median(abs(step - middle) for step in steps) / _MAD_OF_NORMAL / math.sqrt(2)
    return max(of_steps, median(errors), _LEAST_SD)


def _suspicion(values: Sequence[float], sd: float, margin: float) -> int | None:
    """Return where few values may have changed by more than the margin, None if nowhere."""

    def step(first: int) -> float:
        return abs(fmean(values[first:]) - fmean(values[:first]))

    def in_errors(first: int) -> float:
        return step(first) / (sd * math.sqrt(1 / first + 1 / (len(values) - first)))

    first = max(range(1, len(values)), key=in_errors, default=None)
    if first is None or in_errors(first) < _SUSPICIOUS or step(first) <= margin:
        return None
    return first


def _last_change(values: Sequence[float], sd: float) -> int | None:
    """Return where the last level begins, None if there is only one.

    Piecewise constant levels by penalised least squares, solved exactly (PELT; Killick,
    Fearnhead and Eckley, JASA 107, 2012), with Schwarz's penalty.
    """
    import numpy as np

    try:
        import ruptures
    except ImportError as error:
        raise HostError(
            "ruptures is not installed; it finds the changes in a history",
            hint="pip install 'labctl[nightly]'",
        ) from error
    signal = np.asarray(values, dtype=float).reshape(-1, 1)
    search = ruptures.KernelCPD(kernel="linear", min_size=1).fit(signal)
    ends = search.predict(pen=_PENALTY * sd**2 * math.log(len(values)))
    return int(ends[-2]) if len(ends) > 1 else None
