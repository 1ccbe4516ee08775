"""Write a run of a packed lab as one file: a tar with a manifest of all files' SHA-256."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from labctl import __version__, files
from labctl.errors import HostError
from labctl.kernels.hashed import Hashed
from labctl.packing import place, records
from labctl.packing.measure import Pack
from labctl.packing.records import FileRecord, ResultManifest
from labctl.runs.folder import RunFolder
from labctl.status import SampleStatus


@dataclass(frozen=True, slots=True)
class Measured:
    """The result of a run: its file and that file's SHA-256, and its samples by status."""

    path: Path
    sha256: str
    statuses: dict[str, int]
    is_finished: bool

    @property
    def failed(self) -> int:
        """The number of samples that failed."""
        fine = (SampleStatus.OK, SampleStatus.EXERCISED, SampleStatus.NOT_EXERCISED)
        return sum(count for status, count in self.statuses.items() if status not in fine)


def write(run: RunFolder, pack: Pack, output: Path) -> Measured:
    """Write a run, finished or not, as a result file.

    Raises:
        HostError: the disk is full or fails.
        UserError: the run is damaged.
    """
    is_finished = run.read().finished
    statuses = Counter(str(sample.status) for sample in run.store.samples())
    found = dict(_files(run.path))
    manifest = ResultManifest(
        pack=pack.id,
        run=run.id,
        labctl=__version__,
        files={
            name: FileRecord(Hashed.of(path).sha256, path.stat().st_size)
            for name, path in found.items()
        },
    )
    output = output.absolute()
    try:
        files.make_folder(output.parent)
        with (
            files.replacing(output) as partial,
            partial.open("xb") as raw,
            gzip.GzipFile("", "wb", place.GZIP_LEVEL, fileobj=raw, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            _add(archive, place.MANIFEST, records.encoded(manifest))
            for name, path in found.items():
                with path.open("rb") as content:
                    archive.addfile(_info(name, manifest.files[name].bytes), content)
    except OSError as error:
        what = f"cannot write the result: {error.strerror or error}"
        raise HostError(what, where=str(error.filename or output)) from error
    return Measured(output, Hashed.of(output).sha256, dict(statuses), is_finished)


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the regular files of a run by path in the result; guests also leave sockets."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            if stat.S_ISREG(path.lstat().st_mode) and not files.is_unfinished(path):
                yield f"{place.RUN}/{path.relative_to(folder)}", path


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    archive.addfile(_info(name, len(content)), io.BytesIO(content))


def _info(name: str, size_bytes: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode, info.size = 0o644, size_bytes
    return info
