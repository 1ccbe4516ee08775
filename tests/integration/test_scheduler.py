"""Real guests on a worker of a real scheduler."""

import subprocess
import sys

import pytest
from program import wait_for

from labctl.runs.folder import RunFolder

START_SECONDS = 200
VERIFY = """\
verify:
  variants:
    poison: {command_line: page_poison=1, checks: [integrity/*]}
"""


@pytest.fixture
def scheduler(labctl, tmp_path):
    """Return the file of a scheduler with the worker `far`, which has a folder of its own."""
    file = tmp_path / "scheduler.json"
    words = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", file)
    with (tmp_path / "scheduler.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_scheduler", *words],
            stdout=log,
            stderr=log,
        )
    try:
        wait_for(file.exists, START_SECONDS, "scheduler")
        words = ("--scheduler", file, "--name", "far", "--folder", tmp_path / "far")
        labctl.start("worker", *words)
        yield file
    finally:
        process.kill()
        process.wait(60)


@pytest.mark.xdist_group("measuring")  # runs on one host wait for each other
def test_a_worker_checks_and_measures_in_real_guests(labctl, scheduler):
    lab = labctl.folder / "lab.yaml"
    lab.write_text(lab.read_text() + VERIFY)
    to_it = ("--json", "--scheduler", scheduler)
    words = ("--quick", "--seconds=1s", "--check=integrity/exit", "--without-base", "stock")
    document = labctl.json("verify", *to_it, *words)
    assert document["passed"]
    assert list(document["hosts"]) == ["far"]
    (check,) = document["kernels"]["stock"]["checks"]
    assert (check["name"], check["status"], check["host"]) == ("integrity/exit", "passed", "far")
    # With two blocks, the exit status may be 1.
    report = labctl.json("run", *to_it, "tiny", check=False)
    (host,) = report["hosts"].values()
    assert host["boot_id"] == next(iter(document["hosts"].values()))["boot_id"]
    samples = RunFolder(labctl.folder / ".labctl/runs" / report["run"]).store.samples()
    assert {one.host_name for one in samples} == {"far"}
    assert {one.status for one in samples} == {"ok"}
    assert {one.block for one in samples} == {0, 1}
    files = sorted((labctl.folder / "far/files").iterdir())
    assert len(files) >= 3, "two kernels and the initramfs, by their hashes"
