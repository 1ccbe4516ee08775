"""What a packed lab and its results state of themselves: pack.json and manifest.json. Pure."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from labctl.errors import UserError

RESULT = "labctl result"
_ID_DIGITS = 32
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class PackedKernel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A kernel of a packed lab, by the hash of its image and of its series."""

    image: str
    series: str | None


class PackRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """pack.json: all that a packed lab is made of.

    `lab` is the SHA-256 of lab.yaml, `experiments` has what run.json records of each, without
    what depends on the host. `files` has the SHA-256 of each file, by its path in the pack.
    """

    schema: Literal[1] = 1
    labctl: str
    python: str
    machine: str
    lab: Sha256
    experiments: dict[str, dict[str, Any]]
    kernels: dict[str, PackedKernel]
    initramfs: str
    qemu: str | None
    packages: dict[str, str]
    files: dict[str, Sha256]


class FileRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of a result."""

    sha256: Sha256
    bytes: Annotated[int, Meta(ge=0, le=2**50)]


class ResultManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """manifest.json, the first file of a result: the others, and the pack that measured them."""

    schema: Literal[1] = 1
    format: Literal["labctl result"] = "labctl result"
    pack: Sha256
    run: Annotated[str, Meta(pattern=r"^\d{8}-\d{6}-[0-9a-f]{4}$")]
    labctl: str
    files: dict[str, FileRecord]


def encoded(record: PackRecord | ResultManifest) -> bytes:
    """Return a record as JSON; the same record gives the same bytes."""
    return msgspec.json.format(msgspec.json.encode(record, order="deterministic"), indent=1)


_Record = TypeVar("_Record", PackRecord, ResultManifest)


def decoded(content: bytes, kind: type[_Record], where: str) -> _Record:
    """Return the record in JSON.

    Raises:
        UserError: it is damaged, or of another version of labctl.
    """
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        hint = "it is damaged, or another version of labctl wrote it"
        raise UserError(f"invalid record: {error}", where=where, hint=hint) from error


def id_of(content: bytes) -> str:
    """Return the id of a pack: the SHA-256 of its pack.json, which has those of its files."""
    return hashlib.sha256(content).hexdigest()


def file_name(pack_id: str) -> str:
    """Return the name of the file that keeps a pack's record in the lab that made it."""
    return f"{pack_id[:_ID_DIGITS]}.json"
