"""The page on predictions: what the model says of the host of 2017, and how far it is off."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
from tabulate import tabulate

from labctl.model import text
from labctl.model.prediction import predict
from labctl.model.queueing import share_of
from labctl.model.types import Basis, Curve, Design, Inputs, Prediction, Target
from labctl.reports import seed, words

# First touch first: the memory of one program that touches it is on one node after the other.
RUNS = {
    "20261128-064446-ba0b": "munmap(), first touch",
    "20261128-063713-4160": "exit, first touch",
    "20261128-062908-d042": "munmap(), interleaved",
    "20261128-062114-6b7d": "exit, interleaved",
}
CORES, NODES, BYTES = 72, 4, 320 * 10**9
_HASH_DIGITS = 12
TARGET = Target(cores=CORES, nodes=NODES, size_bytes=BYTES, workers=tuple(seed.MAX_ACTIVE))
HEAD = """\
# Prediction of a large host

Two cores under emulation cannot show what 72 cores do. `labctl model` predicts it from what they
do show; this page holds the prediction against the only published times. It is written by
`python docs/predict` from what the runs below measured; do not edit it. **Nothing under
"predicted" was measured**, and no table has both.
"""
MODEL = """\
## The model

Costs are per page, relative to the time of stock. They come from the cells with the fewest workers,
in which each thread has a core of its own:

- **zap** and **free**: with parallel-free the thread zaps all pages, and workers free a known
  share of them. The CPU time of the workers, divided by that share, is the cost of freeing; what
  remains of the thread's CPU time is that of zapping.
- **price**: the CPU time with a worker over that of the serial kernel that the series stands on.
- **overlap**: the shares of the elapsed time in which the thread and each worker run.
- **locks**: threads wait for locks of nodes as in the machine repairman model, solved by exact mean
  value analysis (Reiser and Lavenberg, Journal of the ACM 27 (2), 1980). The hold times come from
  `lock_stat`, or from how the price grows from two threads to three. Two cores show neither, so
  each curve is given at two limits: without waits for locks, and with a price that consists of
  nothing else.

With *n* workers beside the thread and *R(k)* the work on a page while *k* threads run:

| design | time for a page |
|---|---|
| parallel-unmap | *R(n + 1)* / (share of the thread + *n* times the share of a worker) |
| parallel-free | the same, at least *zap* |
| parallel-free as in 2017: workers free all | *zap* or *free(n)* / *n*, and the ends of a line |
| node-grouped-free | that of one thread |

Intervals are those of a bootstrap over blocks, widened for few blocks to the width of Student's
(Hesterberg, The American Statistician 69 (4), 2015). They contain the error of the estimates, and
no error of the model.
"""
OPEN = """\
## To measure instead

The prediction becomes better with measurements of what it lacks, in this order:

1. KVM on any host with four or more cores, with 1 and 2 workers of both series. Zapping and freeing
   then have the shares of a real CPU, and two levels separate waits for locks from the rest of the
   price.
2. `observe: [lock_stat]` and `labctl run --why` there: hold times of the locks.
3. One socket of a large host, with up to as many workers as it has cores: costs of the memory bus.

