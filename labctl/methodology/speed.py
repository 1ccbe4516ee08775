"""The precision after the same time, compared with that of the usual way. Pure.

The usual way is to run one kernel several times, then the other, and to compare the means. The
measure is the half-width that an interval would need to contain the true value in 95 % of the
runs: with drift of the host, Welch's own interval is too narrow for that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from labctl.methodology.noise import NOISES, Noise, times
from labctl.methodology.repetitions import FIXED, log_ratios, thinned
from labctl.stats.repetitions import FIRST, MOST, Goal

if TYPE_CHECKING:
    import numpy as np

_BLOCKS = 10  # with three repetitions; all methods have the time that they take
_GUESTS = 3  # the baseline, its A/A control, and one compared kernel


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Half-widths that contain the true value in 95 % of the runs, on the log scale.

    `usual`: all runs of the baseline first. `medians`: blocks with three repetitions, their
    median, and a baseline without the A/A control, as labctl did before. `blocks`: blocks with
    three repetitions. `auto`: blocks with `repetitions: auto`, and their mean number.
    """

    noise: str
    usual: float
    medians: float
    blocks: float
    auto: float
    repetitions: float
    runs: int

    def document(self) -> dict[str, Any]:
        """Return the JSON object."""
        return asdict(self)


# The others differ only for several cells or runs.
_NOISES = tuple(one for one in NOISES if not (one.shared_boots or one.run_sd or one.events))


def speeds(*, runs: int, seed: int, noises: Sequence[Noise] = _NOISES) -> Iterator[Speed]:
    """Yield the precision with each noise model, for one kernel compared with a baseline."""
    import numpy as np

    for number, noise in enumerate(noises):
        draw = np.random.default_rng([seed, number])
        logs = times(noise, draw, (runs, _BLOCKS, FIRST, _GUESTS))[0]
        boots = np.median(logs, axis=2)
        auto, repetitions = _auto(noise, draw, runs)
        yield Speed(
            noise=noise.name,
            usual=_width(_usual(noise, draw, runs)),
            medians=_width((boots[..., 0] - boots[..., 2]).mean(axis=1)),
            blocks=_width(log_ratios(np.moveaxis(logs, 3, 1))[..., 1].mean(axis=1)),
            auto=_width(auto),
            repetitions=repetitions,
            runs=runs,
        )


def _width(errors: np.ndarray) -> float:
    import numpy as np

    return float(np.quantile(np.abs(errors), 0.95))


def _usual(noise: Noise, draw: np.random.Generator, runs: int) -> np.ndarray:
    """Return the errors if all boots of a kernel come first, in the same time."""
    boots = _GUESTS * _BLOCKS // 2
    logs = times(noise, draw, (runs, 2 * boots, FIRST, 1))[0][..., 0].mean(axis=2)
    errors: np.ndarray = logs[:, :boots].mean(axis=1) - logs[:, boots:].mean(axis=1)
    return errors


def _auto(noise: Noise, draw: np.random.Generator, runs: int) -> tuple[np.ndarray, float]:
    """Return the errors with `repetitions: auto`, and the mean number of repetitions."""
    import numpy as np

    time = _BLOCKS * (FIXED + FIRST)
    most = int(time / (FIXED + 1))
    logs = np.moveaxis(times(noise, draw, (runs, most, MOST, _GUESTS))[0], 3, 1)
    kept, numbers = thinned(logs, Goal(0.95, None, 2))
    is_in_time = np.cumsum(FIXED + numbers, axis=1) <= time
    d = log_ratios(np.where(is_in_time[:, None, :, None], kept, np.nan))[..., 1]
    mean = (numbers * is_in_time).sum() / is_in_time.sum()
    return np.nanmean(d, axis=1), float(mean)
