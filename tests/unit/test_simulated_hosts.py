"""Simulated runs on several hosts, between which effects differ."""

import dataclasses
import itertools

import numpy as np
import pytest
from samples import cell, replace

from labctl.lab.statistics import Statistics
from labctl.methodology import hosts
from labctl.methodology.hosts import Scenario, simulate_hosts
from labctl.methodology.noise import Noise
from labctl.stats.over_hosts import over_hosts, random_effects
from labctl.stats.stopping import ended
from labctl.stats.verdict import Rule, strict

RULE = Rule.of(Statistics().confidence, Statistics().minimum_effect)
QUIET = Noise(name="quiet")


def on_hosts(*scenarios, runs=300, rule=RULE):
    found = simulate_hosts(runs=runs, seed=2, rule=rule, cells=4, scenarios=scenarios)
    return list(found)


def test_the_error_rates_are_kept_over_hosts_that_differ():
    four, two, slow, ends = on_hosts(
        Scenario(blocks=(4, 3, 2, 1), host_sd=0.05),
        Scenario(blocks=(5, 5), host_sd=0.05),
        Scenario(blocks=(4, 4, 2), is_slow=True),
        Scenario(blocks=(8, 8, 7, 7), host_sd=0.03, stops=True),
    )
    for one in (four, two, slow, ends):
        assert one.kept
        assert 0.92 < one.coverage < 0.98
    assert four.ignored < 0.85
    assert two.half_width > 3 * four.half_width
    assert ends.blocks < 14


def test_an_interval_that_ignores_hosts_is_only_right_if_they_do_not_differ():
    alike, apart = on_hosts(Scenario(blocks=(4, 4, 4)), Scenario(blocks=(4, 4, 4), host_sd=0.1))
    assert 0.93 < alike.ignored < 0.98
    assert apart.ignored < 0.7
    assert alike.found < 0.07 < 0.7 < apart.found


def test_a_broken_error_rate_over_hosts_is_detected():
    careless = dataclasses.replace(RULE, alpha=0.3, confidence=0.7)
    (found,) = on_hosts(Scenario(blocks=(4, 4, 4)), rule=careless)
    assert not found.kept
    with pytest.raises(ValueError, match="at least 2 runs"):
        on_hosts(Scenario(blocks=(4, 4)), runs=1)


def test_many_runs_on_hosts_are_judged_as_one_is():
    scenario = Scenario(blocks=(5, 3, 2), host_sd=0.05)
    draw = np.random.default_rng(4)
    d = hosts._log_ratios(QUIET, scenario, draw, 6, 3)
    order = scenario.order()
    assert order == [0, 1, 2, 0, 1, 2, 0, 1, 0, 0]
    count, total, squares = hosts._Sums.of(d, order).at(np.full((6, 3), 10))
    variance = (squares - total**2 / count).sum(axis=-1) / 7
    many = random_effects(total / count, count, variance)
    for run, column in itertools.product(range(6), range(3)):
        own = over_hosts(
            d[run, :, column + 1].tolist(), list(map(str, order)), confidence=0.95, margin=0.0
        )
        assert own.mean == pytest.approx(many.mean[run, column])
        assert own.hosts.error == pytest.approx(many.error[run, column])
        assert own.hosts.q == pytest.approx(many.q[run, column])


def test_a_cell_ends_on_several_hosts_as_in_a_real_run():
    scenario = Scenario(blocks=(6, 6, 6), host_sd=0.2, stops=True)
    noise = dataclasses.replace(QUIET, repetition_sd=0.03)
    d = hosts._log_ratios(noise, scenario, np.random.default_rng(3), 6, 3)
    ends = hosts._last_blocks(hosts._Sums.of(d, scenario.order()), scenario, strict(0.95))
    assert len(set(ends.flatten().tolist())) > 2
    order = scenario.order()
    for run, of_run in zip(d, ends, strict=True):
        for number, last in enumerate(of_run):
            for blocks in {int(last) - 1, int(last)} - {18}:
                samples = cell([1.0] * blocks)
                samples += cell(np.exp(-run[:blocks, 0]).tolist(), control=True)
                for other, its_last in enumerate(of_run):
                    own = run[: min(blocks, its_last)]
                    own = np.exp(-own[:, 0] / 2 - own[:, other + 1])
                    samples += cell(own.tolist(), kernel=f"patched{other}")
                samples = [replace(one, host=str(order[one.block])) for one in samples]
                if blocks < 8:
                    continue
                done = ended(samples, baseline="stock", confidence=0.95, half_width=0.03)
                assert (f"patched{number}" in done) == (blocks >= last)
