"""lab.yaml, key by key, from its JSON Schema."""

from __future__ import annotations

import json
from typing import Any

from page import anchor, first_line, schema_of, table

from labctl import units
from labctl.lab.effect import EFFECT_PATTERN
from labctl.lab.memory_speed import BANDWIDTH_PATTERN, LATENCY_PATTERN

Schema = dict[str, Any]

KINDS = {
    units.SIZE_PATTERN: "size",
    units.COUNT_PATTERN: "count",
    units.SHARE_PATTERN: "share",
    f"{units.SHARE_PATTERN}|^none$": "share or `none`",
    units.DURATION_PATTERN: "duration",
    EFFECT_PATTERN: "share or difference",
    LATENCY_PATTERN: "latency",
    BANDWIDTH_PATTERN: "bandwidth",
}
SECTIONS = {
    "Defaults": "defaults",
    "Topology": "guests: NAME",
    "Node": "guests: NAME: nodes",
    "Hotplug": "guests: NAME: nodes: hotplug",
    "Distances": "guests: NAME: distances",
    "Swap": "guests: NAME: swap",
    "GuestLimits": "defaults: limits",
    "TargetEntry": "targets: NAME",
    "KernelEntry": "kernels: NAME",
    "TunableEntry": "tunables: NAME",
    "WorkloadEntry": "workloads: NAME",
    "Build": "workloads: NAME: build",
    "Steps": "workloads: NAME: setup and teardown",
    "MetricEntry": "workloads: NAME: metrics: NAME",
    "ExperimentEntry": "experiments: NAME",
    "StatisticsOverride": "experiments: NAME: statistics",
    "BlocksOverride": "experiments: NAME: statistics: blocks",
    "Statistics": "statistics",
    "Blocks": "statistics: blocks",
    "VerifyEntry": "verify",
    "VariantEntry": "verify: variants: NAME",
}


def kind(schema: Schema) -> str:
    """Return what a value may be, in words."""
    if "$ref" in schema:
        section = SECTIONS[schema["$ref"].rpartition("/")[2]]
        return f"[mapping](#{anchor(section)})"
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return " or ".join(f"`{one}`" for one in schema["enum"] if one is not None)
    if "anyOf" in schema:
        kinds = [kind(one) for one in schema["anyOf"] if one.get("type") != "null"]
        if any(one.split(" ")[0] in ("size", "count", "share", "duration") for one in kinds):
            kinds = [one for one in kinds if one not in ("integer", "number", "text")]
        return " or ".join(dict.fromkeys(kinds))
    if schema.get("pattern") in KINDS:
        return KINDS[schema["pattern"]]
    found = schema["type"]
    if found == "array":
        return f"list of {kind(schema['items'])}"
    if found == "object":
        inner = [*schema.get("patternProperties", {}).values()]
        inner += [schema["additionalProperties"]] if schema.get("additionalProperties") else []
        return f"names, each with {kind(inner[0])}"
    if isinstance(found, list):
        return "value" if "boolean" in found else "name"
    return {"string": "text", "boolean": "`true` or `false`"}.get(found, str(found))


def default(schema: Schema, is_required: bool) -> str:
    """Return the default of a key, in the units of the file."""
    value = schema.get("default")
    if is_required:
        return "required"
    if value is None or value in ("", []) or isinstance(value, dict):
        return ""
    what = kind(schema)
    if what.startswith("size"):
        return f"`{units.format_size(value)}`"
    if what.startswith("share"):
        return f"`{value * 100:g}%`"
    if what.startswith("duration"):
        return f"`{value:g}s`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{json.dumps(value)}`" if isinstance(value, list) else f"`{value}`"


def keys(schema: Schema) -> str:
    """Return the keys of a mapping as a table."""
    required = schema.get("required", [])
    rows = []
    for name, one in schema["properties"].items():
        meaning, _, written = one["description"].partition(" Default: ")
        written = written.rstrip(".")
        if not written:
            written = default(one, name in required)
        elif "all " not in written:
            written = f"`{written}`"
        rows.append((f"`{name}`", kind(one), written, meaning))
    return table(("key", "value", "default", "meaning"), rows)


def lab_yaml() -> str:
    """Return the page on lab.yaml."""
    schema = schema_of()
    text = (
        "# lab.yaml\n\nEach mistake in the file is reported with line, column and key before "
        "anything starts. Unknown keys are errors. `labctl init` writes a commented file, "
        "`labctl schema` prints this page as JSON Schema for editors.\n\n"
        "Paths start from the folder of the file. Values with units:\n\n"
    )
    text += table(
        ("value", "examples"),
        [
            ("count", "`4`, `64Ki`"),
            ("size", "`1536MiB`, `3GiB`"),
            ("share", "`2%`, `0.02`"),
            ("duration", "`300s`, `5min`"),
        ],
    )
    text += "\n## Top level\n\n" + keys(schema)
    for name, section in SECTIONS.items():
        part = schema["$defs"][name]
        text += f"\n## {section}\n\n{first_line(part.get('description'))}\n\n{keys(part)}"
    missing = set(schema["$defs"]) - set(SECTIONS)
    if missing:
        raise SystemExit(f"docs/generate: no section for {', '.join(sorted(missing))}")
    return text
