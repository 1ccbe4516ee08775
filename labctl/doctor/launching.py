"""Diagnoses of the virtme-ng launcher: requirements and limits. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from labctl.doctor.diagnosis import Diagnosis, ok

_NAME = "virtme-ng"
_INSTALL = "pip install 'labctl[virtme]'   # in the virtual environment of labctl"


def virtme(
    version: str, limits: Sequence[str], lacking: Mapping[str, Sequence[str]]
) -> Iterator[Diagnosis]:
    """Diagnose virtme-ng for a lab that uses it.

    `version` is empty if vng does not run; `lacking` maps each prebuilt kernel to the
    options it lacks. labctl adds these options to the kernels that it builds.
    """
    if version:
        yield ok(_NAME, version)
    else:
        yield Diagnosis(_NAME, "fail", "vng does not run", _INSTALL)
    what = f"guests differ from those of `launcher: qemu`: {'; '.join(limits)}"
    mend = "defaults: {launcher: qemu}   # in lab.yaml, if one of these matters"
    yield Diagnosis(f"{_NAME} limits", "warn", what, mend)
    faults = [
        f"{kernel} has no built-in {', '.join(options)}" for kernel, options in lacking.items()
    ]
    if faults:
        mend = "build them in (=y), see guest/kconfig/virtme.config; modules are not used"
        yield Diagnosis(f"{_NAME} kernels", "fail", "; ".join(faults), mend)
