"""Write the static site of all runs and nightly runs; only new or changed pages are made."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import msgspec

from labctl.errors import HostError, LabError
from labctl.nightly import findings, history
from labctl.nightly import html as nightly_html
from labctl.nightly import text as nightly_text
from labctl.reports import report, sentence, words
from labctl.runs import folder as run_folder
from labctl.runs.folder import RunFolder
from labctl.runs.types import Kernel
from labctl.site import folder as site_folder
from labctl.site import index
from labctl.site.types import Manifest, NightEntry, Nights, RunEntry
from labctl.stats.by_metric import by_metric

INDEX = "index.html"
# Packages whose code makes pages.
_MAKERS = ("lab", "observers", "runs", "stats", "reports", "nightly", "site")


@dataclass(frozen=True, slots=True)
class Built:
    """The first page, how many pages were made, kept and removed, and runs without a page."""

    index: Path
    made: int
    kept: int
    removed: int
    faults: tuple[str, ...]


def build(site: Path, runs: Path, nights: Path) -> Built:
    """Write the site of the runs in `runs` and the nightly history in the folder `nights`.

    A page is made if its run, or labctl's code, changed. Pages of runs that no longer exist
    are removed. The index is written last.

    Raises:
        UserError: the folder of the site has files that labctl did not write.
        HostError: the disk is full or fails.
    """
    with site_folder.opened(site) as old:
        known = {one.run: one for one in old.runs}
        found = sorted(run_folder.list_runs(runs), key=lambda run: run.id)
        planned = {INDEX, index.NIGHTLY, *(f"runs/{run.id}.html" for run in found)}
        # Before the pages: one that is not in the manifest would be a foreign file.
        site_folder.note(site, msgspec.structs.replace(old, files=_names({*old.files, *planned})))
        made = kept = 0
        entries = []
        for run in found:
            entry = known.get(run.id)
            parts = (run, *run_folder.passes(run))
            key = _key(*(path for one in parts for path in (one.path / "run.json", one.store.path)))
            if entry and entry.key == key and (entry.fault or site_folder.has(site, entry.page)):
                kept += 1
            else:
                entry = _run(site, run, key)
                made += 1
            entries.append(entry)
        trends = _nights(site, nights, old.nights)
        made += trends is not old.nights and bool(trends.key)
        kept += trends is old.nights and bool(trends.key)
        manifest = Manifest(
            files=_names(
                {INDEX}
                | {one.page for one in entries if not one.fault}
                | ({index.NIGHTLY} if trends.subject else set())
            ),
            runs=tuple(entries),
            nights=trends,
        )
        site_folder.write(site, INDEX, index.render(manifest))
        gone = {*old.files, *planned} - set(manifest.files)
        removed = sum(site_folder.has(site, name) for name in gone)
        site_folder.remove(site, gone)
        site_folder.note(site, manifest)
    faults = [f"{one.run}: {one.fault}" for one in entries if one.fault]
    faults += [f"nightly runs: {trends.fault}"] if trends.fault else []
    return Built(site / INDEX, made, kept, removed, tuple(faults))


def _names(names: set[str]) -> tuple[str, ...]:
    return tuple(sorted(names))


def _run(site: Path, run: RunFolder, key: str) -> RunEntry:
    try:
        content, text = report.site_page(run)
    except LabError as error:
        return RunEntry(run=run.id, key=key, fault=f"cannot be read: {error.what}")
    entry = RunEntry(
        run=run.id,
        key=key,
        begun=words.moment(content.created_at or ""),
        kernels=_kernels(content.kernels),
        host=f"{words.host(content.host)}; {content.accel}",
        results=tuple(
            f"{one.name}: {sentence.sentence(one)}" for one in by_metric(content).experiments
        ),
        is_bad=report.found_a_problem(content),
    )
    site_folder.write(site, entry.page, text)
    return entry


def _nights(site: Path, folder: Path, old: Nights) -> Nights:
    path = history.path_of(folder)
    if not path.is_file():
        return Nights()
    key = _key(path)
    if key == old.key and (old.fault or site_folder.has(site, index.NIGHTLY)):
        return old
    try:
        records = history.read(folder)
        content = findings.document(records)
    except LabError as error:  # damaged, or the extra for nightly runs is not installed
        return Nights(key=key, fault=f"cannot be read: {error.what}")
    found: dict[str, list[str]] = {}
    for one in content.findings:
        found.setdefault(one.run, []).append(nightly_text.heading(one))
    site_folder.write(site, index.NIGHTLY, nightly_html.render(content))
    return Nights(
        key=key,
        subject=nightly_text.subject(content),
        is_bad=bool(findings.problems(content, of_last_night=True)),
        entries=tuple(
            NightEntry(
                night=main.night,
                run=main.run,
                kernels=_kernels(main.kernels),
                findings=tuple(found.get(main.run, ())),
            )
            for main, _ in history.by_night(records)
        ),
    )


def _kernels(kernels: Mapping[str, Kernel]) -> tuple[str, ...]:
    """Return each kernel with its release and the start of its commit, to be searched for."""
    return tuple(
        " ".join(filter(None, [name, words.release(kernel), words.commit(kernel)]))
        for name, kernel in kernels.items()
    )


def _key(*paths: Path) -> str:
    """Return the hash of files, and of the code that makes pages from them."""
    digest = hashlib.sha256(_code())
    for path in paths:
        try:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        except FileNotFoundError:
            digest.update(b"none")
        except OSError as error:
            what = f"cannot read: {error.strerror or error}"
            raise HostError(what, where=str(path)) from error
    return digest.hexdigest()


@cache
def _code() -> bytes:
    digest = hashlib.sha256()
    for name in _MAKERS:
        files = resources.files("labctl").joinpath(name).iterdir()
        for file in sorted(files, key=lambda one: one.name):
            if file.name.endswith((".py", ".css", ".js")):
                digest.update(file.name.encode() + file.read_bytes())
    return digest.digest()
