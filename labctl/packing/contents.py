"""The part of a packed lab that is of Python: the lab, its images and what its workloads bring."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from labctl.guests.disks import Disk
from labctl.kernels.build import Image
from labctl.lab.models import Lab
from labctl.packing import place
from labctl.workloads.supply import Supply


@dataclass(frozen=True, slots=True)
class Contents:
    """A lab with all that `run` builds for it; the paths of files are in the pack."""

    lab: Lab
    images: dict[str, Image]
    supplies: dict[str, Supply]
    initramfs: str  # its hash

    def dumped(self) -> bytes:
        """Return the contents as bytes, for `loaded`."""
        return pickle.dumps(self, protocol=5)

    def placed(self, folder: Path, state: Path) -> Contents:
        """Return the contents with the paths of an unpacked pack; `state` is the state folder.

        Raises:
            OSError: a file is missing.
        """
        lab = self.lab.model_copy(
            update={"path": folder / place.LAB, "root": folder, "state": state}
        )
        images = {
            name: replace(
                one,
                bzimage=folder / one.bzimage,
                config=None if one.config is None else folder / one.config,
            )
            for name, one in self.images.items()
        }
        supplies = {
            name: one
            if one.root is None
            else replace(one, root=Disk.of(folder / one.root.path, one.root.digest))
            for name, one in self.supplies.items()
        }
        return replace(self, lab=lab, images=images, supplies=supplies)


def loaded(content: bytes) -> Contents:
    """Return dumped contents.

    Unpickling runs code, as the rest of the pack does. Only the labctl of the same pack does
    so; what comes from another machine is JSON.
    """
    found = pickle.loads(content)  # noqa: S301
    assert isinstance(found, Contents)
    return found


@dataclass(frozen=True, slots=True)
class Gathered:
    """Contents, and where their files are on the host that packs them, by path in the pack."""

    contents: Contents
    files: dict[str, Path]


def gathered(
    lab: Lab, images: Mapping[str, Image], supplies: Mapping[str, Supply], initramfs: str
) -> Gathered:
    """Return images and supplies with paths in the pack, and their files."""
    files: dict[str, Path] = {}
    packed_images = {}
    for name, image in images.items():
        folder = Path("images", image.hash[:32])
        bzimage, config = folder / image.bzimage.name, None
        files[str(bzimage)] = image.bzimage
        if image.config is not None:
            config = folder / "config"
            files[str(config)] = image.config
        packed_images[name] = replace(image, bzimage=bzimage, config=config)
    packed_supplies = {}
    for name, supply in supplies.items():
        root = supply.root
        if root is not None:
            path = Path("roots", root.digest[:32])
            files[str(path)] = root.path
            root = replace(root, path=path)
        packed_supplies[name] = replace(
            supply,
            files=dict.fromkeys(supply.files, ""),  # they are in the initramfs
            recorded=supply.digest(),
            root=root,
            archive=None,
        )
    return Gathered(Contents(lab, packed_images, packed_supplies, initramfs), files)
