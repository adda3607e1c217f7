"""`cryodask batch-params`: one parameter row for many tomograms."""

from pathlib import Path

import click

from cryodask.cli.options import debug_option, overwrite_option


@click.command("batch-params")
@click.option("-t", "--template", required=True, type=click.Path(path_type=Path), help="Parameter STAR.")
@click.option("-b", "--batch", required=True, type=click.Path(path_type=Path), help="Text of numbers.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="STAR to write.")
@overwrite_option
@debug_option
def batch_params(template: Path, batch: Path, output: Path | None, overwrite: bool) -> None:
    """Repeat each row of a parameter STAR for every tomogram number.

    Tokens such as $xxx in tomo_name (needed), tomo_mask_name, wedgelist_name and outputdir become the number,
    padded with zeros. Without -o the result is written beside the template as NAME.batch.star.
    """
    from cryodask.errors import InputError
    from cryodask.io.star import read_star_text, write_star
    from cryodask.jobs.batch_params import read_numbers, repeat_rows

    blocks = {name: table for name, table in read_star_text(template).items() if "tomo_name" in table.columns}
    if not blocks:
        raise InputError(f"{template.name}: column tomo_name is required")
    name, table = next(iter(blocks.items()))
    if table.empty:
        raise InputError(f"{template.name}: no rows")
    repeated = repeat_rows(table, read_numbers(batch), template.name)
    target = output or template.with_name(f"{template.stem}.batch{template.suffix}")
    write_star(target, {name: repeated}, overwrite=overwrite)
    click.echo(f"{target}: {len(repeated)} rows")
