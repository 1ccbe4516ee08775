"""The lab's own work over the number of blocks, counted instead of timed: see bench/scale.py."""

import os
import sys
from pathlib import Path

import pytest

from labctl.runs import store as stores

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

import scale


def bytes_of(blocks, folder, monkeypatch):
    """The bytes that a run on a thousand hosts and its report read."""
    read, pread, parse = [], os.pread, stores.parse_valid
    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", lambda *of: read.append(of[1]) or pread(*of))
        patched.setattr(stores, "parse_valid", lambda line: read.append(len(line)) or parse(line))
        folder.mkdir()
        scale.one_size(blocks, folder)
    return sum(read)


def test_four_times_the_blocks_read_four_times_the_bytes(tmp_path, monkeypatch):
    few, many = (bytes_of(n, tmp_path / str(n), monkeypatch) for n in (100, 400))
    assert many == pytest.approx(4 * few, rel=0.2)


def test_an_exponent_is_that_of_a_power():
    assert scale.exponent([10, 100, 1000], [3, 30, 300]) == pytest.approx(1)
    assert scale.exponent([10, 100, 1000], [1, 100, 10_000]) == pytest.approx(2)
