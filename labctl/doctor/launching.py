"""Judges what a launcher other than QEMU itself needs, and tells what it cannot do. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from labctl.doctor.diagnosis import Diagnosis, ok

_NAME = "virtme-ng"
_INSTALL = "pip install 'labctl[virtme]'   # into the environment of labctl"


def virtme(
    version: str, limits: Sequence[str], lacking: Mapping[str, Sequence[str]]
) -> Iterator[Diagnosis]:
    """Judge virtme-ng for a lab that uses it.

    `version` is empty if vng does not run; `lacking` holds, by ready-made kernel, the
    options that it would need. Those that labctl builds get them.
    """
    if version:
        yield ok(_NAME, version)
    else:
        yield Diagnosis(_NAME, "fail", "vng does not run", _INSTALL)
    what = f"guests are not as those of `launcher: qemu`: {'; '.join(limits)}"
    mend = "defaults: {launcher: qemu}   # in lab.yaml, where one of these matters"
    yield Diagnosis(f"{_NAME} limits", "warn", what, mend)
    told = [f"{kernel} has no built-in {', '.join(options)}" for kernel, options in lacking.items()]
    if told:
        mend = "build them in, as guest/kconfig/virtme.config has it; its modules are not used"
        yield Diagnosis(f"{_NAME} kernels", "fail", "; ".join(told), mend)
