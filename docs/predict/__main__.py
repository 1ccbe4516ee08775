"""Write docs/explanation/prediction.md: `python docs/predict`.

The page comes from inputs.jsonl beside this file: what `labctl model` takes from the runs named
there. `--runs FOLDER` takes it anew from the runs in a state folder. With --check, exit with 1 if
the page on the disk differs.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

import msgspec
from compared import RUNS, Source, page

from labctl.model.inputs import inputs_of
from labctl.runs.folder import RunFolder

HERE = Path(__file__).parent
INPUTS = HERE / "inputs.jsonl"
PAGE = HERE.parent / "explanation" / "prediction.md"


def taken(runs: Path) -> bytes:
    """Return the inputs of all runs, a line each."""
    lines = []
    for name in RUNS:
        folder = RunFolder(runs / name)
        samples = folder.path / "samples.jsonl"
        lines.append(
            Source(
                samples_sha256=hashlib.sha256(samples.read_bytes()).hexdigest(),
                inputs=inputs_of(folder.read(), folder.store.samples()),
            )
        )
    return msgspec.json.Encoder().encode_lines(lines)


def read() -> list[Source]:
    """Return the inputs in the repository."""
    return msgspec.json.Decoder(Source).decode_lines(INPUTS.read_bytes())


def main() -> int:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("--runs", type=Path, help="folder of runs to take the inputs from")
    arguments = parser.parse_args()
    if arguments.runs:
        INPUTS.write_bytes(taken(arguments.runs))
    text = page(read())
    is_current = PAGE.is_file() and PAGE.read_text() == text
    if not arguments.check:
        PAGE.write_text(text)
    elif not is_current:
        print("docs/explanation/prediction.md is stale; `python docs/predict` writes it again")
    return 1 if arguments.check and not is_current else 0


if __name__ == "__main__":
    sys.exit(main())
