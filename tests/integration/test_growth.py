"""A process that boots many guests holds no more after them. The long form is in tests/chaos."""

import shutil
import tempfile

import held
import pytest

from labctl.guests.guest import Guest
from labctl.lab.topology import Topology

GUESTS, WARM_UP = 12, 2


@pytest.mark.xdist_group("measuring")
def test_nothing_grows_with_the_number_of_guests(prepared, tmp_path, monkeypatch):
    folder, temporary = tmp_path / "guests", tmp_path / "temporary"
    folder.mkdir()
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setenv("TMPDIR", str(temporary))

    def some(count):
        for _ in range(count):
            spec = prepared.spec(
                "stock",
                name="guest",
                folder=folder / "guest",
                topology=Topology(nodes=1, memory_per_node=256 << 20),
            )
            with Guest(spec) as guest:
                guest.wait_ready(180)
                assert guest.run("true", timeout_seconds=60).status == 0
            shutil.rmtree(folder / "guest")
        return held.held(folder)

    before = some(WARM_UP)
    assert some(GUESTS).more_than(before) == {}
