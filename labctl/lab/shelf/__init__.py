"""The shelf: workloads that a lab.yaml takes by name with `use:`. Pure."""

from __future__ import annotations

from labctl.lab.shelf import own, packaged
from labctl.lab.shelf.entry import Entry, Metric, Parameter

__all__ = ["SHELF", "Entry", "Metric", "Parameter"]

SHELF: dict[str, Entry] = {one.name: one for one in (*own.ENTRIES, *packaged.ENTRIES)}
