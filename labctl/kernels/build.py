"""Build the images of kernels; an image's address is the hash of all its inputs."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from labctl.arch import ARCHITECTURES, Architecture
from labctl.errors import HostError, LabError, UserError
from labctl.kernels import configuration, images, kconfig, mentions, named_files
from labctl.kernels.configuration import Configuration
from labctl.kernels.images import Image
from labctl.kernels.kconfig import Option
from labctl.kernels.make import Make, Report, remaining_seconds
from labctl.kernels.revision import Committed
from labctl.kernels.sources import Source, open_source
from labctl.kernels.toolchain import check_options, check_tools, compiler, tools_hash
from labctl.kernels.tree import Tree
from labctl.lab.models import Kernel
from labctl.lab.state import StateFolder
from labctl.series import reader
from labctl.series.patch import Series

__all__ = ["BuildProgress", "Builder", "Image"]

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FILES_DIGITS = 8


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """Progress of a build; times are in seconds, a file is a step that make prints."""

    kernel: str
    stage: str
    done_files: int
    total_files_estimate: int | None
    seconds: float
    remaining_seconds: float | None


@dataclass(frozen=True, slots=True)
class _Request:
    """The image that a kernel needs, with all its inputs."""

    image: Image
    folder: Path
    source: Source
    patches: Series | None
    configuration: Configuration

    @property
    def options(self) -> tuple[Option, ...]:
        return self.configuration.options

    @property
    def arch(self) -> Architecture:
        return ARCHITECTURES[self.image.arch]

    def make(self, tree: Tree, log: Path, report: Report) -> Make:
        variables = self.configuration.variables
        return Make(self.image.kernel, tree, log, report, self.arch, variables)

    def built(self) -> Image | None:
        built = images.load(self.folder, self.image.kernel)
        asked = self.image
        # It may have been built from other patches with the same result.
        return built and replace(
            built,
            commit=asked.commit,
            subject=asked.subject,
            source_hash=asked.source_hash,
            series_hash=asked.series_hash,
            patch_hashes=asked.patch_hashes,
        )


class Guard(Protocol):
    """Rejects kernels that cannot be used for their purpose, before they are built."""

    def check_options(self, kernel: str, options: Iterable[Option], arch: str) -> None:
        """Raise a UserError if requested options cannot be used."""

    def check_config(self, kernel: str, config: Mapping[str, str], arch: str) -> None:
        """Raise a UserError if a final .config cannot be used."""

    def check_source(self, kernel: str, may_have: Callable[[str], bool]) -> None:
        """Raise a UserError if the source cannot be used.

        `may_have` returns whether a kernel of it can have a file of /sys or /proc/sys.
        """


class Builder:
    """Builds the images of a lab's kernels under `state`, the state folder."""

    def __init__(
        self,
        state: Path,
        progress: Callable[[BuildProgress], None],
        guard: Guard | None = None,
    ) -> None:
        # Absolute, as make runs in another folder.
        self._state = StateFolder(state.absolute())
        self._progress = progress
        self._guard = guard

    def image(self, kernel: Kernel) -> Image:
        """Return a kernel's image; build it if there is none with the same inputs.

        Raises:
            UserError: a patch does not apply, an option is missing from the final .config,
                or a file is missing.
            BuildError: the compiler failed; carries its last errors and the log's path.
            HostError: a tool or a source package is missing, or the disk is full.
        """
        return self.images([kernel])[kernel.name]

    def images(self, kernels: Iterable[Kernel]) -> dict[str, Image]:
        """Return the images of several kernels by name; raise as `image` does.

        Fragments and series are checked before the first build starts.
        """
        with self._full_disk_as_error():
            sources: dict[str, tuple[Source, str]] = {}
            asked = [self._ask(kernel, sources) for kernel in kernels]
            for each in asked:
                self._check_known(each)
            missing = [r for r in asked if isinstance(r, _Request) and not r.built()]
            for request in missing:
                check_tools(request.arch, request.configuration.variables)
            for request in missing:
                self._check(request)
            # Kernels of one source are searched once, since that can take seconds.
            searched: dict[tuple[str, str], bool] = {}
            for request in missing:
                if self._guard is not None:
                    may_have = partial(self._may_have, request, searched)
                    self._guard.check_source(request.image.kernel, may_have)
            done = [self._image(r) if isinstance(r, _Request) else r for r in asked]
            return {image.kernel: image for image in done}

    @contextlib.contextmanager
    def workshop(self, kernel: Kernel, log: Path) -> Iterator[Make]:
        """Yield make in the kernel's configured work tree, locked, without any series.

        For checks that build no image. The next user of the tree reverts what
        `make.tree.prepare` applied.

        Raises:
            UserError: the kernel is a built image, or an option is missing from the final
                .config.
        """
        request = self._ask(kernel, {})
        if isinstance(request, Image):
            raise UserError(f"kernel {kernel.name} is a built image without a source to check")
        check_tools(request.arch, request.configuration.variables)
        report = self._reporter(kernel.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
        with self._full_disk_as_error(), self._tree(request, report) as tree:
            _fill(tree, report)
            tree.prepare(None)
            make = request.make(tree, log, report)
            make.configure(request.configuration)
            yield make

    def _ask(self, kernel: Kernel, sources: dict[str, tuple[Source, str]]) -> _Request | Image:
        """Return the request for a kernel's image; `sources` caches sources with their hashes."""
        if kernel.source.startswith("image:"):
            return images.given(kernel)
        if kernel.source not in sources:  # read a source once for all its kernels
            opened = open_source(kernel.source, self._state.path)
            sources[kernel.source] = opened, opened.hash()
        source, source_hash = sources[kernel.source]
        patches = reader.read_all(kernel.stack, self._state.fetched)
        arch = ARCHITECTURES[kernel.arch]
        configured = configuration.read(kernel, arch)
        image = Image(
            kernel=kernel.name,
            bzimage=Path(),
            hash="",
            source_hash=source_hash,
            series_hash=patches.hash if patches else None,
            patch_hashes=tuple(p.hash for p in patches.every) if patches else (),
            config=None,
            release="",
            compiler=compiler(arch, kernel.make),
            arch=arch.name,
            tools_hash=tools_hash(arch, self._state.path, kernel.make),
            files_hash=named_files.digest(configured.options),
            commit=source.commit.commit if source.commit else "",
            subject=source.commit.subject if source.commit else "",
        )
        result = _result(source, patches)
        image = replace(image, hash=images.address(image, configured, result))
        folder = self._state.image(image.hash)
        return _Request(image, folder, source, patches, configured)

    def _check_known(self, asked: _Request | Image) -> None:
        """Raise if the options or the .config known before the build cannot be used."""
        if self._guard is None:
            return
        if isinstance(asked, _Request):
            name, arch = asked.image.kernel, asked.image.arch
            self._guard.check_options(name, asked.options, arch)
        image = asked.built() if isinstance(asked, _Request) else asked
        config = None if image is None else kconfig.read_values(image.config)
        if image is not None and config is not None:
            self._guard.check_config(image.kernel, config, image.arch)

    def _check(self, request: _Request) -> None:
        """Raise if the series does not apply; nothing is built."""
        if request.patches is None:
            return
        report = self._reporter(request.image.kernel)
        with self._tree(request, report) as tree:
            # Else revisions of one repository would be written by turns, and compiled again.
            if not request.source.has_originals:
                _fill(tree, report, "checking the series")
            tree.check(request.patches)

    def _may_have(
        self, request: _Request, searched: dict[tuple[str, str], bool], file: str
    ) -> bool:
        """Return whether the kernel can have a file of /sys or /proc/sys.

        `searched` has the results of sources, by hash and expression, and gets new ones.
        """
        wanted = mentions.pattern(file)
        if wanted is None or mentions.in_series(request.patches, wanted):
            return True
        report = self._reporter(request.image.kernel)

        def filled() -> Path:
            with self._tree(request, report) as tree:
                _fill(tree, report)
                return tree.src

        key = request.image.source_hash, wanted
        if key not in searched:
            report("checking tunables", 0, None)
            searched[key] = request.source.mentions(wanted, filled)
        return searched[key]

    def _image(self, request: _Request) -> Image:
        known = request.built()
        if known:
            return known
        report = self._reporter(request.image.kernel)
        began = time.monotonic()
        with self._tree(request, report) as tree:
            known = request.built()  # the labctl that held the lock may have built it
            if known:
                return known
            for path in images.damaged(request.folder):
                report(f"rebuilding: {path.name} is damaged", 0, None)
            log = images.begin(request.folder, request.image)
            try:
                make = request.make(tree, log, report)
                notes = self._make(request, make, report)
                seconds = time.monotonic() - began
                image = replace(request.image, notes=notes)
                return images.publish(request.folder, image, make, seconds)
            except (LabError, OSError) as error:
                with contextlib.suppress(OSError):
                    images.fail(request.folder, str(error))
                raise

    def _make(self, request: _Request, make: Make, report: Report) -> tuple[str, ...]:
        """Make the image in a work tree; return the notes of its configuration."""
        tree = make.tree
        filled = _fill(tree, report)
        tree.prepare(request.patches)
        if filled != request.image.source_hash:
            raise UserError(
                f"source of kernel {request.image.kernel} changed while it was read",
                hint="run the command again",
            )
        outcome = make.configure(request.configuration)
        check_options(outcome.final)
        named_files.check(request.options, tree.src, tree.build)
        if self._guard is not None:
            self._guard.check_config(request.image.kernel, outcome.final, request.image.arch)
        make.build()
        if named_files.digest(request.options) != request.image.files_hash:
            raise UserError(
                f"files named by options of kernel {request.image.kernel} changed during the build",
                hint="run the command again",
            )
        return outcome.notes()

    @contextlib.contextmanager
    def _tree(self, request: _Request, report: Callable[..., None]) -> Iterator[Tree]:
        place = self._state.trees / request.source.key
        # make compares times, and the files that options name may be older than the objects.
        files = request.image.files_hash[:_FILES_DIGITS]
        named = request.configuration.digest(request.arch) + (files and f"-{files}")
        tree = Tree(place, request.source, named)
        with tree.locked(
            waiting=lambda: report("waiting for another labctl's build", 0, None),
            rebuilding=lambda why: report(f"rebuilding: {why}", 0, None),
        ):
            yield tree

    def _reporter(self, kernel: str) -> Callable[[str, int, int | None], None]:
        began: dict[str, float] = {}

        def report(stage: str, done: int, total: int | None) -> None:
            seconds = time.monotonic() - began.setdefault(stage, time.monotonic())
            remaining = remaining_seconds(seconds, done, total)
            self._progress(BuildProgress(kernel, stage, done, total, seconds, remaining))

        return report

    @contextlib.contextmanager
    def _full_disk_as_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise HostError(
                "the disk is full",
                where=str(error.filename or self._state.path),
                hint="free space: `labctl clean`",
            ) from error


def _result(source: Source, patches: Series | None) -> str:
    """Return the hash of a revision with a series, "" for other sources."""
    if patches is None or not isinstance(source, Committed):
        return ""
    with contextlib.suppress(UserError):  # `Builder.images` checks all series, and reports it
        return source.hash_with(patches)
    return ""


def _fill(tree: Tree, report: Callable[..., None], stage: str = "preparing the source") -> str:
    report(stage if tree.src.is_dir() else "unpacking", 0, None)
    return tree.fill()
