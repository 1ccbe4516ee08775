"""Validation of the change detection over nightly runs with simulated histories. Pure.

Since the true changes are known, false alarms and missed regressions can be counted.
Repeated measurements are drawn again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from labctl.nightly.changes import Change, NightlyRun, Trial, Watch
from labctl.stats.paired import exp, paired
from labctl.stats.run_noise import RUN_SD
from labctl.stats.verdict import Rule, word

if TYPE_CHECKING:
    import numpy as np

_FIRST = date(2026, 1, 1)
MOST_FALSE_ALARMS = 0.05
LEAST_FOUND = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Noise and changes in a series of nightly runs.

    `night_sd` and `block_sd` are standard deviations of log ratios: of the part common to
    all blocks of a run, and of each of its `blocks`. A run is an outlier with probability
    `outliers`, and then takes `outlier_factor` times as long. If `outliers_stay`, repeated
    measurements of an outlier are outliers too. From nightly run `at` on (from 0) the
    kernel takes 1 + `effect` times as long; this must be found within `within` runs. With
    `earlier_at`, another step of that size came before.
    """

    name: str
    night_sd: float = RUN_SD
    block_sd: float = 0.042
    blocks: int = 8
    outliers: float = 0.03
    outlier_factor: float = 1.5
    outliers_stay: bool = False
    nights: int = 90
    effect: float = 0.0
    at: int = 0
    earlier_at: int | None = None
    within: int = 6
    least_found: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """The counts of the histories of one scenario.

    `false_alarms` and `found` are shares of the histories: those with a confirmed false
    change, and those with the true change found in time. `after` is the median number of
    nightly runs until then. `again` and `against` are repeated runs per history.
    """

    scenario: str
    histories: int
    nights: int
    effect: float
    false_alarms: float
    found: float | None
    after: float | None
    again: float
    against: float
    least_found: float | None

    @property
    def kept(self) -> bool:
        """Whether false alarms are rare enough, and regressions found often enough."""
        is_found = self.least_found is None or (self.found or 0.0) >= self.least_found
        return self.false_alarms <= MOST_FALSE_ALARMS and is_found

    def document(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {**asdict(self), "kept": self.kept}


# The ratio of a nightly run has a standard deviation of 3 %: the root of 2.6 % squared
# plus an eighth of 4.2 % squared, the measured value for a block's ratio in our guests.
SCENARIOS = (
    Scenario(name="quiet"),
    Scenario(name="quiet, no outliers", outliers=0.0),
    Scenario(name="quiet, repeats are outliers too", outliers_stay=True),
    Scenario(name="slower by 10 %", effect=0.1, at=29, nights=35, least_found=LEAST_FOUND),
    *(
        Scenario(
            name=f"the same in run {at + 1}",
            effect=0.1,
            at=at,
            nights=at + 6,
            least_found=LEAST_FOUND,
        )
        for at in (1, 2, 3, 5, 8, 12)
    ),
    Scenario(
        name="4 runs after another 10 %",
        effect=0.1,
        at=33,
        earlier_at=29,
        nights=39,
        least_found=LEAST_FOUND,
    ),
    Scenario(
        name="in run 9, another in run 5",
        effect=0.1,
        at=8,
        earlier_at=4,
        nights=14,
        least_found=LEAST_FOUND,
    ),
    Scenario(name="slower by 20 %", effect=0.2, at=29, nights=35, least_found=LEAST_FOUND),
    Scenario(name="slower by 5 %", effect=0.05, at=29, nights=54, within=25),
)


def simulate(
    *,
    histories: int,
    seed: int,
    rule: Rule,
    scenarios: Sequence[Scenario] = SCENARIOS,
    report: Callable[[str, int], None] = lambda _what, _done: None,
) -> Iterator[Count]:
    """Yield the counts of each scenario; `report` receives the number of finished histories."""
    import numpy as np

    for number, scenario in enumerate(scenarios):
        watches = []
        for done in range(histories):
            report(scenario.name, done)
            watches.append(history(scenario, rule, np.random.default_rng([seed, number, done])))
        yield _count(scenario, watches)


def history(scenario: Scenario, rule: Rule, draw: np.random.Generator) -> Watch:
    """Return a history with all repeated measurements that the watch required.

    It ends with the last nightly run, or once a true regression was found.
    """
    watch = Watch(rule.margin)
    for number in range(scenario.nights):
        is_wild = bool(draw.random() < scenario.outliers)
        night = _night(scenario, number, is_wild, draw)
        while (analysis := watch.analyse(night)).request:
            if analysis.request == "again":
                stays = is_wild if scenario.outliers_stay else draw.random() < scenario.outliers
                more = _night(scenario, number, bool(stays), draw)
                night = replace(night, logs=(*night.logs, *more.logs))
            else:
                earlier = 0 if analysis.compared is None else analysis.compared
                true = _true(scenario, number) - _true(scenario, earlier)
                night = replace(night, trials=(*night.trials, _trial(scenario, true, rule, draw)))
        watch.add(night, analysis)
        if scenario.effect and any(one.found >= scenario.at for one in _reported(watch)):
            break
    return watch


def _true(scenario: Scenario, number: int) -> float:
    steps = (scenario.at, scenario.earlier_at)
    return -math.log1p(scenario.effect) * sum(at is not None and number >= at for at in steps)


def _blocks(
    scenario: Scenario, true: float, is_wild: bool, draw: np.random.Generator
) -> list[float]:
    shared = true + draw.normal(0, scenario.night_sd)
    shared -= math.log(scenario.outlier_factor) * is_wild
    return [float(one) for one in shared + draw.normal(0, scenario.block_sd, scenario.blocks)]


def _night(scenario: Scenario, number: int, is_wild: bool, draw: np.random.Generator) -> NightlyRun:
    d = _blocks(scenario, _true(scenario, number), is_wild, draw)
    return NightlyRun(
        date=(_FIRST + timedelta(days=number)).isoformat(),
        logs=(fmean(d),),
        error=scenario.block_sd / math.sqrt(scenario.blocks),
        image=f"image of nightly run {number}",
    )


def _trial(scenario: Scenario, true: float, rule: Rule, draw: np.random.Generator) -> Trial:
    d = _blocks(scenario, true, bool(draw.random() < scenario.outliers), draw)
    result = paired(d, confidence=rule.confidence, margin=rule.margin)
    verdict = word(result, result.p_beyond, result.p_same, rule)
    return Trial(verdict=verdict, ratio=exp(result.mean), ci=result.ci)


def _reported(watch: Watch) -> list[Change]:
    return [one for one in watch.changes if one.verdict in ("slower", "faster")]


def _count(scenario: Scenario, watches: Sequence[Watch]) -> Count:
    false, after = 0, []
    for watch in watches:
        reported = _reported(watch)
        first = scenario.at if scenario.earlier_at is None else scenario.earlier_at
        is_true = [
            scenario.effect and one.verdict == "slower" and one.found >= first for one in reported
        ]
        false += not all(is_true)
        in_time = (
            one.found - scenario.at + 1
            for one, true in zip(reported, is_true, strict=True)
            if true and scenario.at <= one.found < scenario.at + scenario.within
        )
        after += list(in_time)[:1]
    nights = [night for watch in watches for night in watch.nights]
    return Count(
        scenario=scenario.name,
        histories=len(watches),
        nights=scenario.nights,
        effect=scenario.effect,
        false_alarms=false / len(watches),
        found=len(after) / len(watches) if scenario.effect else None,
        after=median(after) if after else None,
        again=sum(len(night.logs) - 1 for night in nights) / len(watches),
        against=sum(len(night.trials) for night in nights) / len(watches),
        least_found=scenario.least_found,
    )
