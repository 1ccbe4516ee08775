"""Kernels to `Image`s, addressed by everything that goes into them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from labctl import proc
from labctl.errors import BuildError, HostError, UserError
from labctl.kernels import kconfig, series
from labctl.kernels.kconfig import Option
from labctl.kernels.series import Series
from labctl.kernels.sources import open_source
from labctl.kernels.tree import Tree
from labctl.lab_models import Kernel

# Raised when the same inputs would give another image.
_BUILDER = 1
_ARCHITECTURE = "x86_64"
_BZIMAGE = Path("arch/x86/boot/bzImage")
_POLL_SECONDS = 0.25
_CONFIG_SECONDS = 300.0
_BUILD_SECONDS = 4 * 3600.0
_ERROR_LINES = 20
_STEP = re.compile(rb"^  [A-Z][A-Z0-9_]+ +\S", re.MULTILINE)
_WRONG = re.compile(r"error|undefined reference|Error \d|No rule|not found", re.IGNORECASE)
# Of a small kernel; replaced by what the first whole build counts.
_USUAL_STEPS = 1500
# Fixed, so that the same inputs give the same bytes and no version file changes.
_REPRODUCIBLE = {
    "KBUILD_BUILD_TIMESTAMP": "2017-03-15 00:00:00 UTC",
    "KBUILD_BUILD_USER": "labctl",
    "KBUILD_BUILD_HOST": "labctl",
    "KBUILD_BUILD_VERSION": "1",
}


@dataclass(frozen=True, slots=True)
class Image:
    """A built or given kernel; `hash` addresses all that went in."""

    kernel: str
    bzimage: Path
    hash: str
    source_hash: str
    series_hash: str | None
    patch_hashes: tuple[str, ...]
    config: Path | None
    release: str
    compiler: str


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """Where a build is; times in seconds, files as make's own steps."""

    kernel: str
    stage: str
    done_files: int
    total_files_estimate: int | None
    seconds: float
    remaining_seconds: float | None


class Builder:
    """Makes the images of a lab's kernels under `root`, the `.labctl` folder."""

    def __init__(self, root: Path, progress: Callable[[BuildProgress], None]) -> None:
        self._root = root
        self._progress = progress

    def images(self, kernels: Iterable[Kernel]) -> dict[str, Image]:
        """Return the images of several kernels by name.

        What can be wrong with a series is found before the first build begins.
        Raises as `image` does.
        """
        asked = list(kernels)
        for kernel in asked:
            self._check(kernel)
        return {kernel.name: self.image(kernel) for kernel in asked}

    def _check(self, kernel: Kernel) -> None:
        """Raise if the kernel's series does not apply; nothing is built."""
        if kernel.source.startswith("image:"):
            _given(kernel)
            return
        if kernel.series is None:
            return
        source = open_source(kernel.source, self._root)
        patches = series.read(kernel.series)
        checked = self._root / "checked" / f"{source.hash()[:32]}-{patches.hash[:32]}"
        if checked.exists():
            return
        tree = Tree(self._root / "trees" / source.key, source)
        job = _Job(kernel.name, tree, self._progress, self._root / "logs" / f"{kernel.name}.log")
        with tree.locked(lambda: job.tell("waiting for another labctl's build")):
            job.tell("checking that the series applies")
            tree.fill()
            tree.check(patches)
        checked.parent.mkdir(parents=True, exist_ok=True)
        checked.touch()

    def image(self, kernel: Kernel) -> Image:
        """Return a kernel's image, building it if these inputs were not built before.

        Raises:
            UserError: a patch does not apply, an option does not hold, a file is missing.
            BuildError: the compiler failed; carries its last errors and the log's path.
            HostError: a tool or a source package is missing, or the disk is full.
        """
        if kernel.source.startswith("image:"):
            return _given(kernel)
        source = open_source(kernel.source, self._root)
        patches = series.read(kernel.series) if kernel.series else None
        options = kconfig.merge(kernel.kconfig)
        image = Image(
            kernel=kernel.name,
            bzimage=Path(),
            hash="",
            source_hash=source.hash(),
            series_hash=patches.hash if patches else None,
            patch_hashes=tuple(p.hash for p in patches.patches) if patches else (),
            config=None,
            release="",
            compiler=_compiler(),
        )
        digest = _address(image, options)
        folder = self._root / "images" / digest[:32]
        known = _load(folder, kernel.name)
        if known:
            return known
        tree = Tree(self._root / "trees" / source.key, source)
        job = _Job(kernel.name, tree, self._progress, self._root / "logs" / f"{kernel.name}.log")
        with tree.locked(lambda: job.tell("waiting for another labctl's build")):
            known = _load(folder, kernel.name)  # that other one may have built it
            if known:
                return known
            return _publish(job.build(patches, options), folder, image, digest)


