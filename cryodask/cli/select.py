"""`cryodask select`: particles of chosen classes, for the next program."""

import json
from pathlib import Path
from typing import Any

import click

from cryodask.cli.options import debug_option, json_option, overwrite_option


@click.command("select")
@click.argument("result", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="STAR or CSV to write; the others go to NAME_rest beside it.",
)
@click.option("--classes", default="", metavar="1,3-7", help="Only these classes.")
@click.option("--exclude", default="", metavar="2,8", help="All but these.")
@click.option("--min-resolution", type=float, metavar="A", help="Classes resolved to this or better.")
@click.option("--min-agreement", type=float, help="Classes of at least this mean agreement.")
@click.option("--min-size", type=int, help="Classes of at least so many particles.")
@click.option("--max-pixel-error", type=float, help="Classes at least this stable.")
@click.option(
    "--recentre/--no-recentre", default=True, help="Move whole pixels of the origins into the coordinates."
)
@click.option("--split-mirrors", is_flag=True, help="Number mirrored members of class k as K + k.")
@click.option(
    "--remove-duplicates",
    "duplicates",
    type=float,
    metavar="A",
    help="Of particles closer than this in a micrograph, keep the best.",
)
@click.option("--unaccounted", is_flag=True, help="Select the particles of no class instead.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["relion31", "relion30", "csv", "cs-passthrough"]),
    help="Of the files; by default the input's dialect of STAR, or CSV by the name.",
)
@overwrite_option
@json_option
@debug_option
def select(
    result: Path, output: Path, form: str | None, overwrite: bool, as_json: bool, **conditions: Any
) -> None:
    """Write the particles of chosen classes of RESULT, a folder of `cryodask classify`.

    Conditions are joined by "and". Every particle of the input is in OUTPUT or in OUTPUT_rest.
    """
    from cryodask.results.class_selection import Selection, select_particles, write_selection

    found = select_particles(result, Selection(**conditions))
    paths = write_selection(output, found, form=form, overwrite=overwrite)
    counts = [len(found.table), len(found.rest[found.block])]
    if as_json:
        files = [{"file": str(path), "particles": n} for path, n in zip(paths, counts, strict=True)]
        click.echo(json.dumps(files))
        return
    for path, count in zip(paths, counts, strict=True):
        click.echo(f"{path}: {count} particles")
