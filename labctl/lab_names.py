"""Names that can be a folder's, a guest's, and a part of QEMU's comma-separated options. Pure."""

from __future__ import annotations

import hashlib
import re

_LONGEST = 80
_HASH_DIGITS = 8
_UNSAFE = re.compile(r"[^A-Za-z0-9_.+-]+")


def safe_name(text: str, *, is_unique: bool = True, longest: int = _LONGEST) -> str:
    """Return a text as a safe name; two texts never have the same one.

    What is safe stays as it is. Otherwise, or if the caller knows that another one may
    read alike (not `is_unique`), a hash of the text follows.
    """
    name = _UNSAFE.sub("_", text)
    if is_unique and name == text and len(name) <= longest:
        return name
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{name[:longest]}-{digest[:_HASH_DIGITS]}"
