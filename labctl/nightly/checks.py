"""The short `labctl verify` of a nightly run: some checks of each kernel, without its base."""

from __future__ import annotations

from collections.abc import Sequence

from labctl.lab.models import Lab
from labctl.nightly.records import KernelChecks
from labctl.verify.engine import Engine
from labctl.verify.run import Events, Options, verify
from labctl.verify.types import CheckStatus


def briefly(
    lab: Lab,
    kernels: Sequence[str],
    *,
    seconds: int,
    only: Sequence[str],
    events: Events,
    engine: Engine | None = None,
) -> dict[str, KernelChecks]:
    """Return the outcome of the checks matching `only`, by kernel.

    Raise as `verify` does.
    """
    if not kernels:
        return {}
    options = Options(only=tuple(only), stop_at_first=False)
    done = verify(
        lab,
        kernels,
        seconds=seconds,
        options=options,
        with_base=False,
        events=events,
        engine=engine,
    ).document()
    return {
        name: KernelChecks(
            passed=kernel.passed,
            failed={
                check.name: check.why
                for check in kernel.checks
                if check.status is CheckStatus.FAILED
            },
        )
        for name, kernel in done.kernels.items()
    }
