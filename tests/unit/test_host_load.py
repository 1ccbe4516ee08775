"""How repetitions depend on the load by other processes, and the command."""

import json
import math

import pytest
from click.testing import CliRunner
from golden_runs import LAB, record_of, store
from samples import replace, sample

from labctl.cli import labctl
from labctl.errors import UserError
from labctl.methodology.host_load import bins

WALL, CORES = 10.0, 2.0


def during(share, value, **changes):
    """A repetition during which others used a share of the CPU time."""
    others = share * WALL * CORES + 0.05  # less what the clock may be wrong by
    load = {"wall_seconds": WALL, "cores": CORES, "busy_seconds": 3 + others, "own_seconds": 3.0,
            "steal_seconds": 0.0}  # fmt: skip
    return sample(**{"load": load, "value": value, **changes})


BOOT = [during(0.01, value) for value in (0.9, 1.0, 1.0, 1.0, 1.1)] + [during(0.25, 1.5)]


def test_repetitions_are_compared_with_the_median_of_their_boot():
    quiet, loaded = bins([*BOOT, *(replace(one, boot_id="c", value=2 * one.value) for one in BOOT)])
    assert (quiet.least, quiet.most, quiet.repetitions) == (0, 0.02, 10)
    assert quiet.median == 0
    assert quiet.sd == pytest.approx(math.log(1.1 / 0.9) / 2)
    assert (loaded.least, loaded.most, loaded.repetitions) == (0.2, 0.3, 2)
    assert loaded.mean == loaded.median == pytest.approx(math.log(1.5))


def test_what_does_not_count_is_left_out():
    others = [
        during(0.5, 9.0, warmup=True),
        during(0.5, None, status="panic"),
        sample(load={}, value=9.0),
        during(0.5, 9.0, boot_id="of two"),
        during(0.5, 9.0, boot_id="of two"),
        during(0.5, 9.0, cell="another setting"),
    ]
    assert bins([*BOOT, *others]) == bins(BOOT)


def test_without_repetitions_there_is_nothing_to_compare():
    with pytest.raises(UserError, match="no boot has 3 successful repetitions"):
        bins(BOOT[:2])


def test_the_command_reports_stored_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lab.yaml").write_text(LAB)
    runs = [f"2026010{day}-000000-0000" for day in (1, 2)]
    for run in runs:
        numbered = [replace(one, run=run, repetition=i) for i, one in enumerate(BOOT)]
        store(tmp_path, record_of(run), numbered)
    done = CliRunner().invoke(labctl, ["methodology", "host-load", *runs, "--json"])
    assert done.exit_code == 0, done.output
    assert [one["repetitions"] for one in json.loads(done.stdout)["bins"]] == [10, 2]
    done = CliRunner().invoke(labctl, ["methodology", "host-load", runs[0]])
    assert "20 to 30 %" in done.stdout
    assert "+40.5 %" in done.stdout
