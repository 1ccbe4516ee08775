"""Read patches from mails: encodings, attachments, replies."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import Message
from email.utils import getaddresses
from typing import Final

from labctl.errors import UserError
from labctl.series.headers import Headers

# A line of a message may look alike: a header must follow.
_SEPARATOR = re.compile(
    rb"^From \S.{0,200}\d\d:\d\d(?::\d\d)? .{0,40}\d{4}[ \t]{0,9}\r?\n(?=[!-9;-~]{1,200}:)",
    re.MULTILINE,
)
_QUOTED_FROM = re.compile(rb"^>(>*From )", re.MULTILINE)
_DIFF = re.compile(rb"^(?:diff --git |\+\+\+ \S)", re.MULTILINE)
_REPLY = re.compile(r"(?:re|aw|fwd?|sv|antw)(?:\[\d+\])?:", re.IGNORECASE)
_TAGS = re.compile(r"\[([^\]]*)\]\s*")
_TRAILER = re.compile(
    r"^((?:[A-Z][a-z]+-)+by: [^<>\n]*<([^<>\s@]+@[^<>\s]+)>(?: *[#(\[].*)?) *$", re.MULTILINE
)
_ENCODED = re.compile(rb"=[0-9A-F]{2}|=\r?$", re.MULTILINE)
_MOST_MAILS = 5000
_ENCODINGS = {"quoted-printable", "base64"}


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail with its text decoded; `line` is its first line in the file, from 1.

    `version`, `number` and `total` are those of `[PATCH v2 1/3]`; None if they are missing.
    `raw` is whether `content` has the same lines as the file.
    """

    content: bytes
    line: int
    id: str
    parents: tuple[str, ...]
    subject: str
    is_reply: bool
    tagged: bool
    version: int
    number: int | None
    total: int | None
    raw: bool

    @property
    def has_diff(self) -> bool:
        """Whether the mail contains a diff; a quoted one does not count."""
        return _DIFF.search(body(self.content)) is not None

    def trailers(self) -> list[str]:
        """Return the sender's own trailers: `Reviewed-by: NAME <ADDRESS>` and the like."""
        text = body(self.content).decode("utf-8", "replace")
        try:
            addresses = getaddresses([headers(self.content).text("from")])
        except RecursionError:  # comments nested in comments, a thousand times
            return []
        sender = {address.lower() for _, address in addresses}
        return [found[1] for found in _TRAILER.finditer(text) if found[2].lower() in sender]


def mails(content: bytes, place: str = "") -> list[Mail]:
    """Return the mails of an mbox, or the one mail of a file without separators.

    Raises:
        UserError: there are too many; names `place`.
    """
    starts = [found.start() for found in _SEPARATOR.finditer(content)]
    if not starts or content[: starts[0]].strip():
        starts.insert(0, 0)
    if len(starts) > _MOST_MAILS:
        hint = "save the thread of one series"
        raise UserError(f"mailbox has more than {_MOST_MAILS} mails", where=place, hint=hint)
    found, line, at = [], 1, 0
    for start, end in zip(starts, [*starts[1:], len(content)], strict=True):
        line += content.count(b"\n", at, start)
        at = start
        found.append(_mail(content[start:end], line))
    return found


class _Policy(policy.Compat32):
    """Python's default, with short headers of MIME: their parameters take quadratic time."""

    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        name, value = super().header_source_parse(sourcelines)
        return name, value[:_LONGEST] if name.lower().startswith("content-") else value


_LONGEST = 1 << 12
_POLICY: Final = _Policy()


def decoded(content: bytes) -> bytes:
    """Return a mail as text in UTF-8 with LF lines, all text parts in one; other files as is."""
    if b"content-t" not in content.lower():  # the type and the encoding are the default ones
        return content
    separator, rest = b"", content
    if _SEPARATOR.match(content):
        separator, _, rest = content.partition(b"\n")
        separator += b"\n"
    try:
        message = message_from_bytes(rest, policy=_POLICY)
        if not _is_encoded(message, rest):
            return content
        parts = [text for part in message.walk() if (text := _text(part)) is not None]
    except RecursionError:  # parts nested in parts, a thousand times
        return content
    header = "".join(
        f"{name}: {value}\n"
        for name, value in message.items()
        if not name.lower().startswith(("content-", "mime-"))
    )
    header += "MIME-Version: 1.0\nContent-Type: text/plain; charset=UTF-8\n"
    header += "Content-Transfer-Encoding: 8bit\n"
    return separator + header.encode("utf-8", "surrogateescape") + b"\n" + b"\n".join(parts)


