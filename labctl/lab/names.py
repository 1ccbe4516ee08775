"""Names that are safe for folders, guests and QEMU's comma-separated options. Pure."""

from __future__ import annotations

import hashlib
import re

_LONGEST = 80
_HASH_DIGITS = 8
_UNSAFE = re.compile(r"[^A-Za-z0-9_.+-]+")


def safe_name(text: str, *, is_unique: bool = True, longest: int = _LONGEST) -> str:
    """Return a text as a safe name; different texts have different names.

    A safe text is returned unchanged. Otherwise, or if another text may give the same
    name (not `is_unique`), a hash of the text is appended.
    """
    name = _UNSAFE.sub("_", text)
    if is_unique and name == text and len(name) <= longest:
        return name
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{name[:longest]}-{digest[:_HASH_DIGITS]}"
