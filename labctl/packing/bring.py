"""`labctl import`: verify a result of a packed lab and store its run.

The file comes from another machine: nothing of it is trusted, and nothing is stored under
the run's name before all of it is verified.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from labctl import files
from labctl.errors import HostError, UserError
from labctl.lab.models import Lab
from labctl.packing import place, records
from labctl.packing.build import independent
from labctl.packing.records import FileRecord, PackRecord, ResultManifest
from labctl.runs.folder import RunFolder, timestamp
from labctl.runs.record import RunRecord

_LARGEST_MANIFEST_BYTES = 64 << 20
_MOST_FILES = 200_000
_CHUNK_BYTES = 1 << 20
_PADDING_BYTES = 2 * tarfile.RECORDSIZE
_NO_RESULT = "damaged, or not a result of a packed lab"
_AGAIN = "copy it again from the machine that measured"
_DAMAGED = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError)


@dataclass(frozen=True, slots=True)
class Imported:
    """An imported run."""

    folder: RunFolder
    record: RunRecord
    pack: str
    statuses: dict[str, int]


def bring(lab: Lab, result: Path) -> Imported:
    """Verify a result and store its run in the lab that made the pack.

    Raises:
        UserError: the file is damaged or not a result, the pack is not of this lab, the run
            exists, or it is not what the pack measures.
        HostError: the disk is full or fails.
    """
    where, packs = str(result), lab.state_folder.packs
    partial: Path | None = None
    try:
        with _opened(result) as archive:
            manifest = _manifest(archive, where)
            pack = _pack(lab, manifest, where)
            final = lab.state_folder.runs / manifest.run
            if os.path.lexists(final):
                hint = f"see it with `labctl report {manifest.run}`"
                raise UserError(f"run {manifest.run} exists already", where=where, hint=hint)
            _check_space(manifest, packs, where)
            partial = files.unfinished(packs / manifest.run)
            _unpack(archive, manifest, partial, where)
        run = RunFolder(partial / place.RUN)
        record, statuses = _verified(run, manifest, pack, where)
        mark = {"pack": manifest.pack, "at": timestamp()}
        run.write(run.document() | {"imported": mark})
        _store(run.path, final)
    finally:
        if partial is not None and os.path.lexists(partial):
            files.remove(partial)
    return Imported(RunFolder(final), record, manifest.pack, statuses)


@contextmanager
def _opened(result: Path) -> Iterator[tarfile.TarFile]:
    """Open a result; at the end of the block the rest of it is verified, too."""
    where = str(result)
    try:
        raw = files.reading(result)
    except OSError as error:
        hint = f"expected a file that a packed lab wrote: RUN{place.RESULT_SUFFIX}"
        what = f"cannot be read: {error.strerror or error}"
        raise UserError(what, where=where, hint=hint) from error
    try:
        with raw:
            # The checksum of gzip does not cover its header.
            if raw.read(len(place.GZIP_HEADER)) != place.GZIP_HEADER:
                raise UserError(_NO_RESULT, where=where, hint=_AGAIN)
            raw.seek(0)
            with gzip.GzipFile(fileobj=raw) as packed:
                with tarfile.open(fileobj=packed, mode="r|") as archive:
                    yield archive
                _read_rest(packed, where)
    except _DAMAGED as error:
        what = f"damaged or truncated: {error}"
        raise UserError(what, where=where, hint=_AGAIN) from error


def _read_rest(packed: gzip.GzipFile, where: str) -> None:
    """Read up to the end of the file, where gzip compares the checksum: only padding is left."""
    left = _PADDING_BYTES
    while chunk := packed.read(_CHUNK_BYTES):
        left -= len(chunk)
        if left < 0 or chunk.strip(b"\0"):
            raise UserError("data after the end of the archive", where=where, hint=_AGAIN)


def _manifest(archive: tarfile.TarFile, where: str) -> ResultManifest:
    first = archive.next()
    if first is None or first.name != place.MANIFEST or not first.isreg():
        raise UserError(_NO_RESULT, where=where, hint=_AGAIN)
    if first.size > _LARGEST_MANIFEST_BYTES:
        raise UserError(f"{place.MANIFEST} is too large", where=where, hint=_AGAIN)
    content = b"".join(_content(archive, first, where))
    manifest = records.decoded(content, ResultManifest, f"{where}: {place.MANIFEST}")
    if len(manifest.files) > _MOST_FILES:
        raise UserError(f"more than {_MOST_FILES} files", where=where, hint=_AGAIN)
    for name in manifest.files:
        _check_name(name, where)
    return manifest


def _check_name(name: str, where: str) -> None:
    """Check that a file is inside of the run's folder."""
    parts = PurePosixPath(name).parts
    is_inside = len(parts) > 1 and parts[0] == place.RUN and ".." not in parts
    if not is_inside or "/".join(parts) != name or "\0" in name:
        raise UserError(
            f"path leaves the run's folder: {name!r}",
            where=where,
            hint="no packed lab writes such a path: do not trust this file",
        )


