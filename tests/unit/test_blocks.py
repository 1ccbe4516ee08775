"""The rule that says which blocks of an experiment are measured."""

import pytest
from samples import replace, sample
from synthetic import lab

from labctl.experiments import blocks as module
from labctl.experiments.blocks import Blocks
from labctl.experiments.plan import plan
from labctl.experiments.progress import Budget
from labctl.stats.health import disturbed_blocks

BUDGET = Budget(None, 0.0)


class Counted(list):
    """A list that counts the samples that are looked at."""

    looked = 0

    def __iter__(self):
        for one in super().__iter__():
            self.looked += 1
            yield one

    def __getitem__(self, place):
        found = super().__getitem__(place)
        self.looked += len(found) if isinstance(place, slice) else 1
        return found


def rule(count, host="h"):
    return Blocks(plan=plan(lab(blocks=count), "e", 7), host=host)


def block(number, **changes):
    cells = ("stock", "stock+aa", "patched")
    return [sample(block=number, cell=cell, order=n, **changes) for n, cell in enumerate(cells)]


def test_each_sample_is_looked_at_once_however_many_blocks_there_are(monkeypatch):
    seen = []
    monkeypatch.setattr(
        module, "disturbed_blocks", lambda own: seen.append(len(own)) or disturbed_blocks(own)
    )
    samples, blocks = Counted(), rule(200, host="")
    for number in range(200):
        assert not blocks.is_done(number, samples, BUDGET, 0.0)
        assert not blocks.is_elsewhere(number, samples)
        assert blocks.block(number, samples).number == number
        samples += block(number, host="id", host_name="far")
    assert blocks.is_done(200, samples, BUDGET, 0.0)
    assert blocks.is_elsewhere(199, samples)
    assert samples.looked <= len(samples)
    assert sum(seen) <= len(samples)


def test_disturbed_blocks_count_before_a_block_only():
    blocks, samples = rule(8), []
    for number in range(8):
        samples += block(number, disturbed="other processes used 50 %" if number in (2, 5) else "")
    blocks.is_done(5, samples, BUDGET, 0.0)
    assert blocks.extra == 1
    assert not blocks.is_done(8, samples, BUDGET, 0.0)
    assert blocks.extra == 2
    blocks.is_done(2, samples, BUDGET, 0.0)
    assert blocks.extra == 0


def test_a_block_that_gets_more_samples_is_judged_again():
    blocks, samples = rule(8), block(0, disturbed="other processes used 50 %")
    blocks.is_done(1, samples, BUDGET, 0.0)
    assert blocks.extra == 1
    for repetition in (1, 2, 3):
        samples += block(0, repetition=repetition)
    blocks.is_done(1, samples, BUDGET, 0.0)
    assert blocks.extra == 0


def test_samples_of_another_run_are_looked_at_anew():
    blocks = rule(8)
    blocks.is_done(3, [*block(0, disturbed="x"), *block(1, disturbed="x")], BUDGET, 0.0)
    assert blocks.extra == 2
    blocks.is_done(3, block(0), BUDGET, 0.0)
    assert blocks.extra == 0
    assert not blocks.is_elsewhere(1, block(0))


@pytest.mark.parametrize(("host", "extra"), [("h", 0), ("other", 1)])
def test_a_block_that_another_host_began_is_measured_again(host, extra):
    blocks = rule(8)
    samples = [replace(one, host=host) for one in block(0)][:2]
    blocks.is_done(1, samples, BUDGET, 0.0)
    assert blocks.extra == extra
    assert blocks.is_elsewhere(0, samples) == bool(extra)
