"""Numbers, cells and hosts as text. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from labctl.arch import X86_64
from labctl.lab.metrics import MetricKind, is_freebench
from labctl.units import counted, rough_size

if TYPE_CHECKING:
    from labctl.runs.types import Host, Imported, Kernel, Placement
    from labctl.stats.report_types import Cell

_DOES = {
    "free": "frees {}",
    "munmap": "unmaps {}",
    "dontneed": "drops {}",
    "exit": "gives {} back at exit",
}
_COMMIT_DIGITS = 12
_PACK_DIGITS = 12
_SUBJECT_LETTERS = 75
_MANY, _TOO_MANY = 1e3, 1e12
_LONGEST_SECONDS = 1e6  # more digits say nothing
_DOES_BESIDE = {"populate": "populates {}", "memory_back": "has {} back"}


def seconds(value: float) -> str:
    """Return a time with two or three digits, in s, ms, us or ns."""
    for unit, factor in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= factor or (unit == "s" and value >= 0.1):
            number = value / factor
            return f"{number:.{3 if number < 1 else 2 if number < 10 else 1}f} {unit}"
    return f"{value / 1e-9:.0f} ns"


def duration(seconds: float) -> str:
    """Return a time as text: 42 s, 3 min 05 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def between(least: str, most: str) -> str:
    """Return "LEAST to MOST", or one of them if they are equal."""
    return least if least == most else f"{least} to {most}"


def ratio(value: float | None) -> str:
    """Return a ratio with two decimals, or three digits below 0.1."""
    if value is None:
        return "-"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def interval(ci: Sequence[float | None] | None) -> str:
    """Return a confidence interval: 1.21 to 1.35."""
    return "-" if ci is None else f"{ratio(ci[0])} to {ratio(ci[1])}"


def level(confidence: float) -> str:
    """Return the name of an interval: 95 % CI."""
    return f"{100 * confidence:.3g} % CI"


def percent(share: float) -> str:
    """Return a share as percent with two digits: 4.2 %, 140 %."""
    number = float(f"{100 * share:.2g}")
    return f"{number:.15g} %"


def p_value(p: float | None) -> str:
    """Return a p value with two or three decimals."""
    if p is None:
        return "-"
    if p < 0.001:
        return "<0.001"
    return f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def setting(values: Mapping[str, Any]) -> str:
    """Return a setting: max_active=4 thp=never."""
    return " ".join(f"{name}={value}" for name, value in values.items())


def parameters(values: Mapping[str, Any]) -> str:
    """Return the parameters of a workload, sizes with units."""
    return setting(
        {
            name: rough_size(value).replace(" ", "")
            if name == "size" and isinstance(value, int)
            else value
            for name, value in values.items()
        }
    )


def cell(each: Cell) -> str:
    """Return a cell's name: its label and its setting."""
    return named(each.label or each.kernel, each.setting)


def named(kernel: str, values: Mapping[str, Any]) -> str:
    """Return the name of a cell from its kernel and its setting."""
    return " ".join(filter(None, [kernel, setting(values)]))


def names(cells: Sequence[Cell]) -> list[str]:
    """Return the names of cells; those of a matrix over one kernel are the settings alone."""
    compared = [each for each in cells if not each.is_baseline]
    is_matrix = len(compared) > 1 and len({each.kernel for each in compared}) == 1
    return [
        setting(each.setting) or cell(each) if is_matrix and not each.is_baseline else cell(each)
        for each in cells
    ]


def moment(at: str) -> str:
    """Return a recorded time, which is UTC, as a reader writes it."""
    return at.removesuffix("+00:00").replace("T", " ")


def host(facts: Host) -> str:
    """Return the host's facts as one line."""
    known = [
        facts.cpu_model or "",
        f"{facts.cores} cores" if facts.cores else "",
        rough_size(facts.memory_bytes) if facts.memory_bytes else "",
        _qemu(facts),
        f"id {facts.id}" if facts.id else "",
    ]
    return ", ".join(filter(None, known)) or "unknown"


def imported(found: Imported) -> str:
    """Return which packed lab measured a run, and when the run was imported."""
    return f"measured there by pack {found.pack[:_PACK_DIGITS]}, imported {moment(found.at)}"


def resume_command(run: str, *, is_imported: bool) -> str:
    """Return the command that continues a run; an imported one continues on its machine."""
    return f"{'./lab.pyz' if is_imported else 'labctl'} run --resume {run}"


def _qemu(facts: Host) -> str:
    if not facts.qemu:
        return ""
    as_root = " as root" if facts.qemu_as_root is True else ""
    unboxed = " without its sandbox" if facts.qemu_without_sandbox is True else ""
    return f"QEMU {facts.qemu}{as_root}{unboxed}"


