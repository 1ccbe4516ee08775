"""One `labctl verify`: debug images, what goes into their guests, and all checks of each kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from labctl.checks import programs, selftests
from labctl.checks.examination import Check, Examination, Options, beside_base
from labctl.checks.programs import Judgement, Program
from labctl.guests.bundle import bundle
from labctl.guests.guest import Guest
from labctl.guests.prepare import Prepared, prepare
from labctl.kernels.build import Builder, BuildProgress
from labctl.lab_models import Kernel, Lab

__all__ = ["Events", "Options", "Verified", "verify"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """What a verification tells while it works."""

    building: Callable[[BuildProgress], None]
    checking: Callable[[str, str, Judgement | None], None]  # kernel, check, how it ended


@dataclass(frozen=True, slots=True)
class Verified:
    """The checks of all kernels, those of their bases too, by the kernels' names."""

    lab: Lab
    prepared: Prepared
    checks: dict[str, list[Check]]

    @property
    def passed(self) -> bool:
        """Whether no check of any kernel failed, and at least one was made."""
        made = [check for checks in self.checks.values() for check in checks]
        return bool(made) and all(check.judgement.status != "failed" for check in made)

    def document(self) -> dict[str, Any]:
        """Return all of it as JSON has it."""
        return {
            "schema": 1,
            "host": self.prepared.host.as_dict(),
            "accel": self.prepared.accel,
            "passed": self.passed,
            "kernels": {name: self._kernel(name) for name in self.checks},
        }

    def _kernel(self, name: str) -> dict[str, Any]:
        image, base = self.prepared.images[name], self.lab.kernels[name].base
        beside = {check.name: check.judgement.status for check in self.checks.get(base or "", ())}
        checks = self.checks[name]
        return {
            "image": image.hash,
            "series": image.series_hash,
            "release": image.release,
            "base": base,
            "passed": all(check.judgement.status != "failed" for check in checks),
            "checks": [check.document(beside.get(check.name)) for check in checks],
        }


def verify(
    lab: Lab,
    names: Sequence[str],
    *,
    seconds: int,
    options: Options,
    with_base: bool,
    events: Events,
) -> Verified:
    """Check kernels of the lab, each beside its base, every program for `seconds`.

    Raises:
        UserError: there is nothing to check: no check of that name.
        BuildError: a debug image does not build.
        HostError: a tool is missing, or the host cannot run the guests.
    """
    chosen = _with_bases(lab, names) if with_base else list(names)
    debug = _debug_lab(lab)
    todo, files = _programs(debug, chosen[0], seconds, options, events)
    prepared = prepare(debug, chosen, events.building, files)
    checks: dict[str, list[Check]] = {}
    for name in chosen:
        examination = Examination(
            lab=debug,
            kernel=debug.kernels[name],
            programs=todo,
            options=options,
            boot=_booter(prepared, name),
            tell=lambda title, judgement, name=name: events.checking(name, title, judgement),  # type: ignore[misc]
        )
        checks[name] = examination.run()
    for name in chosen:
        base = checks.get(debug.kernels[name].base or name, [])
        checks[name] = beside_base(checks[name], base)
    return Verified(debug, prepared, checks)


def _programs(
    lab: Lab, kernel: str, seconds: int, options: Options, events: Events
) -> tuple[list[Program], dict[str, Path]]:
    """Return the programs that are wanted, and what must be in the guest for them."""
    files: dict[str, Path] = {}
    offered = [*programs.integrity(seconds, lab.verify.held_back), *programs.stressors(seconds)]
    todo = [program for program in offered if options.takes(program.check)]
    if any(program.kind == "stress-ng" for program in todo):
        files |= bundle("stress-ng", "stress-ng")
    is_image = lab.kernels[kernel].source.startswith("image:")
    if options.takes_any("selftests/") and not is_image:
        log = lab.state / "verify" / "selftests.log"
        with Builder(lab.state, events.building).workshop(lab.kernels[kernel], log) as make:
            built = selftests.build(make, lab.state)
        wanted = [program for program in built.programs if options.takes(program.check)]
        todo += wanted
        files |= built.files if wanted else {}
    return todo, files


def _with_bases(lab: Lab, names: Sequence[str]) -> list[str]:
    """Return the kernels, each behind the one that it is based on."""
    both = ((lab.kernels[name].base, name) for name in names)
    return list(dict.fromkeys(name for pair in both for name in pair if name))


def _debug_lab(lab: Lab) -> Lab:
    """Return the lab with debug kernels in place of its own, under the same names."""
    return lab.model_copy(
        update={"kernels": {name: _debug_kernel(lab, one) for name, one in lab.kernels.items()}}
    )


def _debug_kernel(lab: Lab, kernel: Kernel) -> Kernel:
    if kernel.source.startswith("image:"):
        return kernel
    return kernel.model_copy(
        update={
            "kconfig": (*kernel.kconfig, *lab.verify.fragments),
            "command_line": f"{kernel.command_line} {lab.verify.command_line}".strip(),
        }
    )


def _booter(prepared: Prepared, name: str) -> Callable[[], AbstractContextManager[Guest]]:
    lab = prepared.lab
    place = lab.state / "verify" / name
    numbers = count()

    def boot() -> Guest:
        return Guest(
            prepared.spec(
                name,
                name=name,
                folder=place / f"boot-{next(numbers)}",
                topology=lab.guests[lab.verify.guest or lab.defaults.guest],
            )
        )

    return boot