def _given(kernel: Kernel) -> Image:
    path = Path(kernel.source.partition(":")[2])
    if kernel.series or kernel.kconfig:
        raise UserError(
            f"kernel {kernel.name} is a ready image: it cannot take a series or kconfig fragments",
            hint="give it a source to build from: debian:NAME or dir:PATH",
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"the image cannot be read: {error.strerror}", where=str(path)) from error
    digest = hashlib.sha256(content).hexdigest()
    return Image(
        kernel=kernel.name,
        bzimage=path.absolute(),
        hash=digest,
        source_hash=digest,
        series_hash=None,
        patch_hashes=(),
        config=None,
        release=_release_of(content),
        compiler="",
    )


def _release_of(content: bytes) -> str:
    """Return the release that a bzImage says of itself.

    Documentation/x86/boot.rst: kernel_version at 0x20e points to text, less 0x200.
    """
    if content[0x202:0x206] != b"HdrS":
        return ""
    start = int.from_bytes(content[0x20E:0x210], "little") + 0x200
    text = content[start : start + 200].split(b"\0", 1)[0].decode("ascii", "replace")
    return text.split(" ", 1)[0]


def _compiler() -> str:
    versions = [
        proc.run([tool, "--version"], timeout_seconds=30).text.splitlines()[0]
        for tool in ("gcc", "ld")
    ]
    return ", ".join(versions)


