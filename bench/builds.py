"""Build times of labctl / a plain `make bzImage` of stock, measured in one run.

With --full, three figures: both images from scratch (goal: at most 1.15 plain
makes), both again without changes (under 2 s), and the patched one after a change of
one line in mm/mincore.c (at most 0.05 plain makes). This takes ten minutes or more
in a scratch folder that is removed afterwards. Without --full, only the second figure,
with the images of this checkout.

The series is one that changes no header: otherwise nearly all files are compiled again,
and the first figure measures the series.
"""

import argparse
import contextlib
import difflib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figure import Figure, report

from labctl.kernels import kconfig
from labctl.kernels.build import Builder
from labctl.kernels.sources import open_source
from labctl.lab.load import load
from labctl.lab.state import StateFolder

ROOT = Path(__file__).parent.parent
KERNELS = ("stock", "node-grouped-free")
COLD, UNCHANGED_SECONDS, EDITED = 1.15, 2.0, 0.05
# No series touches it, so that the edit applies after each of them.
EDITED_FILE = "mm/mincore.c"


def cpu_seconds():
    """Return the CPU time of finished children: less noisy than wall time on a busy host."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@contextlib.contextmanager
def timed(what, times):
    load_before, began, cpu = os.getloadavg()[0], time.monotonic(), cpu_seconds()
    yield
    wall, cpu = times[what] = time.monotonic() - began, cpu_seconds() - cpu
    print(f"{what:<24} {wall:7.2f} s wall {cpu:7.2f} s CPU  (load before {load_before:.1f})",
          flush=True)  # fmt: skip


def kernels(names=KERNELS):
    lab = load(ROOT / "lab.yaml")
    return [lab.kernels[name] for name in names]


def plain_make(kernel, folder, times):
    """Build stock without labctl in folder/src: one tree, one make; return make's command."""
    folder.mkdir(parents=True)
    with timed("unpacking by hand", times):
        open_source(kernel.source, folder).fill(folder / "src", ())
    wanted = folder / "wanted.config"
    wanted.write_text(kconfig.render(kconfig.merge(kernel.kconfig)))
    make = ["make", "-C", folder / "src", "-s"]
    subprocess.run([*make, f"KCONFIG_ALLCONFIG={wanted}", "allnoconfig"], check=True)
    make += [f"-j{len(os.sched_getaffinity(0))}", "bzImage"]
    with timed("plain make", times):
        subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
    return make


def edited(old, number=0):
    """Return the lines of a C file with one function changed: it is no longer inlined.

    A number in a comment makes each edit a new one: images are kept by their source.
    """
    starts = [i for i, line in enumerate(old) if line.startswith("static ") and "(" in line]
    at = starts[number]
    return [*old[:at], f"/* {time.time_ns()} */ noinline {old[at]}", *old[at + 1 :]]


def with_one_line_edited(kernel, old, scratch, number=0):
    """Return the kernel with a patch that changes one line; `old` has those of EDITED_FILE."""
    series = shutil.copytree(str(kernel.series), scratch / "series")
    patch = difflib.unified_diff(old, edited(old, number), f"a/{EDITED_FILE}", f"b/{EDITED_FILE}")
    (series / "9999-edited.patch").write_text("Subject: edited\n\n" + "".join(patch))
    with (series / "series").open("a") as listing:
        listing.write("9999-edited.patch\n")
    return kernel.model_copy(update={"series": str(series)})


def unchanged(state, times):
    """Request both images in a new process, like another command."""
    with timed("both, unchanged", times):
        subprocess.run([sys.executable, __file__, "--again", state], check=True)
    return times["both, unchanged"][0]


def everything(scratch, times):
    state = scratch / "state"
    stock, patched = kernels()
    plain_make(stock, scratch / "plain", times)
    shutil.rmtree(scratch / "plain")
    builder = Builder(state, lambda _: None)
    source = open_source(stock.source, state)
    src = StateFolder(state).trees / source.key / "src"
    with timed("unpacking", times):
        source.fill(src, ())
    old = (src / EDITED_FILE).read_text().splitlines(keepends=True)
    with timed("stock, cold", times):
        builder.image(stock)
    with timed("patched after it", times):
        builder.image(patched)
    unchanged(state, times)
    with timed("patched, one line edited", times):
        builder.image(with_one_line_edited(patched, old, scratch))


def ratio(what, names, times, goal):
    """Report a ratio to the plain make; return whether it meets its goal."""
    wall, cpu = (sum(times[n][i] for n in names) / times["plain make"][i] for i in (0, 1))
    figure = Figure(name=f"{what} / plain make", value=wall, goal=goal,
                    spread=f"{cpu:.3f} by CPU time")  # fmt: skip
    return report(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="build everything, in a scratch folder")
    parser.add_argument("--scratch", type=Path, help="parent of the scratch folder")
    parser.add_argument("--again", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.again:
        Builder(asked.again, lambda _: None).images(kernels())
        return 0
    times = {}
    good = True
    if asked.full:
        # Objects of an earlier build, or of the plain make, would not be compiled.
        os.environ["CCACHE_DISABLE"] = "1"
        with tempfile.TemporaryDirectory(prefix="labctl-bench-", dir=asked.scratch) as folder:
            everything(Path(folder), times)
        cold = ("stock, cold", "patched after it")
        good &= ratio("build of two kernels from nothing", cold, times, COLD)
        edited = ("patched, one line edited",)
        good &= ratio("build after an edit of one line", edited, times, EDITED)
    else:
        Builder(ROOT / ".labctl", lambda _: None).images(kernels())
        unchanged(ROOT / ".labctl", times)
    seconds = times["both, unchanged"][0]
    good &= report(
        Figure(name="build of two unchanged kernels", value=seconds, goal=UNCHANGED_SECONDS,
               unit="s")
    )  # fmt: skip
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
