"""Benchmarks that are not in the repository run unchanged in guests of QEMU and virtme-ng and on a
target: static, dynamic, Python, a Debian package, make, and programs in roots."""

import contextlib
import shutil
import subprocess
import tarfile
import uuid

import pytest
from conftest import KCONFIG, link_state
from machine import PlayedMachine
from program import BOOT_SECONDS

from labctl.arch import X86_64
from labctl.errors import HostError
from labctl.experiments import early
from labctl.experiments.plan import plan
from labctl.guests import initramfs
from labctl.guests.guest import Guest
from labctl.guests.prepare import prepare
from labctl.lab.load import load
from labctl.targets.boot import TargetBoot
from labctl.targets.machine import TargetMachine, Tools
from labctl.targets.prepare import connect_to
from labctl.workloads import ext4, trees
from labctl.workloads.packages import unpacked
from labctl.workloads.supply import archives, merged, merged_scripts, roots

LAB = """\
version: 1
defaults: {{launcher: {launcher}, guest: small}}
guests:
  small: {{nodes: 2, cpus_per_node: 1, memory_per_node: 512MiB}}
targets:
  box: {target}
kernels:
  stock: {kernel}
workloads:
  static: {{build: {{sources: [static.c]}}, files: {{input: input}}, metric: score, better: higher}}
  dynamic: {{command: ./dynamic, metric: score, better: higher}}
  python: {{command: ./bench.py, metric: score, better: higher}}
  package: {{packages: [dc], command: "dc -e '[score: ]n 42p'", metric: score, better: higher}}
  make: {{make: made, command: made/bench, metric: score, better: higher}}
  folder: {{root: folder, command: bench folder, metric: score, better: higher}}
  tar: {{root: root.tar.gz, command: /opt/bench tar, metric: score, better: higher}}
  disk:
    root: root.img
    command: ./own.sh disk
    files: {{own.sh: own.sh, input: input}}
    env: {{MODE: quick}}
    metric: score
    better: higher
experiments:
{experiments}
"""
NAMES = ("static", "dynamic", "python", "package", "make", "folder", "tar", "disk")
READS = """\
#include <stdio.h>
int main(void)
{
	char line[9] = "";
	FILE *input = fopen("input", "r");

	if (!input || !fgets(line, sizeof(line), input))
		return 1;
	printf("score: %s\\n", line);
	return 0;
}
"""
DYNAMIC = """\
#include <math.h>
#include <stdio.h>
double one(double), two(double), three(double);
int main(int argc, char **argv)
{
	printf("score: %f\\n", one(1) + two(1) + three(1) + floor(argc));
	return 0;
}
"""
PYTHON = """\
#!/usr/bin/env python3
import decimal, json, subprocess, sys
again = [sys.executable, "-c", "print(40)"]
found = int(subprocess.run(again, check=True, capture_output=True).stdout)
print(json.dumps({"score": found + int(decimal.Decimal(2))}))
"""
# In the roots; writes there, and needs what every root gets.
BENCH = """\
#!/bin/sh
set -e
[ -e /proc/self/stat ] && [ -e /sys/kernel ] && [ -c /dev/null ] && [ ! -e /bin/labagent ]
[ "$(stat -c %u:%g:%a /etc/owned)" = "$(cat /etc/expected)" ]
echo "$1" > /written
echo "score: $(cat /etc/score)"
"""
OWN = '#!/bin/sh\nset -e\n[ "$MODE" = quick ] && [ "$(cat input)" = 42 ]\nexec bench "$1"\n'
APPLETS = ("sh", "cat", "stat", "[", "echo", "test")


