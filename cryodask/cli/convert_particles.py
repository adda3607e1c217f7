"""`cryodask convert-particles`: particle stacks as one Zarr store, or as CryoLike's folders."""

import json
from pathlib import Path

import click

from cryodask.cli.options import debug_option, dry_run_option, json_option, overwrite_option


@click.command()
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="A .zarr store.")
@click.option("--downsample", type=click.IntRange(1), default=1, help="Even factor.")
@click.option(
    "--downsample-method",
    "method",
    type=click.Choice(["crop", "mean", "max"]),
    default="crop",
    show_default=True,
    help="Crop the spectrum, or pool pixels as CryoLike does.",
)
@click.option(
    "--batch-size", type=click.IntRange(1), default=1024, show_default=True, help="Images at a time."
)
@click.option("--pixel-size", type=float, help="Angstrom, instead of that of the files.")
@click.option("--root", type=click.Path(), help="Folder that names of images are relative to.")
@click.option("--select", default="all", help='Rows "0-999,1500", or an expression of STAR columns.')
@click.option("--n-stacks", type=click.IntRange(1), help="Only the first so many files of images.")
@click.option("--files", type=click.Choice(["cryolike"]), help="Also CryoLike's folders, beside the output.")
@click.option("--resolution-factor", type=float, default=1.0, help="Of CryoLike's transforms.")
@click.option(
    "--precision", type=click.Choice(["single", "double"]), default="single", help="Of the transforms."
)
@click.option("--plots", is_flag=True, help="Also a picture of the first 16 images.")
@overwrite_option
@dry_run_option
@json_option
@debug_option
def convert_particles(
    sources: tuple[Path, ...],
    output: Path,
    downsample: int,
    method: str,
    batch_size: int,
    pixel_size: float | None,
    root: str | None,
    select: str,
    n_stacks: int | None,
    files: str | None,
    resolution_factor: float,
    precision: str,
    plots: bool,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Turn particle stacks (STAR, .cs, a cryoSPARC job, MRC, .npy, CryoLike's folders) into one store."""
    from cryodask.io.files import require_new, written_whole
    from cryodask.jobs.likelihood import convert_particles as job

    if output.suffix != ".zarr":
        raise click.UsageError(f"output = {output.name}: expected a name that ends in .zarr")
    if not 0 < resolution_factor <= 1:
        raise click.UsageError(
            f"resolution_factor = {resolution_factor}: expected 0 < resolution_factor <= 1"
        )
    picture = output.with_name(f"{output.stem}_images.png")
    for path in (output, picture) if plots else (output,):
        require_new(path, overwrite=overwrite)
    stack = job.open_sources(sources, root=root, pixel_size=pixel_size, select=select, n_stacks=n_stacks)
    box, size = job.smaller_box(stack, downsample)
    if dry_run:
        click.echo(
            f"{len(stack)} images, box {box} x {size:g} A, {4 * len(stack) * box * box / 2**20:.1f} MiB"
        )
        return
    job.convert_particles(
        stack, output, downsample=downsample, method=method, batch_size=batch_size, overwrite=overwrite
    )
    paths = [output]
    if files == "cryolike":
        paths += job.convert_to_cryolike(
            stack,
            output.with_suffix(""),
            downsample=downsample,
            method=method,
            batch_size=batch_size,
            resolution_factor=resolution_factor,
            precision=precision,
            overwrite=overwrite,
        )
    if plots:
        from cryodask.results.montage import montage

        images = next(job.image_batches(stack.take(slice(0, 16)), 16, downsample, method))
        with written_whole(picture, overwrite=overwrite) as temporary:
            montage(images, list(stack.table["name"][:16])).savefig(temporary, dpi=120)
        paths.append(picture)
    if as_json:
        row = {"output": str(output), "files": [str(path) for path in paths[1:]]}
        click.echo(json.dumps(row | {"images": len(stack), "box": box, "pixel_size": size}, indent=1))
        return
    for path in paths:
        click.echo(str(path))
