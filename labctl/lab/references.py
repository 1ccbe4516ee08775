"""Check the keys of a lab.yaml against each other: names, settings, distances, memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from labctl import units
from labctl.lab.arch_checks import check_arch
from labctl.lab.command_line_checks import check_command_lines
from labctl.lab.document import KeyPath
from labctl.lab.entries import (
    ExperimentEntry,
    LabFile,
    TargetEntry,
    TunableEntry,
    VerifyEntry,
)
from labctl.lab.experiment_checks import (
    ExperimentCheck,
    check_blocks,
    check_disjoint,
    check_known,
    check_unique,
)
from labctl.lab.kernels import check_fragments, check_kernels
from labctl.lab.paths import absolute, is_file, relative_hint
from labctl.lab.problems import Findings
from labctl.lab.root_checks import check_roots
from labctl.lab.topology import Topology
from labctl.lab.topology_checks import check_guests
from labctl.lab.types import LOCAL_DISTANCE
from labctl.lab.workload_checks import check_workload
from labctl.units import quote

_MEMORY_KEYS = ("nodes", "memory_per_node")


def check(file: LabFile, found: Findings, root: Path) -> None:
    """Record the errors that involve more than one key, or the disk."""
    for name, guest in file.guests.items():
        _distances(guest, ("guests", name), found)
        _memory_kind(guest, ("guests", name), found, file.defaults.launcher)
    _default_guest(file, found)
    check_guests(file, default_guest(file), found)
    if found.sound_section("kernels"):
        check_kernels(file, found, root)
        check_arch(file, found)
    check_command_lines(file, found)
    for name, target in file.targets.items():
        _target(target, ("targets", name), found, root)
    for name, tunable in file.tunables.items():
        _tunable(tunable, ("tunables", name), found)
    for name, workload in file.workloads.items():
        check_workload(workload, ("workloads", name), found)
    check_roots(file, found)
    if found.sound("statistics"):
        check_blocks(file.statistics.blocks, ("statistics", "blocks"), found)
    check_unique(file.defaults.observe, ("defaults", "observe"), found)
    for name, experiment in file.experiments.items():
        ExperimentCheck(file, found, name, experiment).run()
    _verify(file.verify, found, root)


def _verify(verify: VerifyEntry, found: Findings, root: Path) -> None:
    path: KeyPath = ("verify",)
    if not found.sound_section("verify"):
        return
    if verify.guest is not None:
        check_known("guest", verify.guest, (*path, "guest"), found.names("guests"), found)
    for name, variant in verify.variants.items():
        check_fragments(variant.kconfig, (*path, "variants", name, "kconfig"), found, root)
    for name, fragments in verify.compile.items():
        check_fragments(fragments, (*path, "compile", name), found, root)
    check_disjoint(verify.set, path, found)
    for where in ("set", "matrix"):
        for name in getattr(verify, where):
            if found.sound_section("tunables") and name not in found.names("tunables"):
                known = found.names("tunables")
                found.unknown("tunable", name, (*path, where, name), known, at_key=True)
    for name, values in verify.matrix.items():
        check_unique(values, (*path, "matrix", name), found)


def _distances(guest: Topology, path: KeyPath, found: Findings) -> None:
    path = (*path, "distances")
    matrix, nodes = guest.distances.matrix, guest.node_count
    if matrix is None or not found.sound(*path) or not found.sound(*path[:-1], "nodes"):
        return
    if "remote" in guest.distances.model_fields_set:
        hint = "the matrix has all distances: remove one of the two"
        found.add((*path, "remote"), "conflicts with `matrix:`", hint, at_key=True)
    path = (*path, "matrix")
    if len(matrix) != nodes or any(len(row) != nodes for row in matrix):
        what = f"expected {nodes} rows of {nodes} distances, as the guest has {nodes} nodes"
        found.add(path, what, "write one row and one column per node")
        return
    for i in range(nodes):
        if matrix[i][i] != LOCAL_DISTANCE:
            what = f"distance from node {i} to itself: expected {LOCAL_DISTANCE}"
            found.add((*path, i, i), f"{what}, got {matrix[i][i]}")


def _target(target: TargetEntry, path: KeyPath, found: Findings, root: Path) -> None:
    for key, text in (("key", target.key), ("initrd", target.initrd)):
        if text is not None and found.sound(*path, key) and not is_file(absolute(root, text)):
            what = f"file {quote(text)} does not exist"
            found.add((*path, key), what, relative_hint(root))
    if target.host_key is not None and len(target.host_key.split()) < 2:
        hint = "expected type and key, as `ssh-keyscan` prints them: ssh-ed25519 AAAA..."
        found.add((*path, "host_key"), "invalid host key", hint)


def _memory_kind(guest: Topology, path: KeyPath, found: Findings, launcher: str) -> None:
    for key in ("prealloc", "hugepages", "host_nodes"):
        if launcher == "virtme-ng" and getattr(guest, key) and found.sound(*path, key):
            what = "not supported with `launcher: virtme-ng`"
            found.add((*path, key), what, "use `launcher: qemu`, or remove the key", at_key=True)
    size = guest.hugepages
    if size is None or not all(found.sound(*path, key) for key in ("hugepages", *_MEMORY_KEYS)):
        return
    for number, node in enumerate(guest.each):
        at_boot = f"nodes[{number}].memory" if guest.is_listed else "memory_per_node"
        plugged = f"nodes[{number}].hotplug"
        for key, memory in ((at_boot, node.memory), (plugged, node.hotplug_bytes)):
            if memory % size == 0:
                continue
            up = -(-memory // size) * size
            what = (
                f"{key}, {units.format_size(memory)},"
                f" is not a multiple of {units.format_size(size)}"
            )
            hint = f"{key.rpartition('.')[2]}: {units.format_size(up)}"
            found.add((*path, "hugepages"), what, hint)


def _default_guest(file: LabFile, found: Findings) -> None:
    names = found.names("guests")
    if not found.sound("defaults") or not found.sound_section("guests"):
        return
    if "guest" in file.defaults.model_fields_set:
        check_known("guest", file.defaults.guest, ("defaults", "guest"), names, found)
    elif file.defaults.guest not in names and len(names) > 1:
        hint = f"defaults: {{guest: {names[0]}}}"
        found.note(
            ("guests",), "no default guest selected", hint, found.document.key_mark(("guests",))
        )


def default_guest(file: LabFile) -> str:
    """Return the name of the default guest."""
    if file.defaults.guest in file.guests or not file.guests:
        return file.defaults.guest
    return next(iter(file.guests))


def _tunable(tunable: TunableEntry, path: KeyPath, found: Findings) -> None:
    if found.sound(*path, "file") and found.sound(*path, "parameter"):
        if tunable.file is None and tunable.parameter is None:
            hint = "add `file:` (in the guest) or `parameter:` (of the kernel's command line)"
            mark = found.document.key_mark(path)
            found.note(path, "expected `file:` or `parameter:`, got neither", hint, mark)
        elif tunable.file is not None and tunable.parameter is not None:
            found.add(
                (*path, "parameter"), "conflicts with `file:`", "remove one of the two", at_key=True
            )
    for index, kernel in enumerate(tunable.kernels or ()):
        check_known("kernel", kernel, (*path, "kernels", index), found.names("kernels"), found)
    users = [name for name, names in found.parameters.items() if path[-1] in names]
    if users:
        what = f"name conflicts with a parameter of the workload {' and '.join(users)}"
        hint = "rename one of the two: `set` and `matrix` could mean both"
        found.note(path, what, hint, found.document.key_mark(path))


def check_memory(
    guests: Mapping[str, Topology],
    experiments: Mapping[str, ExperimentEntry],
    default: str,
    memory_bytes: int,
    found: Findings,
    limited_by: str = "",
) -> None:
    """Record each guest whose instances in an experiment need more memory than the host has.

    `limited_by` is the file of the control group that limits the host's memory, if one does.

    All kernels of an experiment run at the same time, the baseline twice (A/A control).
    """
    known = set(found.names("kernels"))
    for name, guest in guests.items():
        if not all(found.sound("guests", name, key) for key in _MEMORY_KEYS):
            continue
        path: KeyPath = ("guests", name, "nodes" if guest.is_listed else "memory_per_node")
        need, user = 1, ""
        for title, one in experiments.items():
            kernels = {*one.kernels, one.baseline or one.kernels[0]} & known
            if one.target is None and (one.guest or default) == name and len(kernels) + 1 > need:
                need, user = len(kernels) + 1, title
        total = need * guest.memory_bytes
        if total > memory_bytes:
            guests_need = "guest needs" if need == 1 else "guests together need"
            has = units.rough_size(memory_bytes)
            host = f"{limited_by} allows {has}" if limited_by else f"this host has {has}"
            what = (
                f"{need} {guests_need} {units.rough_size(total)} ({guest.nodes_told} each),"
                f" but {host}"
            )
            why = f"experiment {user} runs {need - 1} kernels at once, the baseline twice"
            share = 1 if guest.is_listed else guest.node_count
            most = memory_bytes // (need * share) // units.MIB
            fits = f"at most {most}MiB {'in all fit' if guest.is_listed else 'fits'}"
            found.add(path, what, f"{why}; {fits}" if user else fits)
