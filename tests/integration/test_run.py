"""The whole lab: guests of `labctl up`, and runs that are interrupted, killed and resumed."""

import json
import signal
import time

import pytest
from program import wait_for

# Runs on one host wait for each other.
pytestmark = pytest.mark.xdist_group("measuring")


def finished(lines):
    return {(s["block"], s["cell"], s["warmup"], s["repetition"]) for s in map(json.loads, lines)}


def test_guests_of_up_live_until_down(labctl):
    assert labctl("up").returncode == 0
    assert len(labctl.guests_running()) == 2
    done = labctl("exec", "stock", "uname -r; exit 3", check=False)
    assert (done.returncode, done.stdout.startswith("6.1.")) == (3, True)
    assert labctl("exec", "stock", "echo", "two  words").stdout == "two  words\n"
    states = {g["name"]: g["state"] for g in labctl.json("status", "--json")["guests"]}
    assert states == {"stock": "ready", "parallel-free": "ready"}
    pids = labctl.guests_running()
    again = labctl("up")
    assert again.stderr.count("unchanged") == 2
    assert labctl.guests_running() == pids
    no_ssh = labctl("ssh", "stock", check=False)
    assert no_ssh.returncode == 2
    assert "transport: ssh" in no_ssh.stderr
    text = (labctl.folder / "lab.yaml").read_text()
    (labctl.folder / "lab.yaml").write_text(text.replace("512MiB", "448MiB"))
    changed = labctl("up", "stock")
    assert "stock: restarted: topology changed" in changed.stderr
    assert len(set(labctl.guests_running()) - set(pids)) == 1
    labctl("down")
    assert labctl.guests_running() == []
    gone = labctl("exec", "stock", "true", check=False)
    assert gone.returncode == 2


def test_a_run_measures_and_reports(labctl):
    document = json.loads(labctl("run", "tiny", "--json", "--seed", "5", check=False).stdout)
    assert document["seed"] == 5
    assert document["accel"] in ("tcg", "kvm")
    assert set(document["kernels"]) == {"stock", "parallel-free"}
    (experiment,) = document["experiments"]
    assert experiment["name"] == "tiny"
    cells = {cell["label"]: cell for cell in experiment["cells"]}
    patched = cells["parallel-free"]
    assert patched["n"] == 4
    assert patched["verdict"] == "undecided"  # two blocks are too few for a verdict
    assert patched["handovers"] >= 4
    assert experiment["aa_control"]["ratio"] > 0
    seen = experiment["host_health"]["seen"]
    assert 0 <= seen["others_percent"]["median"] <= seen["others_percent"]["worst"] <= 100
    samples = [json.loads(line) for line in labctl.samples()]
    assert {s["status"] for s in samples} == {"ok"}
    for load in (s["load"] for s in samples):  # the guest's CPU time counts as the lab's
        # Not compared with busy_seconds, which is sampled by ticks and can be too low.
        assert 0 < load["own_seconds"] <= load["cores"] * load["wall_seconds"] + 0.1
    assert all("[never]" in s["read_back"]["thp"] for s in samples)
    assert labctl.guests_running() == []
    assert labctl.json("report", "--json", check=False) == document
    assert "parallel-free" in labctl("report", check=False).stdout
    record = json.loads(next((labctl.folder / ".labctl/runs").glob("*/run.json")).read_text())
    consoles = list((labctl.folder / ".labctl/runs").glob("*/guests/*/console.log"))
    assert len(consoles) == 6
    assert record["finished"] is True


def test_a_killed_run_leaves_no_guest_and_is_resumed(labctl):
    process = labctl.start("run", "tiny")
    try:
        wait_for(lambda: len(labctl.samples()) >= 5, 240, "five samples")
        assert labctl.guests_running()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    wait_for(lambda: not labctl.guests_running(), 5, "end of the guests")
    before = labctl.samples()
    labctl("run", "--resume", "latest", check=False)
    after = labctl.samples()
    assert after[: len(before)] == before
    keys = [(s["block"], s["cell"], s["warmup"], s["repetition"]) for s in map(json.loads, after)]
    assert len(keys) == len(set(keys))
    assert len([key for key in keys if not key[2]]) == 2 * 3 * 2
    assert finished(before) <= finished(after)


def test_ctrl_c_leaves_no_guest(labctl):
    process = labctl.start("run", "tiny")
    wait_for(lambda: len(labctl.samples()) >= 2, 240, "two samples")
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    assert process.wait(timeout=20) == 130
    assert time.monotonic() - began < 20
    assert labctl.guests_running() == []
    assert all(json.loads(line)["status"] for line in labctl.samples())


def test_guests_of_up_are_paused_while_a_run_measures(labctl):
    labctl("up", "stock")
    process = labctl.start("run", "tiny")
    try:
        wait_for(lambda: len(labctl.samples()) >= 1, 240, "sample")
        (guest,) = labctl.json("status", "--json")["guests"]
        assert guest["state"] == "paused"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
    (guest,) = labctl.json("status", "--json")["guests"]
    assert guest["state"] == "ready"
    labctl("down")
