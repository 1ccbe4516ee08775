"""The samples of a run as a Parquet file. Pure; needs pyarrow, an optional dependency."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from labctl.errors import HostError
from labctl.reports import columns
from labctl.runs.sample import Sample
from labctl.stats.report_types import Report

_WHOLE = ("block", "order", "repetition", "schema", "attempt")
_TRUTH = ("warmup", "control")


def parquet(document: Report, samples: Sequence[Sample]) -> bytes:
    """Return one row per sample, with the columns of the CSV; objects are JSON.

    Without observers, the schema does not depend on the samples: the files of several runs
    are one table.

    Raises:
        HostError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise HostError(
            "pyarrow is not installed; Parquet needs it",
            hint="`pip install pyarrow`, or the extra: `pip install 'labctl[parquet]'`",
        ) from error
    types = {
        **dict.fromkeys(_WHOLE, pa.int64()),
        **dict.fromkeys(_TRUTH, pa.bool_()),
        "value": pa.float64(),
        "started_at": pa.timestamp("ms", tz="UTC"),
    }
    names = list(Sample.__struct_fields__)
    counters = columns.names(samples)
    schema = pa.schema(
        [
            *((name, types.get(name, pa.string())) for name in names),
            *((columns.title(name), pa.int64()) for name in counters),
        ],
        metadata={"labctl_run": document.run, "labctl_accel": document.accel},
    )
    table = {name: [_plain(name, columns.value(s, name)) for s in samples] for name in names}
    table |= {columns.title(name): [s.counters.get(name) for s in samples] for name in counters}
    out = io.BytesIO()
    pq.write_table(pa.table(table, schema=schema), out, compression="zstd")
    return out.getvalue()


def _plain(name: str, value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return json.dumps(value, sort_keys=True)
    return datetime.fromisoformat(value) if name == "started_at" else value
