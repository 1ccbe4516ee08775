"""Runs all tests of the doctor, in the order in which a user would fix the failures."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from labctl.arch import ARCHITECTURES, X86_64, Architecture
from labctl.doctor import building, launching, running, trials
from labctl.doctor.diagnosis import Diagnosis
from labctl.errors import HostError, LabError, UserError
from labctl.experiments.needs import Need, needs_of, shortage
from labctl.guests import accelerator, busybox, probe, virtme
from labctl.guests.placement import place
from labctl.host import identity, landlock, sandbox, tools
from labctl.host.facts import HostFacts
from labctl.kernels import images
from labctl.kernels.sources import DEBIAN_FOLDER, open_source
from labctl.lab.models import Lab
from labctl.lab.sources import split_revision
from labctl.lab.state import StateFolder
from labctl.workloads import packages
from labctl.workloads.bootstrap import is_debian
from labctl.workloads.roots import programs_for

# Under TCG, a probe guest that is slow on a busy host does not hang: wait long enough.
_PATIENT_SECONDS = 30.0
# Builds need both: guest programs are static, and objtool reads ELF files.
_STATIC = ("int main(void) { return 0; }", "-static", "-pthread")
_COMPILED = {
    "libc6-dev": _STATIC,
    "libelf-dev": ("#include <gelf.h>\nint main(void) { return 0; }", "-lelf"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTests:
    """Tests of a host for a lab, or of the host alone if `lab` is None.

    `progress` is called with the name of each test before it starts.
    """

    lab: Lab | None
    state: Path
    facts: HostFacts
    progress: Callable[[str], None]
    kvm_device: Path = accelerator.KVM_DEVICE
    probe_seconds: float = probe.PROBE_SECONDS
    load_seconds: float = 1.0

    def diagnoses(self, *, builds: bool = True) -> Iterator[Diagnosis]:
        """Yield each diagnosis as soon as it is known; those of builds only with `builds`."""
        self.progress("load")
        # First, since the other tests cause load themselves.
        busy_cores, steal_share = trials.watch_load(self.load_seconds)
        needs = needs_of(self.lab) if self.lab else []
        yield from self._guests(needs)
        yield running.cores(self.facts, needs)
        yield running.limits(self.facts, needs)
        yield running.memory(self.facts, needs)
        yield from self._placements(needs)
        yield running.governor(self.facts)
        yield running.load(busy_cores, steal_share)
        if builds:
            yield from self._builds()

    def _guests(self, needs: Sequence[Need]) -> Iterator[Diagnosis]:
        version = tools.qemu_version()
        qemu = running.qemu(version)
        yield qemu
        if qemu.status != "fail":
            self.progress("a probe guest under TCG")
            yield running.tcg(_under_tcg())
        yield self._kvm(tried=qemu.status != "fail")
        yield running.nested(self.facts)
        if qemu.status != "fail":
            lacking = sandbox.missing(X86_64.qemu)
            is_direct = not self.lab or self.lab.defaults.launcher == "qemu"
            has_landlock, as_root = is_direct and landlock.version() > 0, os.geteuid() == 0
            yield running.isolation(lacking, has_landlock=has_landlock, as_root=as_root)
        if self.lab and self.lab.defaults.launcher == "virtme-ng":
            self.progress("virtme-ng")
            yield from launching.virtme(_vng(), virtme.LIMITS, _lacking(self.lab))
        if qemu.status != "fail":
            yield self._hugepages(needs)
            yield self._numa(needs)

    def _kvm(self, *, tried: bool) -> Diagnosis:
        self.progress(f"a probe guest under KVM, at most {self.probe_seconds:g} s")
        asked = self.lab.defaults.accel if self.lab else "auto"
        if not tried:
            refusal = accelerator.open_failure(self.kvm_device)
            return running.kvm(refusal or "not tested without QEMU", self.facts, asked)
        failure = accelerator.kvm_failure(self.kvm_device, timeout_seconds=self.probe_seconds)
        if self.state.is_dir():  # replaces the stored result, which may be outdated
            accelerator.remember(StateFolder(self.state).accelerator, identity.describe(), failure)
        return running.kvm(failure, self.facts, asked)

    def _hugepages(self, needs: Sequence[Need]) -> Diagnosis:
        self.progress("hugepages")
        failures = {
            size: _under_tcg(f"memory-backend-memfd,hugetlb=on,hugetlbsize={size}")
            for size, count in self.facts.hugepages.items()
            if running.enough_hugepages(size, count)
        }
        return running.hugepages(self.facts, needs, failures)

    def _numa(self, needs: Sequence[Need]) -> Diagnosis:
        self.progress("binding to host nodes")
        failures = {
            node.number: _under_tcg(f"memory-backend-ram,policy=bind,host-nodes={node.number}")
            for node in self.facts.nodes
            if node.available_bytes
        }
        return running.numa(self.facts, needs, failures)

    def _placements(self, needs: Sequence[Need]) -> Iterator[Diagnosis]:
        """Yield why this host cannot satisfy `pin` and `host_nodes` of the guests."""
        for need in {need.topology: need for need in needs}.values():
            try:
                placement = place(need.guest, need.topology, self.facts)
            except UserError as error:
                yield Diagnosis("placement", "fail", f"{error.where}: {error.what}", error.hint)
                continue
            lacking = shortage(need, self.facts, placement.host_nodes)
            if placement.host_nodes and lacking:
                what = f"{need.experiment} {lacking}"
                yield Diagnosis(
                    "placement", "fail", what, "set `host_nodes: none`, or reduce guest memory"
                )

    def _builds(self) -> Iterator[Diagnosis]:
        self.progress("compilers")
        missing = trials.missing(building.PACKAGES)
        failures = {} if "gcc" in missing else {p: _compiled(p) for p in _COMPILED}
        yield building.compilers(trials.version("gcc"), missing, failures)
        for name in sorted({each.arch for each in self.lab.kernels.values()} if self.lab else ()):
            if name != X86_64.name:
                yield self._arch(ARCHITECTURES[name])
        needed = _programs_of(self.lab) if self.lab else {}
        if needed:
            yield building.workloads({n: trials.missing(each) for n, each in needed.items()})
        yield building.ccache(
            trials.version("ccache"),
            used=trials.uses_ccache(),
            unverified=trials.unverified_ccache(),
        )
        kernels = self.lab.kernels.values() if self.lab else ()
        sources = {kernel.source for kernel in kernels if not kernel.source.startswith("image:")}
        debian = [s.removeprefix("debian:") for s in sorted(sources) if s.startswith("debian:")]
        gone = [p for p in debian if not (DEBIAN_FOLDER / f"{p}.tar.xz").is_file()]
        if self.lab:
            yield building.sources(gone, len(kernels), unreadable(sources, self.state))
        self.progress("disk")
        place = str(self.state)
        trees = sum(1 for _ in StateFolder(self.state).trees.glob("*/src"))
        unbuilt = max(0, len(set(map(_tree_of, sources))) - trees)
        yield building.disk(trials.free_bytes(self.state), unbuilt, place)
        yield building.state_folder(trials.write_error(self.state), place)

    def _arch(self, arch: Architecture) -> Diagnosis:
        self.progress(f"tools for {arch.name}")
        compiler = f"{arch.cross_compile}gcc"
        failures = [f"{gone} is not installed" for gone in trials.missing((arch.qemu, compiler))]
        if not any(compiler in failure for failure in failures):
            failures.append(trials.compile_error(*_STATIC, compiler=compiler))
        try:
            busybox.find(arch)
        except HostError as error:
            failures.append(error.what)
        return building.arch(arch.name, tools.qemu_version(arch), failures, arch.setup)


def _programs_of(lab: Lab) -> dict[str, tuple[str, ...]]:
    """Return the programs that make the roots and unpack the packages of each workload."""
    found = {}
    for name, one in lab.workloads.items():
        unpack = () if is_debian(one.root) or not one.packages else packages.PROGRAMS
        found[name] = (*programs_for(lab, one), *unpack)
    return {name: programs for name, programs in found.items() if programs}


def unreadable(sources: Iterable[str], state: Path) -> list[tuple[str, str]]:
    """Return the errors of sources other than packages, each with its fix."""
    found = []
    for source in sorted(sources):
        if not source.startswith("debian:"):
            try:
                open_source(source, state)
            except LabError as error:
                where = f"{error.where}: " if error.where else ""
                found.append((f"{where}{error.what}", error.hint or ""))
    return found


def _tree_of(source: str) -> str:
    """Return what sources have in common that share a work tree."""
    kind, _, place = source.partition(":")
    return split_revision(place, Path())[0] if kind == "git" else source


def _vng() -> str:
    try:
        return trials.version(virtme.find())
    except HostError:
        return ""


def _lacking(lab: Lab) -> dict[str, list[str]]:
    """Return, by prebuilt kernel, the missing options for virtme-ng.

    Kernels without a config file beside the image are left out.
    """
    found: dict[str, list[str]] = {}
    for name, kernel in lab.kernels.items():
        if kernel.source.startswith("image:"):
            try:
                config = images.given(kernel).config
            except UserError:  # reported when the kernel is used
                continue
            options = virtme.lacking(config.read_text()) if config else []
            found |= {name: options} if options else {}
    return found


def _under_tcg(backend: str | None = None) -> str:
    return probe.failure("tcg", backend, timeout_seconds=_PATIENT_SECONDS)


def _compiled(package: str) -> str:
    return trials.compile_error(*_COMPILED[package])
