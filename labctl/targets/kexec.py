"""The kernel command line of a kexec, and the check that it worked. Pure.

Everything that the lab adds to the command line follows the token with the image's
hash; the target's own command line precedes it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from labctl.lab.command_line import words

PARAMETER = "labctl.image"
# After an oops, measurements are not reliable; after a panic the target must reboot, so
# that its firmware boots its own kernel.
_FALL_BACK = "panic=10 oops=panic"
_HASH_DIGITS = 16
# Parameters that a boot loader adds for the kernel that it starts.
_NOT_INHERITED = re.compile(r"(BOOT_IMAGE|initrd|panic|oops)=\S*|kexec_jump_back_entry=\S*")


@dataclass(frozen=True, slots=True)
class Boot:
    """One boot of a target: the kernel's boot id, release and command line."""

    id: str
    release: str
    command_line: str

    @property
    def token(self) -> str | None:
        """The short hash of the running lab image, None if the target's own kernel runs."""
        found = re.search(rf"(?:^|\s){re.escape(PARAMETER)}=(\S+)", self.command_line)
        return found[1] if found else None

    @property
    def own_command_line(self) -> str:
        """The target's own command line, for any running kernel."""
        own = re.split(rf"(?:^|\s){re.escape(PARAMETER)}=", self.command_line)[0]
        return " ".join(word for word in words(own) if not _NOT_INHERITED.fullmatch(word))


def token_of(image_hash: str) -> str:
    """Return the short hash that identifies an image on a command line."""
    return image_hash[:_HASH_DIGITS]


def command_line(boot: Boot, image_hash: str, more: str) -> str:
    """Return the command line of the next kernel: the target's own, the token, and `more`."""
    parts = (boot.own_command_line, f"{PARAMETER}={token_of(image_hash)}", _FALL_BACK, more)
    return " ".join(word for word in parts if word)


def fault(before: Boot, after: Boot, image_hash: str, release: str) -> str | None:
    """Return why `after` is not the requested boot, None if it is."""
    if after.token != token_of(image_hash):
        return (
            f"came back with {after.release} instead of the lab's kernel: the lab's kernel "
            "panicked or was reset, and the target fell back to its own"
        )
    if after.id == before.id:
        return "did not change its kernel"
    if release and after.release != release:
        return f"runs the wrong kernel: expected {release}, got {after.release}"
    return None
