"""Running guests after a kill of labctl and a damaged file, with a real QEMU."""

import pytest
from program import BOOT_SECONDS, wait_for


@pytest.mark.xdist_group("measuring")
def test_a_killed_run_and_a_torn_record_leave_no_guest_that_nobody_knows(labctl):
    labctl("up", "stock")
    (pid,) = labctl.guests_running()
    run = labctl.start("run", "tiny")
    wait_for(labctl.samples, 2 * BOOT_SECONDS, "sample")

    # Nothing is removed under it.
    refused = labctl("clean", check=False)
    assert refused.returncode == 2
    assert f"process {run.pid}" in refused.stderr

    # The guest that it had paused goes on with the next command.
    paused = labctl.folder / ".labctl/guests/stock/paused.json"
    assert paused.exists()
    run.kill()
    run.wait()
    (row,) = labctl.json("status", "--json")["guests"]
    assert (row["state"], row["pid"]) == ("ready", pid)
    assert not paused.exists()

    # Without its record, it is still found and ended.
    (labctl.folder / ".labctl/guests/stock/guest.json").write_text('{"pid"')
    (row,) = labctl.json("status", "--json")["guests"]
    assert (row["state"], row["pid"]) == ("unknown", pid)
    labctl("down")
    wait_for(lambda: not labctl.guests_running(), BOOT_SECONDS, "end of all guests")
    labctl("clean")
