"""Simulated runs with known changes: the error rates of the method, and their report."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from samples import cell, sample

from labctl.cli import labctl
from labctl.lab.metrics import MetricKind
from labctl.lab.statistics import Statistics
from labctl.methodology import hosts
from labctl.methodology.load import SCENARIOS, adjustments
from labctl.methodology.noise import NOISES, Noise, times
from labctl.methodology.repetitions import log_ratios as of_logs
from labctl.methodology.runs import (
    DESIGNS,
    Design,
    last_blocks,
    log_ratios,
    moments,
    simulate,
    verdicts,
)
from labctl.methodology.warned import warnings
from labctl.stats.cells import cells_of, primary
from labctl.stats.compare import compare
from labctl.stats.paired import adjust, holm, paired
from labctl.stats.stopping import ended
from labctl.stats.verdict import Rule, strict, word

RULE = Rule.of(Statistics().confidence, Statistics().minimum_effect)
QUIET = Noise(name="quiet")
FIXED = Design(name="fixed", cells=4, blocks_min=10, blocks_max=10, stop_at_half_width=None)
STOPPING = Design(name="stopping", cells=4, blocks_max=20)


def count(noise, design, runs=300, seed=1, rule=RULE):
    (rates,) = simulate(runs=runs, seed=seed, rule=rule, noises=[noise], designs=[design])
    return rates


@pytest.mark.parametrize("design", [FIXED, STOPPING], ids=lambda d: d.name)
@pytest.mark.parametrize("noise", [QUIET, Noise(name="drift", drift_sd=0.05)], ids=lambda n: n.name)
def test_the_error_rates_are_kept(noise, design):
    rates = count(noise, design)
    assert rates.kept
    assert 0.91 < rates.coverage < 0.98
    assert rates.any_verdict <= 0.02


def test_an_effect_is_found_and_none_is_not_beyond_the_margin():
    rates = count(Noise(name="exact", boot_sd=0.005, repetition_sd=0.005), FIXED)
    assert rates.power >= 0.98
    assert rates.same > 0.95
    assert rates.any_verdict == 0
    assert rates.any_verdict_at_margin <= 0.05 + 2 * 0.013


def test_a_broken_error_rate_is_detected():
    """Without a correction, and with intervals that are too narrow."""
    careless = replace(RULE, alpha=0.3, confidence=0.7)
    assert not count(QUIET, FIXED, rule=careless).kept


def test_a_change_of_the_minimum_effect_is_seldom_called_the_same_in_any_of_12_cells():
    noise = Noise(name="calm", boot_sd=0.003, repetition_sd=0.008)
    rates = count(noise, replace(FIXED, cells=12), runs=250)
    assert rates.same > 0.5
    assert rates.any_same <= 0.05 + 2 * 0.014
    assert rates.kept


def test_the_same_seed_counts_the_same():
    assert count(QUIET, STOPPING, runs=5) == count(QUIET, STOPPING, runs=5)
    assert count(QUIET, STOPPING, runs=5) != count(QUIET, STOPPING, runs=5, seed=2)


def test_many_runs_are_judged_as_one_is():
    """The arrays of the simulation say what the lab's own code says of each run."""
    draw = np.random.default_rng(9)
    d = log_ratios(QUIET, FIXED, draw, 12)[..., 1:] + draw.choice([0, 0.03, 0.1], (12, 1, 4))
    mean, sd = (moment[:, -1] for moment in moments(d))
    words = verdicts(mean, sd, np.full(mean.shape, 10), RULE)
    seen = set()
    for run, result in zip(d, words, strict=True):
        results = [paired(c.tolist(), confidence=0.95, margin=RULE.margin) for c in run.T]
        beyond = adjust([one.p_beyond for one in results])
        same = adjust([one.p_same for one in results])
        tests = zip(results, beyond, same, strict=True)
        assert result.tolist() == [word(*each, RULE) for each in tests]
        assert holm(np.array([one.p for one in results])) == pytest.approx(
            adjust([one.p for one in results])
        )
        seen |= set(result.tolist())
    assert seen >= {"faster", "undecided"}


def test_a_cell_ends_as_in_a_real_run():
    d = log_ratios(replace(QUIET, repetition_sd=0.03), STOPPING, np.random.default_rng(3), 5)
    ends = last_blocks(d, STOPPING, strict(0.95))
    assert len(set(ends.flatten().tolist())) > 3
    for run, of_run in zip(d, ends, strict=True):
        done = frozenset()
        for blocks in range(STOPPING.blocks_min, STOPPING.blocks_max):
            samples = cell([1.0] * blocks)
            samples += cell(np.exp(-run[:blocks, 0]).tolist(), control=True)
            for number, last in enumerate(of_run):
                own = run[: min(blocks, last)]
                own = np.exp(-own[:, 0] / 2 - own[:, number + 1])
                samples += cell(own.tolist(), kernel=f"patched{number}")
            done |= ended(samples, baseline="stock", confidence=0.95, half_width=0.03)
            assert done == {f"patched{n}" for n, last in enumerate(of_run) if last <= blocks}


@pytest.mark.parametrize("noise", [one for one in NOISES if one.events], ids=lambda n: n.name)
@pytest.mark.parametrize("number", [3, "auto"])
def test_counts_are_compared_by_differences_with_the_errors_that_are_promised(noise, number):
    rates = count(noise, replace(STOPPING, repetitions=number))
    assert rates.kept
    assert 0.93 < rates.coverage < 0.98
    assert rates.any_verdict <= 0.02


