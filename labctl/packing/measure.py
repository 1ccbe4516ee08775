"""The packed lab on the machine that measures: found, verified, and prepared for a run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import labctl
from labctl import parent_death
from labctl.arch import ARCHITECTURES
from labctl.errors import HostError
from labctl.experiments import early
from labctl.experiments.plan import Plan
from labctl.experiments.session import Ready
from labctl.guests import accelerator, qemu
from labctl.guests.initramfs import Initramfs
from labctl.guests.prepare import Prepared
from labctl.host import identity, landlock
from labctl.host.facts import read_facts
from labctl.kernels.hashed import Hashed
from labctl.lab.load import check_host
from labctl.lab.models import Lab
from labctl.packing import place, records
from labctl.packing.contents import Contents, loaded
from labctl.packing.records import PackRecord
from labctl.workloads.supply import roots


@dataclass(frozen=True, slots=True)
class Pack:
    """An unpacked lab in `site`, beside labctl itself."""

    site: Path
    id: str
    record: PackRecord

    @classmethod
    def found(cls, site: Path | None = None) -> Pack:
        """Return the pack that this labctl is a part of.

        Raises:
            UserError: its record is damaged.
            HostError: it has none.
        """
        site = site or Path(labctl.__file__).parent.parent
        path = site / place.FOLDER / place.RECORD
        try:
            content = path.read_bytes()
        except OSError as error:
            hint = "`labctl pack` makes packed labs"
            raise HostError("this is not a packed lab", where=str(path), hint=hint) from error
        record = records.decoded(content, PackRecord, str(path))
        return cls(site, records.id_of(content), record)

    @property
    def folder(self) -> Path:
        """The folder of the lab's own files."""
        return self.site / place.FOLDER

    def use_programs(self) -> None:
        """Start guests by the pack's own programs; its QEMU comes before that of the host."""
        programs = self.folder / place.PROGRAMS
        parent_death.use(programs / place.START)
        if self.record.qemu is not None:
            os.environ["PATH"] = f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}"

    def _box(self) -> Path | None:
        box = self.folder / place.PROGRAMS / place.BOX  # older packs have none
        return box if landlock.version() and box.exists() else None

    def damaged(self) -> Iterator[Path]:
        """Yield the files that changed since the lab was packed."""
        for name, digest in self.record.files.items():
            if not Hashed(self.site / name, digest).holds():
                yield self.site / name

    def lab(self, state: Path) -> Lab:
        """Return the lab; runs are stored in the state folder `state`."""
        return self._contents(state).lab

    def _contents(self, state: Path) -> Contents:
        path = self.folder / place.CONTENTS
        Hashed(path, self.record.files[f"{place.FOLDER}/{place.CONTENTS}"]).check()
        return loaded(path.read_bytes()).placed(self.folder, state)

    def ready(self, lab: Lab, plans: Sequence[Plan]) -> Ready:
        """Return the packed images, initramfs and workloads, and this host's accelerator.

        Raises:
            ConfigError: the guests do not fit into this host's memory or on its disk.
            HostError: QEMU is missing, or the accelerator does not work.
        """
        facts = read_facts()
        wanted = {each.experiment.name: each.experiment for each in plans}
        check_host(lab.model_copy(update={"experiments": wanted}), facts.memory_bytes)
        early.check_memory(lab, plans, facts)
        contents = self._contents(lab.state)
        kernels = dict.fromkeys(cell.kernel for each in plans for cell in each.cells)
        images = {name: contents.images[name] for name in kernels}
        arch = ARCHITECTURES[next(iter(images.values())).arch]
        qemu.check(arch)
        host = identity.describe(arch)
        accel = accelerator.choose(
            lab.defaults.accel, host=host, cache=lab.state_folder.accelerator, arch=arch
        )
        supplies = {
            name: contents.supplies[name]
            for name in dict.fromkeys(each.experiment.workload for each in plans)
        }
        archive = self.folder / place.INITRAMFS
        prepared = Prepared(
            lab=lab,
            host=host,
            accel=accel,
            images=images,
            initramfs=Initramfs(archive, contents.initramfs, self.folder / place.PROGRAMS),
            disks=tuple({one.serial: one for one in roots(contents.supplies).values()}.values()),
            box=self._box(),
        )
        return Ready(prepared, None, supplies)
