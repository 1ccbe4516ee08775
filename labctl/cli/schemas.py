"""JSON Schemas of the documents that labctl writes, made from their structs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from labctl.bisect.types import Bisection
from labctl.model.types import Prediction
from labctl.nightly.types import Nightly
from labctl.reports.plan_types import PlanDocument
from labctl.review.types import SeriesCheck
from labctl.stats.between_runs_types import Across
from labctl.stats.explanation_types import Explanation
from labctl.stats.report_types import Report
from labctl.verify.types import Verification

DOCUMENTS: Mapping[str, type[msgspec.Struct]] = {
    "plan": PlanDocument,
    "report": Report,
    "explain": Explanation,
    "compare": Across,
    "model": Prediction,
    "nightly": Nightly,
    "bisect": Bisection,
    "verify": Verification,
    "series-check": SeriesCheck,
}


def schema_of(document: str) -> dict[str, Any]:
    """Return the schema of a document, one of `DOCUMENTS`, as draft 2020-12."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **msgspec.json.schema(DOCUMENTS[document]),
    }
