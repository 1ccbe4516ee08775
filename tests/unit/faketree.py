"""A kernel source of a hundred lines: configured, patched and "compiled" in milliseconds.

An object is its source and header, put together; the image is all objects and
the config, behind the header of a bzImage, or of an Image for arm64. Switches in a C file:
    #error WORDS      the compiler fails with these words
    #warning WORDS    it warns
    // wait FILE      it writes half an object and hangs, unless FILE exists
    // hold FILE      it goes on when FILE exists
"""

import difflib
import subprocess
from pathlib import Path

from labctl.lab.models import Kernel

RELEASE = "6.1.0-fake"

MAKEFILE = r"""
O ?= .
KCONFIG_CONFIG ?= $(O)/.config
OBJECTS = $(O)/mm/mmu_gather.o $(O)/mm/memory.o $(O)/init/main.o

KERNEL_VERSION = $(O)/include/config/kernel.release

.PHONY: allnoconfig olddefconfig bzImage Image FORCE
allnoconfig:
	@awk -f scripts/conf.awk "$(KCONFIG_ALLCONFIG)" Kconfig > "$(KCONFIG_CONFIG)"
%_defconfig:
	@awk -v defaults=1 -f scripts/conf.awk arch/x86/configs/$@ Kconfig > "$(KCONFIG_CONFIG)"
olddefconfig:
	@awk -v defaults=1 -f scripts/conf.awk "$(KCONFIG_CONFIG)" Kconfig > "$(KCONFIG_CONFIG).tmp"
	@mv "$(KCONFIG_CONFIG).tmp" "$(KCONFIG_CONFIG)"
bzImage: $(O)/arch/x86/boot/bzImage
	@echo "Kernel: arch/x86/boot/bzImage is ready"

$(O)/%.o: %.c $(O)/.config
	@mkdir -p $(dir $@)
	@echo "  CC      $*.o"
	@sh scripts/cc.sh $< $@ $(KCFLAGS)
	@echo "cmd_$@ := cc" > $(dir $@).$(notdir $@).cmd
$(O)/mm/mmu_gather.o $(O)/mm/memory.o: include/tlb.h

# `make O=there mm/memory.o`
$(OBJECTS:$(O)/%=%): %: $(O)/% ;

$(KERNEL_VERSION): FORCE
	@mkdir -p $(dir $@)
	@echo "RELEASE$(LOCALVERSION)" | cmp -s - $@ || echo "RELEASE$(LOCALVERSION)" > $@

$(O)/arch/x86/boot/bzImage: $(OBJECTS) $(O)/.config $(KERNEL_VERSION)
	@mkdir -p $(dir $@)
	@echo "  LD      vmlinux"
	@{ head -c 514 /dev/zero; printf HdrS; head -c 8 /dev/zero; printf '\020\000'; \
	printf 'RELEASE (nobody) #1\000'; cat $^; } > $@

Image: $(O)/arch/arm64/boot/Image
$(O)/arch/arm64/boot/Image: $(OBJECTS) $(O)/.config $(KERNEL_VERSION)
	@mkdir -p $(dir $@)
	@echo "  LD      vmlinux"
	@{ head -c 56 /dev/zero; printf 'ARMd'; printf 'Linux version RELEASE (nobody)\n'; \
	echo "ARCH=$(ARCH) CROSS_COMPILE=$(CROSS_COMPILE)"; cat $^; } > $@
""".replace("RELEASE ", f"{RELEASE} ").replace("RELEASE$", f"{RELEASE}$")

CONF = r"""
FNR == 1 { file++ }
file == 1 && match($0, /^CONFIG_[A-Z0-9_]+=/) {
    name = substr($0, 8, RLENGTH - 8)
    if (name in asked) print FILENAME ":" FNR ":warning: override: " name > "/dev/stderr"
    asked[name] = substr($0, RLENGTH + 1)
}
file == 1 && match($0, /^# CONFIG_[A-Z0-9_]+ is not set/) { asked[substr($2, 8)] = "n" }
file == 2 && $1 == "default" { usual[name] = $2 }
file == 2 && $1 == "config" { name = $2; order[++count] = name; known[name] = 1 }
file == 2 && $1 == "depends" { needs[name] = $3 }
file == 2 && $1 == "select" { forced[$2] = name }
END {
    for (i = 1; i <= count; i++) {
        name = order[i]; value = asked[name]
        if (defaults && value == "") value = usual[name]
        if (needs[name] != "" && asked[needs[name]] != "y") value = "n"
        if (forced[name] != "" && asked[forced[name]] == "y") value = "y"
        if (value == "" || value == "n") print "# CONFIG_" name " is not set"
        else print "CONFIG_" name "=" value
    }
}
"""

