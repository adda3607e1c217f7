"""`cryodask info`: what a file holds."""

import json
from collections.abc import Iterator
from typing import Any

import click

from cryodask.cli.options import debug_option, json_option

LABELS = {
    "format": "format",
    "shape": "shape (z, y, x)",
    "dtype": "dtype",
    "voxel_size": "voxel size (angstrom)",
    "origin": "origin (z, y, x; angstrom)",
    "min": "min",
    "max": "max",
    "mean": "mean",
    "std": "std",
    "nan_count": "NaN or infinite voxels",
    "first_nan": "first of them (z, y, x)",
}


@click.command("info")
@click.argument("files", metavar="FILE...", nargs=-1)
@click.option("--devices", is_flag=True, help="Say what can compute on this machine.")
@click.option(
    "--level", type=click.IntRange(0), default=0, show_default=True, help="Level of an OME-Zarr volume."
)
@click.option("--quick", is_flag=True, help="Read the header alone, without statistics.")
@json_option
@debug_option
def info(files: tuple[str, ...], devices: bool, level: int, quick: bool, as_json: bool) -> None:
    """Say what volumes (MRC, EM, HDF5, OME-Zarr) and STAR files hold, or what this machine computes with."""
    if devices:
        show_devices(as_json)
        return
    if not files:
        raise click.UsageError("name a file, or give --devices")
    from cryodask.io.info import file_info

    described = (file_info(file, level=level, quick=quick) for file in files)
    if as_json:
        click.echo(json.dumps(list(described)))
        return
    for facts in described:
        click.echo(facts["file"])
        for label, value in _star_lines(facts) if facts["format"] == "star" else _volume_lines(facts):
            click.echo(f"  {label:<27} {value}")


def show_devices(as_json: bool) -> None:
    """Print what can compute on this machine, a line a device."""
    from cryodask.arrays.devices import describe_devices

    found = describe_devices()
    if as_json:
        click.echo(json.dumps(found))
        return
    for each in found:
        memory, free = (each[key] / 2**30 for key in ("memory_bytes", "free_bytes"))
        click.echo(f"{each['device']:<8} {each['name']}, {memory:.1f} GiB of memory, {free:.1f} GiB free")
    if len(found) == 1:
        click.echo("no CUDA device that CuPy can use")


def _volume_lines(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    spacing = facts["spacing"]
    if facts["voxel_size"] is None and spacing:
        facts = facts | {"voxel_size": spacing}
    for key, label in LABELS.items():
        if key in facts and not (key == "first_nan" and facts[key] is None):
            yield label, _text(facts[key])


def _star_lines(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, block in facts["blocks"].items():
        yield f"data_{name}", f"{block['rows']} rows: {', '.join(block['columns'])}"


def _text(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
