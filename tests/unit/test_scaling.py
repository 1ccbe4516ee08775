import pytest
from samples import cell

from labctl.reports.seed import MAX_ACTIVE
from labctl.stats.compare import compare
from labctl.stats.scaling import curves, fit

LEVELS = (1, 2, 4, 8, 16, 32)
SEED = {level: figure.seconds for level, figure in MAX_ACTIVE.items()}


def law(contention, coherency, first=10.0, levels=LEVELS):
    return {n: first * (1 + contention * (n - 1) + coherency * n * (n - 1)) / n for n in levels}


@pytest.mark.parametrize(("contention", "coherency"), [(0.3, 0.01), (0.05, 0.002), (1.2, 0.0)])
def test_the_law_is_found_again(contention, coherency):
    curve = fit(law(contention, coherency))
    assert curve.contention == pytest.approx(contention, rel=1e-3)
    assert curve.coherency == pytest.approx(coherency, rel=1e-3, abs=1e-5)
    assert curve.residual_percent == pytest.approx(0, abs=0.01)


def test_the_seeds_curve_has_its_knee_at_4_to_8_and_is_worse_at_32():
    curve = fit(SEED)
    assert 4 <= curve.knee <= curve.best <= 8
    assert curve.recommended in (4, 8)
    assert curve.fitted_seconds[-1] > curve.fitted_seconds[3]
    assert not curve.is_amdahl
    low, high = curve.contention_ci
    assert 0 < low < curve.contention < high < 1


def test_amdahls_data_need_no_coherency():
    wobble = (1.01, 0.99, 1.0, 1.01, 0.99, 1.0)
    data = {n: t * w for (n, t), w in zip(law(0.2, 0.0).items(), wobble, strict=True)}
    assert fit(data).is_amdahl
    assert fit(data).best == 32


def test_workers_that_only_cost_are_best_left_at_one():
    curve = fit({1: 0.358, 2: 0.397, 4: 0.420, 8: 0.420, 16: 0.421, 32: 0.422})
    assert (curve.best, curve.knee, curve.recommended) == (1, 1, 1)
    assert curve.contention > 1


def test_a_level_that_was_measured_is_recommended():
    curve = fit(law(0.05, 0.05, levels=(1, 2, 16, 32)))
    assert curve.best not in curve.levels
    assert curve.recommended in curve.levels


def test_the_times_scale_moves_nothing_but_the_times():
    small = fit({n: t * 1e-9 for n, t in SEED.items()})
    assert small.contention == pytest.approx(fit(SEED).contention, rel=1e-4)
    assert small.knee == fit(SEED).knee


def test_three_levels_are_no_curve():
    with pytest.raises(ValueError, match="4 levels"):
        fit({1: 1.0, 2: 0.6, 4: 0.5})


def matrix(name, levels=LEVELS):
    samples = cell([1.0] * 6)
    for level, seconds in law(0.3, 0.01, levels=levels).items():
        samples += cell([seconds] * 6, kernel="patched", setting={name: level})
    return compare(samples, baseline="stock", confidence=0.95, minimum_effect=0.02).cells


def test_a_matrix_of_workers_is_a_curve():
    (curve,) = curves(matrix("max_active"))
    assert (curve.kernel, curve.axis, curve.levels) == ("patched", "max_active", LEVELS)


@pytest.mark.parametrize(("name", "levels"), [("batch_pages", LEVELS), ("max_active", (1, 2, 4))])
def test_what_is_no_number_of_workers_or_too_short_is_none(name, levels):
    assert curves(matrix(name, levels)) == []
