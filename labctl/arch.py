"""The architectures of guests, by their names in lab.yaml, with the host's tools for them.

The host's gcc compiles for its own architecture, the cross compiler of the Debian
package gcc-TRIPLET for another one.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ArchName = Literal["x86_64", "arm64"]


@dataclass(frozen=True, slots=True)
class Architecture:
    """An architecture; `kbuild` is its name in the kernel source.

    `image` is the path of the bootable image in a build folder.
    """

    name: ArchName
    kbuild: str
    machine: str  # as in uname(2)
    triplet: str
    image: Path
    qemu: str
    setup: str  # the make command that installs its tools

    @property
    def is_foreign(self) -> bool:
        """Whether the host has another architecture."""
        return platform.machine() != self.machine

    @property
    def cross_compile(self) -> str:
        """Prefix of the tools' names, empty on a host of the same architecture."""
        return f"{self.triplet}-" if self.is_foreign else ""

    @property
    def hint(self) -> str:
        """The hint of an error about a missing tool."""
        return f"`{self.setup}` installs the tools for {self.name} kernels and guests"


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
