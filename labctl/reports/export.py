"""A stored run in the formats of other tools. Pure.

- benchfmt: Go's benchmark format, which benchstat reads;
  `benchstat -col kernel FILE` compares the kernels.
- pyperf: JSON of pyperf, one benchmark per cell, one run per boot.
- junit: one test case per cell; slower and crashed cells fail, undecided ones are skipped.
- kcidb: JSON for KCIDB (`reports.kcidb`).
- csv, parquet: all samples, including warm-ups and failures.

benchfmt and pyperf omit the blocks that the report leaves out.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from labctl.printable import layout
from labctl.reports import columns, failed, words
from labctl.reports.junit import Case, render
from labctl.reports.kcidb import kcidb
from labctl.reports.parquet import parquet
from labctl.runs.sample import Sample
from labctl.stats.cells import cells_of, primary
from labctl.stats.kinds import Verdict
from labctl.stats.report_types import Cell, Experiment, Report
from labctl.status import SampleStatus


def benchfmt(document: Report, samples: Sequence[Sample]) -> str:
    """Return one line per boot: the number of its good repetitions, and their mean.

    The mean is the one that the report counts: robust for ratios, plain for differences.

    The format: golang.org/design/14313-benchmark-format.
    """
    lines = [
        f"run: {document.run}",
        f"host: {words.host(document.host)}",
        f"accel: {document.accel}",
    ]
    units: dict[str, set[str]] = {}
    for each in document.experiments:
        units.setdefault(_unit(each), set()).add(each.better)
    for unit, better in units.items():  # no direction if experiments disagree
        says = f"better={next(iter(better))} " if len(better) == 1 else ""
        lines.append(f"Unit {unit} {says}assume=nothing")
    of_experiment = {each.name: each for each in document.experiments}
    kernel = ""
    means = _means(document, samples)
    for boot in _boots(document, samples):
        first = boot[0]
        own = f"{first.kernel}+aa" if first.control else first.kernel
        if own != kernel:
            lines.append(f"kernel: {own}")
            kernel = own
        unit = _unit(of_experiment[first.experiment])
        value = means.get((first.experiment, first.cell, first.block))
        if value is None:  # a further metric that the boot did not print
            continue
        lines.append(f"Benchmark{_go_name(first)} {len(boot)} {value:.9g} {unit}")
    return "\n".join(lines) + "\n"


def pyperf(document: Report, samples: Sequence[Sample]) -> str:
    """Return a pyperf suite: one benchmark per cell, one run per boot, with its warm-up.

    With samples of one kernel only, its name is not part of the benchmarks' names, so that
    `pyperf compare_to` can compare the files of two kernels.
    """
    is_one = len({sample.label for sample in samples}) == 1
    warmups = {
        (s.experiment, s.block, s.boot_id): s
        for s in samples
        if s.warmup and s.status == SampleStatus.OK
    }
    benchmarks: dict[str, list[dict[str, Any]]] = {}
    kinds = {each.name: each.kind for each in document.experiments}
    units: dict[str, str] = {}
    for boot in _boots(document, samples):
        first = boot[0]
        if kinds[first.experiment].is_difference:
            continue  # pyperf refuses values that are not above 0
        run: dict[str, Any] = {
            "metadata": {"date": first.started_at, "boot_id": first.boot_id},
            "values": _values(boot),
        }
        warm = warmups.get((first.experiment, first.block, first.boot_id))
        if warm is not None and warm.value is not None:
            run["warmups"] = [[1, warm.value]]
        label = "" if is_one else first.label
        words_of_name = [first.experiment, label, words.setting(first.setting)]
        name = " ".join(filter(None, words_of_name))
        benchmarks.setdefault(name, []).append(run)
        # pyperf defaults to seconds; of its three units "integer" is the most neutral.
        units[name] = "second" if kinds[first.experiment].is_time else "integer"
    suite = {
        "version": "1.0",
        "metadata": {
            "loops": 1,
            "labctl_run": document.run,
            "labctl_accel": document.accel,
        },
        "benchmarks": [
            {"metadata": {"name": name, "unit": units[name]}, "runs": runs}
            for name, runs in benchmarks.items()
        ],
    }
    return json.dumps(suite, indent=1) + "\n"


def junit(document: Report, _: Sequence[Sample]) -> str:
    """Return a test case for each compared cell and for each A/A control."""
    suites = {}
    for experiment in document.experiments:
        control = experiment.aa_control
        cases = [c for c in experiment.cells if not c.is_baseline or c.failed]
        suites[experiment.name] = [
            *([_case(experiment, control, is_control=True)] if control else []),
            *(_case(experiment, cell, is_control=False) for cell in cases),
        ]
    return render(f"labctl {document.run}", suites)


def to_csv(_: Report, samples: Sequence[Sample]) -> str:
    """Return one row per sample; objects are JSON in their column.

    Each counter of an observer has a column `counter.NAME`, empty where it was not read.
    """
    out = io.StringIO()
    names, counters = Sample.__struct_fields__, columns.names(samples)
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*names, *(layout(columns.title(name)) for name in counters)])
    for sample in samples:
        values = [columns.value(sample, name) for name in names]
        values = [json.dumps(v, sort_keys=True) if isinstance(v, dict) else v for v in values]
        values = [layout(v) if isinstance(v, str) else v for v in values]
        writer.writerow([*values, *(sample.counters.get(name) for name in counters)])
    return out.getvalue()


EXPORTS: Mapping[str, Callable[[Report, Sequence[Sample]], str | bytes]] = {
    "benchfmt": benchfmt,
    "pyperf": pyperf,
    "junit": junit,
    "kcidb": kcidb,
    "csv": to_csv,
    "parquet": parquet,
}

# Formats that have a value of one metric: they get each metric as an experiment of its own.
ONE_METRIC = ("benchfmt", "pyperf", "junit", "kcidb")


def notes(style: str, document: Report) -> list[str]:
    """Return notes for the reader that the format has no place for."""
    if style not in ("benchfmt", "pyperf"):
        return []
    facts = [
        f"{each.name}: {line}"
        for each in document.experiments
        for line in [*failed.findings(each), *failed.lines(each.failures)]
    ]
    if style == "pyperf":
        facts += [
            f"{each.name}: higher {each.metric} is better, but pyperf calls it slower"
            for each in document.experiments
            if each.better == "higher" and not each.kind.is_difference
        ]
        facts += [
            f"{each.name}: left out, since pyperf only takes values above 0, and {each.metric} is "
            "compared by differences"
            for each in document.experiments
            if each.kind.is_difference
        ]
    return facts


def _boots(document: Report, samples: Sequence[Sample]) -> list[list[Sample]]:
    """Return the good repetitions of each cell in each block, by experiment and cell."""
    left_out = {
        (each.name, block)
        for each in document.experiments
        for block in (each.host_health.left_out if each.host_health else ())
    }
    groups: dict[tuple[str, str, int], list[Sample]] = {}
    for sample in samples:
        if (
            sample.status == SampleStatus.OK
            and not sample.warmup
            and sample.value is not None
            and (sample.experiment, sample.block) not in left_out
        ):
            groups.setdefault((sample.experiment, sample.cell, sample.block), []).append(sample)
    return [groups[key] for key in sorted(groups)]


def _means(document: Report, samples: Sequence[Sample]) -> dict[tuple[str, str, int], float]:
    """Return what the report counts of each boot, by experiment, cell and block."""
    found = {}
    good = [sample for boot in _boots(document, samples) for sample in boot]
    for each in document.experiments:
        own = (sample for sample in good if sample.experiment == each.name)
        for cell in cells_of(own, each.kind.scale):
            for block, value in cell.of_blocks(primary).items():
                mean = value if each.kind.is_difference else math.exp(value)
                found[each.name, cell.id, block] = mean
    return found


def _values(boot: Sequence[Sample]) -> list[float]:
    return [sample.value for sample in boot if sample.value is not None]


def _unit(experiment: Experiment) -> str:
    metric = experiment.kind
    if metric.is_elapsed:
        return "sec/op"
    if metric.is_time:
        return f"{metric.root}-sec/op"
    return "-".join(filter(None, [metric.name, metric.unit]))


def _go_name(sample: Sample) -> str:
    """Return a name for Go's format: no blanks, settings as /name=value.

    Blanks and slashes are percent-encoded, so that different values keep different names.
    A hyphen and a number at the end would read as the number of processors.
    """
    parts = [sample.experiment, *(f"{name}={value}" for name, value in sample.setting.items())]
    name = "/".join(re.sub(r"[\s/%]", lambda c: quote(c[0], safe=""), part) for part in parts)
    name = re.sub(r"-(\d+)$", r"_\1", name)
    return name[:1].upper() + name[1:]


def _case(experiment: Experiment, cell: Cell, *, is_control: bool) -> Case:
    metric = experiment.kind
    found = {
        words.estimate_noun(metric): cell.estimate,
        "ci": cell.ci and words.estimate_interval(cell.ci, metric),
        "p_corrected": cell.p_corrected,
        "blocks": cell.blocks,
        "median_seconds" if metric.is_time else "value": cell.median_seconds,
        "unit": metric.unit or None,
        "spread_percent": cell.spread_percent,
    }
    verdict, failures = cell.verdict, []
    is_bad = verdict.is_difference if is_control else verdict is Verdict.SLOWER
    crashes = failed.findings(experiment, cell.kernel)
    if is_bad or cell.failed or crashes:
        estimate = f"{words.estimate_noun(metric)} {words.estimate(cell, metric)}"
        interval = words.estimate_interval(cell.ci, metric)
        result = f"{metric.spoken(verdict)}: {estimate}, {interval}"
        more = ", ".join(f"{count} {status}" for status, count in cell.failed.items())
        reasons = [*crashes, *failed.of_cell(experiment.failures, cell.cell)]
        failures = [("; ".join(filter(None, [result, more])), "\n".join(reasons))]
    is_skipped = verdict is Verdict.UNDECIDED and not is_control
    return Case(
        name="A/A control" if is_control else words.cell(cell),
        failures=failures,
        skipped=cell.reason if is_skipped else None,
        properties={name: str(value) for name, value in found.items() if value is not None},
    )