def make_root(folder, owned):
    for name in ("bin", "etc", "opt"):
        (folder / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox"), folder / "bin")
    for name in APPLETS:
        (folder / "bin" / name).symlink_to("busybox")
    (folder / "bin" / "bench").symlink_to("/opt/bench")
    (folder / "opt" / "bench").write_text(BENCH)
    (folder / "opt" / "bench").chmod(0o755)
    for name, text in (("score", "42\n"), ("owned", ""), ("expected", owned)):
        (folder / "etc" / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory):
    """A folder with all benchmarks; in the archive a file has another owner."""
    folder = tmp_path_factory.mktemp("brought")
    link_state(folder)
    (folder / "input").write_text("42\n")
    (folder / "static.c").write_text(READS)
    (folder / "dynamic.c").write_text(DYNAMIC)
    (folder / "lib").mkdir()
    for number, name in enumerate(("one", "two", "three"), 12):
        source = folder / f"{name}.c"
        source.write_text(f"double {name}(double x) {{ return x * {number}; }}\n")
        words = ["gcc", "-shared", "-fPIC", "-o", f"lib/lib{name}.so", source]
        subprocess.run(words, cwd=folder, check=True)
    words = ["gcc", "-o", "dynamic", "dynamic.c", "-Llib", "-lone", "-ltwo", "-lthree", "-lm"]
    subprocess.run([*words, "-Wl,-rpath,$ORIGIN/lib"], cwd=folder, check=True)
    for name, text in (("bench.py", PYTHON), ("own.sh", OWN)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    (folder / "made").mkdir()
    (folder / "made" / "bench.c").write_text(
        '#include <stdio.h>\nint main(void) { puts("score: 42"); }\n'
    )
    (folder / "made" / "Makefile").write_text("bench: bench.c\n\t$(CC) $(LDFLAGS) -o $@ $<\n")
    make_root(folder / "folder", "0:0:644\n")
    tree = trees.of_folder(folder / "folder")
    image = folder / "root.img"
    ext4.make(folder / "folder", image, tree.content_bytes, tree.files, str(uuid.UUID(int=1)))
    ext4.change(image, tree.inodes)

    def changed(info):
        if info.name == "./etc/owned":
            info.uid, info.gid, info.mode = 1000, 70000, 0o4750
        return info

    other = make_root(folder / "other", "1000:70000:4750\n")
    with tarfile.open(folder / "root.tar.gz", "w:gz") as file:
        file.add(other, ".", filter=changed)
    return folder


KERNEL = f"{{source: debian:linux-source-6.1, kconfig: {KCONFIG}}}"
NOWHERE = "{kind: ssh, host: 127.0.0.1}"


def planned(benchmarks, launcher="qemu", kernel=KERNEL, target=NOWHERE):
    """Write the lab; return it with the plans of all workloads that this host can bring."""
    names = list(NAMES)
    try:
        store = benchmarks / "packages"
        store.mkdir(exist_ok=True)
        unpacked(["dc"], store, X86_64)
    except HostError:  # no network, and not downloaded yet
        names.remove("package")
    lines = "\n".join(f"  {name}: {{workload: {name}, kernels: [stock]}}" for name in names)
    how = {"launcher": launcher, "kernel": kernel, "target": target, "experiments": lines}
    (benchmarks / "lab.yaml").write_text(LAB.format(**how))
    lab = load(benchmarks / "lab.yaml")
    return lab, [plan(lab, name, 0) for name in names]


def scores(booted, lab, supplies):
    """Run each workload once; return what each printed."""
    found = {}
    for name, supply in supplies.items():
        workload = lab.workloads[name]
        argv = supply.argv(workload.argv(), workload.env)
        outcome = booted.run(argv, timeout_seconds=300)
        assert outcome.status == 0, (name, outcome.stdout, outcome.stderr)
        found[name] = outcome.text.strip()
    return found


def check(found):
    assert {"static", "dynamic", "python", "make", "folder", "tar", "disk"} <= set(found)
    assert found.pop("python") == '{"score": 42}'
    assert found.pop("dynamic") == "score: 40.000000"
    assert set(found.values()) == {"score: 42"}


@pytest.fixture(scope="module")
def built(benchmarks):
    """The kernel, which is built once: each launcher would add its fragments in another order."""
    lab, _ = planned(benchmarks)
    return prepare(lab, ["stock"], lambda _: None).images["stock"]


@pytest.mark.parametrize("launcher", ["qemu", "virtme-ng"])
def test_benchmarks_run_in_guests(benchmarks, built, launcher, tmp_path, long):
    if launcher == "virtme-ng" and not long:
        pytest.skip("one launcher of two without --long")
    kernel = f"{{source: 'image:{built.bzimage}'}}"
    lab, plans = planned(benchmarks, launcher, kernel)
    supplies = early.check_commands(lab, plans)
    ready = prepare(lab, ["stock"], lambda _: None, merged(supplies), roots=roots(supplies))
    place = {"folder": tmp_path / "guest", "topology": lab.guests["small"]}
    with Guest(ready.spec("stock", name="stock", **place)) as guest:
        guest.wait_ready(BOOT_SECONDS)
        check(scores(guest, lab, supplies))


@pytest.mark.long("takes minutes under emulation")
def test_benchmarks_run_on_a_target(benchmarks, built, tmp_path):
    lab, _ = planned(benchmarks)
    topology = lab.guests["small"]
    with contextlib.ExitStack() as stack:
        played = PlayedMachine(tmp_path / "machine", built.bzimage, topology)
        box = stack.enter_context(played)
        lab, plans = planned(benchmarks, target=box.yaml(boot_timeout="4min"))
        supplies = early.supplies_of_target(lab, plans)
        files = merged(supplies)
        tools = Tools(
            kexec=initramfs.program(lab.state, "kexec"),
            programs=(initramfs.program(lab.state, "freebench"),),
            files=files,
            scripts=merged_scripts(supplies),
            roots=archives(supplies),
        )
        target = lab.targets["box"]
        machine = stack.enter_context(TargetMachine(target, connect_to(target), tools))
        early.check_commands_of(machine, lab, plans, supplies)
        boot = stack.enter_context(TargetBoot(machine, built, "", tmp_path / "dmesg.txt"))
        boot.wait_ready(BOOT_SECONDS)
        check(scores(boot, lab, supplies))
