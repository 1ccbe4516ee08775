"""`labctl site`: publish all runs and nightly runs as a folder of pages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from labctl.cli.root import LAB, load_lab
from labctl.lab.use import Use

if TYPE_CHECKING:
    from labctl.lab.models import Lab


@click.command()
@LAB
@click.option(
    "--history",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Folder of the nightly records [default: nightly in the lab's state folder].",
)
@click.argument("folder", type=click.Path(path_type=Path))
def site(lab_path: Path | None, history: Path | None, folder: Path) -> None:
    """Write a static site of all runs and nightly runs to FOLDER.

    index.html lists them with their results; one search finds a run by kernel, commit,
    experiment, host or date. Each run has the page of `labctl report --format html`, the
    nightly runs have their trends. The pages load nothing from the network and work from
    a disk or any web server.

    Only new or changed pages are written, each as a whole. Pages of runs that no longer
    exist are removed. FOLDER must be new, empty or an earlier site: a folder with other
    files is rejected, unless their names begin with a dot, such as .git.

    `labctl nightly --site FOLDER` does the same after each nightly run.
    """
    publish(load_lab(lab_path, Use.READS), folder, history)


def publish(lab: Lab, folder: Path, history: Path | None) -> None:
    """Write the site of a lab; print what was done to stderr."""
    from labctl.site.build import build

    state = lab.state_folder
    done = build(folder, state.runs, history or state.nightly)
    for fault in done.faults:
        click.echo(f"labctl: no page of {fault}", err=True)
    click.echo(
        f"wrote {done.index}: {done.made} pages made, {done.kept} kept, {done.removed} removed",
        err=True,
    )


COMMANDS = (site,)
