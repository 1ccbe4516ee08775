"""Benchmarks that are not labctl's run in guests: programs, libraries, scripts, Python."""

import json
import os
import shutil
import stat
import subprocess
import tarfile
import uuid

import pytest
from conftest import KCONFIG, link_state
from program import Labctl

from labctl.workloads import ext4, trees

LAB = """\
version: 1
defaults: {{launcher: {launcher}, guest: small}}
guests:
  small: {{nodes: 2, cpus_per_node: 1, memory_per_node: 512MiB}}
kernels:
  stock: {{source: debian:linux-source-6.1, kconfig: {kconfig}}}
workloads:
  static:
    build: {{sources: [static.c]}}
    files: {{data: data}}
    metrics:
      first_rate: {{parse: 'first: (.*)', better: higher}}
      run_time: {{parse: 'time: (.*)', unit: us}}
  dynamic: {{command: ./dynamic, metric: score, better: higher}}
  shell:
    command: bench/run.sh
    files: {{dynamic: dynamic}}
    env: {{MODE: quick}}
    setup: {{boot: echo 1 > boot, repetition: echo 1 > repetition}}
    teardown: {{boot: rm boot, repetition: rm repetition}}
    metric: score
    better: higher
  python: {{command: bench/bench.py, metric: wall_time}}
  script:
    script: |
      awk 'BEGIN {{ print "score: 5" }}'
    metric: score
    better: higher
  broken: {{script: 'echo no luck; kill -SEGV $$', metric: wall_time}}
experiments:
  static: {{workload: static, kernels: [stock]}}
  dynamic: {{workload: dynamic, kernels: [stock]}}
  shell: {{workload: shell, kernels: [stock]}}
  python: {{workload: python, kernels: [stock]}}
  script: {{workload: script, kernels: [stock]}}
  broken: {{workload: broken, kernels: [stock]}}
statistics: {{blocks: {{min: 2, max: 2}}, repetitions: 1, warmup: 0}}
"""
STATIC = """\
#include <stdio.h>
int main(void)
{
	char first = fgetc(fopen("data/input", "r"));

	printf("first: %c ops/s\\ntime: 1\\n", first);
	return 0;
}
"""
DYNAMIC = """\
#include <math.h>
#include <stdio.h>
double used(double);
int main(int argc, char **argv)
{
	printf("score: %f\\n", used(argc) + sqrt(argc));
	return 0;
}
"""
SHELL = """\
#!/bin/bash
set -e
list=(a b)
[[ $MODE = quick && -e boot && -e repetition ]]
./dynamic "${list[@]}" > output
cat output
"""
PYTHON = (
    "#!/usr/bin/env python3\nimport decimal, json, statistics\nprint(statistics.mean([1, 2]))\n"
)


@pytest.fixture(params=["qemu", "virtme-ng"])
def labctl(request, tmp_path, prepared, long):
    if request.param != "qemu" and not long:
        pytest.skip("twenty boots that take long under emulation: only with --long")
    (tmp_path / "lab.yaml").write_text(LAB.format(launcher=request.param, kconfig=KCONFIG))
    link_state(tmp_path)
    for name in ("bench", "data", "lib"):
        (tmp_path / name).mkdir()
    (tmp_path / "data" / "input").write_text("7\n")
    (tmp_path / "static.c").write_text(STATIC)
    for name, text in (("run.sh", SHELL), ("bench.py", PYTHON)):
        (tmp_path / "bench" / name).write_text(text)
        (tmp_path / "bench" / name).chmod(0o755)
    (tmp_path / "used.c").write_text("double used(double x) { return x + 40; }\n")
    (tmp_path / "dynamic.c").write_text(DYNAMIC)
    for words in (
        ["-shared", "-fPIC", "-o", "lib/libused.so", "used.c"],
        ["-o", "dynamic", "dynamic.c", "-Llib", "-lused", "-lm", "-Wl,-rpath,$ORIGIN/lib"],
    ):
        subprocess.run(["gcc", *words], cwd=tmp_path, check=True)
    program = Labctl(tmp_path)
    yield program
    program.end()


def test_benchmarks_of_the_host_run_in_guests(labctl):
    names = ("static", "dynamic", "shell", "python", "script")
    run = labctl.json("run", *names, "--json")
    values = {}
    for each in run["experiments"]:
        assert each["failures"] == []
        (baseline, *_) = each["cells"]
        values[each["name"]] = baseline["median_seconds"]
    assert values["static"] == pytest.approx(7)
    assert values["dynamic"] == pytest.approx(42)
    assert values["shell"] == pytest.approx(43 + 3**0.5, rel=1e-3)
    assert values["script"] == pytest.approx(5)
    assert values["python"] > 0


