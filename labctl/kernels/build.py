"""Kernels to `Image`s, addressed by everything that goes into them."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from labctl.errors import HostError, LabError, UserError
from labctl.kernels import images, kconfig, named_files, series
from labctl.kernels.images import Image
from labctl.kernels.kconfig import Option
from labctl.kernels.make import Make, check_tools, compiler, remaining_seconds, tools_hash
from labctl.kernels.series import Series
from labctl.kernels.sources import Source, open_source
from labctl.kernels.tree import Tree
from labctl.lab_arch import ARCHITECTURES, Architecture
from labctl.lab_models import Kernel

__all__ = ["BuildProgress", "Builder", "Image"]

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FOLDER_DIGITS = 32
_FILES_DIGITS = 8


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """Where a build is; times in seconds, files as make's own steps."""

    kernel: str
    stage: str
    done_files: int
    total_files_estimate: int | None
    seconds: float
    remaining_seconds: float | None


@dataclass(frozen=True, slots=True)
class _Request:
    """What a kernel asks for: the image to be, and all that goes into it."""

    image: Image
    folder: Path
    source: Source
    patches: Series | None
    options: list[Option]

    @property
    def arch(self) -> Architecture:
        return ARCHITECTURES[self.image.arch]

    def built(self) -> Image | None:
        return images.load(self.folder, self.image.kernel)


class Guard(Protocol):
    """Refuses kernels that could not be used for what they are built for."""

    def check_options(self, kernel: str, options: Iterable[Option], arch: str) -> None:
        """Raise a UserError if what fragments ask for cannot be used."""

    def check_config(self, kernel: str, config: Mapping[str, str], arch: str) -> None:
        """Raise a UserError if a whole .config cannot be used."""