def _address(image: Image, options: list[Option]) -> str:
    content = {
        "builder": _BUILDER,
        "architecture": _ARCHITECTURE,
        "source": image.source_hash,
        "patches": image.patch_hashes,
        "kconfig": sorted((o.name, o.value) for o in options),
        "compiler": image.compiler,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _load(folder: Path, kernel: str) -> Image | None:
    try:
        content = json.loads((folder / "image.json").read_text())
    except (OSError, ValueError):
        return None
    content |= {
        "kernel": kernel,
        "bzimage": folder / "bzImage",
        "config": folder / "config",
        "patch_hashes": tuple(content["patch_hashes"]),
    }
    content.pop("warnings", None)
    return Image(**content)


def _publish(job: _Job, folder: Path, image: Image, digest: str) -> Image:
    """Put what a build made into its final place, all at once."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="new-", dir=folder.parent))
    try:
        scratch.chmod(0o755)
        shutil.copy2(job.tree.build / _BZIMAGE, scratch / "bzImage")
        shutil.copy2(job.tree.build / ".config", scratch / "config")
        shutil.copy2(job.log, scratch / "build.log")
        record = asdict(image) | {
            "hash": digest,
            "release": job.release(),
            "bzimage": "bzImage",
            "config": "config",
            "warnings": len(re.findall(r"\bwarning: ", job.log.read_text("utf-8", "replace"))),
        }
        (scratch / "image.json").write_text(json.dumps(record, indent=1) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        scratch.rename(folder)
    except OSError as error:
        raise HostError(f"the image cannot be kept: {error.strerror}", where=str(folder)) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    built = _load(folder, image.kernel)
    assert built is not None
    return built


class _Job:
    """One build in a tree that it has locked."""

    def __init__(
        self, kernel: str, tree: Tree, progress: Callable[[BuildProgress], None], log: Path
    ) -> None:
        self.kernel = kernel
        self.tree = tree
        self.log = log
        self._progress = progress
        self._began = time.monotonic()

    def tell(self, stage: str, done: int = 0, total: int | None = None) -> None:
        seconds = time.monotonic() - self._began
        remaining = None
        if total and done > 50:
            remaining = max(0.0, seconds / done * (total - done))
        self._progress(BuildProgress(self.kernel, stage, done, total, seconds, remaining))

    def build(self, patches: Series | None, options: list[Option]) -> _Job:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.write_bytes(b"")
        self.tell("unpacking" if not self.tree.src.is_dir() else "preparing the source")
        self.tree.fill()
        self.tree.prepare(patches)
        self.tell("configuring")
        self._configure(options)
        self._make()
        return self

    def release(self) -> str:
        path = self.tree.build / "include/config/kernel.release"
        return path.read_text().strip()

    def _words(self) -> list[str | Path]:
        return ["make", "-C", self.tree.src, f"O={self.tree.build}", "LOCALVERSION="]

    def _configure(self, options: list[Option]) -> None:
        """Make a .config; it is replaced only if it differs, since make goes by time."""
        self.tree.build.mkdir(parents=True, exist_ok=True)
        wanted = self.tree.build / ".labctl-allconfig"
        wanted.write_text(kconfig.render(options))
        fresh = self.tree.build / ".config.new"
        fresh.unlink(missing_ok=True)
        done = proc.run(
            [*self._words(), "allnoconfig"],
            env={"KCONFIG_ALLCONFIG": str(wanted), "KCONFIG_CONFIG": str(fresh)},
            timeout_seconds=_CONFIG_SECONDS,
            check=False,
        )
        if done.status != 0:
            self.log.write_bytes(done.stdout + done.stderr)
            raise self._failed("the kernel cannot be configured")
        text = fresh.read_text()
        kconfig.check(options, text, self.tree.src)
        config = self.tree.build / ".config"
        if not config.is_file() or config.read_text() != text:
            fresh.replace(config)
        else:
            fresh.unlink()

    def _make(self) -> None:
        jobs = len(os.sched_getaffinity(0))
        argv = [*self._words(), f"-j{jobs}", "bzImage"]
        total = self._expected()
        deadline = time.monotonic() + _BUILD_SECONDS
        with proc.spawn(argv, env=_REPRODUCIBLE, log=self.log) as make:
            done = offset = 0
            while make.wait(_POLL_SECONDS) is None:
                with self.log.open("rb") as log:
                    log.seek(offset)
                    data = log.read()
                whole = data.rfind(b"\n") + 1
                offset += whole
                done += len(_STEP.findall(data[:whole]))
                self.tell("compiling", done, total)
                if time.monotonic() > deadline:
                    raise self._failed(f"the build did not end within {_BUILD_SECONDS:g} s")
            status = make.poll()
        if status != 0:
            raise self._failed(f"make ended with status {status}")
        self._remember(len(_STEP.findall(self.log.read_bytes())))

    def _expected(self) -> int | None:
        """Return how many steps a whole build takes; of a partial one nobody knows."""
        if (self.tree.build / _BZIMAGE).exists():
            return None
        try:
            return int((self.tree.folder / "steps").read_text())
        except (OSError, ValueError):
            return _USUAL_STEPS

    def _remember(self, steps: int) -> None:
        path = self.tree.folder / "steps"
        if not path.exists():
            path.write_text(f"{steps}\n")

    def _failed(self, what: str) -> BuildError | HostError:
        text = self.log.read_text("utf-8", "replace")
        if "No space left on device" in text:
            return HostError(f"the disk is full: {what}", where=str(self.tree.folder))
        lines = text.splitlines()
        errors = [line for line in lines if _WRONG.search(line)][-_ERROR_LINES:]
        return BuildError(
            f"kernel {self.kernel}: {what}",
            log=str(self.log),
            errors=errors or lines[-_ERROR_LINES:],
        )
