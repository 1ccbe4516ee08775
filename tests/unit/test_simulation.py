"""Simulated runs of a known truth: does the method keep its promises, and can that be seen?"""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from samples import cell

from labctl.cli import labctl
from labctl.lab_models import Statistics
from labctl.results.simulation import Design, Noise, boots, simulate, stops_after
from labctl.results.stats import half_width
from labctl.results.verdict import Rule

RULE = Rule.of(Statistics().confidence, Statistics().minimum_effect)
QUIET = Noise(name="quiet")
FIXED = Design(name="fixed", cells=4, blocks_min=10, blocks_max=10, stop_at_half_width=None)
STOPPING = Design(name="stopping", cells=4, blocks_max=20)


def count(noise, design, runs=30, seed=1, rule=RULE):
    (promise,) = simulate(runs=runs, seed=seed, rule=rule, noises=[noise], designs=[design])
    return promise


@pytest.mark.parametrize("design", [FIXED, STOPPING], ids=lambda d: d.name)
@pytest.mark.parametrize("noise", [QUIET, Noise(name="drift", drift_sd=0.05)], ids=lambda n: n.name)
def test_the_promises_are_kept(noise, design):
    promise = count(noise, design)
    assert promise.kept
    assert 0.9 < promise.coverage < 0.99
    assert promise.any_verdict <= 0.05


def test_an_effect_is_found_and_none_is_not_beyond_the_margin():
    promise = count(Noise(name="exact", boot_sd=0.005, repetition_sd=0.005), FIXED)
    assert promise.power == 1
    assert promise.same > 0.95
    assert promise.any_verdict == 0
    assert promise.any_verdict_at_margin <= 0.15


def test_a_broken_promise_is_seen():
    """Without a correction, and with intervals that are too narrow."""
    careless = replace(RULE, alpha=0.3, confidence=0.7)
    assert not count(QUIET, FIXED, rule=careless).kept


def test_the_same_seed_counts_the_same():
    assert count(QUIET, STOPPING, runs=5) == count(QUIET, STOPPING, runs=5)
    assert count(QUIET, STOPPING, runs=5) != count(QUIET, STOPPING, runs=5, seed=2)


def test_a_run_ends_as_a_real_one_does():
    draw = np.random.default_rng(3)
    for _ in range(5):
        logs = boots(QUIET, STOPPING, draw)
        ends = stops_after(logs[:, :1] - logs[:, 1:], STOPPING, 0.95)
        for blocks in range(STOPPING.blocks_min, ends + 1):
            samples = [
                one
                for column in range(logs.shape[1])
                for one in cell(
                    [math.exp(value) for value in logs[:blocks, column]],
                    kernel="stock" if column == 0 else f"patched{column}",
                )
            ]
            width = half_width(samples, baseline="stock", confidence=0.95)
            is_last = blocks == ends
            assert (width <= STOPPING.stop_at_half_width) == is_last or ends == 20


def test_drift_is_shared_by_neighbours_in_time():
    noise = Noise(name="d", boot_sd=0, repetition_sd=0, drift_sd=0.05, drift_memory=0.999)
    logs = boots(noise, Design(name="x", blocks_max=200), np.random.default_rng(1))
    within = np.std(logs, axis=1).mean()
    between = np.std(logs.mean(axis=1))
    assert within < between / 3


def test_outliers_are_as_many_as_asked_for():
    noise = Noise(name="o", boot_sd=0, repetition_sd=0, spoilt_boots=0.1)
    logs = boots(noise, Design(name="x", blocks_max=1000), np.random.default_rng(1))
    assert np.mean(logs > 0.2) == pytest.approx(0.1, abs=0.01)


def test_one_run_is_refused():
    with pytest.raises(ValueError, match="fewer than two"):
        count(QUIET, FIXED, runs=1)


def test_the_command_tells_the_figures_and_the_seed():
    outcome = CliRunner().invoke(labctl, ["methodology", "simulate", "--runs=2", "--json"])
    document = json.loads(outcome.stdout)
    assert document["seed"] == 20170315
    assert len(document["kinds"]) == 8
    assert outcome.exit_code == (0 if all(kind["kept"] for kind in document["kinds"]) else 1)
    outcome = CliRunner().invoke(
        labctl, ["methodology", "simulate", "--runs=2", "--format=markdown"]
    )
    assert outcome.stdout.startswith("| noise")
    assert "seed 20170315" in outcome.stdout
