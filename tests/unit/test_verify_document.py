"""The document of `labctl verify --json`, byte for byte, from checks without a guest."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
from golden_runs import GOLDEN, printed
from synthetic import lab

from labctl.host.identity import Host
from labctl.verify import run
from labctl.verify.kernel import Check, Setting
from labctl.verify.programs import CheckVerdict
from labctl.verify.types import CheckStatus

HOST = Host(
    id="abc", cpu_model="CPU", cores=2, memory_bytes=2**30, kernel="6.1.0", qemu="7.2", boot_id="b"
)
LAB = Path(__file__).parent.parent.parent / "lab.yaml"


def verified() -> run.Verified:
    """Two variants of two kernels: each verdict, with and without one on the base."""
    images = {
        name: SimpleNamespace(
            hash=digit * 64,
            series_hash=series,
            patch_hashes=("d" * 64, "e" * 64) if series else (),
            release="6.1.0",
        )
        for name, digit, series in (("stock", "a", None), ("patched", "b", "c" * 64))
    }
    prepared = SimpleNamespace(host=HOST, accel="tcg", images=images)
    setting: Setting = {"max_active": 1, "thp": "never"}
    free = Check("debug", "integrity/free", setting, CheckVerdict(CheckStatus.PASSED), 3.24)
    part = Check(
        "debug", "selftests/a", {}, CheckVerdict(CheckStatus.FAILED, "exit 1", ("# é",)), 1.0
    )
    splat = CheckVerdict(CheckStatus.FAILED, "splat: BUG", ("line 1", "line 2"))
    checks = {
        "stock": [free, part],
        "patched": [
            free,
            replace(
                part, verdict=CheckVerdict(CheckStatus.KNOWN, "also fails on the base", ("# é",))
            ),
            replace(free, name="integrity/stale", verdict=splat, seconds=0.06),
            Check(
                "fast",
                "kmemleak",
                {},
                CheckVerdict(CheckStatus.SKIPPED, "this kernel has no kmemleak"),
                2.0,
            ),
        ],
    }
    here = lab()
    patched = here.kernels["patched"].model_copy(update={"base": "stock"})
    here = here.model_copy(update={"kernels": here.kernels | {"patched": patched}})
    variants: dict[str, Any] = {"debug": prepared, "fast": prepared}
    return run.Verified(here, variants, checks)


@pytest.fixture
def document(monkeypatch):
    monkeypatch.setattr(run, "verify", lambda *_, **__: verified())
    return printed("verify", "--lab", str(LAB), "--json")


def test_the_document_is_unchanged(document):
    assert document == (GOLDEN / "verify.json").read_text()


def test_the_document_fits_its_schema():
    schema = json.loads(printed("schema", "--verify"))
    document = json.loads((GOLDEN / "verify.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(document, schema)
    document["kernels"]["patched"]["checks"][0]["status"] = "unknown"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema)
