"""How much the ratios of several runs of the same kernels differ. Pure.

The counterpart of the assumption in `run_noise`: a random-effects model, in which the log ratio
of a run is the true one, plus the noise between runs, plus the noise of the run's own blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from labctl.errors import UserError
from labctl.stats.report_types import Cell, Experiment, Report

FEWEST_RUNS = 3
_CONFIDENCE = 0.95
_LARGEST_SD = 10.0  # of log ratios: beyond any real noise


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpread:
    """The ratios of one cell over runs; standard deviations are of log ratios.

    `within_sd` is the root mean square of the runs' own standard errors, `observed_sd` the
    standard deviation of the ratios, `run_sd` the part of it that the blocks of a run do not
    show, with its 95 % confidence interval `run_sd_ci`.
    """

    experiment: str
    cell: str
    runs: int
    ratio: float
    observed_sd: float
    within_sd: float
    run_sd: float
    run_sd_ci: tuple[float, float]


def spreads(reports: Sequence[Report]) -> list[RunSpread]:
    """Return the spread of each cell that all `reports` have, the A/A control first.

    Raises:
        UserError: there are too few runs, or they differ in host, accelerator or images.
    """
    if len(reports) < FEWEST_RUNS:
        raise UserError(
            f"{len(reports)} runs do not show the noise between runs",
            hint=f"repeat the run with the same lab.yaml: expected at least {FEWEST_RUNS} runs",
        )
    for report in reports:
        if any(len(each.hosts or ()) > 1 for each in report.experiments):
            raise UserError(
                f"run {report.run} was measured on several hosts",
                hint="the noise between runs is that of repeated runs on one host",
            )
    first = reports[0]
    ids = [report.run for report in reports]
    for run in ids:
        if ids.count(run) > 1:
            raise UserError(f"run {run} is named twice", hint="name each run once")
    for other in reports[1:]:
        _check_same(first, other)
    named = [{each.name: each for each in report.experiments} for report in reports]
    common = [name for name in named[0] if all(name in one for one in named)]
    found = [one for name in common for one in _of_experiment([each[name] for each in named])]
    if not found:
        raise UserError("the runs have no cell with a ratio in common")
    return found


def _check_same(first: Report, other: Report) -> None:
    for what, one, two in (
        ("hosts", first.host.id, other.host.id),
        ("accelerators", first.accel, other.accel),
        ("images", _images(first), _images(other)),
    ):
        if one != two:
            raise UserError(
                f"runs {first.run} and {other.run} have different {what}",
                hint="the noise between runs is that of repeated runs of the same kernels",
            )


def _images(report: Report) -> dict[str, str | None]:
    return {name: kernel.image or None for name, kernel in report.kernels.items()}


def _of_experiment(experiments: Sequence[Experiment]) -> Iterator[RunSpread]:
    name = experiments[0].name
    controls = [each.aa_control for each in experiments]
    if all(controls):
        found = _spread(name, f"{experiments[0].baseline} (A/A)", [c for c in controls if c])
        if found:
            yield found
    cells = [{_key(cell): cell for cell in each.cells} for each in experiments]
    for key in cells[0]:
        if all(key in one for one in cells):
            found = _spread(name, key, [one[key] for one in cells])
            if found:
                yield found


def _key(cell: Cell) -> str:
    settings = [f"{k}={v}" for k, v in (cell.setting | cell.parameters).items()]
    return " ".join([cell.kernel, *settings])


def _spread(experiment: str, name: str, cells: Sequence[Cell]) -> RunSpread | None:
    """Return None without ratios, as of the baseline."""
    logs, errors = [], []
    for cell in cells:
        if not cell.ratio or not cell.sd_log or not cell.blocks:
            return None
        logs.append(math.log(cell.ratio))
        errors.append(cell.sd_log / math.sqrt(cell.blocks))
    mean = math.fsum(logs) / len(logs)
    between, interval = between_sd(logs, errors)
    return RunSpread(
        experiment=experiment,
        cell=name,
        runs=len(logs),
        ratio=math.exp(mean),
        observed_sd=math.sqrt(math.fsum((y - mean) ** 2 for y in logs) / (len(logs) - 1)),
        within_sd=math.sqrt(math.fsum(e**2 for e in errors) / len(errors)),
        run_sd=between,
        run_sd_ci=interval,
    )


def between_sd(
    values: Sequence[float], errors: Sequence[float]
) -> tuple[float, tuple[float, float]]:
    """Return the standard deviation between runs, and its 95 % confidence interval.

    `values` are estimates with the standard errors `errors`. The estimate is R. C. Paule and
    J. Mandel's (J. Res. NBS 87, 1982, 377-385), the interval W. Viechtbauer's Q-profile
    (Statistics in Medicine 26, 2007, 37-52).
    """
    from scipy.stats import chi2

    freedom, tail = len(values) - 1, (1 - _CONFIDENCE) / 2

    def excess(wanted: float) -> Callable[[float], float]:
        return lambda sd: _q(values, errors, sd) - wanted

    low, high = (_root(excess(float(chi2.ppf(p, freedom)))) for p in (1 - tail, tail))
    return _root(excess(freedom)), (low, high)


def _q(values: Sequence[float], errors: Sequence[float], sd: float) -> float:
    """Return Cochran's Q: the weighted sum of squares around the weighted mean."""
    weights = [1 / (error**2 + sd**2) for error in errors]
    pairs = list(zip(weights, values, strict=True))
    mean = math.fsum(w * y for w, y in pairs) / math.fsum(weights)
    return math.fsum(w * (y - mean) ** 2 for w, y in pairs)


def _root(falling: Callable[[float], float]) -> float:
    """Return where a falling function of a standard deviation is 0; 0 if it starts below."""
    from scipy.optimize import brentq

    return float(brentq(falling, 0.0, _LARGEST_SD)) if falling(0.0) > 0 else 0.0
