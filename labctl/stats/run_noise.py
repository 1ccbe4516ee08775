"""Noise that all blocks of a run share, so that a run's own interval does not contain it. Pure.

Causes are the layout of the built image, the placement of guests in the host's memory, and a
state of the host that lasts for hours. The blocks of one run cannot show it.
"""

from __future__ import annotations

import math
from typing import Any

# Standard deviation of a ratio between runs with the same kernels, on the log scale. Measured
# over 13 runs of the same images: 0.9 %, 95 % CI 0.0 to 3.1 % (docs/explanation/methodology.md,
# "Between runs"). More is used, since the images of two nightly runs differ.
RUN_SD = 0.026


def widened(
    ci: tuple[float, float] | None, confidence: float, run_sd: float = RUN_SD
) -> tuple[float, float] | None:
    """Return an interval of a ratio that also holds for another run; None stays None.

    The half-widths of independent parts are added as squares, on the log scale.
    """
    if ci is None or not 0 < ci[0] <= ci[1] < math.inf:
        return ci
    middle = math.log(ci[0] * ci[1]) / 2
    half = float(widened_half(math.log(ci[1] / ci[0]) / 2, confidence, run_sd))
    return math.exp(middle - half), math.exp(middle + half)


def widened_half(half: Any, confidence: float, run_sd: float) -> Any:  # noqa: ANN401
    """Return the half-width of `widened`, on the log scale; takes a number, or an array."""
    import numpy as np
    from scipy.special import ndtri

    return np.hypot(half, float(ndtri((1 + confidence) / 2)) * run_sd)
