import subprocess
import sys
import time

from labctl import host

HOLDER = """
import sys, time
from pathlib import Path
from labctl import host
with host.measuring("run other", waiting=print, folder=Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_host_is_described_without_its_name():
    facts = host.describe().as_dict()
    assert facts["cores"] >= 1
    assert facts["memory_bytes"] > 2**28
    assert len(facts["id"]) == 12
    assert host.describe().id == facts["id"]


def test_load_tells_cumulative_times():
    before = host.load()
    deadline = time.monotonic() + 0.2
    while time.monotonic() < deadline:
        pass
    after = host.load()
    assert after["busy_seconds"] > before["busy_seconds"]
    assert after["steal_seconds"] >= before["steal_seconds"]
    assert 0 <= after["psi_some_avg10_percent"] <= 100


def test_one_measurement_at_a_time(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "held\n"
    told = []

    def waiting(text):
        told.append(text)
        holder.stdin.close()  # lets the holder go

    with host.measuring("run mine", waiting=waiting, folder=tmp_path):
        assert holder.wait(10) == 0
    assert told == [f"process {holder.pid}: run other"]


def test_a_killed_holder_holds_nothing(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    holder.stdout.readline()
    holder.kill()
    holder.wait()
    told = []
    with host.measuring("run mine", waiting=told.append, folder=tmp_path):
        assert told == []