def release(kernel: Kernel) -> str:
    """Return a kernel's release, and its architecture if it is not x86_64."""
    arch = kernel.arch or X86_64.name
    names = [kernel.release or "", "" if arch == X86_64.name else arch]
    return " ".join(filter(None, names))


def commit(kernel: Kernel) -> str:
    """Return a kernel's commit and its subject, an empty text if it is not from git."""
    if not kernel.commit:
        return ""
    subject = kernel.subject or ""
    if len(subject) > _SUBJECT_LETTERS:
        subject = f"{subject[: _SUBJECT_LETTERS - 1]}…"
    return f"commit {kernel.commit[:_COMMIT_DIGITS]}" + (f' "{subject}"' if subject else "")


def placement(found: Placement) -> str:
    """Return the placement of a guest's vCPUs and memory on the host."""
    text = f"{counted(found.vcpus, 'vCPU')} on {counted(found.cores, 'core')}"
    if found.overcommitted:
        text += ", overcommitted"
    cpus = ", ".join(map(str, found.pinned))
    text += f", pinned to CPUs {cpus}" if cpus else ", not pinned"
    if found.emulator:
        text += f", QEMU's other threads on {', '.join(map(str, found.emulator))}"
    if found.host_nodes:
        text += f"; memory on host nodes {', '.join(map(str, found.host_nodes))}"
    return text


def value(number: float, metric: MetricKind) -> str:
    """Return a value with its unit, if that is known.

    Counts and other values that are compared by differences are whole from 1000 on.
    """
    if not metric.is_time or not 0 < abs(number) < _LONGEST_SECONDS:
        return f"{_number(number, metric)} {metric.value_unit}".rstrip()
    return f"-{seconds(-number)}" if number < 0 else seconds(number)


def _number(number: float, metric: MetricKind) -> str:
    if metric.is_difference and not metric.is_time and _MANY <= abs(number) < _TOO_MANY:
        return f"{number:.0f}"  # differences of counts are small beside the counts
    return f"{number + 0.0:.4g}"


def spread(size: float, metric: MetricKind) -> str:
    """Return a standard deviation of values, with two digits."""
    return value(float(f"{size:.2g}"), metric)


def estimate_noun(metric: MetricKind) -> str:
    """Return what cells are compared by: ratio or difference."""
    return metric.scale


def estimate(cell: Cell, metric: MetricKind) -> str:
    """Return a cell's ratio, or its difference with a sign."""
    return signed(cell.estimate, metric) if metric.is_difference else ratio(cell.estimate)


def signed(difference: float | None, metric: MetricKind) -> str:
    """Return a difference with a sign."""
    if difference is None:
        return "-"
    return f"+{value(difference, metric)}" if difference > 0 else value(difference, metric)


def estimate_interval(ci: Sequence[float | None] | None, metric: MetricKind) -> str:
    """Return the interval of a ratio or a difference."""
    if ci is None or not metric.is_difference:
        return interval(ci)
    low, high = ("-" if bound is None else value(bound, metric) for bound in ci)
    unit = "" if metric.is_time else f" {metric.unit}"  # that of a time may differ: us, ms
    return f"{low.removesuffix(unit)} to {high}"


def effect(size: float, metric: MetricKind) -> str:
    """Return a minimum effect: in percent, or in the unit of the values."""
    return value(size, metric) if metric.is_difference else f"{100 * size:.3g} %"


def gain(cell: Cell, metric: MetricKind) -> float:
    """Return how much better a cell is: the log of its ratio or its difference, 0 for none."""
    found = cell.estimate
    if found is None or (found <= 0 and not metric.is_difference):
        return 0.0
    if not metric.is_difference:
        return math.log(found)
    return found if metric.better == "higher" else 0.0 - found


def noun(metric: MetricKind) -> str:
    """Return the name of a metric in a sentence; freebench's cpu is CPU time."""
    is_cpu_time = is_freebench(metric.command) and metric.root == "cpu"
    return "CPU time" if is_cpu_time else metric.name


def deed(metric: MetricKind, parameters: Mapping[str, Any]) -> str:
    """Return the verb phrase of a time, such as "frees 3 GiB".

    "is" for a workload other than freebench; empty if the metric is not the time of an
    operation.
    """
    if not metric.is_speed:
        return ""
    if not is_freebench(metric.command):
        return "is" if metric.is_elapsed else ""
    operation, count = str(parameters.get("op")), parameters.get("size")
    what = rough_size(count) if isinstance(count, int) else ""
    if metric.is_elapsed:
        does = _DOES.get(operation)
        return does.format(what) if does and what else "is"
    if does := _DOES_BESIDE.get(metric.root):
        return does.format(what or "its memory")
    return ""
