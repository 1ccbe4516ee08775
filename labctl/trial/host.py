"""The guest of `labctl try` for this host."""

from __future__ import annotations

from labctl.host.facts import read_facts
from labctl.trial.shape import Shape, suggested


def of_host() -> Shape:
    """Return the guest that suits the CPUs and the free memory of this host."""
    facts = read_facts()
    return suggested(facts.cores, facts.available_bytes)
