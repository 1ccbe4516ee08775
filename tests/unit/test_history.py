"""Cells over nightly runs: unusual values, repeated measurements, reported changes."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from labctl.cli import labctl
from labctl.errors import HostError
from labctl.methodology.nightly import SCENARIOS, Scenario, history, simulate
from labctl.nightly import changes
from labctl.nightly.changes import NightlyRun, Trial, Watch
from labctl.stats.verdict import Rule

RULE = Rule.of(0.95, 0.02)
DAY = np.datetime64("2026-01-01")


def night(number, ratio, *, again=(), trials=(), image=None, **setup):
    return NightlyRun(
        date=str(DAY + number),
        logs=tuple(map(math.log, (ratio, *again))),
        error=0.01,
        image=image or f"image {number}",
        setup=tuple(setup.items()),
        trials=tuple(Trial(verdict=one) for one in trials),
    )


def watch(ratios, **setup):
    found = Watch(RULE.margin)
    for number, ratio in enumerate(ratios):
        found.add(night(number, ratio, **setup))
    return found


def steady(nights=20, seed=1):
    return list(1.5 * np.exp(np.random.default_rng(seed).normal(0, 0.01, nights)))


def test_a_usual_nightly_run_requires_no_repeat():
    analysis = watch(steady()).analyse(night(20, 1.5))
    assert (analysis.request, analysis.verdict, analysis.first) == ("", "", None)


def test_a_suspicion_of_a_young_level_is_measured_and_is_no_alarm():
    few = watch(steady(3))
    assert few.analyse(night(3, 1.3)).request == "again"
    analysis = few.analyse(night(3, 1.3, again=[1.3]))
    assert (analysis.request, analysis.compared, analysis.first) == ("against", 0, None)
    analysis = few.analyse(night(3, 1.3, again=[1.3], trials=["slower", "undecided"]))
    assert (analysis.request, analysis.verdict, analysis.first) == ("", "", None)
    assert watch(steady(1)).analyse(night(1, 1.52)).request == ""
    same_image = watch([])
    same_image.add(night(0, 1.5, image="one"))
    assert same_image.analyse(night(1, 1.1, image="one")).request == ""


def test_a_change_of_a_young_level_is_reported_if_three_runs_agree():
    nights = watch(steady(1))
    analysis = nights.analyse(night(1, 1.3, again=[1.3], trials=["slower", "slower"]))
    assert (analysis.request, analysis.verdict) == ("against", "")
    confirmed = replace(
        night(1, 1.3, again=[1.3]), trials=(Trial(verdict="slower", ratio=0.9),) * 3
    )
    analysis = nights.add(confirmed)
    assert (analysis.verdict, analysis.compared, analysis.first) == ("slower", 0, 1)
    assert analysis.after - analysis.before == pytest.approx(math.log(0.9))
    # The next level begins here: a second step is found, and the first one only once.
    for number in (2, 3, 4):
        assert nights.add(night(number, 1.3)).request == ""
    assert nights.analyse(night(5, 1.1)).request == "again"


@pytest.mark.parametrize(("at", "earlier"), [(1, None), (3, None), (33, 29)])
def test_a_regression_is_found_at_once_also_early_and_soon_after_another(at, earlier):
    early = Scenario(name="early", effect=0.1, at=at, earlier_at=earlier, nights=at + 6)
    (count,) = simulate(histories=25, seed=2, rule=RULE, scenarios=[early])
    assert count.found >= 0.9
    assert count.false_alarms <= 0.05


def test_an_outlying_nightly_run_is_measured_again_at_once():
    assert watch(steady()).analyse(night(20, 1.0)).request == "again"
    assert watch(steady()).analyse(night(20, 2.2)).request == "again"


def test_an_outlying_nightly_run_counts_with_the_value_of_its_repeat():
    nights = watch(steady())
    analysis = nights.add(night(20, 1.0, again=[1.5]))
    assert (analysis.request, analysis.verdict) == ("", "")
    assert math.exp(nights.values[-1]) == pytest.approx(1.5)
    assert nights.analyse(night(21, 1.5)).request == ""


def test_a_persistent_change_is_measured_against_the_earlier_kernel_in_two_runs():
    nights = watch(steady())
    analysis = nights.analyse(night(20, 1.3, again=[1.3]))
    assert (analysis.request, analysis.first, analysis.compared) == ("against", 20, 19)
    analysis = nights.analyse(night(20, 1.3, again=[1.3], trials=["slower"]))
    assert (analysis.request, analysis.verdict) == ("against", "")
    analysis = nights.add(night(20, 1.3, again=[1.3], trials=["slower", "slower"]))
    assert (analysis.request, analysis.verdict) == ("", "slower")
    assert [change.verdict for change in nights.changes] == ["slower"]


def test_a_change_that_is_reported_is_the_new_level():
    nights = watch(steady())
    nights.add(night(20, 1.3, again=[1.3], trials=["slower", "slower"]))
    for number in range(21, 30):
        assert nights.add(night(number, 1.3)).request == ""
    assert len(nights.changes) == 1
    better = nights.analyse(night(30, 1.5, again=[1.5], trials=["faster"] * 3))
    assert better.verdict == "faster"


@pytest.mark.parametrize("verdicts", [["undecided"], ["slower", "undecided"], ["faster"]])
def test_runs_that_disagree_report_nothing(verdicts):
    nights = watch(steady())
    analysis = nights.add(night(20, 1.3, again=[1.3], trials=verdicts))
    assert (analysis.request, analysis.verdict) == ("", "")
    assert nights.changes == []


def test_a_kernel_that_is_the_same_as_before_changed_nothing():
    nights = watch(steady())
    assert nights.add(night(20, 1.3, again=[1.3], trials=["same"])).verdict == "same"
    # Whatever moved the ratio, its new level is what is usual from now on.
    for number in range(21, 30):
        assert nights.add(night(number, 1.3)).request == ""


def test_without_a_new_image_no_kernel_is_blamed():
    nights = Watch(RULE.margin)
    for number, ratio in enumerate(steady()):
        nights.add(night(number, ratio, image="one"))
    analyses = [nights.add(night(20 + n, 1.3, again=[1.3], image="one")) for n in range(3)]
    assert [analysis.verdict for analysis in analyses] == ["", "", "unchanged"]
    assert all(analysis.request == "" for analysis in analyses)


@pytest.mark.parametrize("name", ["host", "baseline", "accelerator"])
def test_another_host_or_base_starts_a_segment_without_an_alarm(name):
    nights = watch(steady(), **{name: "a"})
    assert nights.add(night(20, 1.0, **{name: "b"})).request == ""
    assert nights.add(night(21, 1.0, **{name: "b"})).request == ""
    assert nights.segments[-1].first == 20
    assert nights.segments[-1].why == f"another {name}"
    assert not nights.segments[-1].continues


def test_a_missing_nightly_run_starts_a_segment_without_an_alarm():
    nights = watch(steady())
    assert nights.add(night(23, 1.5)).request == ""
    assert nights.segments[-1] == changes.Segment(
        first=20, why="3 nightly runs are missing", continues=True
    )


def test_a_regression_during_a_gap_is_found():
    nights = watch(steady())
    assert nights.analyse(night(25, 1.3)).request == "again"


def test_a_change_below_the_minimum_effect_is_ignored():
    exact = watch([1.5 * (1 + 0.0001 * (n % 3)) for n in range(20)])
    analysis = exact.analyse(replace(night(20, 1.485), error=0.001))
    assert analysis.request != "against"
    assert analysis.first is None


def test_a_missing_library_is_reported_with_a_hint(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ruptures", None)
    with pytest.raises(HostError, match="ruptures") as caught:
        watch(steady())
    assert "labctl[nightly]" in str(caught.value)


def test_the_same_seed_is_the_same_history():
    one, two, other = (
        history(SCENARIOS[0], RULE, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert one == two
    assert one != other


def test_a_small_simulation_keeps_the_error_rates():
    """In full: `labctl methodology nightly`; here as many as a minute's test bears."""
    few = [replace(one, nights=min(one.nights, 40)) for one in SCENARIOS[:1] + SCENARIOS[3:4]]
    quiet, slower = simulate(histories=12, seed=3, rule=RULE, scenarios=few)
    assert quiet.false_alarms <= 1 / 12
    assert slower.found >= 10 / 12
    assert slower.after <= 6


def test_a_broken_error_rate_is_detected():
    """If every third run and its repeats are outliers, the error rates are too high."""
    bad = Scenario(name="bad", outliers=0.3, outliers_stay=True, nights=40)
    (count,) = simulate(histories=10, seed=1, rule=RULE, scenarios=[bad])
    assert count.false_alarms > 0.2
    assert not count.kept


def test_the_command_counts():
    done = CliRunner().invoke(labctl, ["methodology", "nightly", "--histories", "1", "--json"])
    document = json.loads(done.stdout)
    assert [each["scenario"] for each in document["scenarios"]] == [s.name for s in SCENARIOS]
    assert done.exit_code == (0 if all(s["kept"] for s in document["scenarios"]) else 1)
