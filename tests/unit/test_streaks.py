"""Blocks in a row that are alike: found, named, and given less weight."""

import math

import numpy as np
import pytest
from samples import cell
from test_stats import STOCK, judge, only

from labctl.methodology import noise as noises
from labctl.methodology.noise import Noise
from labctl.methodology.runs import Design, independent_after, simulate
from labctl.stats.compare import half_width
from labctl.stats.stopping import ended
from labctl.stats.streaks import correlation, independent_blocks
from labctl.stats.verdict import Rule

ALTERNATING = [1.0, -1.0] * 6
IN_A_ROW = [0.0, 0.01, -0.01, 0.0, 0.25, 0.26, 0.24, 0.25, 0.0, 0.01, -0.01, 0.0]


def test_the_correlation_of_neighbours():
    """By hand: of the pairs of 1, 1, 1, -1, -1, -1 four have the product 1 and one -1."""
    assert correlation([1.0, 1.0, 1.0, -1.0, -1.0, -1.0]) == pytest.approx(3 / 6)
    assert correlation(ALTERNATING) == pytest.approx(-11 / 12)
    assert correlation([0.3] * 8) == 0
    assert correlation([1.0, 1.0, -1.0, -1.0, -1.0]) == 0  # too few blocks


def test_blocks_in_a_row_count_less_and_independent_ones_fully():
    four = [1.0] * 4 + [-1.0] * 4  # 5 / 8, beyond 1.645 / sqrt(8)
    true = 9 / 16 + (1 + 4 * 9 / 16) / 16
    assert independent_blocks(2 * four) == pytest.approx(16 * (1 - true) / (1 + true))
    assert independent_blocks(four) == 2
    assert independent_blocks(ALTERNATING) == 12
    assert independent_blocks([1.0, 1.0, 1.0, -1.0, -1.0, -1.0]) == 6


def streaky(d):
    base = 2 * STOCK[:6]
    return base, [time * math.exp(x) for time, x in zip(base, d, strict=True)]


def test_a_streak_is_named_and_widens_the_interval():
    base, slow = streaky(IN_A_ROW)
    result = judge(cell(base), cell(slow, kernel="new"))
    mixed = [IN_A_ROW[i] for i in (0, 4, 1, 8, 5, 2, 9, 6, 10, 3, 7, 11)]
    calm = judge(cell(base), cell(streaky(mixed)[1], kernel="new"))
    one, other = only(result), only(calm)
    assert one.ratio == pytest.approx(other.ratio)
    assert math.log(one.ci[1] / one.ci[0]) > 2 * math.log(other.ci[1] / other.ci[0])
    assert one.p > other.p
    (line,) = [w for w in result.warnings if "in a row" in w]
    assert line.startswith("new: blocks in a row are alike: 12 blocks say as much as")
    assert "more blocks would make it as narrow" in line
    assert not [w for w in calm.warnings if "in a row" in w]


def test_a_streak_of_the_control_does_not_take_the_trust_in_the_host():
    base, slow = streaky([x - 0.04 for x in IN_A_ROW])
    result = judge(cell(base), cell(slow, control=True), cell(base, kernel="new"))
    assert not result.control_differs
    assert any(w.startswith("the A/A control: blocks in a row") for w in result.warnings)


def test_a_cell_with_a_streak_does_not_end():
    d = [0.003 * x for x in (1, 1, 1, 1, -1, -1, -1, -1, 1, 1, 1, 1)]
    rule = {"baseline": "stock", "confidence": 0.95}
    base, slow = streaky(d)
    streak = cell(base) + cell(slow, kernel="new")
    base, slow = streaky([d[i] for i in (0, 4, 1, 5, 2, 6, 3, 7, 8, 9, 10, 11)])
    mixed = cell(base) + cell(slow, kernel="new")
    assert half_width(streak, **rule) > 2 * half_width(mixed, **rule)
    assert ended(streak, half_width=0.004, **rule) == frozenset()
    assert ended(mixed, half_width=0.004, **rule) == {"new"}


def test_arrays_have_the_same_independent_blocks():
    draw = np.random.default_rng(3)
    d = np.cumsum(draw.normal(0, 0.02, (20, 12, 2)), axis=1)
    found = independent_after(d)
    for run, counts in zip(d, found, strict=True):
        for number in range(2):
            for blocks in (5, 6, 9, 12):
                one = independent_blocks(run[:blocks, number].tolist())
                assert counts[blocks - 1, number] == pytest.approx(one)
    assert found[:, -1].min() < 12


def test_simulated_streaks_are_as_many_and_as_long_as_asked_for():
    noise = Noise(name="s", boot_sd=0, repetition_sd=0, spoilt_boots=0.1, streak=4)
    logs = noises.times(noise, np.random.default_rng(1), (200, 50, 1, 3))[0][:, :, 0]
    slow = logs > 0.2
    assert slow.mean() == pytest.approx(0.1, abs=0.01)
    inside = slow[:, 4:-4]
    begins = inside[:, 1:] & ~inside[:, :-1]
    assert begins.sum() < 0.3 * inside.sum()


def test_compared_cells_share_a_boot_if_asked_for():
    noise = Noise(name="s", repetition_sd=0, shared_boots=True)
    logs = noises.times(noise, np.random.default_rng(1), (2, 3, 1, 5))[0][:, :, 0]
    assert (logs[..., 2:] == logs[..., 2:3]).all()
    assert len(np.unique(logs[0, 0])) == 3


@pytest.mark.parametrize("name", ["streaks", "between-runs"])
def test_promises_hold_with_many_blocks(name):
    (noise,) = [one for one in noises.NOISES if one.name == name]
    design = Design(name="30", cells=2, blocks_min=30, blocks_max=30, stop_at_half_width=None)
    rule = Rule.of(0.95, 0.02)
    (rates,) = simulate(runs=250, seed=4, rule=rule, noises=[noise], designs=[design])
    assert rates.is_promised
    assert rates.kept
    assert (rates.warned > 0.5) == (name == "streaks")
