"""What a kernel is configured with: the start of its .config, and the options on top of it."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from labctl.arch import ARM64, X86_64, Architecture
from labctl.errors import HostError, UserError
from labctl.kernels import kconfig
from labctl.kernels.kconfig import Option
from labctl.lab import config, make_variables
from labctl.lab.models import Kernel

_WHOLE = "olddefconfig"
_DIGEST_DIGITS = 8
_PROC_CONFIG = Path("/proc/config.gz")
_BOOT = Path("/boot")
# Options that Kconfig computes from the tools of the host that wrote a .config.
_COMPUTED = re.compile(
    r"CONFIG_(\w+_VERSION_TEXT|(GCC|CLANG|AS|LD|LLD|PAHOLE|RUSTC|RUSTC_LLVM|BINDGEN)_VERSION"
    r"|(CC|AS|LD)_(IS|HAS|CAN)_\w+)"
)
_OF_ARCH = {"CONFIG_X86": X86_64.name, "CONFIG_ARM64": ARM64.name}


@dataclass(frozen=True, slots=True)
class Configuration:
    """The options of a kernel, and the start of its .config.

    `start` is the target of make that the .config starts from, or olddefconfig for a whole
    .config; it is empty for fragments alone. `whole` is the file of the whole .config,
    whose options are among `options`. `variables` are those of make.
    """

    options: tuple[Option, ...]
    start: str = ""
    whole: Path | None = None
    variables: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def requested(self) -> list[Option]:
        """The options that must be in the final .config: those of the fragments."""
        return [option for option in self.options if option.file != self.whole]

    @property
    def has_target(self) -> bool:
        """Whether the .config starts from a target of make."""
        return bool(self.start) and self.whole is None

    def digest(self, arch: Architecture) -> str:
        """Return a short text that differs between configurations."""
        digest = kconfig.digest(self.options, arch)
        digest += self.start and f"-{self.start}"
        variables = json.dumps(make_variables.shared(self.variables), sort_keys=True)
        name = hashlib.sha256(variables.encode()).hexdigest()[:_DIGEST_DIGITS]
        return f"{digest}-{name}" if variables != "{}" else digest

    def address(self) -> dict[str, object]:
        """Return what the address of an image has of a configuration besides its options."""
        content: dict[str, object] = {"config": self.start} if self.start else {}
        return content | ({"make": dict(self.variables)} if self.variables else {})

    def start_values(self) -> dict[str, str]:
        """Return the options of the whole .config that are set, none if there is no such file."""
        options = (o if o.file == self.whole else _first(o) for o in self.options)
        return {o.name: o.value for o in options if o.file == self.whole and o.value != "n"}

    def check_target(self, source: Path, arch: Architecture) -> None:
        """Check that a NAME_defconfig is in the source.

        Raises:
            UserError: there is no such file; names those that exist.
        """
        folder = source / "arch" / arch.kbuild / "configs"
        if self.start.endswith("_defconfig") and not (folder / self.start).is_file():
            known = sorted(path.name for path in folder.glob("*defconfig"))
            raise UserError(
                f"config: {self.start} is not a configuration of this source",
                where=str(folder),
                hint=f"known configurations: {', '.join(known) or 'none'}",
            )


def read(kernel: Kernel, arch: Architecture) -> Configuration:
    """Return the configuration of a kernel that is built.

    Raises:
        UserError: a file cannot be read or parsed, or is for another architecture.
        HostError: the configuration of the running kernel is not available.
    """
    fragments = kconfig.of_arch(kernel.kconfig, arch)
    if kernel.config is None:
        return Configuration(tuple(kconfig.merge(fragments)), variables=kernel.make)
    if config.is_target(kernel.config):
        # On another host, ARCH=x86 would take i386_defconfig.
        name = f"{arch.name}_{kernel.config}" if arch is X86_64 else kernel.config
        start = name if kernel.config == "defconfig" else kernel.config
        return Configuration(tuple(kconfig.merge(fragments)), start, variables=kernel.make)
    whole = _running() if kernel.config == config.RUNNING else Path(kernel.config)
    options = kconfig.merge([whole, *fragments])
    _check_arch(options, whole, arch)
    used = (o for o in options if o.file != whole or not _COMPUTED.fullmatch(o.name))
    return Configuration(tuple(used), _WHOLE, whole, kernel.make)


def _first(option: Option) -> Option:
    """Return the option that an option overrides first of all."""
    while option.earlier is not None:
        option = option.earlier
    return option


def _running() -> Path:
    """Return the file with the configuration of this host's kernel."""
    places = [_PROC_CONFIG, _BOOT / f"config-{os.uname().release}"]
    for path in places:
        if path.is_file():
            return path
    raise HostError(
        f"config: {config.RUNNING}: neither {places[0]} nor {places[1]} exists",
        hint="use `config: PATH` with a whole .config, or `config: defconfig`",
    )


def _check_arch(options: Sequence[Option], whole: Path, arch: Architecture) -> None:
    for option in options:
        name = _OF_ARCH.get(option.name, arch.name)
        if name != arch.name and option.value == "y" and option.file == whole:
            raise UserError(
                f"configuration is for {name}, expected one for {arch.name}",
                where=f"{whole}:{option.line}",
                hint=f"set `arch: {name}` for the kernel in lab.yaml, or use another file",
            )
