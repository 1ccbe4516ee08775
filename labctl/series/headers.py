"""Headers of mails, decoded. Pure; any bytes have headers."""

from __future__ import annotations

import re
from email import policy
from email.parser import BytesHeaderParser

# Python's parser takes a time that grows faster than the length of a header.
_LONGEST = 1 << 15
_END = re.compile(rb"\n\r?\n")
_LINE_END = re.compile(r"\n|\r\n?")
_UNSTRUCTURED = {"subject", "references", "in-reply-to"}


class Headers:
    """The headers of a mail, parsed once."""

    def __init__(self, content: bytes) -> None:
        # Other policies parse the content type, by recursion.
        end = _END.search(content)
        head = content[: end.end()] if end else content
        parsed = BytesHeaderParser(policy=policy.compat32).parsebytes(head)
        self._raw: dict[str, str] = {}
        for name, value in parsed.raw_items():
            self._raw.setdefault(name.lower(), value)

    def text(self, name: str) -> str:
        """Return a header as one line, empty if it is missing."""
        raw = self._raw.get(name.lower(), "")[:_LONGEST]
        if not raw:
            return ""
        if name in _UNSTRUCTURED and raw.isascii() and "=?" not in raw:  # nothing to decode
            return " ".join(_LINE_END.sub("", raw).split())
        try:
            found = str(policy.default.header_fetch_parse(name, raw))
        except Exception:  # Python's parser of addresses and encoded words has faults
            found = raw
        return " ".join(found.split())
