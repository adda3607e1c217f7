"""`cryodask make-templates`: templates of structures, made once for reuse."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cryodask.cli.options import debug_option, dry_run_option, json_option, overwrite_option

if TYPE_CHECKING:
    from cryodask.jobs.likelihood.make_templates import TemplateWork


@click.command()
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Store, ending in .zarr."
)
@click.option("--box", type=click.IntRange(8), help="Pixels of an image; of the images of CONFIG if unset.")
@click.option("--pixel-size", type=float, help="Angstrom of a pixel; of the images of CONFIG if unset.")
@click.option("--resolution-factor", type=float, help="Highest frequency over Nyquist.")
@click.option("--n-inplanes", type=int, help="In-plane rotations; twice the box if unset.")
@click.option("--views", "step", type=float, metavar="STEP", help="Distance of neighbouring views, degrees.")
@click.option("--symmetry", default=None, help="Cn, Dn, T, O or I, of all structures.")
@click.option("--models", default=None, help='first, all, or numbers such as "1-18", of files of atoms.')
@click.option("--voxel-size", type=float, help="Angstrom, of maps whose header lacks it.")
@click.option("--precision", type=click.Choice(["single", "double"]), help="single if unset.")
@click.option("--compat", type=click.Choice(["cryolike"]), help="Conventions of another program.")
@click.option(
    "--files",
    type=click.Choice(["cryolike"]),
    help="Also CryoLike's files, in a folder of the output's name.",
)
@overwrite_option
@dry_run_option
@json_option
@debug_option
def make_templates(
    sources: tuple[Path, ...],
    output: Path,
    box: int | None,
    pixel_size: float | None,
    resolution_factor: float | None,
    n_inplanes: int | None,
    step: float | None,
    symmetry: str | None,
    models: str | None,
    voxel_size: float | None,
    precision: str | None,
    compat: str | None,
    files: str | None,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make templates of structures for `cryodask likelihood`.

    SOURCES is one CONFIG.yaml of the likelihood, or structures: maps, PDB and mmCIF files, text models.
    """
    from cryodask.io.files import require_new
    from cryodask.jobs.likelihood.make_templates import write_cryolike_templates, write_templates

    if output.suffix != ".zarr":
        raise click.UsageError(f"output = {output.name}: expected a name that ends in .zarr")
    require_new(output, overwrite=overwrite)
    grid: dict[str, Any] = {
        "resolution_factor": resolution_factor,
        "n_inplanes": n_inplanes,
        "precision": precision,
    }
    if step is not None:
        grid["viewing_distance"] = {"step": step}
    grid = {key: value for key, value in grid.items() if value is not None}
    entry = {"symmetry": symmetry, "models": models, "voxel_size": voxel_size}
    entry = {key: value for key, value in entry.items() if value is not None}
    work = _work(sources, box, pixel_size, grid, entry, compat)
    for notice in work.notices:
        click.echo(f"cryodask: note: {notice}", err=True)
    if dry_run:
        _print_plan(work, as_json)
        return
    write_templates(work, output, overwrite=overwrite, tell=lambda text: click.echo(text, err=True))
    paths = [output]
    if files == "cryolike":
        paths += write_cryolike_templates(work, output.with_suffix(""), overwrite=overwrite)
    if as_json:
        click.echo(
            json.dumps({"output": str(output), "files": [str(p) for p in paths[1:]], **_plan(work)}, indent=1)
        )
        return
    for path in paths:
        click.echo(str(path))


def _work(
    sources: tuple[Path, ...],
    box: int | None,
    pixel_size: float | None,
    grid: dict[str, Any],
    entry: dict[str, Any],
    compat: str | None,
) -> "TemplateWork":
    from cryodask.jobs.likelihood.make_templates import make_work, work_of_configuration
    from cryodask.jobs.likelihood.parameters import LikelihoodParameters, read_likelihood
    from cryodask.jobs.likelihood.structures import load_structures

    if sources[0].suffix.lower() in (".yaml", ".yml", ".json"):
        if len(sources) > 1:
            raise click.UsageError("one configuration, or structures")
        if entry:
            raise click.UsageError(f"--{next(iter(entry))}: give it in {sources[0].name}")
        return work_of_configuration(
            read_likelihood(sources[0], overrides={"grid": grid} if grid else None, compat=compat),
            box,
            pixel_size,
        )
    if box is None or pixel_size is None:
        raise click.UsageError("--box and --pixel-size are required with structures")
    content = {
        "images": "none",
        "structures": [{"path": str(path.absolute()), **entry} for path in sources],
        "grid": grid,
    }
    parameters = LikelihoodParameters.from_mapping(content, compat=compat)
    structures, notices = load_structures(parameters)
    return make_work(parameters, structures, box, pixel_size, notices)


def _plan(work: "TemplateWork") -> dict[str, Any]:
    grid = work.maker.grid
    return {
        "structures": [each.name for each in work.structures],
        "templates": [len(views) for views in work.views],
        "box": grid.box,
        "pixel_size": work.pixel_size,
        "resolution_factor": grid.resolution_factor,
        "n_inplanes": grid.rotations,
        "bytes": work.bytes,
    }


def _print_plan(work: "TemplateWork", as_json: bool) -> None:
    plan = _plan(work)
    if as_json:
        click.echo(json.dumps(plan, indent=1))
        return
    counts = ", ".join(f"{name} {n}" for name, n in zip(plan["structures"], plan["templates"], strict=True))
    click.echo(
        f"{sum(plan['templates'])} templates ({counts}), box {plan['box']} x {plan['pixel_size']:g} A, "
        f"{plan['n_inplanes']} rotations, {plan['bytes'] / 2**20:.1f} MiB; nothing was started"
    )