CC = r"""
at() { grep -n "$1" "$source" | head -1 | cut -d: -f1; }
source=$1 object=$2 flags=$3
words=$(sed -n 's/^#warning //p' "$source")
[ -z "$words" ] || echo "$PWD/$source:$(at '^#warning'):2: warning: $words"
words=$(sed -n 's/^#error //p' "$source")
[ -z "$words" ] || { echo "$PWD/$source:$(at '^#error'):2: error: $words"; exit 1; }
grep -q '^// killed' "$source" && kill -KILL $$
released=$(sed -n 's,^// wait ,,p' "$source")
if [ -n "$released" ] && [ ! -e "$released" ]; then
    echo "half of" > "$object"
    echo $$ > "$released.hangs"
    for i in $(seq 600); do sleep 0.1; done
fi
released=$(sed -n 's,^// hold ,,p' "$source")
if [ -n "$released" ]; then
    echo $$ > "$released.hangs"
    for i in $(seq 600); do [ -e "$released" ] || sleep 0.1; done
fi
cat "$source" include/tlb.h > "$object"
echo "end of object $flags" >> "$object"
"""

KCONFIG = """
config NUMA
\tbool "NUMA memory"
config NUMA_BALANCING
\tbool "NUMA balancing"
\tdepends on NUMA
config NR_CPUS
\tint "Number of CPUs"
config PLUMBING
\tbool
config PROBES
\tbool "Probes"
\tselect KALLSYMS
config KALLSYMS
\tbool "Symbols"
"""

FILES = {
    "Makefile": MAKEFILE,
    "Kbuild": "",
    "Kconfig": KCONFIG,
    "scripts/conf.awk": CONF,
    "scripts/cc.sh": CC,
    "include/tlb.h": "struct mmu_gather;\n",
    "init/main.c": "int start_kernel;\n",
    "mm/memory.c": "int zap_pte_range;\nint unmap_page_range;\n",
    "mm/mmu_gather.c": "".join(f"int line{n};\n" for n in range(1, 31)),
}


def write(folder):
    """Write the source tree."""
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def pack(tmp_path, monkeypatch, name="linux-fake", **files):
    """Put the tree where Debian's source packages are looked for."""
    tree = write(tmp_path / "packing" / name)
    for path, text in files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)
    usr_src = tmp_path / "usr-src"
    usr_src.mkdir(exist_ok=True)
    subprocess.run(["tar", "-cJf", usr_src / f"{name}.tar.xz", "-C", tree.parent, name], check=True)
    monkeypatch.setattr("labctl.kernels.sources.DEBIAN_FOLDER", usr_src)
    return f"debian:{name}"


def diff(name, old, new, subject="a change"):
    """Return a patch that makes `new` of `old`; None stands for no file."""
    sides = [
        ("/dev/null" if text is None else f"{side}/{name}", (text or "").splitlines(keepends=True))
        for side, text in (("a", old), ("b", new))
    ]
    (old_name, old_lines), (new_name, new_lines) = sides
    lines = difflib.unified_diff(old_lines, new_lines, old_name, new_name)
    return f"From 0123 Mon Sep 17 00:00:00 2001\nSubject: [PATCH] {subject}\n\n---\n" + "".join(
        lines
    )


def changed(old="int line15;", new="int handovers;", name="mm/mmu_gather.c"):
    """Return a patch of one line of a file of the tree."""
    return diff(name, FILES[name], FILES[name].replace(old, new))


def series(folder, *patches):
    """Write a series of patches, given by their texts."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number:04}-change.patch" for number in range(1, len(patches) + 1)]
    for name, text in zip(names, patches, strict=True):
        (folder / name).write_text(text)
    (folder / "series").write_text("# in order\n" + "".join(f"{name}\n" for name in names))
    return folder


def fragment(path, text="CONFIG_NUMA=y\n"):
    """Write a kconfig fragment."""
    path.write_text(text)
    return path


def kernel(name, source, **more):
    """Return a kernel of a lab."""
    return Kernel(name=name, source=source, **more)


def compiled(image):
    """Return what the build of an image compiled, sorted."""
    log = (Path(image.bzimage).parent / "build.log").read_text()
    return sorted(line.split()[1] for line in log.splitlines() if line.startswith("  CC "))
