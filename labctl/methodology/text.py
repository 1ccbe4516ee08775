"""The results of the simulations of the method, as tables and plots. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from labctl.methodology import plots
from labctl.methodology.nightly import Count
from labctl.methodology.runs import ErrorRates

if TYPE_CHECKING:
    from labctl.methodology.host_load import LoadBin
    from labctl.methodology.hosts import HostRates
    from labctl.methodology.load import Adjusted
    from labctl.methodology.noise import ExperimentNoise
    from labctl.methodology.speed import Speed
    from labctl.methodology.warned import Warned
    from labctl.stats.run_spread import RunSpread

STYLES = {"terminal": "simple", "markdown": "github"}


def as_table(rates: Sequence[ErrorRates], style: str) -> str:
    """Return one row for each noise and design; `style` is terminal or markdown."""
    from tabulate import tabulate

    rows = [_row(one) for one in rates]
    return tabulate(rows, headers="keys", tablefmt=STYLES[style], disable_numparse=True)


def hosts_table(found: Sequence[HostRates], style: str) -> str:
    """Return one row for each scenario of hosts."""
    from tabulate import tabulate

    rows = [
        {
            "noise": one.noise,
            "blocks of each host": one.scenario,
            "SD between hosts": _percent(one.host_sd),
            "blocks": f"{one.blocks:.1f}",
            "coverage": f"{_percent(one.coverage)} ± {_percent(one.coverage_error)}",
            "half-width": f"±{_percent(one.half_width)}",
            "if hosts are ignored": _percent(one.ignored),
            "false difference": f"{_percent(one.any_difference)} ± "
            f"{_percent(one.any_difference_error)}",
            "false same": _percent(one.any_same),
            f"{one.effect:.0%} found": _percent(one.power),
            "hosts differ (Q)": _percent(one.found),
            "within limits": "yes" if one.kept else "NO",
        }
        for one in found
    ]
    return tabulate(rows, headers="keys", tablefmt=STYLES[style], disable_numparse=True)


def nights_as_table(counts: Sequence[Count], style: str) -> str:
    """Return one row for each scenario of simulated nightly runs."""
    from tabulate import tabulate

    rows = [
        {
            "scenario": one.scenario,
            "nightly runs": one.nights,
            "false alarm": _percent(one.false_alarms),
            "found in time": "-" if one.found is None else _percent(one.found),
            "after runs (median)": "-" if one.after is None else f"{one.after:g}",
            "measured again": f"{one.again:.1f}",
            "against earlier kernel": f"{one.against:.1f}",
            "within limits": "yes" if one.kept else "NO",
        }
        for one in counts
    ]
    return tabulate(rows, headers="keys", tablefmt=STYLES[style], disable_numparse=True)


def speed_table(found: Sequence[Speed], style: str) -> str:
    """Return one row of half-widths for each noise model."""
    from tabulate import tabulate

    rows = [
        {
            "noise": one.noise,
            "usual way": f"±{_percent(one.usual)}",
            "medians, baseline alone": _half_width(one.medians, one.usual),
            "3 repetitions": _half_width(one.blocks, one.usual),
            "auto": _half_width(one.auto, one.usual),
            "repetitions (auto)": f"{one.repetitions:.1f}",
        }
        for one in found
    ]
    return tabulate(rows, headers="keys", tablefmt=STYLES[style], disable_numparse=True)


def warned_table(found: Sequence[Warned], style: str) -> str:
    """Return one row for each number of blocks."""
    from tabulate import tabulate

    rows = [
        {
            "blocks": str(one.blocks),
            "false warning": _percent(one.falsely),
            "streak warned of": _percent(one.rightly),
            "coverage with streaks": _percent(one.coverage),
            "without the correction": _percent(one.uncorrected),
        }
        for one in found
    ]
    return tabulate(rows, headers="keys", tablefmt=STYLES[style], disable_numparse=True)


def load_table(found: Sequence[Adjusted], style: str) -> str:
    """Return one row for each scenario of load."""
    from tabulate import tabulate

    rows = [
        {
            "load": one.scenario,
            "correlation": f"{one.correlation:.2f}",
            "disturbed blocks": _percent(one.disturbed),
            "left out (today)": _coverage_and_width(one.today, one.today),
            "regression over blocks": _coverage_and_width(one.by_blocks, one.today),
            "slope within boots": _coverage_and_width(one.within_boots, one.today),
        }
        for one in found
    ]
    return tabulate(rows, headers="keys", tablefmt=STYLES[style], disable_numparse=True)


def _coverage_and_width(one: tuple[float, float], today: tuple[float, float]) -> str:
    return f"{_percent(one[0])}, {_half_width(one[1], today[1])}"


def _half_width(width: float, usual: float) -> str:
    return f"±{_percent(width)} ({width / usual:.2f})"


def run_noise_table(found: Sequence[RunSpread]) -> str:
    """Return one row for each cell of repeated runs."""
    from tabulate import tabulate

    rows = [
        {
            "experiment": one.experiment,
            "cell": one.cell,
            "runs": one.runs,
            "ratio": f"{one.ratio:.3f}",
            "observed SD": _percent(one.observed_sd),
            "SD of the blocks": _percent(one.within_sd),
            "SD between runs": _percent(one.run_sd),
            "95 % CI": " to ".join(_percent(end) for end in one.run_sd_ci),
        }
        for one in found
    ]
    return tabulate(rows, headers="keys", tablefmt="simple", disable_numparse=True)


def load_bins_table(found: Sequence[LoadBin]) -> str:
    """Return one row for each range of load of other processes."""
    from tabulate import tabulate

    rows = [
        {
            "other processes": f"{100 * one.least:g} to {100 * one.most:g} %",
            "repetitions": one.repetitions,
            "mean": f"{100 * one.mean:+.1f} %",
            "median": f"{100 * one.median:+.1f} %",
            "SD": _percent(one.sd),
        }
        for one in found
    ]
    return tabulate(rows, headers="keys", tablefmt="simple", disable_numparse=True)


def noise_table(found: Sequence[ExperimentNoise]) -> str:
    """Return one row of noise figures for each experiment of a run."""
    from tabulate import tabulate

    rows = [
        {
            "experiment": one.name,
            "within boots": _percent(one.noise.repetition_sd),
            "between boots": _percent(one.noise.boot_sd),
            "drift": f"{_percent(one.noise.drift_sd)} (correlation {one.noise.drift_memory:.2f})",
            "first repetition": f"{100 * one.noise.first_repetition:+.1f} %",
            "outliers": f"{_percent(one.noise.outliers)} (x {one.noise.outlier_factor:.2f})",
            "repetitions": f"{one.repetitions or '-'} (best {one.best_repetitions or 'unknown'})",
        }
        for one in found
    ]
    return tabulate(rows, headers="keys", tablefmt="simple", disable_numparse=True)


def plot_files(rates: Sequence[ErrorRates]) -> dict[str, str]:
    """Return the plots of simulated runs as SVG, by file name."""
    drawn = plots.error_rates([one.document() for one in rates])
    return {f"methodology-{name}.svg": image for name, image in drawn.items()}


def _row(one: ErrorRates) -> dict[str, Any]:
    return {
        "noise": one.noise,
        "design": one.design,
        "blocks": f"{one.blocks:.1f}",
        "coverage": f"{_percent(one.coverage)} ± {_percent(one.coverage_error)}",
        "false difference": f"{_percent(one.any_difference)} ± "
        f"{_percent(one.any_difference_error)}",
        "false verdict": _percent(one.any_verdict),
        "false verdict at the margin": _percent(one.any_verdict_at_margin),
        "false same": _percent(one.any_same),
        "shown the same": _percent(one.same),
        f"{one.effect:.0%} found": _percent(one.power),
        "streak warning": _percent(one.warned),
        "within limits": _limits(one),
    }


def _limits(one: ErrorRates) -> str:
    if not one.is_promised:
        return "no promise"
    return "yes" if one.kept else "NO"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