def body(content: bytes) -> bytes:
    """Return what follows the header of a mail."""
    return re.split(rb"\r?\n\r?\n", content, maxsplit=1)[-1]


def _is_encoded(message: Message, content: bytes) -> bool:
    if message.is_multipart():
        return True
    encoding = str(message["content-transfer-encoding"]).strip().lower()
    charset = _charset(message)
    if encoding == "quoted-printable":
        return _ENCODED.search(body(content)) is not None
    return encoding == "base64" or (encoding == "8bit" and charset not in {"utf-8", "us-ascii"})


def _text(part: Message) -> bytes | None:
    """Return the text of a part in UTF-8, None if it is none."""
    if part.is_multipart():
        return None
    is_text = part.get_content_maintype() == "text" and part.get_content_subtype() != "html"
    name = _parameter(part.get_filename)
    if not is_text and not name.endswith((".patch", ".diff")):
        return None
    found = part.get_payload(decode=True)
    text = found if isinstance(found, bytes) else b""
    charset = _charset(part)
    if charset not in {"utf-8", "us-ascii"}:
        with contextlib.suppress(LookupError, ValueError):
            text = text.decode(charset).encode()
    # In transit, lines of a text end in CR LF.
    lines = text.splitlines(keepends=True)
    is_canonical = bool(lines) and all(line.endswith(b"\r\n") for line in lines[:-1])
    return text.replace(b"\r\n", b"\n") if is_canonical else text


def _charset(message: Message) -> str:
    return (_parameter(message.get_content_charset) or "utf-8").lower()


def _parameter(read: Callable[[], str | None]) -> str:
    """Return a parameter of a header, empty if it is missing or in an unknown charset."""
    with contextlib.suppress(ValueError):  # Python's decoder does not expect a NUL
        return read() or ""
    return ""


def headers(content: bytes) -> Headers:
    """Return the headers of a mail that may have a separator line."""
    rest = content.partition(b"\n")[2] if _SEPARATOR.match(content) else content
    return Headers(rest.partition(b"\n\n")[0] + b"\n\n")


def _mail(content: bytes, line: int) -> Mail:
    content = content.replace(b"\r\n", b"\n") if _all_dos(content) else content
    content = _QUOTED_FROM.sub(rb"\1", content)
    text = decoded(content)
    header = headers(text)
    subject = header.text("subject")
    is_reply = _REPLY.match(subject) is not None
    tags = " ".join(_tags(subject))
    counter = re.search(r"(?:^|\s)(\d{1,4})/(\d{1,4})(?:\s|$)", tags)
    version = re.search(r"(?:^|\s)v(\d{1,4})(?!\d)", tags, re.IGNORECASE)
    parents = f"{header.text('references')} {header.text('in-reply-to')}"
    return Mail(
        content=text,
        line=line,
        id=header.text("message-id").strip("<>"),
        parents=tuple(re.findall(r"<([^<>\s]+)>", parents))[::-1],
        subject=re.sub(r"^(?:\[[^\]]*\]\s*)+", "", subject),
        is_reply=is_reply,
        tagged=bool(tags),
        version=int(version[1]) if version else 1,
        number=int(counter[1]) if counter else None,
        total=int(counter[2]) if counter else None,
        raw=text is content,
    )


def _tags(subject: str) -> list[str]:
    """Return the leading bracketed words of a subject."""
    found, at = [], 0
    while tag := _TAGS.match(subject, at):
        found.append(tag[1])
        at = tag.end()
    return found


def _all_dos(content: bytes) -> bool:
    return content.count(b"\r\n") == content.count(b"\n") > 0
