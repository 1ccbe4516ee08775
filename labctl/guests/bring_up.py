"""What a booted guest needs besides its boot: hotplugged memory, swap; and what it has of HMAT.

One script in the guest does and reports it. The report is compared with lab.yaml, as the nodes
are (`labctl.guests.shape`). Pure.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from labctl import units
from labctl.errors import UserError
from labctl.guests import scratch, shape
from labctl.guests.topology import best_initiator, speed
from labctl.lab.topology import Topology
from labctl.transports import Outcome

_SECONDS = 120.0
_ZRAM = "/dev/zram0"
_MESSAGE = re.compile(r"(?!Usage)\S+: .+")  # of a program, in its usage text or alone
_PAGE_KIB = 4  # mkswap's header
# Linux may take page structs of hotplugged memory from itself: 64 bytes for each 4 KiB.
_LEAST_SHARE = 0.98
# The states that choose a zone; with `online` the kernel does.
_ZONED = ("online_kernel", "online_movable")
_OPTIONS = {
    "speed": "CONFIG_ACPI_HMAT",
    "plugged": "CONFIG_MEMORY_HOTPLUG and CONFIG_ACPI_HOTPLUG_MEMORY",
    "swap": "CONFIG_SWAP, CONFIG_ZRAM and CONFIG_VIRTIO_BLK",
}

_DONE = "/run/labctl-brought-up"
_FUNCTIONS = """
nodes=/sys/devices/system/node
total() { awk '/MemTotal/ { print $4 }' $nodes/node$1/meminfo 2>/dev/null || echo 0; }
plug() {
  before=$(total $1)
  for block in $nodes/node$1/memory[0-9]*; do
    if [ "$(cat $block/state 2>/dev/null)" = offline ]; then
      if [ $2 != offline ]; then echo $2 >$block/state; fi
      echo "block $1 $(cat $block/state) $(cat $block/valid_zones)"
    fi
  done
  echo "grown $1 $before $(total $1)"
}
swap() { mkswap $1 >/dev/null; swapon $1; }
speed() {
  cd $nodes/node$1/access0/initiators 2>/dev/null || return 0
  for kind in read write; do
    echo "latency $1 $kind $(cat ${kind}_latency)"
    echo "bandwidth $1 $kind $(cat ${kind}_bandwidth)"
  done
}
"""
_LINE = re.compile(r"(block|grown|swap|latency|bandwidth|size) (.+)")
_LONGEST_DIGITS = 18


class Run(Protocol):
    """How to run a line of the shell in a guest, as `Guest.run`."""

    def __call__(self, argv: str, *, timeout_seconds: float) -> Outcome: ...


@dataclass(slots=True)
class _Report:
    """What the script printed; sizes in bytes, but swap in KiB as /proc/swaps has it."""

    block_bytes: int = 0
    blocks: dict[int, Counter[tuple[str, str]]] = field(default_factory=dict)
    grown_bytes: dict[int, int] = field(default_factory=dict)
    swaps: dict[str, tuple[int, int]] = field(default_factory=dict)
    speeds: dict[tuple[str, int, str], int] = field(default_factory=dict)


def is_needed(topology: Topology) -> bool:
    """Return whether a guest needs more than its boot."""
    return bool(topology.has_memory_speed or topology.has_hotplug or topology.swap)


def bring_up(
    topology: Topology, nodes: Sequence[str], run: Run, *, kernel: str, where: str
) -> None:
    """Check the `nodes` that a guest's init reported; then bring the guest up.

    Raises:
        UserError: the guest is not what its topology asks for; names the kernel.
        GuestError: the guest crashed or stopped responding.
    """
    shape.check(topology, nodes, kernel=kernel, where=where)
    if is_needed(topology):
        check(topology, run(script(topology), timeout_seconds=_SECONDS), kernel=kernel, where=where)


def script(topology: Topology) -> str:
    """Return the shell script that brings a booted guest up, and reports."""
    lines = []
    for number, node in enumerate(topology.each):
        if node.hotplug:
            lines.append(f"plug {number} {node.hotplug.state}")
    if topology.has_hotplug:
        lines.append('echo "size $(cat /sys/devices/system/memory/block_size_bytes)"')
    # Linux gives each swap area a lower priority than the one before.
    for device, size in _swaps(topology).items():
        if device == _ZRAM:
            lines.append(f"echo {size} >/sys/block/zram0/disksize")
        lines.append(f"swap {device}")
    if topology.swap:
        lines.append("sed 1d /proc/swaps | while read -r name kind size used priority; do")
        lines.append('  echo "swap $name $size $priority"')
        lines.append("done")
    if topology.has_memory_speed:
        lines += [f"speed {number}" for number in range(topology.node_count)]
    # The report stays in the guest: another labctl may wait for the same guest.
    start = ["set -e", f"if [ ! -e {_DONE} ]; then", f"{{ {_FUNCTIONS}"]
    end = [f"}} >{_DONE}.new", f"mv {_DONE}.new {_DONE}", "fi", f"cat {_DONE}", ""]
    return "\n".join([*start, *lines, *end])


def check(topology: Topology, done: Outcome, *, kernel: str, where: str) -> None:
    """Compare what the script reported with the topology.

    Raises:
        UserError: they differ; names the kernel and what to check.
    """
    report = _parse(done.text)
    found = {
        "plugged": [*_plugged(topology, report)],
        "swap": [*_swap(topology, report)],
        "speed": [*_speed(topology, report)],
    }
    texts = [text for part in found.values() for text in part]
    if done.status:
        lines = done.stderr.decode("utf-8", "replace").splitlines()
        last = [line for line in lines if _MESSAGE.fullmatch(line)][-1:]
        texts = [f"the setup exited with status {done.status}", *last]
    if texts:
        options = [_OPTIONS[part] for part, wrong in found.items() if wrong]
        shown = "; ".join(shape.listed(texts))
        raise UserError(
            f"guest with kernel {kernel} differs from lab.yaml: {shown}",
            where=where,
            hint=f"check {', '.join(options) or 'the console'} in its .config, and the console",
        )


def _swaps(topology: Topology) -> dict[str, int]:
    """Return the sizes in bytes of the swap areas by device, the one to use first first."""
    zram = topology.swap.zram if topology.swap else None
    found = {_ZRAM: zram} if zram else {}
    disks = scratch.disks_of(topology)
    return found | {one.device: one.size_bytes for one in disks if one.name == scratch.SWAP}


def _parse(output: str) -> _Report:
    report = _Report()
    for line in output.splitlines():
        found = _LINE.fullmatch(line.strip())
        if found is None:
            continue
        word, *rest = line.split()
        try:
            _take(report, word, rest)
        except (ValueError, IndexError):
            continue  # a message of the kernel that looks similar
    return report


def _take(report: _Report, word: str, rest: list[str]) -> None:
    if word == "size":
        report.block_bytes = _number(rest[0], 16)
    elif word == "swap":
        report.swaps[rest[0]] = (_number(rest[1]), _number(rest[2]))
    elif word == "block":
        # An offline block lists all zones that it may be in.
        report.blocks.setdefault(_number(rest[0]), Counter())[rest[1], rest[2]] += 1
    elif word == "grown":
        grown = _number(rest[2]) - _number(rest[1])
        report.grown_bytes[_number(rest[0])] = grown * units.KIB
    else:
        report.speeds[word, _number(rest[0]), rest[1]] = _number(rest[2])


def _number(text: str, base: int = 10) -> int:
    """Return a number; raise ValueError for a longer one than the kernel prints."""
    if len(text) > _LONGEST_DIGITS:
        raise ValueError("too many digits")
    return int(text, base)


def _plugged(topology: Topology, report: _Report) -> Iterator[str]:
    for number, node in enumerate(topology.each):
        if node.hotplug is None:
            continue
        blocks = report.blocks.get(number, Counter())
        state = node.hotplug.state
        got = blocks.total() * report.block_bytes
        if got != node.hotplug.memory:
            expected = _rough(node.hotplug.memory)
            yield f"node {number}: expected {expected} of hotplugged memory, got {_rough(got)}"
            continue
        for (now, zone), count in blocks.items():
            what = f"node {number}: {units.counted(count, 'memory block')}"
            if (now == "offline") != (state == "offline"):
                yield f"{what} {now}, expected {state}"
            elif (zone == "Movable") != (state == "online_movable") and state in _ZONED:
                yield f"{what} in zone {zone}, expected {state}"
        grown = report.grown_bytes.get(number, 0)
        if state != "offline" and not _LEAST_SHARE * got <= grown <= got:
            yield f"node {number}: MemTotal grew by {_rough(grown)}, expected {_rough(got)}"


def _swap(topology: Topology, report: _Report) -> Iterator[str]:
    last = None
    for device, size_bytes in _swaps(topology).items():
        size = size_bytes // units.KIB - _PAGE_KIB
        if device not in report.swaps:
            yield f"swap on {device} is off"
            continue
        got, priority = report.swaps[device]
        if got != size:
            yield f"swap on {device}: expected {size} KiB, got {got} KiB"
        if last is not None and priority >= last:
            yield f"swap on {device}: expected a priority below {last}, got {priority}"
        last = priority


def _speed(topology: Topology, report: _Report) -> Iterator[str]:
    if not topology.has_memory_speed:
        return
    for node in range(topology.node_count):
        best = best_initiator(topology, node)
        nodes = topology.initiators if best is None else [best]
        speeds = [speed(topology, topology.initiators.index(one), node) for one in nodes]
        latency, bandwidth = min(speeds, key=lambda one: (one[0], -one[1]))
        expected = {"latency": (latency, "ns"), "bandwidth": (bandwidth // units.MIB, "MiB/s")}
        for what, (value, unit) in expected.items():
            for kind in ("read", "write"):
                got = report.speeds.get((what, node, kind))
                if value and got != value:
                    found = "none" if got is None else f"{got} {unit}"
                    yield f"node {node}: expected a {kind} {what} of {value} {unit}, got {found}"


def _rough(size_bytes: int) -> str:
    return units.rough_size(size_bytes) if size_bytes > 0 else "none"