def test_simulated_counts_are_compared_as_those_of_a_run():
    (noise,) = (one for one in NOISES if one.name == "rare-events")
    values, _ = times(noise, np.random.default_rng(2), (1, 10, 3, 3))
    names = ("stock", "stock"), ("stock+aa", "stock"), ("new", "new")
    samples = []
    for index, (name, kernel) in enumerate(names):
        own = {"kernel": kernel, "label": name, "cell": name, "control": name.endswith("+aa")}
        for block in range(10):
            for repetition, value in enumerate(values[0, block, :, index]):
                where = {"block": block, "repetition": repetition, "boot_id": f"{name}{block}"}
                one = sample(value=float(value), scale="difference", **own, **where)
                samples.append(one)
    kind = MetricKind("events", "lower", "mine", "difference")
    rule = {"baseline": "stock", "confidence": 0.95, "minimum_effect": 0.02}
    result = compare(samples, metric=kind, **rule)
    d = of_logs(np.moveaxis(values, 3, 1), noise.scale)[0]
    assert result.aa_control.difference == pytest.approx(-d[:, 0].mean())
    assert result.cells[1].difference == pytest.approx(-d[:, 1].mean())
    assert result.cells[1].sd_difference == pytest.approx(d[:, 1].std(ddof=1))


def test_the_spread_of_rare_events_is_not_0():
    """By hand: of 0 0 3 and 0 0 0 the variances are 3 and 0."""
    samples = []
    for block, counts in enumerate(((0, 0, 3), (0, 0, 0))):
        for repetition, value in enumerate(counts):
            own = {"block": block, "repetition": repetition, "scale": "difference"}
            samples.append(sample(value=float(value), **own))
    (found,) = cells_of(samples, "difference")
    assert found.spread(primary) == pytest.approx(1.5**0.5)


def test_streaks_are_found_the_sooner_the_more_blocks():
    few, many = warnings(runs=400, seed=1, blocks=(10, 30))
    assert few.rightly < 0.4 < 0.7 < many.rightly
    assert max(few.falsely, many.falsely) < 0.05
    assert few.coverage < 0.9 < 0.94 < many.coverage
    assert many.uncorrected < 0.75


def test_an_adjustment_for_the_load_fails_where_the_load_follows_the_time():
    found = {one.scenario: one for one in adjustments(runs=2000, seed=1)}
    assert len(found) == len(SCENARIOS)
    for one in found.values():
        assert 0.94 < one.today[0] < 0.98
    assert found["bursts"].within_boots[1] < found["bursts"].today[1]
    assert found["fixed work"].within_boots[0] < 0.9


@pytest.mark.parametrize("name", ["streaks", "load"])
def test_a_further_command_prints_its_table_and_json(name):
    outcome = CliRunner().invoke(labctl, ["methodology", name, "--runs=20"])
    assert (outcome.exit_code, outcome.stdout.count("20 runs each, seed 20170315")) == (0, 1)
    outcome = CliRunner().invoke(labctl, ["methodology", name, "--runs=20", "--json"])
    assert json.loads(outcome.stdout)["kinds"][0]["runs"] == 20


def boots(noise, blocks=200):
    logs, _ = times(noise, np.random.default_rng(1), (1, blocks, 3, 13))
    return np.median(logs, axis=2)[0]


def test_drift_is_shared_by_neighbours_in_time():
    logs = boots(Noise(name="d", boot_sd=0, repetition_sd=0, drift_sd=0.05, drift_memory=0.9995))
    within = np.std(logs, axis=1).mean()
    between = np.std(logs.mean(axis=1))
    assert within < between / 3


def test_outliers_are_as_many_as_asked_for():
    logs = boots(Noise(name="o", boot_sd=0, repetition_sd=0, spoilt_boots=0.1), 1000)
    assert np.mean(logs > 0.2) == pytest.approx(0.1, abs=0.01)


def test_a_first_repetition_is_longer():
    noise = Noise(name="f", boot_sd=0, repetition_sd=0, first_repetition=0.1)
    logs, _ = times(noise, np.random.default_rng(1), (1, 2, 3, 2))
    assert np.allclose(logs[0, :, 0], math.log(1.1))
    assert not logs[0, :, 1:].any()


def test_one_run_is_refused():
    with pytest.raises(ValueError, match="at least 2 runs"):
        count(QUIET, FIXED, runs=1)


def test_the_command_reports_the_figures_and_the_seed():
    outcome = CliRunner().invoke(labctl, ["methodology", "simulate", "--runs=2", "--json"])
    document = json.loads(outcome.stdout)
    assert document["seed"] == 20170315
    assert len(document["kinds"]) == len(DESIGNS) * len(NOISES)
    assert len(document["hosts"]) == len(hosts.SCENARIOS)
    is_kept = all(kind["kept"] for kind in (*document["kinds"], *document["hosts"]))
    assert outcome.exit_code == (0 if is_kept else 1)
    outcome = CliRunner().invoke(
        labctl, ["methodology", "simulate", "--runs=2", "--format=markdown"]
    )
    assert outcome.stdout.startswith("| noise")
    assert "seed 20170315" in outcome.stdout
    assert "| blocks of each host" in outcome.stdout


def test_plots_are_written_as_svg(tmp_path):
    folder = tmp_path / "plots"
    CliRunner().invoke(labctl, ["methodology", "simulate", "--runs=2", f"--plots={folder}"])
    names = {path.name for path in folder.iterdir()}
    assert names == {"methodology-coverage.svg", "methodology-false-differences.svg"}
    for path in folder.iterdir():
        assert path.read_text().startswith("<svg")
        assert "slow-boots, 10 blocks" in path.read_text()
        assert path.stat().st_size < 100_000
