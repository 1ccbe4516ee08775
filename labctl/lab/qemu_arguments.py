"""Check the words of `qemu:` of a guest against what labctl itself passes to QEMU. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from labctl.units import quote

_NODES = "`nodes:`, `cpus_per_node:` and `memory_per_node:`"
# The option, and what to set in lab.yaml instead.
_TAKEN = {
    "m": _NODES,
    "smp": "`nodes:`, `cpus_per_node:`, `sockets:`, `cores:` and `threads:`",
    "numa": f"{_NODES}, and `distances:`",
    "kernel": "`kernels:`",
    "append": "`command_line:` of the kernel",
    "initrd": "`files:` of a workload",
    "dtb": "`arch:` of the kernel",
    "bios": "`kernels:`",
    "machine": "`arch:` of the kernel",
    "M": "`arch:` of the kernel",
    "accel": "`defaults: accel:`",
    "enable-kvm": "`defaults: accel:`",
    "cpu": "`defaults: accel:` and `threads:`",
    "mem-prealloc": "`prealloc:`",
    "mem-path": "`hugepages:`",
} | dict.fromkeys(
    (
        *("serial", "parallel", "qmp", "qmp-pretty", "mon", "monitor", "name", "display"),
        *("nographic", "curses", "vnc", "spice", "daemonize", "pidfile", "S", "preconfig"),
        *("incoming", "loadvm", "no-reboot", "no-shutdown", "action", "reboot"),
        *("nodefaults", "no-user-config", "readconfig", "snapshot", "runas", "chroot"),
        "sandbox",
        *("help", "h", "version"),
    ),
    "",
)
# QEMU starts programs for these networks, unless both scripts are off.
_STARTS_SCRIPTS = ("tap", "bridge")
_SCRIPTS_OFF = {"script=no", "downscript=no"}
_SANDBOX = "is denied by the sandbox that labctl starts QEMU in"
_NETWORK = ("net", "nic", "netdev")
# Identifiers of labctl's own character devices.
_IDS = ("id=console", "id=line", "id=monitor")


def mistakes(words: Sequence[str], transport: str) -> Iterator[tuple[int, str, str]]:
    """Yield the index of each word that cannot be passed to QEMU, what is wrong, and a hint."""
    if words and not words[0].startswith("-"):
        what = f"expected an option, got {quote(words[0])}"
        yield 0, what, "example: [-device, virtio-rng-pci]"
    for index, word in enumerate(words):
        if not word.isprintable():
            yield index, "expected printable characters only", "remove control characters"
        elif word.startswith("-") and " " in word:
            option, _, value = word.partition(" ")
            hint = f"write each word as an item: [{option}, {quote(value.strip())}]"
            yield index, f"option and value are in one item: {quote(word)}", hint
        elif word.startswith("-"):
            name = word.removeprefix("-").removeprefix("-")
            value = words[index + 1] if index + 1 < len(words) else ""
            if (fault := _fault(name, value, transport)) is not None:
                yield index, f"-{name} {fault[0]}", fault[1]


def _keys(value: str) -> list[str]:
    return [each.partition("=")[0] for each in value.split(",")]


def _starts_scripts(value: str) -> bool:
    parts = value.split(",")
    if parts[0].removeprefix("type=") not in _STARTS_SCRIPTS or "fd" in _keys(value):
        return False
    return parts[0].endswith("bridge") or "helper" in _keys(value) or not {*parts} >= _SCRIPTS_OFF


def _fault(name: str, value: str, transport: str) -> tuple[str, str] | None:
    if name in _TAKEN:
        instead = _TAKEN[name]
        if instead:
            return f"conflicts with {instead}", "remove it: lab.yaml has a key for it"
        return "conflicts with labctl", "labctl sets it for its own use: remove it"
    if name in _NETWORK and transport == "ssh":
        return "conflicts with `defaults: transport: ssh`", "remove it, or use transport: serial"
    if name == "run-with" and {"user", "chroot"} & set(_keys(value)):
        return f"with user= or chroot= {_SANDBOX}", "start labctl itself as that user"
    if name in _NETWORK and _starts_scripts(value):
        hint = "create the interface before and use tap,ifname=NAME,script=no,downscript=no"
        return f"starts a program, which {_SANDBOX}", hint
    if name in ("s", "gdb") and (name == "s" or value.startswith(("tcp::", "tcp:0.0.0.0:"))):
        hint = "use `labctl gdb`, or a Unix socket: [-gdb, 'unix:gdb.sock,server=on,wait=off']"
        return "lets every host of the network debug the guest", hint
    if name == "object" and "memory-backend" in value:
        return f"{value.partition(',')[0]} conflicts with {_NODES}", "remove it"
    if name == "chardev" and not set(_IDS).isdisjoint(value.split(",")):
        return "conflicts with labctl", "console, line and monitor are IDs of labctl: use another"
    return None
