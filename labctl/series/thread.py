"""Find the newest version of a series in a thread of mails, as b4 does."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from labctl import files
from labctl.errors import UserError
from labctl.host import git
from labctl.series.folder import MOST_BYTES
from labctl.series.mail import Mail, mails
from labctl.series.patch import Patch, Series, slug, unix_lines


def read_mbox(path: Path) -> Series:
    """Return the series in an mbox: a thread, or patches only. A gzip file is decompressed.

    Of several versions the newest is taken. The cover letter and replies are left out; the
    trailers of replies are added to the patches that they answer.

    Raises:
        UserError: the file cannot be read, has no patch, or the newest version is incomplete.
    """
    every = mails(_content(path), str(path))
    chosen = _newest(every, path)
    patches = []
    for number, mail in enumerate(chosen, 1):
        content = unix_lines(_with(mail, _trailers(mail, chosen, every)))
        patch = Patch(
            name=slug(number, mail.subject),
            place=str(path),
            content=content,
            first_line=mail.line if mail.raw and content == mail.content else None,
        )
        _check(patch, mail, path)
        patches.append(patch)
    return Series(str(path), tuple(patches))


def _content(path: Path) -> bytes:
    try:
        if not path.is_file():  # reading a FIFO would not end
            path.stat()
            raise UserError("mailbox is not a regular file", where=str(path))
        content = files.read_limited(path, MOST_BYTES, unpack=True)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"mailbox is damaged: {error}", where=str(path)) from error
    except OSError as error:
        what = f"mailbox cannot be read: {error.strerror or error}"
        raise UserError(what, where=str(path)) from error
    if not content.strip():
        raise UserError("mailbox is empty", where=str(path))
    return content


def _newest(every: Sequence[Mail], path: Path) -> list[Mail]:
    """Return the patches of the newest version in order."""
    own = [mail for mail in every if not mail.is_reply]
    patches = [mail for mail in own if mail.has_diff and mail.number != 0]
    if not patches:
        covers = [mail for mail in own if mail.number == 0 or mail.tagged]
        what = "mailbox has only a cover letter" if covers else "mailbox has no patch"
        hint = "save the whole thread: https://lore.kernel.org/all/MESSAGE-ID/t.mbox.gz"
        raise UserError(what, where=f"{path}:{(covers or list(every))[0].line}", hint=hint)
    newest = max(mail.version for mail in own if mail.has_diff or mail.number == 0)
    same = [mail for mail in patches if mail.version == newest]
    totals = [mail for mail in own if mail.version == newest and mail.total is not None]
    numbered = [mail for mail in same if mail.number is not None]
    if not totals:
        return same
    total = totals[0].total
    for mail in totals:
        if mail.total != total:
            what = f"mailbox has several series: {_named(totals[0])}; {_named(mail)}"
            raise UserError(what, where=f"{path}:{mail.line}", hint="save each in its own file")
    return _complete(numbered, totals[0], path)


def _complete(numbered: Iterable[Mail], first: Mail, path: Path) -> list[Mail]:
    """Return the patches 1 to the total, each once."""
    found: dict[int, Mail] = {}
    for mail in numbered:
        known = found.setdefault(mail.number or 0, mail)
        if known is not mail and _diff_of(known) != _diff_of(mail):
            what = f"duplicate patch {mail.number}/{mail.total}, first in line {known.line}"
            raise UserError(what, where=f"{path}:{mail.line}", hint="remove one of the two mails")
    wanted = range(1, (first.total or 0) + 1)
    missing = [f"{number}/{first.total}" for number in wanted if number not in found]
    if missing:
        version = f" of version {first.version}" if first.version > 1 else ""
        what = f"patches missing{version}: {', '.join(missing)}"
        hint = "save the whole thread, or remove the mails of this version"
        raise UserError(what, where=str(path), hint=hint)
    return [found[number] for number in wanted]


def _diff_of(mail: Mail) -> str:
    return Patch("", "", unix_lines(mail.content)).hash


def _trailers(mail: Mail, chosen: Sequence[Mail], every: Sequence[Mail]) -> list[str]:
    """Return the trailers of the replies to a patch or to its cover letter, each once."""
    by_id = {one.id: one for one in every if one.id}
    patches = {one.id for one in chosen}
    covers = {
        one.id for one in every
        if one.number == 0 and not one.is_reply and one.version == mail.version
    }  # fmt: skip
    found: dict[str, None] = {}
    for reply in every:
        if not reply.is_reply or reply.has_diff:
            continue
        # The nearest patch or cover letter above the reply.
        answered = next((p for p in reply.parents if p in patches | covers or p not in by_id), "")
        if answered == mail.id or answered in covers:
            found |= dict.fromkeys(reply.trailers())
    return [line for line in found if line.encode() not in mail.content]


def _with(mail: Mail, trailers: Sequence[str]) -> bytes:
    """Return a mail's content with trailers added to the commit's message."""
    if not trailers:
        return mail.content
    words = [word for line in trailers for word in ("--trailer", line)]
    message = Patch("", "", mail.content).message.encode("utf-8", "surrogateescape")
    # A commit's first paragraph, its subject, is never taken for trailers.
    title = b"subject\n\n"
    done = git.outside(
        Path("/"), "interpret-trailers", "--no-divider", *words, stdin=title + message
    )
    before, _, after = mail.content.partition(b"\n\n")
    return before + b"\n\n" + done.stdout.removeprefix(title) + after.removeprefix(message)


def _check(patch: Patch, mail: Mail, path: Path) -> None:
    """Raise if the mail's patch is broken; names the mail."""
    try:
        patch.changes()
    except UserError as error:
        where = error.where if patch.first_line is not None else f"{path}:{mail.line}"
        what = f"mail {mail.id or mail.subject}: {error.what}"
        raise UserError(what, where=where, hint=error.hint) from error


def _named(mail: Mail) -> str:
    return f"{mail.number}/{mail.total} in line {mail.line} ({mail.subject})"
