"""From a run's record and samples to the costs that a prediction starts from. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from statistics import fmean, median
from typing import Any

from labctl.errors import UserError
from labctl.lab.document import parse
from labctl.lab.metrics import is_freebench
from labctl.model.needed import EXPERIMENT
from labctl.model.types import CellCosts, Cost, Design, Inputs, KernelInputs
from labctl.runs.record import RunExperiment, RunRecord
from labctl.runs.sample import Sample, Scalar
from labctl.stats.stored import used_of
from labctl.status import SampleStatus
from labctl.units import counted

_FOLDERS = {"parallel_free": Design.FREE, "parallel_unmap": Design.UNMAP}
_USUAL_AXES = {"max_active": Design.FREE, "unmap_max_active": Design.UNMAP}
_LOCKS = ("lru_lock", "zone->lock")
_LOCK_PREFIX, _HOLD = "lock_stat.", ".hold_nanoseconds"
_PAGE_BYTES = 4096
_Group = dict[tuple[str, int], list[Sample]]


def inputs_of(
    record: RunRecord,
    samples: Sequence[Sample],
    *,
    experiment: str | None = None,
    settings: Mapping[str, Scalar] | None = None,
    passes: Iterable[Sample] = (),
) -> Inputs:
    """Return the costs of an experiment of a run, by default of its only one.

    `settings` selects among cells that differ in more than the number of workers; `passes` are
    the samples of the run's passes, for the locks.

    Raises:
        UserError: the run does not have what a prediction needs; says what must be measured.
    """
    chosen = _chosen(record, experiment)
    where = f"run {record.run}, experiment {chosen.name}"
    if not is_freebench(chosen.command or ""):
        raise UserError(
            "the model is about the workloads of freebench: exit, free, munmap and dontneed",
            where=where,
            hint=EXPERIMENT,
        )
    used, _ = used_of(chosen, samples)
    good = [s for s in used if s.status == SampleStatus.OK and not s.warmup]
    _check(good, chosen, where)
    if record.guests.get(chosen.guest or "", {}).get("icount"):
        raise UserError(
            "the guest counts instructions (`icount`): its vCPUs run by turns, not in parallel",
            where=where,
            hint=EXPERIMENT,
        )
    axes = _axes(record.lab)
    groups = _groups(good, axes, settings or {}, where)
    first = next(iter(groups.values()))[0]
    kernels = {
        name: _kernel(name, record, chosen, groups, axes)
        for name in dict.fromkeys(name for name, _ in groups)
    }
    placement = chosen.placement or None
    return Inputs(
        run=record.run,
        experiment=chosen.name,
        finished=record.finished,
        operation=str(first.parameters.get("op", first.workload)),
        placement=str(first.measurements.get("placement", first.parameters.get("placement", ""))),
        size_bytes=int(first.measurements["size_bytes"]),
        accel=record.accel,
        host=record.host,
        cores=0 if placement is None else min(placement.vcpus, placement.cores),
        nodes=_nodes(good),
        confidence=chosen.confidence,
        baseline=chosen.baseline,
        kernels=kernels,
        cells=tuple(_costs(key, own) for key, own in sorted(groups.items())),
        locks=_locks([*samples, *passes], chosen.name),
        hosts=len({sample.host for sample in good}),
    )


def _chosen(record: RunRecord, name: str | None) -> RunExperiment:
    names = [one.name for one in record.experiments]
    if name is None and len(names) == 1:
        return record.experiments[0]
    if name is None:
        raise UserError(
            f"run {record.run} has {len(names)} experiments",
            hint=f"choose one with `--experiment`: {', '.join(names)}",
        )
    if name not in names:
        raise UserError(
            f"run {record.run} has no experiment {name!r}", hint=f"available: {', '.join(names)}"
        )
    return record.experiment(name)


def _check(good: Sequence[Sample], experiment: RunExperiment, where: str) -> None:
    if not good:
        raise UserError("no valid repetitions", where=where, hint=EXPERIMENT)
    if not all(_has_times(sample) for sample in good):
        raise UserError(
            "repetitions lack their CPU time, or it is 0",
            where=where,
            hint="measure with the freebench of this version, and more memory",
        )
    if any(s.measurements.get("huge_bytes") for s in good):
        raise UserError(
            "huge pages were freed: the costs of the model are those of small pages",
            where=where,
            hint="set `thp: never` in the experiment",
        )
    placement = experiment.placement or None
    if placement is not None and placement.overcommitted:
        raise UserError(
            f"{counted(placement.vcpus, 'vCPU')} shared {counted(placement.cores, 'core')}: CPU "
            "time of the guest includes time in which a vCPU waited for a core",
            where=where,
            hint=EXPERIMENT,
        )
    if placement is not None and min(placement.vcpus, placement.cores) < 2:
        raise UserError("one core shows nothing in parallel", where=where, hint=EXPERIMENT)


def _has_times(sample: Sample) -> bool:
    least = dict.fromkeys(("elapsed_nanoseconds", "cpu_nanoseconds", "size_bytes"), 1)
    least["other_cpu_nanoseconds"] = 0
    values = ((sample.measurements.get(name), low) for name, low in least.items())
    return all(isinstance(value, int | float) and value >= low for value, low in values)


def _axes(lab: str) -> dict[str, Design]:
    """Return the tunables of lab.yaml that set a number of workers."""
    plain: Any = parse(lab).plain
    tunables = plain.get("tunables") if isinstance(plain, dict) else None
    found = {}
    for name, entry in (tunables if isinstance(tunables, dict) else {}).items():
        path = PurePosixPath(str(entry.get("file", "")) if isinstance(entry, dict) else "")
        if path.name == "max_active" and path.parent.name in _FOLDERS:
            found[str(name)] = _FOLDERS[path.parent.name]
    return found or dict(_USUAL_AXES)


def _groups(
    good: Sequence[Sample], axes: Mapping[str, Design], wanted: Mapping[str, Scalar], where: str
) -> _Group:
    """Return the repetitions by kernel and number of workers, 0 of serial ones.

    Cells at the default number of workers are left out, as it is not on record.
    """
    unknown = [name for name in wanted if not any(name in s.setting for s in good)]
    if unknown:
        known = sorted({name for sample in good for name in sample.setting})
        raise UserError(
            f"--set: no cell has a setting {', '.join(unknown)}",
            where=where,
            hint=f"available: {', '.join(known) or 'none'}",
        )
    groups: defaultdict[tuple[str, int], list[Sample]] = defaultdict(list)
    others: defaultdict[tuple[str, int], set[tuple[tuple[str, Scalar], ...]]] = defaultdict(set)
    at_default: set[str] = set()
    for sample in good:
        if any(sample.setting.get(name, value) != value for name, value in wanted.items()):
            continue
        workers = _workers(sample, axes)
        if workers is None:
            at_default.add(sample.kernel)
            continue
        key = (sample.kernel, workers)
        groups[key].append(sample)
        others[key].add(tuple(sorted((k, v) for k, v in sample.setting.items() if k not in axes)))
    for (kernel, _), settings in others.items():
        if len(settings) > 1:
            names = ", ".join(" ".join(f"{k}={v}" for k, v in each) for each in sorted(settings))
            raise UserError(
                f"cells of {kernel} differ in more than the number of workers: {names}",
                where=where,
                hint="choose among them with `--set NAME=VALUE`",
            )
    if not groups:
        raise UserError(
            "no cell has these settings with a known number of workers",
            where=where,
            hint=EXPERIMENT,
        )
    if not any(workers for _, workers in groups):
        what = (
            f"{', '.join(sorted(at_default))} ran with the default number of workers, which is "
            "not on record"
            if at_default
            else "no kernel of the experiment has workers"
        )
        raise UserError(what, where=where, hint=EXPERIMENT)
    return dict(groups)


def _workers(sample: Sample, axes: Mapping[str, Design]) -> int | None:
    """Return the number of workers; 0 for a serial kernel, None if it is not on record."""
    for name in axes:
        value = sample.setting.get(name, sample.read_back.get(name))
        if value is not None and str(value).isdecimal() and int(value) > 0:
            return int(value)
    return None if "handovers" in sample.counters else 0


def _kernel(
    name: str,
    record: RunRecord,
    experiment: RunExperiment,
    groups: _Group,
    axes: Mapping[str, Design],
) -> KernelInputs:
    own = record.kernels.get(name)
    image = next(s.image for (kernel, _), all_ in groups.items() if kernel == name for s in all_)
    series = None if own is None else own.series or None
    for (kernel, workers), found in groups.items():
        if kernel == name and workers:
            axis = next(a for a in axes if a in found[0].setting or a in found[0].read_back)
            base = _base(name, record, experiment, groups)
            return KernelInputs(design=axes[axis], base=base, image=image, series=series)
    return KernelInputs(design=Design.SERIAL, base=None, image=image, series=series)


def _base(name: str, record: RunRecord, experiment: RunExperiment, groups: _Group) -> str:
    """Return the serial kernel whose patches a kernel starts with, the most of them."""
    own = _patches(record, name)
    serial = [kernel for kernel, workers in groups if not workers]
    fitting = [k for k in serial if (p := _patches(record, k)) == own[: len(p)]]
    return max(fitting, key=lambda k: len(_patches(record, k)), default=experiment.baseline)


def _patches(record: RunRecord, name: str) -> tuple[str, ...]:
    kernel = record.kernels.get(name)
    return (() if kernel is None else kernel.patches or ()) or ()


def _nodes(good: Sequence[Sample]) -> int:
    """Return the nodes that the freed pages alternate between: 1 unless they are interleaved."""
    if good[0].measurements.get("placement") != "interleave":
        return 1
    counts = Counter(
        sum(1 for pages in s.measurements.get("pages_per_node") or () if pages) for s in good
    )
    return max(counts.most_common(1)[0][0], 1)


def _costs(key: tuple[str, int], samples: Sequence[Sample]) -> CellCosts:
    by_block: defaultdict[int, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_block[sample.block].append(sample)
    lists = [
        s.counters["pages_handed"] / s.counters["handovers"]
        for s in samples
        if s.counters.get("handovers") and "pages_handed" in s.counters
    ]
    return CellCosts(
        kernel=key[0],
        workers=key[1],
        list_pages=round(median(lists), 1) if lists else 0.0,
        blocks={block: _cost(own) for block, own in sorted(by_block.items())},
    )


def _cost(samples: Sequence[Sample]) -> Cost:
    def per_page(name: str) -> float:
        return round(fmean(s.measurements[name] / _pages(s) for s in samples), 3)

    handed = fmean(s.counters.get("pages_handed", 0) / _pages(s) for s in samples)
    return Cost(
        elapsed=per_page("elapsed_nanoseconds"),
        own=per_page("cpu_nanoseconds"),
        other=per_page("other_cpu_nanoseconds"),
        handed=round(handed, 5),
    )


def _pages(sample: Sample) -> float:
    pages = sum(sample.measurements.get("pages_per_node") or ())
    return float(pages or sample.measurements["size_bytes"] / _PAGE_BYTES)


def _locks(samples: Iterable[Sample], experiment: str) -> dict[str, dict[str, tuple[float, ...]]]:
    """Return the share of CPU time in which each lock of a node was held, of serial cells."""
    shares: defaultdict[tuple[str, str], defaultdict[int, list[float]]]
    shares = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        cpu = sample.measurements.get("cpu_nanoseconds")
        is_good = sample.status == SampleStatus.OK and sample.experiment == experiment and cpu
        if not is_good or "handovers" in sample.counters:
            continue
        for lock in _LOCKS:
            held = [
                value
                for name, value in sample.counters.items()
                if name.startswith(_LOCK_PREFIX) and name.endswith(_HOLD) and lock in name
            ]
            if held:
                shares[sample.kernel, lock][sample.block].append(sum(held) / float(cpu or 1))
    found: dict[str, dict[str, tuple[float, ...]]] = {}
    for (kernel, lock), blocks in shares.items():
        of_blocks = tuple(round(fmean(each), 6) for _, each in sorted(blocks.items()))
        found.setdefault(kernel, {})[lock] = of_blocks
    return found
