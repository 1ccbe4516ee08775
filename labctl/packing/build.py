"""`labctl pack`: build an experiment's kernels and initramfs, and write all into one file."""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labctl import __version__, files
from labctl.arch import X86_64, Architecture
from labctl.errors import ConfigError, HostError, Problem
from labctl.experiments import early
from labctl.experiments.plan import Plan, plan
from labctl.experiments.record import document_of
from labctl.experiments.tunable_files import GuestChecks
from labctl.guests import initramfs
from labctl.guests.prepare import Prepared, arch_of, prepare
from labctl.host import tools
from labctl.kernels.build import BuildProgress
from labctl.kernels.hashed import Hashed
from labctl.lab.models import Lab
from labctl.packing import packages, place, qemu, records, zipped
from labctl.packing.contents import gathered
from labctl.packing.records import PackedKernel, PackRecord
from labctl.workloads.supply import Supply, merged, roots

# The whole file is read into memory to compress it.
_LARGEST_ROOT_BYTES = 1 << 30
# What run.json has of an experiment, but depends on the host.
_OF_HOST = "placement"


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """A packed lab on disk; `statistics` are the experiments that need numpy and scipy."""

    path: Path
    id: str
    record: PackRecord
    statistics: Mapping[str, str]


def pack(
    lab: Lab,
    names: Sequence[str],
    output: Path,
    *,
    with_qemu: bool,
    with_statistics: bool,
    building: Callable[[BuildProgress], None],
    say: Callable[[str], None],
) -> Packed:
    """Pack experiments and all that `run` needs for them into one executable file.

    The record of the pack is kept in the state folder: `bring` compares results with it.

    Raises:
        ConfigError: an experiment cannot be measured by a pack.
        UserError: the file cannot be written, or is not a pack.
        HostError: a program or package is missing, or the disk is full.
        LabError: a kernel or a workload does not build.
    """
    zipped.check(output)
    check(lab, names)
    plans = [plan(lab, name, 0) for name in names]
    arch = arch_of(lab, (cell.kernel for each in plans for cell in each.cells))
    needing = packages.statistics_for(lab, names)
    wanted = (*packages.NEEDED, *(packages.STATISTICS if needing or with_statistics else ()))
    versions = packages.versions(wanted)
    prepared, supplies = _built(lab, plans, building)
    content, inside = _lab_files(lab, prepared, supplies)
    inside |= _programs(lab, arch, with_qemu=with_qemu)
    say("collecting files")
    modules = {path: file for name in versions for path, file in packages.files_of(name)}
    libraries = packages.libraries_of(modules.values())
    inside |= {f"{place.LIBRARIES}/{name}": file for name, file in libraries.items()}
    everything = {
        **dict(packages.files_of_labctl()),
        **modules,
        **{f"{place.FOLDER}/{path}": file for path, file in inside.items()},
    }
    folder = lab.state_folder.packs
    files.make_folder(folder)
    with _temporary(folder) as staging:
        texts = {f"{place.FOLDER}/{path}": one for path, one in content.items()}
        for path, text in texts.items():
            everything[path] = staging / Path(path).name
            everything[path].write_bytes(text)
        record = PackRecord(
            labctl=__version__,
            python=python_version(),
            machine=platform.machine(),
            lab=hashlib.sha256(lab.path.read_text().encode()).hexdigest(),
            experiments=planned(lab, plans, prepared, supplies),
            kernels={n: PackedKernel(i.hash, i.series_hash) for n, i in prepared.images.items()},
            initramfs=prepared.initramfs.hash,
            qemu=tools.qemu_version(arch) if with_qemu else None,
            packages=versions,
            files={path: Hashed.of(file).sha256 for path, file in sorted(everything.items())},
        )
        encoded = records.encoded(record)
        everything[f"{place.FOLDER}/{place.RECORD}"] = staging / place.RECORD
        (staging / place.RECORD).write_bytes(encoded)
        size = sum(file.stat().st_size for file in everything.values())
        say(f"compressing {size >> 20} MiB")
        zipped.write(output, everything, record.python, record.machine)
    pack_id = records.id_of(encoded)
    files.replace(folder / records.file_name(pack_id), encoded)
    return Packed(path=output, id=pack_id, record=record, statistics=needing)


