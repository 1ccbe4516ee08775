"""Names in a packed lab, and on the machine that measures. Pure."""

from __future__ import annotations

# In the pack, beside labctl and the packages that it imports.
FOLDER = "packed_lab"
RECORD = "pack.json"
LAB = "lab.yaml"
CONTENTS = "contents.pickle"
INITRAMFS = "initramfs.cpio"
PROGRAMS = "bin"
START = "labstart"
BOX = "labbox"
QEMU = "qemu"
LIBRARIES = "lib"
# In the current folder of the machine that measures.
UNPACKED = ".labctl-pack"
STATE = ".labctl-pack/state"
# In a result.
MANIFEST = "manifest.json"
RUN = "run"
RESULT_SUFFIX = ".labrun.tar.gz"
# As `gzip.GzipFile` writes it: no time, no name, level 6.
GZIP_LEVEL = 6
GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
