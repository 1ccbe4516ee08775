"""Time from an edit to a verdict, and how narrow the interval is after ten minutes.

    python bench/verdict.py edit
    python bench/verdict.py repetition
    python bench/verdict.py interval [--minutes 10]

`edit` adds a line to a file in mm/ of parallel-free and runs `labctl run smoke`. Where the time
goes is printed, and the build also as a ratio to a plain incremental make of the same edit.
Goal: at most 3 minutes. It needs the kernels of `smoke` to be built; a plain tree is built
beside.

`repetition` runs `smoke` with 1 GiB on nodes of 768 MiB and huge pages as the kernel has them. The
figure is the time of all repetitions, over that of populating and the operation in them. Goal:
at most 1.3.

`interval` compares stock and parallel-free in two ways on the same host: five minutes of
repetitions of stock in one guest, ten minutes of `labctl run`, and five minutes of the patched
kernel in one guest. The first and the last are the usual way: all runs of one kernel, then all
of the other, compared by Welch's t test. A drift of the host is the same for both ways. The
figures are ratios of the half-widths of the two 95 % intervals of the log ratio. Welch's interval
leaves out that boots of one kernel differ, and that the host differs between the halves: the
other one adds twice the variance between the boots of stock in labctl's run. Goal: at most 0.45
of an interval that holds.
"""

import argparse
import contextlib
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import builds
import yaml
from figure import Figure, report
from scipy import stats

from labctl.experiments.steps import Steps
from labctl.guests.guest import Guest
from labctl.guests.prepare import prepare
from labctl.host import lock
from labctl.lab.load import load
from labctl.runs.folder import RunFolder

ROOT = Path(__file__).parent.parent
KERNELS = ("stock", "parallel-free")
EXPERIMENT = "smoke"
EDIT_SECONDS, OVERHEAD, NARROWER = 180.0, 1.3, 0.45
BOOT_SECONDS = 300


def lab_in(folder, *, node_memory=None, **experiment_keys):
    """Copy the lab to a folder that shares this checkout's builds; return its lab.yaml."""
    document = yaml.safe_load((ROOT / "lab.yaml").read_text())
    document["state"] = str(ROOT / ".labctl")
    experiment = document["experiments"][EXPERIMENT]
    statistics_keys = experiment_keys.pop("statistics", {})
    experiment |= experiment_keys | {"statistics": experiment["statistics"] | statistics_keys}
    if node_memory:
        document["guests"]["numa4"]["memory_per_node"] = node_memory
    for name in ("guest", "patches"):
        shutil.copytree(ROOT / name, folder / name)
    path = folder / "lab.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def labctl(folder, *words, **keywords):
    argv = [sys.executable, "-m", "labctl", *words]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(argv, cwd=folder, env=env, text=True, **keywords)


def runs():
    return set((ROOT / ".labctl" / "runs").glob("*-*"))


def plain_incremental_make(scratch):
    """Return the seconds of a plain make of stock after an edit of one line, and the old lines."""
    make = builds.plain_make(builds.kernels()[0], scratch / "plain", {})
    path = scratch / "plain" / "src" / builds.EDITED_FILE
    old = path.read_text().splitlines(keepends=True)
    path.write_text("".join(builds.edited(old)))
    began = time.monotonic()
    subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began, old


def work_of(run):
    """Return the timing of a run of the experiment, and the seconds of its two kinds of work."""
    (timing,) = run.document()["timing"][EXPERIMENT]
    samples = [s.measurements for s in run.store.samples() if s.status == "ok"]
    work = ("populate_nanoseconds", "elapsed_nanoseconds")
    return timing, *(sum(each[name] for each in samples) / 1e9 for name in work)


def repetition(scratch):
    """Report the time of repetitions over that of their work, for 1 GiB on small nodes."""
    path = lab_in(scratch, node_memory="768MiB", set={"size": "1GiB"})
    prepare(load(path), list(KERNELS), lambda _: None)
    before = runs()
    assert labctl(scratch, "run", EXPERIMENT, stdout=subprocess.DEVNULL).wait() < 2
    (folder,) = runs() - before
    timing, populate, operation = work_of(RunFolder(folder))
    seconds = timing["workload_seconds"]
    return report(
        Figure(name="repetitions of 1 GiB / their work", value=seconds / (populate + operation),
               goal=OVERHEAD, spread=f"populate {populate:.1f} s, operation {operation:.1f} s, "
               f"all {seconds:.1f} s in {timing['repetitions']} repetitions; "
               f"{RunFolder(folder).read().accel}")
    )  # fmt: skip


