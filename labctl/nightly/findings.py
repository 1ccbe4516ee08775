"""Findings of nightly runs: changes, the runs that they lie between, and failures. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import msgspec
from msgspec import UNSET

from labctl.nightly.changes import Analysis, Change
from labctl.nightly.history import Watched, by_night, watched
from labctl.nightly.records import CellFailures, NightlyRecord
from labctl.nightly.types import (
    Between,
    CellTrend,
    Finding,
    Nightly,
    NightlyValue,
    SegmentStart,
    TrialResult,
)
from labctl.runs.types import Host
from labctl.stats.kinds import FindingKind
from labctl.stats.run_noise import widened

# By the verdict of a watch.
_KINDS = {
    "slower": FindingKind.REGRESSED,
    "faster": FindingKind.IMPROVED,
    "same": FindingKind.NOT_CONFIRMED,
    "unchanged": FindingKind.NOT_THE_KERNEL,
}
_SUSPECT_P = 0.01
_CONTROL_ALPHA = 0.05


def document(records: Sequence[NightlyRecord]) -> Nightly:
    """Return the findings of all nightly runs of a history, and each cell's trend.

    Kinds of findings: regressed, improved; crashes (a kernel crashed more often than its
    baseline, and not in the run before); broken (a guest or a check failed that had not
    failed in the run before); not-confirmed (no change against the earlier kernel);
    not-the-kernel (the ratio changed with one and the same image); alarm (a change in the
    last nightly run that is not settled).

    Raises:
        HostError: ruptures, which finds the changes, is not installed.
    """
    nights = list(by_night(records))
    cells = list(watched(records).values())
    last = nights[-1][0] if nights else None
    found = [
        *(finding for cell in cells for finding in _changes(cell)),
        *_crashing([main for main, _ in nights]),
        *_broken([main for main, _ in nights]),
        *(finding for cell in cells for finding in _alarm(cell, last)),
    ]
    return Nightly(
        night=last.night if last else None,
        run=last.run if last else None,
        nights=len(nights),
        host=last.host if last else Host(),
        hosts=last.hosts if last else UNSET,
        accel=last.accel if last else None,
        commits=(last.commits if last else None) or {},
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
            TrialResult(
                verdict=t.verdict,
                ratio=t.ratio,
                ci=widened(t.ci, cell.rows[change.found].confidence),
                run=t.run,
                against=t.against,
            )
            for t in change.trials
        )
        finding = _finding(cell, change.found, _KINDS[change.verdict], change.analysis)
        yield msgspec.structs.replace(finding, trials=trials, between=_between(cell, change))


def _finding(cell: Watched, found: int, kind: FindingKind, analysis: Analysis) -> Finding:
    first = found if analysis.first is None else analysis.first
    row = cell.rows[found]
    return Finding(
        kind=kind,
        night=cell.records[found].night,
        run=cell.records[found].run,
        since=cell.records[first].night,
        experiment=cell.experiment,
        cell=cell.cell,
        kernel=cell.kernel,
        setting=cell.setting,
        baseline=cell.baseline,
        command=row.command or None,
        metric=row.metric or None,
        better=row.better or None,
        before=math.exp(analysis.before),
        after=math.exp(analysis.after),
        change=math.exp(analysis.after - analysis.before),
    )


def _between(cell: Watched, change: Change) -> Between | None:
    """Return the last nightly run without the change, and the first one with it."""
    if change.analysis.compared is None:
        return None
    old = cell.records[change.analysis.compared]
    first = change.found if change.analysis.first is None else change.analysis.first
    later = cell.records[first : change.found + 1]
    image = old.image(cell.kernel)
    new = next((r for r in later if r.image(cell.kernel) != image), later[-1])
    before, after = old.kernels[cell.kernel], new.kernels[cell.kernel]
    known, patches = (kernel.patches or () for kernel in (before, after))
    commits = [record.commits or {} for record in (old, new)]
    return Between(
        nights=(old.night, new.night),
        image=(image, new.image(cell.kernel)),
        series=(before.series or None, after.series or None),
        patches_changed=tuple(n for n, patch in enumerate(patches, 1) if patch not in known),
        patches=(len(known), len(patches)),
        commits={
            name: (commits[0].get(name), commits[1].get(name))
            for name in {**commits[0], **commits[1]}
        },
    )


def _broken(mains: Sequence[NightlyRecord]) -> Iterator[Finding]:
    failed_before: dict[tuple[str, ...], bool] = {}
    key: tuple[str, ...]
    for main in mains:
        for row in (*main.cells, *(main.baselines or ())):
            key = ("cell", row.experiment, row.cell)
            if row.has_failed and not failed_before.get(key, False):
                yield _failure(main, row.kernel, _why(row, main.run), row)
            failed_before[key] = row.has_failed
        for kernel, checks in (main.checks or {}).items():
            key = ("checks", kernel)
            if not checks.passed and not failed_before.get(key, False):
                reasons = "; ".join(f"{name}: {why}" for name, why in checks.failed.items())
                yield _failure(main, kernel, reasons or "no check ran", None)
            failed_before[key] = not checks.passed


def _crashing(mains: Sequence[NightlyRecord]) -> Iterator[Finding]:
    before: set[tuple[str, str]] = set()
    for main in mains:
        rates = {(one.experiment, one.kernel): one for one in main.crashes or () if one.more_often}
        for key, one in rates.items():
            if key not in before:
                p = f"p {one.p_corrected:.2g}"
                why = f"{one.counts(one.baseline)} (Fisher's exact test, Holm: {p})"
                finding = _failure(main, one.kernel, why, None)
                yield msgspec.structs.replace(
                    finding, kind=FindingKind.CRASHES, experiment=one.experiment
                )
        before = set(rates)


def _why(row: CellFailures, run: str) -> str:
    """Return counts and reasons of a cell's failures; an older record has only counts."""
    parts = []
    for status, count in row.failed.items():
        alike = [one for one in row.failures or () if one.status == status]
        reasons = " or ".join(filter(None, (one.reason for one in alike)))
        console = next((one.console for one in alike if one.console), "")
        part = f"{count} {status}" + (f" ({alike[0].whose}): {reasons}" if alike else "")
        parts.append(part + (f"; console: {run}/{console}" if console else ""))
    return ", ".join(parts)


