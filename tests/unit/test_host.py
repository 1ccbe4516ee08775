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
    until = time.process_time() + 0.2  # not of the clock: others may have the CPU
    while time.process_time() < until:
        pass
    after = host.load()
    assert after["busy_seconds"] > before["busy_seconds"]
    assert after["steal_seconds"] >= before["steal_seconds"]
    assert after["own_seconds"] - before["own_seconds"] >= 0.19


def tree(root, cpus, pressure, files):
    (root / "proc/pressure").mkdir(parents=True)
    (root / "proc/stat").write_text("cpu  9 9 9 9 9 9 9 9 0 0\n" + cpus)
    for what, total in pressure.items():
        (root / "proc/pressure" / what).write_text(f"some avg10=0.00 total={total}\nfull total=1\n")
    for core in host.os.sched_getaffinity(0):
        for path, text in files.items():
            file = root / f"sys/devices/system/cpu/cpu{core}" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    return root


def test_load_is_read_of_the_cores_that_may_be_used(tmp_path):
    cores = len(host.os.sched_getaffinity(0))
    ticks = host.os.sysconf("SC_CLK_TCK")
    mine = "".join(
        f"cpu{core} {ticks} 0 {ticks} 5 5 {ticks} {ticks} {ticks} 0 0\n"
        for core in host.os.sched_getaffinity(0)
    )
    found = host.load(
        tree(
            tmp_path,
            mine + "cpu9999 777 777 777 777 777 777 777 777 0 0\n",
            {"cpu": 2_500_000, "memory": 500_000},
            {
                "cpufreq/scaling_cur_freq": "2600000\n",
                "thermal_throttle/core_throttle_count": "3\n",
            },
        )
    )
    assert found["cores"] == cores
    assert found["busy_seconds"] == 4 * cores
    assert found["steal_seconds"] == cores
    assert found["cpu_pressure_seconds"] == 2.5
    assert found["memory_pressure_seconds"] == 0.5
    assert found["frequency_hz"] == 2.6e9
    assert found["throttled_count"] == 3 * cores


def test_what_a_host_does_not_show_is_left_out(tmp_path):
    found = host.load(tmp_path)
    assert "frequency_hz" not in found
    assert "memory_pressure_seconds" not in found
    assert found["busy_seconds"] == 0


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
    holder.wait(60)
    told = []
    with host.measuring("run mine", waiting=told.append, folder=tmp_path):
        assert told == []
