"""Test an accelerator with a probe guest: QEMU with a small ROM.

The ROM needs no kernel and no firmware: from the reset vector it switches to 64-bit mode,
prints a token on the first serial port and ends QEMU with a unique exit status.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from labctl import completed, proc
from labctl.errors import CommandError
from labctl.guests import qemu

PROBE_SECONDS = 5.0
# guest/probe/probe.S, assembled; a unit test compares the two.
CODE = bytes.fromhex(
    "fa2e660f0116a8000f20c00c010f22c066ea18000f00080066b810008ed8c705"
    "0010000003200000c7050020000003300000c7050030000083000000b8001000"
    "000f22d80f20e00c200f22e0b9800000c00f3280cc010f300f20c00d00000080"
    "0f22c0ea6a000f001800beae000f00b91f00000066baf803f36eb02ae6f4f4eb"
    "fd000000000000000000000000000000ffff0000009acf00ffff00000092cf00"
    "ffff0000009aaf001f0088000f006c616263746c2d70726f62653a2036342d62"
    "697420636f64652072756e730a"
)
TOKEN = b"labctl-probe: 64-bit code runs"
STATUS = 0x2A << 1 | 1  # isa-debug-exit's encoding of the written value
_ROM_BYTES = 64 * 1024
_RESET_VECTOR = 0xFFF0
_MEMORY_MEBIBYTES = 16


def rom() -> bytes:
    """Return the ROM image that replaces the BIOS: the code, and a jump to it."""
    image = bytearray(_ROM_BYTES)
    image[: len(CODE)] = CODE
    # jmp rel16, relative to the next instruction.
    displacement = -(_RESET_VECTOR + 3) % 2**16
    image[_RESET_VECTOR : _RESET_VECTOR + 3] = b"\xe9" + displacement.to_bytes(2, "little")
    return bytes(image)


def failure(
    accel: str, backend: str | None = None, *, timeout_seconds: float = PROBE_SECONDS
) -> str:
    """Return why the probe guest does not run, an empty text if it runs.

    `backend` is a QEMU object such as `memory-backend-ram,policy=bind,host-nodes=0`
    for the guest's memory.

    Raises:
        HostError: QEMU is not installed.
    """
    with _rom_file() as path:
        try:
            done = proc.run(
                _command(accel, path, backend), timeout_seconds=timeout_seconds, check=False
            )
        except CommandError as error:
            last = f"; last output: {error.output.splitlines()[-1]}" if error.output else ""
            return f"the probe guest hung: no result within {timeout_seconds:g} s{last}"
    if done.status == STATUS and TOKEN in done.stdout:
        return ""
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    words = lines[-1].removeprefix(f"{qemu.PROGRAM}: ") if lines else "no output"
    return f"QEMU {completed.ending(done.status)}: {words}"


def _command(accel: str, image: Path, backend: str | None) -> Sequence[str]:
    words = [qemu.PROGRAM, "-no-user-config", "-nodefaults", "-display", "none", "-no-reboot"]
    words += ["-nic", "none", "-machine", "pc", "-m", f"{_MEMORY_MEBIBYTES}M"]
    words += qemu.accelerator(accel)
    words += ["-bios", str(image), "-serial", "stdio"]
    words += ["-device", "isa-debug-exit,iobase=0xf4,iosize=1"]
    if backend:
        words += ["-object", f"{backend},id=probe,size={_MEMORY_MEBIBYTES}M"]
        words += ["-machine", "memory-backend=probe"]
    return words


@contextmanager
def _rom_file() -> Iterator[Path]:
    """Yield the path of the ROM for a child process; in memory, since the disk may be full."""
    descriptor = os.memfd_create("labctl-probe")
    try:
        os.write(descriptor, rom())
        yield Path(f"/proc/{os.getpid()}/fd/{descriptor}")
    finally:
        os.close(descriptor)
