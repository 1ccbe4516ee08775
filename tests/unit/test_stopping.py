"""When cells end: narrow by themselves and by all together, whatever their means."""

import numpy as np
import pytest
from samples import cell, replace

from labctl.stats.stopping import ended, is_narrow

RULE = {"baseline": "stock", "confidence": 0.95, "half_width": 0.03}
BLOCKS = 10


def spread(sd, *, kernel="new", seed=1, ratio=1.0, **changes):
    """A cell whose log ratios to a stock of 1 second have just this standard deviation."""
    d = np.random.default_rng(seed).normal(size=BLOCKS)
    d = (d - d.mean()) / d.std(ddof=1) * sd
    return cell(np.exp(d).tolist() if ratio == 1 else (np.exp(d) / ratio).tolist(),
                kernel=kernel, **changes)  # fmt: skip


STOCK = cell([1.0] * BLOCKS)
CONTROL = spread(0.03, kernel="stock", control=True)
# t(9) at 96.25 % is 2.438; over sqrt(10), 0.771: a standard deviation of 0.0389 is just narrow
# enough.


@pytest.mark.parametrize(("sd", "is_done"), [(0.0385, True), (0.0393, False)])
@pytest.mark.parametrize("ratio", [1.0, 1.5, 0.2])
def test_a_cell_ends_by_the_width_of_its_interval_not_by_its_result(sd, is_done, ratio):
    control = cell([1.0] * BLOCKS, kernel="stock", control=True)
    samples = [*STOCK, *control, *spread(sd, ratio=ratio)]
    assert ended(samples, **RULE) == ({"new"} if is_done else set())


def test_no_cell_ends_before_eight_blocks():
    rule = {"confidence": 0.95, "half_width": 0.03}
    result = is_narrow(np.zeros(8), np.arange(1, 9), **rule)
    assert result.tolist() == [False] * 7 + [True]


def test_one_cell_ends_and_the_other_goes_on():
    samples = [*STOCK, *CONTROL, *spread(0.02, kernel="a"), *spread(0.06, kernel="b", seed=3)]
    assert ended(samples, **RULE) == {"a"}


def test_a_quiet_cell_among_noisy_ones_does_not_end_yet():
    noisy = [s for n in range(3) for s in spread(0.06, kernel=f"noisy{n}", seed=n)]
    assert ended([*STOCK, *CONTROL, *noisy, *spread(0.02, kernel="a")], **RULE) == set()


def test_a_dead_cell_ends_and_one_block_is_not_narrow():
    dead = [replace(s, status="panic", value=None) for s in spread(0.02, kernel="dead")]
    assert ended([*STOCK, *CONTROL, *spread(0.02, kernel="a"), *dead], **RULE) == {"a", "dead"}
    assert ended([*cell([1.0]), *cell([1.0], kernel="a")], **RULE) == set()
    assert ended([], **RULE) == set()


def test_cells_that_have_ended_weigh_by_their_own_blocks():
    sd, blocks = np.array([0.03, 0.03, 0.05]), np.array([20, 9, 20])
    pooled = np.sqrt((19 * 0.03**2 + 8 * 0.03**2 + 19 * 0.05**2) / 46)
    reach = 2.093024 / np.sqrt(20)  # t(19)
    for excess, expected in ((0.999, False), (1.001, True)):
        narrow = is_narrow(sd, blocks, confidence=0.95, half_width=reach * pooled * excess)
        assert bool(narrow[0]) is expected
