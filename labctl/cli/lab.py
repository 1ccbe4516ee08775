"""Commands that create a lab.yaml, show the plan, build kernels and remove builds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from labctl import progress
from labctl.cli.root import JSON, LAB, chosen, kernels_of, lab_to_work, load_lab, print_json


@click.command()
@click.option("--force", is_flag=True, help="Overwrite an existing lab.yaml.")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=".")
def init(folder: Path, force: bool) -> None:
    """Write a commented lab.yaml and its files into FOLDER."""
    from labctl.lab import template

    for path in template.write(folder, force=force):
        click.echo(f"wrote {path}")


@click.command()
@click.option("--report", "document", flag_value="report",
              help="Schema of `labctl run --json` and `labctl report --json`.")  # fmt: skip
@click.option("--explain", "document", flag_value="explain",
              help="Schema of `labctl explain --json`.")  # fmt: skip
@click.option("--compare", "document", flag_value="compare",
              help="Schema of `labctl compare --json`.")  # fmt: skip
@click.option("--model", "document", flag_value="model",
              help="Schema of `labctl model --json`.")  # fmt: skip
@click.option("--nightly", "document", flag_value="nightly",
              help="Schema of `labctl nightly --json`.")  # fmt: skip
@click.option("--bisect", "document", flag_value="bisect",
              help="Schema of `labctl bisect --json`.")  # fmt: skip
@click.option("--verify", "document", flag_value="verify",
              help="Schema of `labctl verify --json`.")  # fmt: skip
@click.option("--plan", "document", flag_value="plan",
              help="Schema of `labctl plan --json`.")  # fmt: skip
@click.option("--series-check", "document", flag_value="series-check",
              help="Schema of `labctl series check --json`.")  # fmt: skip
def schema(document: str | None) -> None:
    """Print the JSON Schema of lab.yaml.

    Editors use it to complete and check the file. With an option, print the schema
    of a JSON document that labctl writes.
    """
    from labctl.cli import schemas
    from labctl.lab import template

    found = schemas.schema_of(document) if document else template.json_schema()
    click.echo(json.dumps(found, indent=2))


@click.command()
@LAB
@JSON
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the order.")
@click.option("--commands", is_flag=True, help="Also print the commands that start the guests.")
@click.argument("experiments", nargs=-1)
def plan(
    lab_path: Path | None, as_json: bool, seed: int, commands: bool, experiments: Sequence[str]
) -> None:
    """Show what `run` would do, without running it.

    Prints the guests, the accelerator, the order and the expected time. Nothing is
    built; whether KVM works is tested once by a guest without a kernel.
    """
    from labctl.experiments import preview
    from labctl.reports.plan import text
    from labctl.reports.plan_types import PlanDocument

    lab = load_lab(lab_path)
    previews = [preview.preview(lab, name, seed) for name in chosen(lab, experiments)]
    if as_json:
        print_json(PlanDocument(experiments=tuple(previews)))
    else:
        click.echo("\n\n".join(text(each, commands=commands) for each in previews))


@click.command()
@LAB
@JSON
@click.argument("kernels", nargs=-1)
def build(lab_path: Path | None, as_json: bool, kernels: Sequence[str]) -> None:
    """Build KERNELS (default: all) that are not up to date."""
    from labctl.guests.prepare import build_images

    lab = lab_to_work(lab_path)
    with progress.Building() as building:
        images = build_images(lab, kernels_of(lab, kernels), building)
    rows = [
        {"kernel": name, "release": i.release, "image": i.hash, "series": i.series_hash,
         "bzimage": str(i.bzimage), "notes": list(i.notes)}
        for name, i in images.items()
    ]  # fmt: skip
    if as_json:
        print_json({"schema": 1, "images": rows})
    else:
        shown = [{key: row[key] for key in row if key != "notes"} for row in rows]
        click.echo(progress.table(shown, shorten=("image", "series")))
        for name, image in images.items():
            for note in image.notes:
                click.echo(f"{name}: {note}")


@click.command()
@LAB
@click.option("--runs", "runs_too", is_flag=True, help="Also remove results.")
def clean(lab_path: Path | None, runs_too: bool) -> None:
    """Remove builds to free disk space; keep results.

    Only folders that labctl created in the state folder are removed. Fails while
    guests of `up` or another labctl use the state folder.
    """
    from labctl.guests.prepare import remove_built

    lab = load_lab(lab_path)
    for folder in remove_built(lab, runs_too=runs_too):
        click.echo(f"removed {folder}")


COMMANDS = (init, schema, plan, build, clean)
