"""The state folder (`state:`): names of the files and folders in it. Pure.

`labctl clean` removes only folders named here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

USUAL_NAME = ".labctl"  # the default of `state:`
MARKER = ".labctl-state"
MARKER_LINE = "labctl state folder: `labctl clean` removes what labctl made in it"
LOCK = "state.lock"
PAUSED = "paused.json"  # in the folder of a guest that a labctl has paused
_GUESTS = "guests"
MEASURED = ("nightly", "packs", "runs")
BUILT = (
    "bisect",
    "checked",  # of earlier versions
    "fetched",
    "guest",
    "images",
    "leases",
    "logs",  # of earlier versions
    "roots",
    "selftests",
    "series",
    "sources",
    "ssh",
    "trees",
    "verify",
)
_ACCELERATOR = "accelerator.json"
_SOURCE_HASHES = "sources.json"
FOLDERS = {_GUESTS, *MEASURED, *BUILT}
FILES = {MARKER, LOCK, _ACCELERATOR, _SOURCE_HASHES}
# Identify a state folder of a labctl version without the marker.
TRACES = (
    _SOURCE_HASHES,
    _ACCELERATOR,
    "images/*/image.json",
    "runs/*/run.json",
    "guests/*/guest.json",
    "guest/initramfs-*.cpio",
    "trees/*/make.lock",
)
_IMAGE_DIGITS = 32


@dataclass(frozen=True, slots=True)
class StateFolder:
    """The paths in a state folder; none of them needs to exist."""

    path: Path

    @property
    def marker(self) -> Path:
        """The file that marks a folder as a state folder."""
        return self.path / MARKER

    @property
    def lock(self) -> Path:
        """The lock between `labctl clean` and all other commands."""
        return self.path / LOCK

    @property
    def accelerator(self) -> Path:
        """The cached result of KVM's probe guest."""
        return self.path / _ACCELERATOR

    @property
    def source_hashes(self) -> Path:
        """The cached hashes of source archives and compilers."""
        return self.path / _SOURCE_HASHES

    @property
    def runs(self) -> Path:
        """The folder of stored runs, one subfolder each."""
        return self.path / "runs"

    @property
    def nightly(self) -> Path:
        """The folder of the nightly records."""
        return self.path / "nightly"

    @property
    def packs(self) -> Path:
        """The folder of the records of packed labs, which their results are compared with."""
        return self.path / "packs"

    @property
    def guests(self) -> Path:
        """The folder of the guests of `labctl up`, one subfolder each."""
        return self.path / _GUESTS

    @property
    def trees(self) -> Path:
        """The folder of work trees, one subfolder per key of a source."""
        return self.path / "trees"

    def image(self, image_hash: str) -> Path:
        """Return the folder of an image by the hash of its inputs."""
        return self.path / "images" / image_hash[:_IMAGE_DIGITS]

    def stamps(self, key: str) -> Path:
        """Return the cached hashes of a source folder's files; `key` is the source's."""
        return self.path / "sources" / f"{key}.json"

    @property
    def compilers(self) -> Path:
        """The cached paths of the compilers' cc1."""
        return self.path / "sources" / "compilers.json"

    @property
    def initramfs(self) -> Path:
        """The folder of initramfs archives and guest programs."""
        return self.path / "guest"

    @property
    def roots(self) -> Path:
        """The folder of the images that are made from roots of workloads."""
        return self.path / "roots"

    @property
    def ssh_key(self) -> Path:
        """The lab's private SSH key."""
        return self.path / "ssh" / "id_ed25519"

    @property
    def selftests(self) -> Path:
        """The folder of compiled selftests, one subfolder per hash of their inputs."""
        return self.path / "selftests"

    @property
    def selftests_log(self) -> Path:
        """The log of the build of selftests."""
        return self.path / "verify" / "selftests.log"

    def verify(self, kernel: str, variant: str) -> Path:
        """Return the folder of the guests of `labctl verify`."""
        return self.path / "verify" / kernel / variant

    @property
    def fetched(self) -> Path:
        """The folder of series that b4 fetched."""
        return self.path / "fetched"

    def series(self, kernel: str) -> Path:
        """Return the folder of `labctl series check`."""
        return self.path / "series" / kernel

    def bisect(self, kernel: str, step: int) -> Path:
        """Return the folder of the first `step` patches of a kernel's series."""
        return self.path / "bisect" / kernel / str(step)

    @property
    def leases(self) -> Path:
        """The folder of the leases of the pytest plugin."""
        return self.path / "leases"

    @property
    def prepare_lock(self) -> Path:
        """The lock of builds by the pytest plugin's processes."""
        return self.leases / "prepare.lock"