def replace(folder, other):
    shutil.rmtree(folder)
    shutil.copytree(other, folder)


def edit(scratch):
    """Report the seconds from an edit to the verdict, and where they went."""
    lab = lab_in(scratch)
    with tempfile.TemporaryDirectory(prefix="labctl-bench-") as folder:
        make_seconds, old = plain_incremental_make(Path(folder))
    kernel = load(lab).kernels[KERNELS[1]]
    series = lab.parent / "patches" / KERNELS[1] / "6.1"
    # The first edit leaves the objects of this series in the tree, as for its developer.
    edits = [
        builds.with_one_line_edited(kernel, old, scratch / f"edited-{number}", number).series
        for number in range(2)
    ]
    replace(series, edits[0])
    assert labctl(scratch, "build", *KERNELS, stdout=subprocess.DEVNULL).wait() == 0
    replace(series, edits[1])
    before, began = runs(), time.monotonic()
    assert labctl(scratch, "build", *KERNELS, stdout=subprocess.DEVNULL).wait() == 0
    build_seconds = time.monotonic() - began
    done = labctl(scratch, "run", EXPERIMENT, stdout=subprocess.PIPE)
    said = done.communicate()[0]
    seconds = time.monotonic() - began
    (folder,) = runs() - before
    run = RunFolder(folder)
    timing, populate, operation = work_of(run)
    shares = {
        "build": build_seconds,
        "boot": timing["boot_seconds"],
        "populate": populate,
        "operation": operation,
        "rest of the workload": timing["workload_seconds"] - populate - operation,
        "rest of the blocks": timing["total_seconds"] - timing["boot_seconds"]
        - timing["workload_seconds"],
        "start, judgement and report": seconds - build_seconds - timing["total_seconds"],
    }  # fmt: skip
    print(said)
    for name, part in shares.items():
        print(f"  {name:<28} {part:6.1f} s {part / seconds:6.1%}")
    print(f"  build / plain incremental make: {build_seconds / make_seconds:.2f} "
          f"({build_seconds:.1f} and {make_seconds:.1f} s)")  # fmt: skip
    words = ", ".join(f"{name} {part / seconds:.0%}" for name, part in shares.items())
    return report(
        Figure(name="edit of one line to verdict", value=seconds, goal=EDIT_SECONDS, unit="s",
               spread=f"{words}; {run.read().accel}; the whole is "
               f"{seconds / make_seconds:.1f} plain incremental makes")
    )  # fmt: skip


def all_runs_of(prepared, kernel, experiment, seconds):
    """Return the logarithms of a kernel's times: one guest, run after run, after a warm-up."""
    lab = prepared.lab
    workload = lab.workloads[experiment.workload]
    topology = lab.guests[experiment.guest or lab.defaults.guest]
    values = []
    with tempfile.TemporaryDirectory() as folder:
        spec = prepared.spec(kernel, name=kernel, folder=Path(folder), topology=topology)
        waiting = partial(print, file=sys.stderr)
        with lock.measuring("bench/verdict.py", waiting=waiting), Guest(spec) as guest:
            guest.wait_ready(BOOT_SECONDS)
            guest.write("/sys/kernel/mm/transparent_hugepage/enabled", "never")
            steps = Steps(workload)
            began = time.monotonic()
            while time.monotonic() - began < seconds:
                outcome = steps.command(guest, workload.parameters)
                assert outcome.status == 0, outcome.stderr
                values.append(math.log(json.loads(outcome.stdout)["elapsed_nanoseconds"]))
    return values[1:]


