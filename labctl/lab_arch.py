"""The architectures of guests, by their names in lab.yaml, and what the host's tools for them are.

A host compiles for its own architecture by gcc, for another one by the cross compiler
of the Debian package gcc-TRIPLET.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ArchName = Literal["x86_64", "arm64"]


@dataclass(frozen=True, slots=True)
class Architecture:
    """One of them; `kbuild` is its name in the kernel's source, `image` relative to a build."""

    name: ArchName
    kbuild: str
    machine: str  # as uname(2) says it
    triplet: str
    image: Path
    qemu: str
    setup: str  # what of the Makefile installs its tools

    @property
    def is_foreign(self) -> bool:
        """Whether the host is of another architecture."""
        return platform.machine() != self.machine

    @property
    def cross_compile(self) -> str:
        """What stands before the names of the tools: nothing on a host of the same kind."""
        return f"{self.triplet}-" if self.is_foreign else ""

    @property
    def hint(self) -> str:
        """What to do where one of its tools is missing."""
        return f"`{self.setup}` installs what {self.name} kernels and guests need"


X86_64 = Architecture(
    name="x86_64",
    kbuild="x86",
    machine="x86_64",
    triplet="x86_64-linux-gnu",
    image=Path("arch/x86/boot/bzImage"),
    qemu="qemu-system-x86_64",
    setup="make setup",
)
ARM64 = Architecture(
    name="arm64",
    kbuild="arm64",
    machine="aarch64",
    triplet="aarch64-linux-gnu",
    image=Path("arch/arm64/boot/Image"),
    qemu="qemu-system-aarch64",
    setup="make arm64",
)
ARCHITECTURES: dict[str, Architecture] = {each.name: each for each in (X86_64, ARM64)}
