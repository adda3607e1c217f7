"""`cryodask config wedge-list`: tilt metadata of any program as a wedge list."""

from pathlib import Path
from typing import Any

import click

from cryodask.cli.options import debug_option, overwrite_option

FILE = click.Path(path_type=Path)


def _numbers(context: click.Context, option: click.Parameter, value: str | None) -> list[int] | None:
    if value is None:
        return None
    words = value.split(",")
    if not all(word.strip().isdigit() for word in words):
        raise click.BadParameter(f"{value}: expected numbers such as 17,18")
    return [int(word) for word in words]


@click.command("wedge-list")
@click.argument("tilts", nargs=-1, required=True, type=FILE)
@click.option("-o", "--output", type=FILE, required=True, help="STAR to write.")
@click.option("--tomo-num", "numbers", callback=_numbers, metavar="N,..", help="By the names if unset.")
@click.option("--pixel-size", type=click.FloatRange(0, min_open=True), help="Unbinned, angstrom.")
@click.option("--tomogram-size", nargs=3, type=click.IntRange(1), metavar="X Y Z", help="Unbinned, pixels.")
@click.option("--defocus", type=FILE, help="IMOD .defocus, Gctf STAR or CTFFIND text of one series.")
@click.option("--dose", type=FILE, help="Accumulated dose of each tilt of one series, or its mdoc.")
@click.option("--tilt-com", type=FILE, help="IMOD tilt.com of one series.")
@click.option("--tilt-column", type=click.IntRange(1), help="Column of the angle in a text of several.")
@overwrite_option
@debug_option
def wedge_list(
    tilts: tuple[Path, ...],
    output: Path,
    numbers: list[int] | None,
    pixel_size: float | None,
    tomogram_size: tuple[int, int, int] | None,
    overwrite: bool,
    **beside: Any,
) -> None:
    """Write TILTS (RELION 5 tomograms.star, Warp XML, mdoc, IMOD files) as a STOPGAP wedge list.

    GAPSTOP and STOPGAP read it. Angles stay in file order; defocus is the mean of the two, in µm.
    """
    from cryodask.io.wedge_conversion import collect_series
    from cryodask.io.wedge_list import write_wedge_list

    shape = None if not tomogram_size else (tomogram_size[2], tomogram_size[1], tomogram_size[0])
    series = collect_series(tilts, numbers=numbers, pixel_size=pixel_size, tomogram_shape=shape, **beside)
    write_wedge_list(output, series, overwrite=overwrite)
    count = sum(len(each.angles) for each in series.values())
    names = ", ".join(map(str, series))
    click.echo(f"{output}: {count} tilts of tomo_num {names}")