def test_a_signal_and_the_words_of_a_command_are_reported(labctl):
    done = labctl("run", "broken", check=False)
    assert done.returncode == 1
    assert "exited with status 139 (SIGSEGV): no luck" in done.stderr


ROOTS = """\
version: 1
defaults: {{launcher: qemu, guest: small}}
guests:
  small: {{nodes: 2, cpus_per_node: 1, memory_per_node: 256MiB}}
kernels:
  stock: {{source: debian:linux-source-6.1, kconfig: {kconfig}}}
workloads:
  folder: {{root: folder, command: bench --mode folder, metric: score, better: higher}}
  tar: {{root: root.tar.gz, command: /opt/bench --mode tar, metric: score, better: higher}}
  disk:
    root: root.img
    command: ./own.sh
    files: {{input: input}}
    env: {{MODE: disk}}
    setup: {{boot: echo 1 > /boot-ran}}
    metric: score
    better: higher
experiments:
  folder: {{workload: folder, kernels: [stock]}}
  tar: {{workload: tar, kernels: [stock]}}
  disk: {{workload: disk, kernels: [stock]}}
statistics: {{blocks: {{min: 2, max: 2}}, repetitions: 1, warmup: 0}}
"""
# Writes into its root, which must be as it was at each boot.
BENCH = """\
#!/bin/sh
set -e
[ ! -e /written ] && [ "$(cat /etc/score)" = 42 ]
echo 0 > /etc/score
rm /etc/unused
mkdir -p /written/deep
[ -e /proc/self/stat ] && [ -e /sys/kernel ] && [ -c /dev/null ] && [ ! -e /bin/labagent ]
[ "$(stat -c %u:%g:%a /etc/owned)" = "$OWNED" ]
echo "score: 42"
"""
OWN = """\
#!/bin/sh
set -e
[ "$MODE" = disk ] && [ -e /boot-ran ] && [ "$(cat input)" = 7 ]
cd / && exec bench
"""
APPLETS = ("sh", "cat", "mkdir", "rm", "stat", "test")


@pytest.fixture
def with_roots(tmp_path, prepared):
    """A lab with a root of busybox in three forms; in the archive, files have other owners."""
    folder = tmp_path / "folder"
    for name in ("bin", "etc", "opt"):
        (folder / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox"), folder / "bin")
    for name in APPLETS:
        (folder / "bin" / name).symlink_to("busybox")
    (folder / "bin" / "bench").symlink_to("/opt/bench")
    for name, text in (("score", "42\n"), ("unused", ""), ("owned", "")):
        (folder / "etc" / name).write_text(text)
    (folder / "opt" / "bench").write_text(BENCH.replace("$OWNED", "0:0:644"))
    (folder / "opt" / "bench").chmod(0o755)
    tree = trees.of_folder(folder)
    image = tmp_path / "root.img"
    ext4.make(folder, image, tree.content_bytes, tree.files, str(uuid.UUID(int=1)))
    ext4.change(image, tree.inodes)

    def changed(info):
        if info.name == "./etc/owned":
            info.uid, info.gid, info.mode = 1000, 70000, 0o4750
        return info

    other = tmp_path / "other"
    shutil.copytree(folder, other, symlinks=True)
    (other / "opt" / "bench").write_text(BENCH.replace("$OWNED", "1000:70000:4750"))
    with tarfile.open(tmp_path / "root.tar.gz", "w:gz") as file:
        file.add(other, ".", filter=changed)
    (tmp_path / "own.sh").write_text(OWN)
    (tmp_path / "own.sh").chmod(0o755)
    (tmp_path / "input").write_text("7\n")
    (tmp_path / "lab.yaml").write_text(ROOTS.format(kconfig=KCONFIG))
    link_state(tmp_path)
    program = Labctl(tmp_path)
    yield program
    program.end()


def state_of(*paths):
    """Return bytes, modes and times of files, without what reading changes."""
    found = {}
    for path in (one for top in paths for one in (top, *top.rglob("*"))):
        info = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(info.st_mode) else os.fsencode(path)
        found[path] = (content, info.st_mode, info.st_mtime_ns, info.st_ctime_ns)
    return found


def test_commands_run_in_roots_that_stay_as_they_are(with_roots):
    sources = [with_roots.folder / name for name in ("folder", "root.tar.gz", "root.img")]
    before = state_of(*sources)
    run = with_roots.json("run", "folder", "tar", "disk", "--json")
    assert state_of(*sources) == before
    for each in run["experiments"]:
        assert each["failures"] == []
        assert each["cells"][0]["median_seconds"] == pytest.approx(42)
    (record,) = with_roots.folder.glob(".labctl/runs/*/run.json")
    digests = {one["name"]: one["root"] for one in json.loads(record.read_text())["experiments"]}
    assert len(set(digests.values())) == 3
    assert all(len(digest) == 64 for digest in digests.values())
