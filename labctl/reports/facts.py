"""The parts of the HTML page about placement, host, guests and commands. Pure.

All functions return HTML with escaped text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from statistics import median
from typing import Any, TypeGuard, cast

from labctl.reports import hosts, words
from labctl.reports.grid import Entry, grid
from labctl.reports.page import details, pre
from labctl.runs.sample import Sample
from labctl.runs.types import Kernel
from labctl.stats.report_types import Experiment, Report
from labctl.status import SampleStatus
from labctl.units import counted, rough_size

_MOST_PAGES = 2**64
# Keys of a guest with numbers: what follows the number, or a size in bytes.
_UNITS = {"latency": "ns", "bandwidth": "/s", "swap": "", "disks": ""}


def placement(experiment: str, samples: Sequence[Sample]) -> list[str]:
    """Return the workload's pages on each node: medians over repetitions, by cell."""
    cells: dict[str, list[list[int]]] = {}
    for sample in samples:
        pages = sample.measurements.get("pages_per_node")
        if pages and sample.status == SampleStatus.OK and not sample.warmup and _are_counts(pages):
            name = " ".join(filter(None, [sample.label, words.setting(sample.setting)]))
            cells.setdefault(name, []).append(pages)
    rows = {}
    for name, found in cells.items():
        nodes = max(map(len, found))
        rows[name] = [median(p[n] if n < len(p) else 0 for p in found) for n in range(nodes)]
    if not rows:
        return []
    same = len({tuple(row) for row in rows.values()}) == 1
    shown = {"every cell": next(iter(rows.values()))} if same else rows
    return [
        "<h3>Pages on each node</h3>",
        _placement_table(f"Pages on each node in {experiment}", shown),
    ]


def _are_counts(pages: Any) -> TypeGuard[list[int]]:  # noqa: ANN401 - of any workload
    return (
        isinstance(pages, list)
        and bool(pages)
        and all(type(count) is int and 0 <= count < _MOST_PAGES for count in pages)
    )


def _placement_table(caption: str, rows: Mapping[str, Sequence[float]]) -> str:
    nodes = max(map(len, rows.values()))
    table = []
    for name, pages in rows.items():
        total = sum(pages) or 1
        each = [Entry(f"{count:,.0f} ({100 * count / total:.0f} %)", count) for count in pages]
        table.append([Entry(name), *each])
    return grid(caption, ["cell", *(f"node {number}" for number in range(nodes))], table)


def measured_on(document: Report) -> list[str]:
    """Return host, guests and full hashes of images."""
    rows = [
        *_hosts(document),
        *([("imported", words.imported(document.imported))] if document.imported else []),
        ("accelerator", document.accel),
        ("started", str(document.created_at)),
        ("seed", str(document.seed)),
        *((f"guest of {name}", value) for name, value in _guests(document)),
        *((f"kernel {name}", _image(kernel)) for name, kernel in document.kernels.items()),
    ]
    facts = "".join(f"<dt>{escape(what)}</dt><dd>{escape(value)}</dd>" for what, value in rows)
    return ["<h2>Measured on</h2>", f"<dl>{facts}</dl>"]


def _hosts(document: Report) -> list[tuple[str, str]]:
    workers = hosts.facts(document)
    if workers:
        return [(f"host {name}", about) for name, about in workers]
    host = document.host
    return [("host", words.host(host)), ("host's kernel", host.kernel or "unknown")]


def _guests(document: Report) -> Iterable[tuple[str, str]]:
    by_guest: dict[str, list[str]] = {}
    for experiment in document.experiments:
        guest = experiment.guest
        if guest:
            by_guest.setdefault(_guest(guest), []).append(experiment.name)
    return ((", ".join(names), guest) for guest, names in by_guest.items())


def _guest(topology: Mapping[str, Any]) -> str:
    parts = {}
    for name, value in topology.items():
        if name == "memory_per_node":
            parts[name] = rough_size(cast(int, value))
        elif name in _UNITS:
            parts[name] = _with_unit(value, _UNITS[name])
        elif isinstance(value, Sequence) and not isinstance(value, str):
            parts[name] = _each(value)
        elif isinstance(value, Mapping):
            parts[name] = words.setting({k: v for k, v in value.items() if v is not None})
        elif value is not None:
            parts[name] = str(value)
    return ", ".join(f"{name.replace('_', ' ')} {text}" for name, text in parts.items())


def _with_unit(value: Any, unit: str) -> str:  # noqa: ANN401 - part of a recorded topology
    """Return a number, or a list or mapping of them, with a unit; sizes are in bytes."""
    if isinstance(value, Mapping):
        parts = (f"{name} {_with_unit(one, unit)}" for name, one in value.items() if one)
        return ", ".join(parts)
    if isinstance(value, list | tuple):
        between = "; " if any(isinstance(one, list | tuple) for one in value) else ", "
        return between.join(_with_unit(one, unit) for one in value)
    if not isinstance(value, int):
        return str(value)
    return f"{value} {unit}" if unit == "ns" else f"{rough_size(value)}{unit}"


def _each(values: Sequence[Any]) -> str:
    """Return a list as text, of nodes: `2 CPUs and 2 GiB; no CPU and 4 GiB`."""
    if not all(isinstance(one, Mapping) and {"cpus", "memory"} <= one.keys() for one in values):
        return str(values)
    return "; ".join(
        f"{counted(one['cpus'], 'CPU') if one['cpus'] else 'no CPU'} and "
        f"{rough_size(one['memory']) if one['memory'] else 'no memory'}"
        f"{_hotplugged(one)}"
        for one in values
    )


def _hotplugged(node: Mapping[str, Any]) -> str:
    found = node.get("hotplug")
    return f" and {rough_size(found['memory'])} hotplugged ({found['state']})" if found else ""


def _image(kernel: Kernel) -> str:
    series, patches = kernel.series, kernel.patches or ()
    what = [
        words.release(kernel),
        words.commit(kernel),
        f"image {kernel.image or None}",
        f"series {series}" + (f" of {len(patches)} patches" if patches else "")
        if series
        else "no series",
        kernel.compiler,
    ]
    return ", ".join(str(each) for each in what if each)


def commands(document: Report, lab: str, guests: Mapping[str, str]) -> list[str]:
    """Return the commands that repeat the run, and those that it ran in and for its guests.

    `lab` is the text of lab.yaml; `guests` are QEMU's command lines by the guest's name.
    """
    names = " ".join(each.name for each in document.experiments)
    lines = [
        f"labctl run {names} --seed {document.seed}",
        f"labctl report {document.run} --format html",
        f"labctl export {document.run} --format csv",
    ]
    parts = ["<h2>To repeat it</h2>", pre("\n".join(lines))]
    workloads = [facts for each in document.experiments for facts in _workload(each)]
    if workloads:
        text = "\n".join(dict.fromkeys(workloads))
        parts.append(details("What ran in the guests", pre(text)))
    if guests:
        text = "\n\n".join(f"# {name}\n{command}" for name, command in guests.items())
        parts.append(details("The guests of the first blocks, as QEMU was called", pre(text)))
    if lab:
        parts.append(details("lab.yaml", pre(lab)))
    return parts


def _workload(experiment: Experiment) -> Iterable[str]:
    command = experiment.command
    if not command:
        return
    setting = words.setting(experiment.set or {})
    for cell in experiment.cells:
        options = " ".join(f"--{name} {value}" for name, value in cell.parameters.items())
        tuned = ", ".join(filter(None, [setting, words.setting(cell.setting)]))
        yield f"{command} {options}".strip() + (
            f"    # {words.cell(cell)}: {tuned}" if tuned else ""
        )
