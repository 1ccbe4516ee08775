"""`labctl model`: predict a large host from a run on a small one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labctl import units
from labctl.cli.root import DURATION, JSON, LAB, format_option, load_lab, print_json, setting_of
from labctl.lab.use import Use

if TYPE_CHECKING:
    _IntType = click.ParamType[int]
    _IntsType = click.ParamType[tuple[int, ...]]
else:
    _IntType = _IntsType = click.ParamType

_MOST = 4096
_MOST_LEVELS = 64
_DECIMAL = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_LARGEST_BYTES = 1 << 60


class _Size(_IntType):
    """A size as in lab.yaml, or in the units of memory of a whole host: 320GB is 320e9 bytes."""

    name = "size"

    def convert(
        self,
        value: Any,  # noqa: ANN401
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> int:
        text = str(value).strip()
        match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,3})?) ?([KMGT])B", text)
        try:
            found = round(float(match[1]) * _DECIMAL[match[2]]) if match else units.size(text)
        except units.UnitError:
            found = 0
        if not 0 < found <= _LARGEST_BYTES:
            self.fail(f"expected a size such as 320GB or 1TiB, got {units.quote(text)}", param, ctx)
        return found


class _Workers(_IntsType):
    """Numbers of workers: 1,2,4."""

    name = "workers"

    def convert(
        self,
        value: Any,  # noqa: ANN401
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[int, ...]:
        words = [word.strip() for word in str(value).split(",")]
        numbers = [int(w) for w in words if re.fullmatch("[0-9]{1,6}", w) and 0 < int(w) <= _MOST]
        if len(numbers) != len(words) or len(words) > _MOST_LEVELS:
            self.fail(
                f"expected numbers from 1 to {_MOST} such as 1,2,4, got {units.quote(str(value))}",
                param,
                ctx,
            )
        return tuple(sorted(set(numbers)))


@click.command()
@LAB
@JSON
@format_option("markdown", about="markdown is the form in docs/explanation/prediction.md.")
@click.option(
    "--cores",
    type=click.IntRange(2, _MOST),
    default=72,
    show_default=True,
    help="Cores of the host to predict.",
)
@click.option(
    "--nodes",
    type=click.IntRange(1, 1024),
    default=4,
    show_default=True,
    help="NUMA nodes of the host to predict.",
)
@click.option(
    "--size",
    type=_Size(),
    default="320GB",
    show_default=True,
    help="Memory to free: 320GB, 1TiB.",
)
@click.option(
    "--workers",
    type=_Workers(),
    default="1,2,4,8,16,32",
    show_default=True,
    help="Numbers of workers.",
)
@click.option("--experiment", metavar="NAME", help="Experiment of a run that has several.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Only cells with this setting (repeatable).",
)
@click.option(
    "--baseline-seconds",
    type=DURATION,
    metavar="DURATION",
    help="Time of the baseline on the host to predict, for times beside ratios.",
)
@click.argument("run_id", metavar="[RUN]", default="latest")
def model(
    lab_path: Path | None,
    as_json: bool,
    style: str,
    cores: int,
    nodes: int,
    size: int,
    workers: tuple[int, ...],
    experiment: str | None,
    settings: Sequence[str],
    baseline_seconds: float | None,
    run_id: str,
) -> None:
    """Predict the speed on a larger host from RUN (default: latest).

    Estimates the costs of zapping and freeing a page and of running in parallel from the
    cells with the fewest workers, and predicts the ratio for each number of workers on a
    host with other cores, nodes and memory. The intervals come from the blocks of the run.
    What the run cannot show is listed with what must be measured. Does not need QEMU.

    The prediction is that of a small model: docs/explanation/prediction.md holds it against
    times that others measured.
    """
    from labctl.model.inputs import inputs_of
    from labctl.model.prediction import predict
    from labctl.model.text import render
    from labctl.model.types import Target
    from labctl.runs import folder as run_folder

    run = run_folder.resolve(load_lab(lab_path, Use.READS).state_folder.runs, run_id)
    inputs = inputs_of(
        run.read(),
        run.store.samples(),
        experiment=experiment,
        settings=dict(map(setting_of, settings)),
        passes=[sample for each in run_folder.passes(run) for sample in each.store.samples()],
    )
    target = Target(
        cores=cores,
        nodes=nodes,
        size_bytes=size,
        workers=workers,
        baseline_seconds=baseline_seconds,
    )
    document = predict(inputs, target)
    if as_json:
        print_json(document)
    else:
        click.echo(render(document, markdown=style == "markdown"), nl=False)


COMMANDS = (model,)
