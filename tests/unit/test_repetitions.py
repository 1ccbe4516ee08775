"""`repetitions: auto`: the number of repetitions per boot by spreads and times."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import synthetic
from click.testing import CliRunner
from samples import replace, sample
from test_runner import runner

from labctl.cli import labctl
from labctl.experiments.plan import plan
from labctl.methodology.noise import Noise, times
from labctl.methodology.repetitions import thinned
from labctl.methodology.runs import Design, log_ratios
from labctl.runs.store import Store
from labctl.stats.repetitions import FIRST, MOST, Goal, best, chosen

BEGAN = datetime(2026, 11, 24, tzinfo=UTC)
AT_EQUAL_TIME = Goal(0.95, None, 8)


def one(within, between, fixed, each, goal=AT_EQUAL_TIME):
    return int(best(within, between, fixed_seconds=fixed, round_seconds=each, goal=goal))


def test_at_equal_time_the_number_is_that_of_kalibera_and_jones():
    """By hand: sqrt(20 / 5 * 0.0016 / 0.0004) = 4."""
    assert one(0.0016, 0.0004, 20, 5) == 4
    assert one(0.0016, 0.0004, 1e-6, 5) == FIRST
    assert one(0.0016, 0.0, 1000, 5) == MOST


def test_no_more_repetitions_than_the_half_width_needs():
    """Eight blocks must be measured anyway; the fewest are enough for 10 % in them."""
    assert one(0.0016, 0.0004, 20, 5, Goal(0.95, 0.1, 8)) == FIRST
    assert one(0.0016, 0.0004, 20, 5, Goal(0.95, 0.001, 8)) == 4


def test_arrays_are_chosen_for_as_single_runs_are():
    within, between = np.array([0.0016, 0.01]), np.array([0.0004, 0.0001])
    found = best(
        within, between, fixed_seconds=within * 0 + 20, round_seconds=within * 0 + 5,
        goal=AT_EQUAL_TIME,
    )  # fmt: skip
    assert found.tolist() == [one(0.0016, 0.0004, 20, 5), one(0.01, 0.0001, 20, 5)]


def blocks(noise, *, count, boot_seconds, repetitions=3, seed=1):
    """Return samples with a warm-up; a repetition takes one second."""
    logs, _ = times(noise, np.random.default_rng(seed), (1, count, repetitions, 3))
    now, found = BEGAN, []
    for block in range(count):
        now += timedelta(seconds=3 * boot_seconds)
        for repetition in range(-1, repetitions):
            for number, name in enumerate(("stock", "stock+aa", "new")):
                found.append(
                    sample(
                        block=block,
                        warmup=repetition < 0,
                        repetition=max(repetition, 0),
                        kernel=name.removesuffix("+aa"),
                        control=name.endswith("+aa"),
                        cell=name,
                        value=float(np.exp(logs[0, block, max(repetition, 0), number])),
                        started_at=now.isoformat(),
                        load={"boot_seconds": 3 * boot_seconds},
                    )
                )
                now += timedelta(seconds=1)
    return found


def auto(samples):
    return chosen(samples, baseline="stock", goal=AT_EQUAL_TIME)


def test_a_boot_that_takes_long_is_used_for_more_repetitions():
    noise = Noise(name="x", boot_sd=0.02, repetition_sd=0.04)
    assert auto([]) == auto(blocks(noise, count=1, boot_seconds=50)) == 3
    cheap, dear = (auto(blocks(noise, count=16, boot_seconds=s)) for s in (1e-6, 30.0))
    # By hand: sqrt(1 * 4) = 2 with the warm-up alone, but at least 3; and sqrt(31 * 4) = 11.
    assert cheap == 3
    assert dear >= 8


def test_the_choice_depends_on_no_difference_between_kernels():
    noise = Noise(name="x", boot_sd=0.02, repetition_sd=0.04)
    samples = blocks(noise, count=8, boot_seconds=10)
    halved = [
        replace(s, value=s.value / 2) if s.kernel == "new" and s.value else s for s in samples
    ]
    assert auto(halved) == auto(samples)


def test_equal_values_show_no_spread():
    flat = Noise(name="x", boot_sd=0, repetition_sd=0)
    assert auto(blocks(flat, count=4, boot_seconds=10)) == 3


def test_without_the_time_of_boots_nothing_is_chosen():
    noise = Noise(name="x", boot_sd=0.02, repetition_sd=0.04)
    samples = blocks(noise, count=16, boot_seconds=30)
    assert auto([replace(s, load={}) for s in samples]) == 3


@pytest.mark.parametrize(("count", "since"), [(8, 4), (2, 1), (2, 0)])
def test_an_interruption_of_the_run_does_not_count(count, since):
    noise = Noise(name="x", boot_sd=0.02, repetition_sd=0.04)
    samples = blocks(noise, count=count, boot_seconds=10)
    later = {
        id(s): (datetime.fromisoformat(s.started_at) + timedelta(hours=9)).isoformat()
        for s in samples
        if s.block >= since and not (since == 0 and s.warmup)
    }
    moved = [replace(s, started_at=later.get(id(s), s.started_at)) for s in samples]
    assert auto(moved) == auto(samples)


def test_a_block_has_the_chosen_repetitions(tmp_path):
    world = synthetic.World()
    counts = iter((3, 1, 4))
    seen = []

    def repetitions(before):
        seen.append(len({one.block for one in before}))
        return next(counts)

    runner(tmp_path, world, synthetic.lab(blocks=3, repetitions=2), repetitions=repetitions).run()
    measured = [s for s in Store(tmp_path).samples() if not s.warmup]
    assert [sum(s.block == block for s in measured) for block in range(3)] == [9, 3, 12]
    assert seen == [0, 1, 2]


def test_the_plan_of_auto_begins_with_three():
    planned = plan(synthetic.lab(repetitions="auto"), "e", 1)
    assert len([v for v in planned.block(0) if not v.warmup]) == 3 * 3


def test_simulated_blocks_keep_only_the_chosen_repetitions():
    draw = np.random.default_rng(2)
    logs = np.moveaxis(times(Noise(name="x"), draw, (5, 8, MOST, 3))[0], 3, 1)
    kept, numbers = thinned(logs, AT_EQUAL_TIME)
    assert (numbers[:, :2] == 3).all()
    assert (np.isfinite(kept).sum(axis=-1) == numbers[:, None]).all()
    design = Design(name="auto", cells=1, blocks_max=8, repetitions="auto")
    assert np.isfinite(log_ratios(Noise(name="x"), design, draw, 3)).all()


def test_the_command_compares_with_the_usual_way():
    arguments = ["methodology", "speed", "--runs=40", "--json"]
    kinds = json.loads(CliRunner().invoke(labctl, arguments).stdout)["kinds"]
    drift = next(kind for kind in kinds if kind["noise"] == "drift")
    assert drift["blocks"] < 0.7 * drift["usual"]
    assert drift["blocks"] < drift["medians"]
    text = CliRunner().invoke(labctl, ["methodology", "speed", "--runs=2"]).stdout
    assert "usual way" in text
    assert "2 runs each, seed 20170315" in text


@pytest.mark.parametrize("value", ["0", "some"])
def test_other_words_are_rejected(tmp_path, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    CliRunner().invoke(labctl, ["init"])
    lab = tmp_path / "lab.yaml"
    lab.write_text(lab.read_text().replace("repetitions: 3  #", f"repetitions: {value}  #"))
    outcome = CliRunner().invoke(labctl, ["plan"])
    assert "repetitions" in str(outcome.exception) + outcome.output
    assert outcome.exit_code != 0
