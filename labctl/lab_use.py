"""What a command does in the state folder, and so what must be right with it."""

from __future__ import annotations

from enum import StrEnum


class Use(StrEnum):
    """The uses of a state folder, from the one that asks most of it."""

    WORKS = "works"  # builds or removes: nothing of others may lie in it
    READS = "reads"  # a stray file beside what labctl made does not matter
    ENDS = "ends"  # ends guests: always possible, wherever they are
