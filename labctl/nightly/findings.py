"""Findings of nightly runs: changes, the runs that they lie between, and failures. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import msgspec

from labctl.nightly.changes import Change, Look
from labctl.nightly.history import Record, Watched, by_night, has_failed, watched
from labctl.nightly.types import (
    Between,
    CellTrend,
    Finding,
    Nightly,
    NightValue,
    SegmentStart,
    TrialResult,
)
from labctl.runs.types import Host
from labctl.stats.kinds import FindingKind

# By the verdict of a watch.
_KINDS = {
    "slower": FindingKind.REGRESSED,
    "faster": FindingKind.IMPROVED,
    "same": FindingKind.NOT_CONFIRMED,
    "unchanged": FindingKind.NOT_THE_KERNEL,
}
_SUSPECT_P = 0.01
_CONTROL_ALPHA = 0.05


def document(records: Sequence[Record]) -> Nightly:
    """Return the findings of all nightly runs of a history, and each cell's trend.

    Kinds of findings: regressed, improved; broken (a guest or a check failed that had not
    failed in the run before); not-confirmed (no change against the earlier kernel);
    not-the-kernel (the ratio changed with one and the same image); alarm (a change in the
    last nightly run that is not settled).

    Raises:
        HostError: ruptures, which finds the changes, is not installed.
    """
    nights = list(by_night(records))
    cells = list(watched(records).values())
    last: Record = nights[-1][0] if nights else {}
    found = [
        *(finding for cell in cells for finding in _changes(cell)),
        *_broken([main for main, _ in nights]),
        *(finding for cell in cells for finding in _alarm(cell, last)),
    ]
    return Nightly(
        night=last.get("night"),
        run=last.get("run"),
        nights=len(nights),
        host=msgspec.convert(last.get("host", {}), Host),
        accel=last.get("accel"),
        commits=last.get("commits", {}),
        findings=tuple(sorted(found, key=lambda one: (one.night, one.experiment or ""))),
        cells=tuple(_cell(cell, last) for cell in cells),
        warnings=tuple(_warnings([main for main, _ in nights])),
    )


def problems(content: Nightly, *, of_last_night: bool) -> list[Finding]:
    """Return the regressions and failures of a history, or of its last nightly run."""
    return [
        one
        for one in content.findings
        if one.kind.is_problem and (not of_last_night or one.run == content.run)
    ]


def _changes(cell: Watched) -> Iterator[Finding]:
    for change in cell.watch.changes:
        trials = tuple(
            TrialResult(verdict=t.verdict, ratio=t.ratio, ci=t.ci, run=t.run, against=t.against)
            for t in change.trials
        )
        finding = _finding(cell, change.found, _KINDS[change.verdict], change.look)
        yield msgspec.structs.replace(finding, trials=trials, between=_between(cell, change))


def _finding(cell: Watched, found: int, kind: FindingKind, look: Look) -> Finding:
    first = found if look.first is None else look.first
    row = cell.rows[found]
    return Finding(
        kind=kind,
        night=cell.records[found]["night"],
        run=cell.records[found]["run"],
        since=cell.records[first]["night"],
        experiment=cell.experiment,
        cell=cell.cell,
        kernel=cell.kernel,
        setting=dict(cell.setting),
        baseline=cell.baseline,
        command=row.get("command"),
        metric=row.get("metric"),
        better=row.get("better"),
        before=math.exp(look.before),
        after=math.exp(look.after),
        change=math.exp(look.after - look.before),
    )


def _between(cell: Watched, change: Change) -> Between | None:
    """Return the last nightly run without the change, and the first one with it."""
    if change.look.compared is None:
        return None
    old = cell.records[change.look.compared]
    first = change.found if change.look.first is None else change.look.first
    later = cell.records[first : change.found + 1]
    image = old["kernels"][cell.kernel]["image"]
    new = next((r for r in later if r["kernels"][cell.kernel]["image"] != image), later[-1])
    before, after = old["kernels"][cell.kernel], new["kernels"][cell.kernel]
    known, patches = (kernel.get("patches") or () for kernel in (before, after))
    commits = [record.get("commits", {}) for record in (old, new)]
    return Between(
        nights=(old["night"], new["night"]),
        image=(before["image"], after["image"]),
        series=(before.get("series"), after.get("series")),
        patches_changed=tuple(n for n, patch in enumerate(patches, 1) if patch not in known),
        patches=(len(known), len(patches)),
        commits={
            name: (commits[0].get(name), commits[1].get(name))
            for name in {**commits[0], **commits[1]}
        },
    )


def _broken(mains: Sequence[Record]) -> Iterator[Finding]:
    failed_before: dict[tuple[str, ...], bool] = {}
    key: tuple[str, ...]
    for main in mains:
        for row in (*main["cells"], *main.get("baselines", ())):
            key = ("cell", row["experiment"], row["cell"])
            if has_failed(row) and not failed_before.get(key, False):
                yield _failure(main, row["kernel"], _why(row, main["run"]), row)
            failed_before[key] = has_failed(row)
        for kernel, checks in main.get("checks", {}).items():
            key = ("checks", kernel)
            if not checks["passed"] and not failed_before.get(key, False):
                said = "; ".join(f"{name}: {why}" for name, why in checks["failed"].items())
                yield _failure(main, kernel, said or "no check was made", {})
            failed_before[key] = not checks["passed"]


def _why(row: Record, run: str) -> str:
    """Return counts and reasons of a cell's failures; an older record has only counts."""
    told = []
    for status, count in row["failed"].items():
        alike = [one for one in row.get("failures", ()) if one["status"] == status]
        reasons = " or ".join(filter(None, (one["reason"] for one in alike)))
        console = next((one["console"] for one in alike if one["console"]), "")
        said = f"{count} {status}" + (f" ({alike[0]['whose']}): {reasons}" if alike else "")
        told.append(said + (f"; console: {run}/{console}" if console else ""))
    return ", ".join(told)


