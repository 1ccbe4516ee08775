"""The accelerator of a host: KVM counts as working only if a probe guest ran under it."""

from __future__ import annotations

import os
from pathlib import Path

from labctl import files
from labctl.arch import X86_64, Architecture
from labctl.errors import HostError
from labctl.guests import probe
from labctl.host.identity import Host

KVM_DEVICE = Path("/dev/kvm")


def choose(
    asked: str,
    *,
    host: Host,
    cache: Path,
    device: Path = KVM_DEVICE,
    arch: Architecture = X86_64,
) -> str:
    """Return "kvm" or "tcg".

    Guests of other architectures than x86_64 run under TCG: the probe guest is x86 code,
    and lab.yaml may not ask for KVM then.

    `asked` is lab.yaml's `accel`; for "auto" a probe guest boots under KVM with a
    deadline of five seconds. It has no kernel: one that does not boot says nothing
    about KVM. What became of it is kept in `cache` for this boot of this host.

    Raises:
        HostError: KVM was asked for and its probe guest did not come up.
    """
    if asked == "tcg" or arch is not X86_64:
        return "tcg"
    reason = _reason(host, cache, device)
    if not reason:
        return "kvm"
    if asked == "kvm":
        raise HostError(
            f"KVM does not work on this host: {reason}",
            hint="`labctl doctor` suggests a fix; `accel: auto` falls back to TCG",
        )
    return "tcg"


def expected(
    asked: str, *, host: Host, cache: Path, arch: Architecture = X86_64
) -> tuple[str, str]:
    """Return the accelerator that `choose` would return, and why KVM is not used.

    The reason is empty with KVM, and if KVM was not asked for. If `choose` would raise,
    the accelerator is "kvm" and the reason is not empty.
    """
    if asked == "tcg" or arch is not X86_64:
        return "tcg", ""
    try:
        reason = _reason(host, cache, KVM_DEVICE)
    except HostError as error:  # without QEMU nothing can be tried
        reason = error.what
    return ("tcg" if reason and asked == "auto" else "kvm"), reason


def _reason(host: Host, cache: Path, device: Path) -> str:
    """Return why KVM does not work, empty if it does; boot the probe guest once per boot."""
    reason = open_failure(device)
    if reason:
        return reason
    known = _cached(cache, host)
    if known is not None:
        return known
    reason = kvm_failure(device)
    if cache.parent.is_dir():  # `plan` creates no state folder
        remember(cache, host, reason)
    return reason


def kvm_failure(device: Path = KVM_DEVICE, *, timeout_seconds: float = probe.PROBE_SECONDS) -> str:
    """Return why KVM does not work, or an empty string if a probe guest ran under it."""
    refusal = open_failure(device)
    if refusal:
        return refusal
    reason = probe.failure("kvm", timeout_seconds=timeout_seconds)
    return reason and f"{device} can be opened, but {reason}"


def open_failure(device: Path = KVM_DEVICE) -> str:
    """Return why the device cannot be opened, or an empty string if it can."""
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return f"{device} does not exist"
    except OSError as error:
        return f"{device} cannot be opened: {error.strerror}"
    return ""


def remember(cache: Path, host: Host, reason: str) -> None:
    """Cache the result of the probe guest: an empty string, or why it did not run."""
    files.write_json(cache, {"key": _key(host), "reason": reason})


def _cached(cache: Path, host: Host) -> str | None:
    content = files.read_json(cache)
    reason = content.get("reason")
    return reason if content.get("key") == _key(host) and isinstance(reason, str) else None


def _key(host: Host) -> str:
    return f"{host.boot_id} {host.qemu}"
