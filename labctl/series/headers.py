"""Headers of mails, decoded. Pure; any bytes have headers."""

from __future__ import annotations

from email import policy
from email.parser import BytesHeaderParser

# Python's parser takes a time that grows faster than the length of a header.
_LONGEST = 1 << 15


class Headers:
    """The headers of a mail, parsed once."""

    def __init__(self, content: bytes) -> None:
        # Other policies parse the content type, by recursion.
        parsed = BytesHeaderParser(policy=policy.compat32).parsebytes(content)
        self._raw: dict[str, str] = {}
        for name, value in parsed.raw_items():
            self._raw.setdefault(name.lower(), value)

    def text(self, name: str) -> str:
        """Return a header as one line, empty if it is missing."""
        raw = self._raw.get(name.lower(), "")[:_LONGEST]
        try:
            found = str(policy.default.header_fetch_parse(name, raw))
        except Exception:  # Python's parser of addresses and encoded words has faults
            found = raw
        return " ".join(found.split())