`labctl model RUN --cores 72 --nodes 4 --size 320GB` makes the prediction of any such run.
"""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """What was taken from a run, and the hash of its samples."""

    samples_sha256: str
    inputs: Inputs


def page(sources: Sequence[Source]) -> str:
    """Return the page."""
    predictions = [predict(source.inputs, TARGET) for source in sources]
    first, *others = predictions
    parts = [
        HEAD,
        _origin(sources, predictions),
        MODEL,
        "## Estimated parameters\n\n" + _parameters(predictions),
        _measured(),
        _predicted(first),
        "## How far it is off\n\n" + "\n".join(_deviations(first)) + "\n",
        _others(others),
        _reasons(first),
        _levels(predictions),
        OPEN,
    ]
    return "\n".join(parts)


def _table(rows: Sequence[Sequence[str]], names: Sequence[str]) -> str:
    return tabulate(rows, names, tablefmt="github", disable_numparse=True) + "\n"


def _origin(sources: Sequence[Source], predictions: Sequence[Prediction]) -> str:
    first = predictions[0]
    rows = [
        [RUNS[one.inputs.run], one.inputs.run, one.inputs.experiment,
         one.samples_sha256[:_HASH_DIGITS]]
        for one in sources
    ]  # fmt: skip
    kernels = ", ".join(
        f"{name} {one.image[:_HASH_DIGITS]}" for name, one in sources[0].inputs.kernels.items()
    )
    accels = " and ".join(dict.fromkeys(one.accel.upper() for one in predictions))
    return (
        f"All runs were made **under {accels}** on Linux 7.3 by `patches/lab-7.3.yaml`: "
        f"{words.host(first.host)}; "
        f"images {kernels}.\n\n"
        + _table(rows, ["memory", "run", "experiment", "SHA-256 of samples.jsonl"])
    )


def _parameters(predictions: Sequence[Prediction]) -> str:
    rows = []
    for one in predictions:
        for series in one.series:
            values = {v.name: f"{v.value:.2f} ({words.interval(v.ci)})" for v in series.parameters}
            rows.append(
                [RUNS[one.run], series.kernel, values.get("zap", "-"), values.get("free", "-")]
                + [values[name] for name in ("price", "own_share", "worker_share")]
            )
    names = ["memory", "kernel", "zap", "free", "price", "share of the thread", "share of a worker"]
    return _table(rows, names)


def _measured() -> str:
    rows = [
        [str(workers), f"{one.seconds:g} s ± {one.spread_percent:g} %", f"{one.ratio:.2f}"]
        for workers, one in seed.MAX_ACTIVE.items()
    ]
    return (
        f"## Measured in 2017\n\n{seed.SOURCE}: {seed.CONDITIONS}. Stock took "
        f"{seed.STOCK.seconds:g} s ± {seed.STOCK.spread_percent:g} %. The time at the default "
        "setting is left out, since the number of workers is not given.\n\n"
        + _table(rows, ["max_active", "time", "ratio"])
    )


def _curve(one: Prediction, kernel: str, design: Design, basis: Basis) -> Curve:
    return next(c for c in one.curves if (c.kernel, c.design, c.basis) == (kernel, design, basis))


def _predicted(one: Prediction) -> str:
    parts = [
        f"## Predicted\n\nFor {CORES} cores, {NODES} nodes and 320 GB, from the run "
        f"{one.run} ({RUNS[one.run]}). What that assumes:\n\n"
        + "\n".join(f"- {line}" for line in one.assumptions)
        + "\n"
    ]
    for title, table in text.curves(one, markdown=True):
        parts.append(f"**{title[0].upper()}{title[1:]}**\n\n{table}\n")
    return "\n".join(parts)


def _limits(one: Prediction) -> dict[int, list[tuple[float, float, float]]]:
    """Return the predicted ratio and its bounds at both limits, by the number of workers."""
    found: dict[int, list[tuple[float, float, float]]] = {}
    for basis in (Basis.NO_WAITS, Basis.ALL_WAITS):
        for point in _curve(one, "parallel-free", Design.HAND_OVER, basis).points:
            assert point.ratio is not None
            assert point.ci is not None
            found.setdefault(point.workers, []).append((point.ratio, *point.ci))
    return found


def _deviations(one: Prediction) -> Iterator[str]:
    yield (
        "Parallel-free as in 2017; the predicted ratio over the one measured there, less 1, at "
        "the limit without and at the limit with waits for locks:\n"
    )
    for workers, limits in _limits(one).items():
        measured = seed.MAX_ACTIVE[workers].ratio
        off = " and ".join(f"{100 * (value / measured - 1):+.0f} %" for value, _, _ in limits)
        low, high = min(b[1] for b in limits), max(b[2] for b in limits)
        fits = "within" if low <= measured <= high else "**outside**"
        yield f"- max_active={workers}: {off}; the measured ratio is {fits} the intervals"


def _others(others: Sequence[Prediction]) -> str:
    lines = []
    for one in others:
        offs = [
            f"{100 * (limits[0][0] / seed.MAX_ACTIVE[workers].ratio - 1):+.0f} %"
            for workers, limits in _limits(one).items()
        ]
        lines.append(f"- {RUNS[one.run]}: {', '.join(offs)}")
    return (
        "From the other runs, at the limit without waits, by the number of workers:\n\n"
        + "\n".join(lines)
        + "\n\nThe program of 2017 touched its memory in one thread, so that first touch is the "
        "case to compare with. Interleaved memory gives series that stand on node-grouped-free "
        "an advantage that the patches of 2017 did not have.\n"
    )


def _reasons(one: Prediction) -> str:
    ratio = {workers: each.ratio for workers, each in seed.MAX_ACTIVE.items()}
    series = next(s for s in one.series if s.kernel == "parallel-free")
    value = {v.name: v.value for v in series.parameters}
    zap, free = 1 / max(ratio.values()), 1 / ratio[1]
    two = 2 / ratio[2]
    more = two / free - 1
    share = float(share_of(np.array([1 + more]), 2, 1)[0])
    lock = share * free
    last = max(ratio)
    slower = max(ratio.values()) / ratio[last] - 1
    fast = {n: limits[0][0] / ratio[n] - 1 for n, limits in _limits(one).items()}
    both = value["zap"] + value["free"]
    return f"""\
