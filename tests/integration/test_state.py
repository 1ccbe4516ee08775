"""Running guests after a kill of labctl and a damaged file, with a real QEMU."""

import pytest
from program import BOOT_SECONDS, wait_for


@pytest.mark.xdist_group("measuring")
def test_no_guest_is_lost_after_a_killed_run_and_a_damaged_record(labctl):
    labctl("up", "stock")
    (pid,) = labctl.guests_running()
    run = labctl.start("run", "tiny")
    wait_for(labctl.samples, 2 * BOOT_SECONDS, "sample")

    # `clean` removes nothing while a run measures.
    refused = labctl("clean", check=False)
    assert refused.returncode == 2
    assert f"process {run.pid}" in refused.stderr

    # The next command resumes the guest that the killed run had paused.
    paused = labctl.folder / ".labctl/guests/stock/paused.json"
    assert paused.exists()
    run.kill()
    run.wait()
    (row,) = labctl.json("status", "--json")["guests"]
    assert (row["state"], row["pid"]) == ("ready", pid)
    assert not paused.exists()

    # A guest with a damaged record is still found and stopped.
    (labctl.folder / ".labctl/guests/stock/guest.json").write_text('{"pid"')
    (row,) = labctl.json("status", "--json")["guests"]
    assert (row["state"], row["pid"]) == ("unknown", pid)
    labctl("down")
    wait_for(lambda: not labctl.guests_running(), BOOT_SECONDS, "end of all guests")
    labctl("clean")
