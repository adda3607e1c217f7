"""`cryodask convert`: a volume from one format into another."""

import json

import click

from cryodask.cli.options import debug_option, json_option, overwrite_option

DTYPES = ("int8", "uint8", "int16", "uint16", "int32", "float16", "float32", "float64")


@click.command("convert")
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@click.option(
    "--level", type=click.IntRange(0), default=0, show_default=True, help="Level of an OME-Zarr input."
)
@click.option(
    "--chunk", default=64, show_default=True, metavar="N", help="Edge of an OME-Zarr chunk, voxels."
)
@click.option(
    "--pyramid",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    metavar="N",
    help="Coarser levels of an OME-Zarr output, each half the one before.",
)
@click.option(
    "--voxel-size",
    type=click.FloatRange(0, min_open=True),
    metavar="A",
    help="Voxel size in angstrom, in place of the input's.",
)
@click.option("--dtype", type=click.Choice(DTYPES), help="Type of a voxel; the input's by default.")
@overwrite_option
@json_option
@debug_option
def convert(
    source: str,
    target: str,
    level: int,
    chunk: int,
    pyramid: int,
    voxel_size: float | None,
    dtype: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Convert a volume, format by suffix: .mrc .rec .map, .em, .hdf .h5, .zarr (OME-Zarr 0.5).

    Works block by block in bounded memory. Byte order and axes are normalised; voxel size and origin are kept
    (EM files hold no origin). OUT appears when it is complete.
    """
    from cryodask.io.convert import convert_volume
    from cryodask.io.info import file_info

    convert_volume(
        source,
        target,
        level=level,
        chunk=chunk,
        pyramid=pyramid,
        voxel_size=voxel_size,
        dtype=dtype,
        overwrite=overwrite,
    )
    facts = file_info(target, quick=True)
    if as_json:
        click.echo(json.dumps(facts))
        return
    shape, size = " x ".join(map(str, facts["shape"])), facts["voxel_size"]
    click.echo(
        f"{target}: {shape} {facts['dtype']}, voxel size {f'{size:g} angstrom' if size else 'unknown'}"
    )