## What fits, what does not, and why

The same model, read backwards from the measured times, has other parameters:

- **The limit fits.** From 4 workers on, the best time of 2017 is {zap:.2f} of stock's. If zapping
  is that limit, it has a share of {zap:.2f}; emulation gives {value["zap"]:.2f}. That an emulated
  CPU without caches comes so near is partly luck: it has no cache misses on `struct page`, which
  both zapping and freeing have on hardware.
- **One worker: too fast by {fast[1]:.0%}.** Freeing limits there, and took {free:.2f} of stock's
  time against {value["free"]:.2f} here. Zapping and freeing together are {zap + free:.2f} in 2017
  and {both:.2f} here: running in parallel cost more on four sockets, where a worker frees pages
  that another core has just zapped.
- **Two workers: too fast by {fast[2]:.0%}.** If freeing limits there too, two workers needed
  {two:.2f} of stock's time together, where one needed {free:.2f}: {more:.0%} more for the same
  pages. Waits for one lock explain that if {share:.0%} of the freeing is under it. v4.10 is another
  kernel, and its locks take another share than those of 7.3 under emulation.
- **The plateau has two explanations.** With such a lock, any number of workers needs at least
  {lock:.2f} of stock's time, hardly less than the {zap:.2f} taken for zapping. Times alone cannot
  separate them; lock_stat can.
- **{last} workers: too fast by {fast[last]:.0%}, and the decline is missing.** From the best
  setting to {last} workers the time of 2017 rises by {slower:.0%}. In the model, more
  workers can only idle or wait for each other: they do not slow the thread that zaps. That cost
  (cache lines of locks and counters that move between sockets, the memory bus, wake-ups) begins
  with more threads than two cores can run, and no run here contains it. The model therefore cannot
  advise on a large `max_active`.
"""


def _levels(predictions: Sequence[Prediction]) -> str:
    lines = []
    for one in predictions:
        zapping = max(
            p.ratio or 0.0 for p in _curve(one, "parallel-free", Design.FREE, Basis.NO_WAITS).points
        )
        bounds = [
            point.ci
            for basis in (Basis.ALL_WAITS, Basis.NO_WAITS)
            if (point := _curve(one, "parallel-unmap", Design.UNMAP, basis).points[-1]).ci
        ]
        low, high = min(b[0] for b in bounds), max(b[1] for b in bounds)
        lines.append(
            f"- {RUNS[one.run]}: parallel-free {zapping:.1f} times as fast as stock, "
            f"parallel-unmap {low:.1f} to {high:.0f} times (from the interval at one limit to the "
            "interval at the other)"
        )
    return f"""\
## Which level, on a large host?

The question of 2017 was whether zapping in parallel gains more. Predicted, with 32 workers:

{chr(10).join(lines)}

parallel-free is limited by zapping, with any number of cores. parallel-unmap is limited by the
locks of the nodes alone, of which two cores show only that they take between nothing and all of the
price. The upper end has no memory bus and no distance between nodes, and will not be reached. With
interleaved memory, parallel-unmap has the higher limit even if the price is nothing but waits for
locks. With first touch all threads share the locks of one node at a time, and it may gain nothing
over parallel-free.

Under emulation the limit without waits is the nearer one: earlier versions of both series waited
for locks during 0.3 to 0.4 % of the CPU time with one worker, on 6.1
([where the time goes](where-the-time-goes.md#the-zone-locks)), much less than the price. Hardware
may differ, as the times of 2017 with two workers suggest.
"""
