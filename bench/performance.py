"""Run all benches and write docs/reference/performance.md: each figure with its goal.

    python bench/performance.py [--only up.py]

Takes one to two hours on two CPUs, on a host that does nothing else. `--only` (repeatable)
runs single benches and replaces their figures; the others stay as they are in
bench/figures.jsonl, with the commit and the host at which they were measured.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import builds
import figure
import up
from tabulate import tabulate

from labctl.host import identity
from labctl.kernels.build import Builder

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reference" / "performance.md"
KEPT = ROOT / "bench" / "figures.jsonl"
BENCHES = (
    "start.py",
    "report.py",
    "scale.py",
    "workers.py",
    "builds.py --full",
    "up.py --rounds 9",
    "boot.py --rounds 9",
    "verdict.py edit",
    "verdict.py repetition",
    "run.py",
    "verdict.py interval",
)
HEAD = """\
# Performance

How long labctl itself takes, and the goals. Written by `tox -e bench` from real runs; do not
edit. Times are ratios within one run where something can be compared with; goals that are
missed are shown as such.
"""


def commit():
    argv = ["git", "-C", ROOT, "describe", "--always", "--abbrev=12", "--dirty"]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


# These run no guest.
WITHOUT_KERNELS = ("start.py", "report.py", "scale.py", "workers.py")


def images(bench):
    """Return one line with the images and series of the kernels that a bench uses, or ""."""
    if bench in WITHOUT_KERNELS:
        return ""
    names = builds.KERNELS if bench.startswith("builds.py") else up.KERNELS
    built = Builder(ROOT / ".labctl", lambda _: None).images(builds.kernels(names))
    return ", ".join(
        f"{name} {image.hash[:12]}"
        + (f" (series {image.series_hash[:12]})" if image.series_hash else "")
        for name, image in built.items()
    )


def measured(bench):
    """Run a bench; return its figures as JSON objects, with the command, commit and host."""
    host = identity.describe()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figures.jsonl"
        path.touch()
        argv = [sys.executable, *shlex.split(bench)]
        argv[1] = str(ROOT / "bench" / argv[1])
        load = os.getloadavg()[0]
        # 1: a goal is missed, which the page shows.
        env = os.environ | {figure.FILE: str(path)}
        status = subprocess.run(argv, cwd=ROOT, env=env, check=False).returncode
        if status not in (0, 1):
            sys.exit(f"bench/{bench} failed with status {status}")
        about = {"bench": bench, "commit": commit(), "load_before": round(load, 1),
                 "host": f"{host.cpu_model}, {host.cores} cores, QEMU {host.qemu}",
                 "kernels": images(bench)}  # fmt: skip
        lines = path.read_text().splitlines()
        if not lines:  # Python's own status of an exception is 1 too
            sys.exit(f"bench/{bench} failed: it reported no figure")
    return [{"figure": json.loads(line), **about} for line in lines]


def page(entries):
    """Return the page of all figures."""
    rows = []
    for entry in entries:
        each = figure.Figure(**entry["figure"])
        met = "yes" if each.is_met else "**no**"
        where = [f"`bench/{entry['bench']}`", entry["commit"], entry["load_before"]]
        rows.append([each.name, each.value_text, each.spread, each.goal_text, met, *where])
    names = ["what", "figure", "spread", "goal", "met", "command", "commit", "load before"]
    hosts = "; ".join(sorted({entry["host"] for entry in entries}))
    kernels = "; ".join(sorted({entry["kernels"] for entry in entries} - {""}))
    table = tabulate(rows, names, tablefmt="github", disable_numparse=True)
    where = f"Host: {hosts}." + (f" Images: {kernels}." if kernels else "")
    done = {entry["bench"] for entry in entries}
    missing = ", ".join(f"`bench/{bench}`" for bench in BENCHES if bench not in done)
    rest = f"\nNot measured yet: {missing}.\n" if missing else ""
    return f"{HEAD}\n{where}\n\n{table}\n{rest}"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", metavar="BENCH", default=[])
    only = parser.parse_args().only
    chosen = [b for b in BENCHES if not only or b in only or b.split()[0] in only]
    if not chosen:
        parser.error(f"--only: expected one of {', '.join(BENCHES)}")
    kept = [json.loads(line) for line in KEPT.read_text().splitlines()] if KEPT.exists() else []
    for bench in chosen:
        print(f"== bench/{bench}", flush=True)
        new = measured(bench)
        kept = [entry for entry in kept if entry["bench"] != bench] + new
        kept.sort(key=lambda entry: BENCHES.index(entry["bench"]))
        KEPT.write_text("".join(json.dumps(entry) + "\n" for entry in kept))
        PAGE.write_text(page(kept))


if __name__ == "__main__":
    main()
