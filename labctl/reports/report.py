"""From a run's folder to its report: samples -> comparisons -> document."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from msgspec import UNSET
from msgspec.structs import replace

from labctl.errors import HostError, UserError
from labctl.reports.against import Against
from labctl.reports.document import document
from labctl.reports.explain import observed_in_passes, observed_of
from labctl.reports.explanation import first_of
from labctl.runs import folder as run_folder
from labctl.runs.folder import RunFolder
from labctl.runs.sample import Sample
from labctl.stats.by_metric import by_metric, samples_by_metric
from labctl.stats.explanation_types import Observed
from labctl.stats.kinds import Verdict
from labctl.stats.report_types import Experiment, Report
from labctl.stats.stored import results_of


@dataclass(frozen=True, slots=True)
class _Stored:
    """A run's report, its samples, and what the observers of its passes found."""

    run: RunFolder
    report: Report
    samples: list[Sample]
    passes: list[Observed]


Render = Callable[[_Stored], str]


# Each format imports its module when it is used, since most commands need one of them.
def _terminal(stored: _Stored) -> str:
    from labctl.reports import table

    return table.render(stored.report)


def _markdown(stored: _Stored) -> str:
    from labctl.reports import table

    return table.render(stored.report, format="markdown")


def _cover_letter(stored: _Stored) -> str:
    from labctl.reports import cover_letter

    return cover_letter.render(stored.report)


def _html(stored: _Stored) -> str:
    return _page(stored, lambda path: quote(f"{_shown(stored.run.path)}/{path}"))


FORMATS: Mapping[str, Render] = {
    "terminal": _terminal,
    "markdown": _markdown,
    "cover-letter": _cover_letter,
    "html": _html,
}


def _page(stored: _Stored, link: Callable[[str], str]) -> str:
    """Return the HTML page of a run; `link` gives the address of a path in its folder."""
    from labctl.reports import consoles, html

    run, samples = stored.run, stored.samples
    return html.render(
        stored.report,
        samples,
        lab=run.read().lab,
        guests=run.first_guests(),
        consoles=consoles.of_run(run, samples, link),
        observed=[*observed_of(run, samples), *stored.passes],
    )


def document_of(folder: Path, run_id: str, against: Against | None = None) -> Report:
    """Return the report of a run in `folder`, with another baseline if `against` is given.

    Raises:
        UserError: there is no such run, its files are damaged, or it has no such baseline.
    """
    return _read(run_folder.resolve(folder, run_id), against).report


def report_of(
    folder: Path, run_id: str, style: str, against: Against | None = None
) -> tuple[Report, str]:
    """Return the report of a run as a document and as text of a style; see `document_of`."""
    stored = _read(run_folder.resolve(folder, run_id), against)
    return stored.report, FORMATS[style](stored)


def site_page(run: RunFolder) -> tuple[Report, str]:
    """Return the report of a run and its page without links to files of this host.

    Raises:
        UserError: the files of the run are damaged.
    """
    stored = _read(run)
    return stored.report, _page(stored, lambda _: "")


def _read(run: RunFolder, against: Against | None = None, *, with_passes: bool = True) -> _Stored:
    record, store = run.read(), run.store
    samples = store.samples()
    notes: tuple[str, ...] = (store.torn,) if store.torn else ()
    del store  # and what it keeps for the next reading
    # A pass was compared with the baseline of its own run when it was stored.
    passes = observed_in_passes(run) if with_passes and against is None else []
    if against is not None:
        record, samples, more = against.applied(record, samples)
        notes += more
    content = document(record, results_of(record, samples), folder=_shown(run.path))
    content = replace(
        content,
        experiments=tuple(_with_passes(each, passes) for each in content.experiments),
        notes=notes,
    )
    return _Stored(run, content, samples, passes)


def _with_passes(experiment: Experiment, passes: Sequence[Observed]) -> Experiment:
    own = tuple(first_of(each) for each in passes if each.name == experiment.name)
    return replace(experiment, passes=own or UNSET)


def _shown(folder: Path) -> str:
    """Return a folder relative to the current one if it is below it."""
    here = Path.cwd()
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)


def export_of(
    folder: Path, run_id: str, style: str, *, kernel: str | None = None
) -> tuple[str | bytes, list[str]]:
    """Return a run in another tool's format, and notes for its reader.

    `kernel` selects the samples of one kernel.

    Raises:
        UserError: there is no such run, its files are damaged, or it has no such kernel.
        HostError: the library for the format is not installed.
    """
    from labctl.reports.export import EXPORTS, ONE_METRIC, notes

    stored = _read(run_folder.resolve(folder, run_id), with_passes=False)
    content, samples = stored.report, stored.samples
    if kernel is not None:
        known = ", ".join(sorted({sample.kernel for sample in samples}))
        samples = [sample for sample in samples if sample.kernel == kernel and not sample.control]
        if not samples:
            raise UserError(
                f"no sample of kernel {kernel} in the run", hint=f"kernels of the run: {known}"
            )
    lines = [*content.notes, *notes(style, by_metric(content))]
    if style in ONE_METRIC:
        samples = samples_by_metric(content, samples)
        content = by_metric(content)
    return EXPORTS[style](content, samples), lines


def write(path: Path, content: str | bytes) -> None:
    """Write a report or an export to a file.

    Raises:
        UserError: it cannot be written there.
        HostError: the disk is full; no part of it is left.
    """
    try:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            if path.is_file() and not path.is_symlink():
                path.unlink()
            raise HostError(
                f"cannot write: {error.strerror}",
                where=str(path),
                hint="free disk space, for example with `labctl clean`, which removes builds",
            ) from error
        raise UserError(f"cannot write: {error.strerror}", where=str(path)) from error


def found_a_problem(content: Report) -> bool:
    """Return whether a cell is slower or failed, a kernel crashes, or the A/A control differs."""
    if any(one.control_differs or one.crashes_more_often for one in content.experiments):
        return True
    cells = [cell for experiment in content.experiments for cell in experiment.cells]
    return any(cell.verdict is Verdict.SLOWER or cell.failed for cell in cells)