def _failure(main: NightlyRecord, kernel: str, why: str, row: CellFailures | None) -> Finding:
    return Finding(
        kind=FindingKind.BROKEN,
        night=main.night,
        run=main.run,
        since=main.night,
        experiment=row.experiment if row else None,
        cell=row.cell if row else None,
        kernel=kernel,
        setting=row.setting if row else {},
        why=why,
    )


def _alarm(cell: Watched, last: NightlyRecord | None) -> Iterator[Finding]:
    analysis = cell.last_analysis
    is_last = last is not None and cell.records[-1].run == last.run
    if is_last and analysis.first is not None and not analysis.verdict:
        yield _finding(cell, len(cell.records) - 1, FindingKind.ALARM, analysis)


def _cell(cell: Watched, last: NightlyRecord | None) -> CellTrend:
    nights = tuple(
        NightlyValue(
            night=night.date,
            run=record.run,
            ratio=math.exp(value),
            measured=tuple(math.exp(log) for log in night.logs),
            ci=widened(row.ci, row.confidence),
            blocks=row.blocks,
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
        setting=cell.setting,
        baseline=cell.baseline,
        measured_last_night=last is not None and cell.records[-1].run == last.run,
        nights=nights,
        segments=tuple(
            SegmentStart(first=nights[one.first].night, why=one.why, continues=one.continues)
            for one in cell.watch.segments
        ),
    )


def _warnings(mains: Sequence[NightlyRecord]) -> list[str]:
    """Warn if the A/A controls differ more often than by chance."""
    from scipy.stats import binomtest

    controls = {(main.run, row.experiment): row.suspect for main in mains for row in main.cells}
    hits, count = sum(controls.values()), len(controls)
    lines = []
    if count and binomtest(hits, count, _CONTROL_ALPHA, alternative="greater").pvalue < _SUSPECT_P:
        lines.append(
            f"the A/A control differed in {hits} of {count} experiments: "
            "results of this lab cannot be trusted"
        )
    if mains:
        lines += [
            f"{row.experiment} {row.cell}: disregarded in the last nightly run, "
            "the A/A control differed"
            for row in mains[-1].cells
            if row.suspect
        ]
    return lines
