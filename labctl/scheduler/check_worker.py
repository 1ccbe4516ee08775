"""What checks kernels on a worker. Called through Dask."""

from __future__ import annotations

from functools import partial

from labctl.scheduler.place import PLACE
from labctl.scheduler.task import CheckResult, CheckSetup, CheckTask
from labctl.scheduler.worker import Tell, alone, check_wanted, logs_of, setup_of
from labctl.verify.kernel import Checker, has_failed
from labctl.verify.programs import CheckVerdict

_RUN = "verify"  # the name of the folder, in place of a run's id


def check(task: CheckTask) -> CheckResult:
    """Run the checks of a task while no measurement runs on this host."""
    setup = setup_of(task.setup)
    assert isinstance(setup, CheckSetup)
    what = f"verify {setup.kernel} {setup.variant.name}"
    return alone(task, what, what, PLACE.run(_RUN), partial(_checked, task, setup), CheckResult)


def _checked(task: CheckTask, setup: CheckSetup, tell: Tell) -> CheckResult:
    def report(title: str, verdict: CheckVerdict | None) -> None:
        check_wanted()
        status, why = (None, "") if verdict is None else (str(verdict.status), verdict.why)
        tell({"key": task.key, "check": [setup.kernel, title, status, why]})

    folder = PLACE.run(_RUN)
    checker = Checker(
        lab=setup.lab,
        kernel=setup.lab.kernels[setup.kernel],
        variant=setup.variant,
        programs=setup.programs,
        options=setup.options,
        boot=PLACE.check_boot(PLACE, setup, folder / "guests"),
        report=report,
    )
    checks = checker.at(task.point)
    found = sorted(folder.glob("guests/*/console.log")) if has_failed(checks) else []
    logs = logs_of(folder, [str(path.relative_to(folder)) for path in found])
    return CheckResult(checks=tuple(checks), logs=logs)