def _failure(main: Record, kernel: str, why: str, row: Record) -> Finding:
    return Finding(
        kind=FindingKind.BROKEN,
        night=main["night"],
        run=main["run"],
        since=main["night"],
        experiment=row.get("experiment"),
        cell=row.get("cell"),
        kernel=kernel,
        setting=dict(row.get("setting", {})),
        why=why,
    )


def _alarm(cell: Watched, last: Record) -> Iterator[Finding]:
    look = cell.last_look
    is_tonight = bool(cell.records) and cell.records[-1]["run"] == last.get("run")
    if is_tonight and look.first is not None and not look.verdict:
        yield _finding(cell, len(cell.records) - 1, FindingKind.ALARM, look)


def _cell(cell: Watched, last: Record) -> CellTrend:
    nights = tuple(
        NightValue(
            night=night.date,
            run=record["run"],
            ratio=math.exp(value),
            measured=tuple(math.exp(log) for log in night.logs),
            ci=row["ci"],
            blocks=row["blocks"],
            image=night.image,
        )
        for night, value, record, row in zip(
            cell.watch.nights, cell.watch.values, cell.records, cell.rows, strict=True
        )
    )
    return CellTrend(
        experiment=cell.experiment,
        cell=cell.cell,
        kernel=cell.kernel,
        setting=dict(cell.setting),
        baseline=cell.baseline,
        measured_last_night=cell.records[-1]["run"] == last.get("run"),
        nights=nights,
        segments=tuple(
            SegmentStart(first=nights[one.first].night, why=one.why, continues=one.continues)
            for one in cell.watch.segments
        ),
    )


def _warnings(mains: Sequence[Record]) -> list[str]:
    """Warn if the A/A controls differ more often than by chance."""
    from scipy.stats import binomtest

    controls = {
        (main["run"], row["experiment"]): row["suspect"] for main in mains for row in main["cells"]
    }
    hits, count = sum(controls.values()), len(controls)
    lines = []
    if count and binomtest(hits, count, _CONTROL_ALPHA, alternative="greater").pvalue < _SUSPECT_P:
        lines.append(
            f"the A/A control differed in {hits} of {count} experiments: this lab cannot be trusted"
        )
    if mains:
        lines += [
            f"{row['experiment']} {row['cell']}: not judged, the A/A control differed tonight"
            for row in mains[-1]["cells"]
            if row["suspect"]
        ]
    return lines