def _pack(lab: Lab, manifest: ResultManifest, where: str) -> PackRecord:
    """Return the record of the pack that measured, which this lab must have made."""
    path = lab.state_folder.packs / records.file_name(manifest.pack)
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(
            f"measured by a pack that this lab did not make: {manifest.pack[:12]}",
            where=where,
            hint="import it in the lab whose `labctl pack` made the pack (`--lab FILE`)",
        ) from error
    if records.id_of(content) != manifest.pack:
        hint = "restore it from a copy, or measure with a new pack"
        raise HostError("record of the pack changed", where=str(path), hint=hint)
    return records.decoded(content, PackRecord, str(path))


def _check_space(manifest: ResultManifest, packs: Path, where: str) -> None:
    size, free = sum(one.bytes for one in manifest.files.values()), files.free_bytes(packs)
    if size > free:
        what = f"the run takes {size >> 20} MiB, but only {free >> 20} MiB are free"
        raise HostError(what, where=where, hint="free disk space")


def _unpack(archive: tarfile.TarFile, manifest: ResultManifest, folder: Path, where: str) -> None:
    """Write the files of a result into a new folder; each must be as the manifest has it."""
    left = dict(manifest.files)
    while (member := archive.next()) is not None:
        expected = left.pop(member.name, None)
        if expected is None or not member.isreg() or member.sparse is not None:
            what = f"unexpected entry in the archive: {member.name!r}"
            raise UserError(what, where=where, hint=_AGAIN)
        _unpack_file(archive, member, expected, folder / member.name, where)
    if left:
        what = f"{len(left)} files are missing, such as {min(left)}"
        raise UserError(what, where=where, hint=_AGAIN)


def _unpack_file(
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    expected: FileRecord,
    path: Path,
    where: str,
) -> None:
    found = hashlib.sha256()
    if member.size == expected.bytes:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.naming(path), path.open("xb") as file:
            for chunk in _content(archive, member, where):
                found.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
    if found.hexdigest() != expected.sha256:
        what = f"checksum mismatch: {member.name} is not the file that was measured"
        raise UserError(what, where=where, hint=_AGAIN)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, where: str) -> Iterator[bytes]:
    file = archive.extractfile(member)
    left = member.size
    while file is not None and left > 0:
        chunk = file.read(min(_CHUNK_BYTES, left))
        if not chunk:
            raise UserError(f"truncated in {member.name}", where=where, hint=_AGAIN)
        left -= len(chunk)
        yield chunk


def _verified(
    run: RunFolder, manifest: ResultManifest, pack: PackRecord, where: str
) -> tuple[RunRecord, dict[str, int]]:
    """Check that a run measured what the pack measures; return its record, and its statuses."""
    try:
        document, record, samples = run.document(), run.read(), run.store.samples()
    except UserError as error:
        raise _foreign(f"invalid run: {error.what}", where) from error
    _check_document(document, record, manifest, pack, where)
    statuses: Counter[str] = Counter()
    cells = {name: set(one["cells"]) for name, one in pack.experiments.items()}
    for number, sample in enumerate(samples, start=1):
        kernel = pack.kernels.get(sample.kernel)
        if (
            kernel is None
            or sample.cell not in cells.get(sample.experiment, ())
            or (sample.run, sample.host, sample.accel) != (record.run, record.host.id, record.accel)
            or (sample.image, sample.series) != (kernel.image, kernel.series)
        ):
            what = f"sample {number} is not of this run and pack"
            raise _foreign(what, where)
        statuses[str(sample.status)] += 1
    return record, dict(statuses)


def _check_document(
    document: dict[str, Any],
    record: RunRecord,
    manifest: ResultManifest,
    pack: PackRecord,
    where: str,
) -> None:
    lab = hashlib.sha256(record.lab.encode()).hexdigest()
    kernels = {name: (one.image, one.series) for name, one in record.kernels.items()}
    packed = {name: (one.image, one.series) for name, one in pack.kernels.items()}
    plan = [independent(one) for one in document["experiments"]]
    for what, is_same in (
        ("run", record.run == manifest.run),
        ("lab.yaml", lab == pack.lab),
        ("initramfs", record.initramfs == pack.initramfs),
        ("images", kernels.items() <= packed.items()),
        ("plan", all(one == pack.experiments.get(str(one.get("name"))) for one in plan)),
        ("accelerator", record.accel in ("kvm", "tcg")),
        ("host", bool(record.host.id)),
    ):
        if not is_same:
            raise _foreign(f"{what} in run.json is not that of the pack", where)


def _foreign(what: str, where: str) -> UserError:
    hint = "the run was changed after it was measured, or measured by something else"
    return UserError(what, where=where, hint=hint)


def _store(folder: Path, final: Path) -> None:
    """Move a verified run to its place."""
    files.make_folder(final.parent)
    for parent, _, _ in os.walk(folder):
        files.sync_folder(Path(parent))
    try:
        folder.rename(final)
    except OSError as error:
        what = f"cannot store the run: {error.strerror}"
        raise HostError(what, where=str(final)) from error
    files.sync_folder(final.parent)