def half_width(parts):
    """Return half the width of the 95 % interval of a sum of independent estimates.

    Each part is the variance of an estimate and its degrees of freedom (Welch and Satterthwaite).
    """
    whole = sum(variance for variance, _ in parts)
    degrees = whole**2 / sum(variance**2 / of for variance, of in parts)
    return stats.t.ppf(0.975, degrees) * math.sqrt(whole)


def between_boots(samples):
    """Return the variance between the boots of stock beyond that of repetitions, and the boots.

    The estimator is that of a one-way analysis of variance with random effects.
    """
    boots = {}
    for sample in samples:
        if sample.kernel == KERNELS[0] and sample.status == "ok" and not sample.warmup:
            value = math.log(sample.measurements["elapsed_nanoseconds"])
            boots.setdefault(sample.boot_id, []).append(value)
    whole = [each for each in boots.values() if len(each) > 1]
    size = statistics.harmonic_mean(map(len, whole))
    within = statistics.mean(map(statistics.variance, whole))
    means = statistics.variance(map(statistics.mean, whole))
    return max(0.0, means - within / size), len(whole)


def interval(scratch, minutes):
    """Report how much narrower labctl's interval is than the usual way's in the same time."""
    # Never enough: only the time ends the run.
    path = lab_in(scratch, statistics={"blocks": {"min": 500, "max": 500}})
    lab = load(path)
    experiment = lab.experiments[EXPERIMENT]
    prepared = prepare(lab, list(KERNELS), lambda _: None)
    half = minutes * 30
    usual = [all_runs_of(prepared, KERNELS[0], experiment, half)]
    before = runs()
    with labctl(scratch, "run", EXPERIMENT, stdout=subprocess.DEVNULL) as process:
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(minutes * 60)
        finally:
            process.terminate()  # SIGINT is ignored in the background of a script
    usual.append(all_runs_of(prepared, KERNELS[1], experiment, half))
    (folder,) = runs() - before
    said = labctl(scratch, "report", folder.name, "--json", stdout=subprocess.PIPE)
    document = json.loads(said.communicate()[0])
    cells = document["experiments"][0]["cells"]
    (cell,) = [each for each in cells if each["kernel"] == KERNELS[1]]
    low, high = cell["ci"]
    ours = math.log(high / low) / 2
    parts = [(statistics.variance(each) / len(each), len(each) - 1) for each in usual]
    boots_variance, boots = between_boots(RunFolder(folder).store.samples())
    theirs = half_width(parts)
    holding = half_width([*parts, (2 * boots_variance, boots - 1)])
    ratio = math.exp(statistics.mean(usual[0]) - statistics.mean(usual[1]))
    print(
        f"labctl, {cell['blocks']} blocks: {cell['ratio']:.3f} ({low:.3f} to {high:.3f})\n"
        f"all of one, then all of the other, {len(usual[0])} and {len(usual[1])} runs: "
        f"{ratio:.3f} ({ratio * math.exp(-theirs):.3f} to {ratio * math.exp(theirs):.3f}), "
        f"with the spread of {boots} boots, {math.sqrt(boots_variance):.2%}: "
        f"{ratio * math.exp(-holding):.3f} to {ratio * math.exp(holding):.3f}"
    )
    name = f"half-width after {minutes} minutes / the usual way's"

    def spread(half):
        return (
            f"{ours:.2%} and {half:.2%}; labctl {cell['ratio']:.3f} ({low:.3f} to {high:.3f}) by "
            f"{cell['blocks']} blocks, usual way {ratio:.3f} ({ratio * math.exp(-half):.3f} to "
            f"{ratio * math.exp(half):.3f}); {prepared.accel}"
        )

    report(
        Figure(name=f"{name}, by Welch", value=ours / theirs, goal=NARROWER,
               spread=spread(theirs))
    )  # fmt: skip
    return report(
        Figure(name=f"{name}, with the spread of boots", value=ours / holding, goal=NARROWER,
               spread=spread(holding))
    )  # fmt: skip


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("figure", choices=("edit", "repetition", "interval"))
    parser.add_argument("--minutes", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="labctl-bench-") as folder:
        scratch = Path(folder)
        measure = {
            "edit": edit,
            "repetition": repetition,
            "interval": partial(interval, minutes=options.minutes),
        }
        good = measure[options.figure](scratch)
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
