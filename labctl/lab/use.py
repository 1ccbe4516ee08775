"""How a command uses the state folder, which decides how strictly the folder is checked."""

from __future__ import annotations

from enum import StrEnum


class Use(StrEnum):
    """Uses of the state folder, the strictest first."""

    WORKS = "works"  # creates or removes files: rejects files that labctl did not create
    READS = "reads"  # only reads: ignores them
    ENDS = "ends"  # stops guests: always possible
