"""The scenarios of labctl's own program `integrity`: where each runs, and how large.

At the settings of `verify:` small sizes are enough for a series to hand over; at the
defaults a process must free more than two lists (76 MiB) or pieces (256 MiB).
"""

from __future__ import annotations

from dataclasses import dataclass

from labctl.lab.models import Verify
from labctl.verify.programs import Program
from labctl.verify.settings import Place

_FIRST, _NEXT, _OTHER = Place.FIRST, Place.NEXT, Place.OTHER
_DEFAULTS, _OTHER_DEFAULTS = Place.DEFAULTS, Place.OTHER_DEFAULTS
_VERIFY = frozenset({_FIRST, _NEXT, _OTHER})
_ALL = frozenset(Place)
_SMALL = ("--size", "32MiB", "--processes", "4")
# Of the first round, which is finished: under TCG and with KASAN, 640 MiB that are filled
# and checked took ten minutes on a busy host. A stuck process is found much earlier.
_ROUND_SECONDS = 1800.0
# Of one trial, under TCG on a busy host.
_TRIAL_SECONDS = 60.0
# As many as guest/integrity does at least, once a process was killed.
_TRIALS_AFTER_KILL = 24
_LARGE = ("--size", "320MiB", "--processes", "2")


@dataclass(frozen=True, slots=True)
class _Scenario:
    """A scenario with its options at the settings of `verify:` and at the defaults.

    `hands_over`: whether a series must hand over in it. It need not with huge pages: a
    list of them is short. `has_trials`: whether it counts OOM kills in trials.
    """

    name: str
    places: frozenset[Place]
    hands_over: frozenset[Place] = frozenset()
    small: tuple[str, ...] = _SMALL
    large: tuple[str, ...] = _LARGE
    has_trials: bool = False


_FEW = frozenset({_FIRST})
_WORKERS = frozenset({_FIRST, _NEXT})
_BIG = frozenset({_DEFAULTS})

# In the order in which they run: those that find most come first.
_SCENARIOS = (
    # Its size is its own, and too small for the defaults; a worker may come too late.
    _Scenario("stale", _VERIFY),
    _Scenario("free", _ALL, _WORKERS | _BIG),
    _Scenario("exit", _ALL, _WORKERS | _BIG),
    _Scenario("kill", _ALL, _WORKERS),
    _Scenario("fork", _FEW | {_OTHER}, _FEW),
    _Scenario("edge", _FEW | {_OTHER} | _BIG, _FEW | _BIG),
    _Scenario("split", _FEW | {_OTHER, _OTHER_DEFAULTS}),
    # The memory of huge pages is unmapped at once, on any kernel. With many workers, a series
    # may hold back more memory than this process has.
    _Scenario("backlog", _FEW | _BIG, _FEW, ("--size", "512MiB"), ("--size", "1GiB")),
    # Less than two lists, and they would not be left to workers.
    _Scenario("huge", frozenset({_OTHER}), small=("--size", "2304MiB")),
    _Scenario("order", _FEW, _FEW, ("--size", "128MiB")),
    # The limit is its own; lists of few pages at the settings of `verify:` would be below it.
    _Scenario("tight", _BIG, large=("--size", "512MiB")),
    _Scenario("memcg", _FEW, _FEW),
    _Scenario("oom", _FEW | {_OTHER}),
    # A killed process may be slow to free 40 MiB on any kernel.
    _Scenario("mrelease", _FEW | _BIG | {_OTHER_DEFAULTS}, small=("--size", "256MiB")),
    _Scenario("swap", _FEW | _BIG, _FEW, large=("--size", "128MiB", "--processes", "2")),
    _Scenario("notifier", _FEW | {_OTHER}, _FEW),
    _Scenario("failslab", _WORKERS, _WORKERS),
    _Scenario("hotplug", _FEW, _FEW),
    # Their sizes are their own.
    _Scenario("margin", _BIG, has_trials=True),
    _Scenario("margin-half", _BIG, has_trials=True),
    _Scenario("margin-node", _BIG, has_trials=True),
    _Scenario("margin-pinned", _BIG, has_trials=True),
    _Scenario("billing", _BIG, large=("--size", "512MiB")),
)
SCENARIOS = tuple(scenario.name for scenario in _SCENARIOS)


def integrity(seconds: int, verify: Verify, trials: int | None = None) -> list[Program]:
    """Return the scenarios, each run for `seconds`; large ones are programs of their own.

    `trials`: how many each scenario with trials does at least; None: a few.
    """
    found = []
    for scenario in _SCENARIOS:
        most = max(trials or 0, _TRIALS_AFTER_KILL) if scenario.has_trials else 0
        for places, size, held_back in (
            (_VERIFY, scenario.small, verify.held_back),
            (_ALL - _VERIFY, scenario.large, verify.held_back_defaults or verify.held_back),
        ):
            if places & scenario.places:
                argv = ("integrity", scenario.name, "--seconds", str(seconds), *size,
                        "--held-back", str(held_back))  # fmt: skip
                if trials and scenario.has_trials:
                    argv += ("--trials", str(trials))
                found.append(
                    Program(
                        "integrity",
                        scenario.name,
                        argv,
                        seconds + most * _TRIAL_SECONDS + _ROUND_SECONDS,
                        places & scenario.places,
                        scenario.hands_over & places,
                    )
                )
    return found
