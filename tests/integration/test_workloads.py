"""Benchmarks that are not labctl's run in guests: programs, libraries, scripts, Python."""

import subprocess

import pytest
from conftest import KCONFIG, link_state
from program import Labctl

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


def test_a_signal_and_the_words_of_a_command_are_told(labctl):
    done = labctl("run", "broken", check=False)
    assert done.returncode == 1
    assert "exited with status 139 (SIGSEGV): no luck" in done.stderr
