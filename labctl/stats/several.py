"""Compare several metrics of the same repetitions, as one family of tests. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from labctl.lab.metrics import MetricKind
from labctl.runs.sample import Sample
from labctl.stats.cells import bases_for, cells_of, primary
from labctl.stats.compare import Tests, compare, paired_all, roles
from labctl.stats.comparison import ExperimentResult
from labctl.stats.verdict import Rule


def compare_all(
    samples: Iterable[Sample],
    *,
    metrics: Sequence[tuple[MetricKind, float]],
    baseline: str,
    confidence: float,
    name: str,
) -> ExperimentResult:
    """Return the result of the first metric, with those of the others in `further`.

    `metrics` has each metric with its minimum effect. Holm's corrections are over the cells of
    all metrics, and over their A/A controls. A difference of an A/A control only concerns the
    verdicts of its metric. Raises as `compare` does.
    """
    first = list(samples)
    of_metric = [first]
    of_metric += [[s.of_metric(kind.name, kind.scale) for s in first] for kind, _ in metrics[1:]]
    tests = [
        _tests(own, baseline, Rule.of(confidence, effect, kind)) if len(metrics) > 1 else ((), ())
        for own, (kind, effect) in zip(of_metric, metrics, strict=True)
    ]
    results = [
        compare(
            of_metric[index],
            name=name,
            baseline=baseline,
            confidence=confidence,
            minimum_effect=effect,
            better=kind.better,
            metric=kind,
            beside=_joined([*tests[:index], *tests[index + 1 :]]),
        )
        for index, (kind, effect) in enumerate(metrics)
    ]
    return replace(results[0], further=tuple(results[1:]))


def _tests(samples: Sequence[Sample], baseline: str, rule: Rule) -> Tests:
    baselines, controls, others = roles(cells_of(samples, rule.metric.scale), baseline)
    pairs = (
        (controls, [bases_for(cell, (*baselines, *others), ()) for cell in controls]),
        (others, [bases_for(cell, baselines, controls) for cell in others]),
    )
    of_controls, of_others = (
        paired_all(cells, bases, rule, primary, rule.metric.better) for cells, bases in pairs
    )
    return of_controls, of_others


def _joined(parts: Sequence[Tests]) -> Tests:
    return (
        [each for controls, _ in parts for each in controls],
        [each for _, others in parts for each in others],
    )
