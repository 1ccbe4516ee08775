"""Tables of the time spent when memory is freed, from a run of bench/where.yaml.

    labctl run --lab bench/where.yaml
    python bench/where.py .labctl/runs/RUN

Times are sums over all CPUs and medians over repetitions; the share of a lock is relative
to the CPU time of all CPUs. The kernels are instrumented, so use the shares, not the
absolute times.
"""

import statistics
import sys
from pathlib import Path

from tabulate import tabulate

from labctl.runs.folder import RunFolder

ZAP, FREE, TABLES = "unmap_page_range", "free_pages_and_swap_cache", "free_pgtables"
LOCKS_SHOWN = 4


def cells_of(samples, experiment):
    """Return the measurements of successful repetitions by cell; the A/A control has its own."""
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
    """Return a table of time per function: one thread frees while it zaps, workers do either."""

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
    """Return the shares of stock's single thread, and the speed-up limit by Amdahl's law."""
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
            f" without freeing {zapping - freeing:.1%}, other {1 - zapping:.1%};"
            f" moving the freeing to workers speeds up at most {1 / (1 - freeing):.2f} times"
        )
    return "\n".join(lines)


def of_lock(measured, lock, figure):
    return statistics.median(m["locks"].get(lock, {}).get(figure, 0) for m in measured)


def locks(cells):
    """Return a table of the time spent waiting for locks, longest first."""
    rows = []
    for name, measured in cells.items():
        cpu = median(measured, cpu_seconds)
        names = {lock for m in measured for lock in m["locks"]}
        waits = {lock: of_lock(measured, lock, "wait_nanoseconds") / 1e9 for lock in names}
        for lock in sorted(names, key=waits.get, reverse=True)[:LOCKS_SHOWN]:
            contentions = of_lock(measured, lock, "contentions")
            rows.append([name, cpu, lock, contentions, waits[lock], f"{waits[lock] / cpu:.1%}"])
    head = ["exit", "CPU", "lock", "contentions", "waited", "share of CPU time"]
    return tabulate(rows, head, tablefmt="github", floatfmt=".3f")


def main():
    run = RunFolder(Path(sys.argv[1]))
    samples = list(run.store.samples())
    watched = cells_of(samples, "functions")
    print(f"Run {run.id}, {run.read().accel}; times in seconds\n")
    print(functions(watched), shares(watched), locks(cells_of(samples, "locks")), sep="\n\n")


if __name__ == "__main__":
    main()
