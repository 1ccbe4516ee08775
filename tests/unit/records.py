"""Records of runs in which a test gives only the keys that it is about."""

from labctl.reports.document import document
from labctl.runs.record import RunRecord


def record_of(run, names=()):
    """Return a run's record; it gets the experiments `names` that `run` lacks."""
    given = run.get("experiments", [])
    missing = [{"name": name} for name in names if name not in [one["name"] for one in given]]
    rule = {"workload": "free", "baseline": "stock", "confidence": 0.95, "minimum_effect": 0.02}
    return RunRecord.of(run | {"experiments": [rule | one for one in (*given, *missing)]})


def report_of(run, results, **more):
    """Return the report of results by the record of a run."""
    return document(record_of(run, [one.name for one in results]), results, **more)
