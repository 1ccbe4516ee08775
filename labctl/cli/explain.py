"""`labctl explain`: the counters that changed with a kernel or a setting."""

from __future__ import annotations

from pathlib import Path

import click

from labctl.cli.root import JSON, LAB, format_option, load_lab, print_json
from labctl.lab.use import Use


@click.command()
@LAB
@JSON
@format_option("markdown", about="markdown suits a mail or an issue.")
@click.option("--all", "every", is_flag=True, help="Print all counters that changed.")
@click.argument("run_id", metavar="[RUN]", default="latest")
def explain(lab_path: Path | None, as_json: bool, style: str, every: bool, run_id: str) -> None:
    """List the counters that changed in RUN (default: latest).

    The experiments need `observe:` in lab.yaml. For each cell the ten most important
    counters are printed, with the mean per repetition, the difference from the baseline
    and a p value corrected for the number of counters (false discovery rate 1 %).
    Counters that differ between two guests of the baseline are left out. The cost of
    observing is the ratio of the repetitions with and without observers.
    """
    from labctl.reports.explain import explanation_of
    from labctl.reports.explanation import render

    document = explanation_of(load_lab(lab_path, Use.READS).state_folder.runs, run_id)
    if as_json:
        print_json(document)
    else:
        click.echo(render(document, markdown=style == "markdown", every=every), nl=False)


COMMANDS = (explain,)
