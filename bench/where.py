"""Where the time goes when memory is given back: tables from a run of bench/where.yaml.

    labctl run --lab bench/where.yaml
    python bench/where.py .labctl/runs/RUN

Times are sums over all CPUs, medians over repetitions; the share of a lock is of the
CPU time of all. Both are of kernels that look into themselves, and so of shares, not
of speed.
"""

import statistics
import sys
from pathlib import Path

from tabulate import tabulate

from labctl.results.runs import RunFolder

ZAP, FREE, TABLES = "unmap_page_range", "free_pages_and_swap_cache", "free_pgtables"
LOCKS_SHOWN = 4


def cells_of(samples, experiment):
    """Return the good repetitions of each cell, the A/A twin apart, by a name for it."""
    cells = {}
    for sample in samples:
        if sample.experiment == experiment and sample.status == "ok" and not sample.warmup:
            setting = "".join(f" {k}={v}" for k, v in sorted(sample.setting.items()))
            cells.setdefault(sample.label + setting, []).append(sample.measurements)
    return cells


def median(measurements, figure):
    return statistics.median(map(figure, measurements))


def cpu_seconds(measured):
    return (measured["cpu_nanoseconds"] + measured["other_cpu_nanoseconds"]) / 1e9


def functions(cells):
    """One thread zaps and frees inside of it; workers do either beside it."""

    def seconds(name):
        return lambda m: m["functions"][name]["nanoseconds"] / 1e9

    rows = []
    for name, measured in cells.items():
        elapsed = median(measured, lambda m: m["elapsed_nanoseconds"] / 1e9)
        rows.append(
            [name, len(measured), elapsed, median(measured, cpu_seconds)]
            + [median(measured, seconds(each)) for each in (ZAP, FREE, TABLES)]
        )
    head = ["exit", "repetitions", "elapsed", "CPU", ZAP, FREE, TABLES]
    return tabulate(rows, head, tablefmt="github", floatfmt=".3f")


def shares(cells):
    """What the one thread of stock does, and by Amdahl's law the most that workers can gain."""
    lines = []
    for name, measured in cells.items():
        if "=" in name:
            continue

        def share(m):
            return m["functions"][FREE]["nanoseconds"] / m["elapsed_nanoseconds"]

        freeing = median(measured, share)
        least, most = min(map(share, measured)), max(map(share, measured))
        zapping = median(
            measured, lambda m: m["functions"][ZAP]["nanoseconds"] / m["elapsed_nanoseconds"]
        )
        lines.append(
            f"{name}: freeing {freeing:.1%} ({least:.1%} to {most:.1%}) of the time, zapping"
            f" without it {zapping - freeing:.1%}, the rest {1 - zapping:.1%};"
            f" freeing by others gains at most {1 / (1 - freeing):.2f}"
        )
    return "\n".join(lines)


def of_lock(measured, lock, figure):
    return statistics.median(m["locks"].get(lock, {}).get(figure, 0) for m in measured)


def locks(cells):
    """Waiting for locks, the most of it first."""
    rows = []
    for name, measured in cells.items():
        cpu = median(measured, cpu_seconds)
        names = {lock for m in measured for lock in m["locks"]}
        waits = {lock: of_lock(measured, lock, "wait_nanoseconds") / 1e9 for lock in names}
        for lock in sorted(names, key=waits.get, reverse=True)[:LOCKS_SHOWN]:
            contentions = of_lock(measured, lock, "contentions")
            rows.append([name, cpu, lock, contentions, waits[lock], f"{waits[lock] / cpu:.1%}"])
    head = ["exit", "CPU", "lock", "contentions", "waited", "of the CPU time"]
    return tabulate(rows, head, tablefmt="github", floatfmt=".3f")


def main():
    run = RunFolder(Path(sys.argv[1]))
    samples = list(run.store.samples())
    watched = cells_of(samples, "functions")
    print(f"Run {run.id}, {run.read()['accel']}; times in seconds\n")
    print(functions(watched), shares(watched), locks(cells_of(samples, "locks")), sep="\n\n")


if __name__ == "__main__":
    main()