class Builder:
    """Makes the images of a lab's kernels under `root`, the `.labctl` folder."""

    def __init__(
        self,
        root: Path,
        progress: Callable[[BuildProgress], None],
        guard: Guard | None = None,
    ) -> None:
        # Absolute, for make runs elsewhere.
        self._root = root.absolute()
        self._progress = progress
        self._guard = guard

    def image(self, kernel: Kernel) -> Image:
        """Return a kernel's image, building it if these inputs were not built before.

        Raises:
            UserError: a patch does not apply, an option does not hold, a file is missing.
            BuildError: the compiler failed; carries its last errors and the log's path.
            HostError: a tool or a source package is missing, or the disk is full.
        """
        return self.images([kernel])[kernel.name]

    def images(self, kernels: Iterable[Kernel]) -> dict[str, Image]:
        """Return the images of several kernels by name.

        What can be wrong with fragments and series is found before the first build
        begins. Raises as `image` does.
        """
        with self._told_if_full():
            sources: dict[str, tuple[Source, str]] = {}
            asked = [self._ask(kernel, sources) for kernel in kernels]
            for each in asked:
                self._check_known(each)
            missing = [r for r in asked if isinstance(r, _Request) and not r.built()]
            for arch in {request.arch for request in missing}:
                check_tools(arch)
            for request in missing:
                self._check(request)
            done = [self._image(r) if isinstance(r, _Request) else r for r in asked]
            return {image.kernel: image for image in done}

    @contextlib.contextmanager
    def workshop(self, kernel: Kernel, log: Path) -> Iterator[Make]:
        """Yield make in the kernel's own work tree, configured, its series not applied.

        For checks that build no image; nobody else builds there meanwhile. What
        `make.tree.prepare` applied is taken back by whoever uses the tree next.

        Raises:
            UserError: the kernel is a ready image, or an option does not hold.
        """
        request = self._ask(kernel, {})
        if isinstance(request, Image):
            raise UserError(f"kernel {kernel.name} is a ready image: it has no source to check")
        check_tools(request.arch)
        tell = self._teller(kernel.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
        with self._told_if_full(), self._tree(request, tell) as tree:
            _fill(tree, tell)
            tree.prepare(None)
            make = Make(kernel.name, tree, log, tell, request.arch)
            make.configure(request.options)
            yield make

    def _ask(self, kernel: Kernel, sources: dict[str, tuple[Source, str]]) -> _Request | Image:
        """Return what a kernel asks for; `sources` are those known by now, with their hashes."""
        if kernel.source.startswith("image:"):
            return images.given(kernel)
        if kernel.source not in sources:  # kernels of one source: it is read once, for all
            opened = open_source(kernel.source, self._root)
            sources[kernel.source] = opened, opened.hash()
        source, source_hash = sources[kernel.source]
        patches = series.read(kernel.series) if kernel.series else None
        arch = ARCHITECTURES[kernel.arch]
        options = kconfig.merge(kconfig.of_arch(kernel.kconfig, arch))
        image = Image(
            kernel=kernel.name,
            bzimage=Path(),
            hash="",
            source_hash=source_hash,
            series_hash=patches.hash if patches else None,
            patch_hashes=tuple(p.hash for p in patches.patches) if patches else (),
            config=None,
            release="",
            compiler=compiler(arch),
            arch=arch.name,
            tools_hash=tools_hash(arch, self._root),
            files_hash=named_files.digest(options),
        )
        image = replace(image, hash=images.address(image, options))
        folder = self._root / "images" / image.hash[:_FOLDER_DIGITS]
        return _Request(image, folder, source, patches, options)

    def _check_known(self, asked: _Request | Image) -> None:
        """Raise if what is known of a kernel before its build cannot be used."""
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
        tell = self._teller(request.image.kernel)
        with self._tree(request, tell) as tree:
            _fill(tree, tell, "checking the series")
            tree.check(request.patches)

    def _image(self, request: _Request) -> Image:
        known = request.built()
        if known:
            return known
        tell = self._teller(request.image.kernel)
        began = time.monotonic()
        with self._tree(request, tell) as tree:
            known = request.built()  # the one that was waited for may have built it
            if known:
                return known
            for path in images.damaged(request.folder):
                tell(f"building again: {path.name} is damaged", 0, None)
            log = images.begin(request.folder, request.image)
            try:
                make = Make(request.image.kernel, tree, log, tell, request.arch)
                self._make(request, make, tell)
                seconds = time.monotonic() - began
                return images.publish(request.folder, request.image, make, seconds)
            except (LabError, OSError) as error:
                with contextlib.suppress(OSError):
                    images.fail(request.folder, str(error))
                raise

    def _make(self, request: _Request, make: Make, tell: Callable[..., None]) -> None:
        tree = make.tree
        filled = _fill(tree, tell)
        tree.prepare(request.patches)
        if filled != request.image.source_hash:
            raise UserError(
                f"the source of kernel {request.image.kernel} changed while it was read",
                hint="run the command again",
            )
        make.configure(request.options)
        named_files.check(request.options, tree.src, tree.build)
        if self._guard is not None:
            config = kconfig.values((tree.build / ".config").read_text("utf-8", "replace"))
            self._guard.check_config(request.image.kernel, config, request.image.arch)
        make.build()
        if named_files.digest(request.options) != request.image.files_hash:
            raise UserError(
                f"files that options of kernel {request.image.kernel} name changed meanwhile",
                hint="run the command again",
            )

    @contextlib.contextmanager
    def _tree(self, request: _Request, tell: Callable[..., None]) -> Iterator[Tree]:
        place = self._root / "trees" / request.source.key
        # make goes by the times of files that options name, which may be old ones.
        files = request.image.files_hash[:_FILES_DIGITS]
        configuration = kconfig.digest(request.options, request.arch) + (files and f"-{files}")
        tree = Tree(place, request.source, configuration)
        with tree.locked(lambda: tell("waiting for another labctl's build", 0, None)):
            yield tree

    def _teller(self, kernel: str) -> Callable[[str, int, int | None], None]:
        began: dict[str, float] = {}

        def tell(stage: str, done: int, total: int | None) -> None:
            seconds = time.monotonic() - began.setdefault(stage, time.monotonic())
            remaining = remaining_seconds(seconds, done, total)
            self._progress(BuildProgress(kernel, stage, done, total, seconds, remaining))

        return tell

    @contextlib.contextmanager
    def _told_if_full(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise HostError(
                "the disk is full", where=str(self._root), hint="`labctl clean` makes room"
            ) from error


def _fill(tree: Tree, tell: Callable[..., None], stage: str = "preparing the source") -> str:
    tell(stage if tree.src.is_dir() else "unpacking", 0, None)
    return tree.fill()