def python_version() -> str:
    """Return the version of Python that the packages are built for, such as 3.11."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def check(lab: Lab, names: Sequence[str]) -> None:
    """Check that a pack can measure experiments.

    Raises:
        ConfigError: they need more of a host than QEMU.
    """
    problems: list[Problem] = []
    for key, only in (("launcher", "qemu"), ("transport", "serial")):
        value = getattr(lab.defaults, key)
        if value != only:
            what = f"a packed lab does not support {value}"
            problems.append(lab.problem(("defaults", key), what, f"use `{key}: {only}`"))
    for name in names:
        if lab.experiments[name].target is not None:
            what, path = "a packed lab measures in guests", ("experiments", name, "target")
            problems.append(lab.problem(path, what, "remove `target:`"))
    if problems:
        raise ConfigError(problems)


def planned(
    lab: Lab, plans: Sequence[Plan], prepared: Prepared, supplies: Mapping[str, Supply]
) -> dict[str, dict[str, Any]]:
    """Return what run.json will record of each experiment, without what depends on the host."""
    document = document_of(lab, "", plans, prepared, 0, supplies)
    return {each["name"]: independent(each) for each in document["experiments"]}


def independent(experiment: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of an experiment without what depends on the host."""
    return {key: value for key, value in experiment.items() if key != _OF_HOST}


def _built(
    lab: Lab, plans: Sequence[Plan], building: Callable[[BuildProgress], None]
) -> tuple[Prepared, dict[str, Supply]]:
    """Build as `run` does, but without the check that the guests fit into this host."""
    kernels = dict.fromkeys(cell.kernel for each in plans for cell in each.cells)
    supplies = early.check_commands(lab, plans)
    early.check_sizes(lab, plans, supplies, lambda _: None)
    for name, disk in roots(supplies).items():
        if disk.path.stat().st_size > _LARGEST_ROOT_BYTES:
            what = f"the root is larger than {_LARGEST_ROOT_BYTES >> 30} GiB: too large for a pack"
            raise ConfigError([lab.problem(("workloads", name, "root"), what, "make it smaller")])
    limits = GuestChecks.of(lab, plans)
    prepared = prepare(lab, kernels, building, merged(supplies), limits, roots(supplies))
    return prepared, supplies


def _lab_files(
    lab: Lab, prepared: Prepared, supplies: Mapping[str, Supply]
) -> tuple[dict[str, bytes], dict[str, Path]]:
    """Return the generated and the copied files of the lab, by path in its folder."""
    found = gathered(lab, prepared.images, supplies, prepared.initramfs.hash)
    inside = {**found.files, place.LAB: lab.path, place.INITRAMFS: prepared.initramfs.path}
    return {place.CONTENTS: found.contents.dumped()}, inside


def _programs(lab: Lab, arch: Architecture, *, with_qemu: bool) -> dict[str, Path]:
    """Return the programs for the host that measures, by path in the lab's folder."""
    if platform.machine() != X86_64.machine:
        raise HostError(f"a lab can be packed on {X86_64.machine} only")
    found = {
        f"{place.PROGRAMS}/{name}": initramfs.program(lab.state, folder)
        for name, folder in ((place.START, "start"), (place.BOX, "box"))
    }
    if with_qemu:
        found[f"{place.PROGRAMS}/{arch.qemu}"] = initramfs.program(lab.state, "qemu")
        found |= {f"{place.QEMU}/{path}": file for path, file in qemu.files_of(arch).items()}
    return found


@contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    path = files.unfinished(folder / "pack")
    path.mkdir()
    try:
        yield path
    finally:
        files.remove(path)
