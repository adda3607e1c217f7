"""`cryodask generate-angles`: a list of rotations as CSV."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cryodask.cli.options import debug_option, overwrite_option

if TYPE_CHECKING:
    import numpy as np

    from cryodask.geometry.grids import Method

COLUMNS = {"zxz": [0, 1, 2], "zzx": [0, 2, 1]}


def _three_numbers(
    context: click.Context, option: click.Parameter, value: str | None
) -> tuple[float, float, float] | None:
    if value is None:
        return None
    try:
        first, second, third = (float(word) for word in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value}: expected phi,theta,psi in degrees") from None
    return first, second, third


@click.command("generate-angles")
@click.option("--angincr", type=float, help="Degrees between directions.")
@click.option("--particle-diameter", type=float, help="Angstrom; with --resolution, instead of --angincr.")
@click.option("--resolution", type=float, help="Angstrom.")
@click.option("--angiter", type=click.IntRange(1), help="Half cone = angincr x angiter; the sphere if unset.")
@click.option("--phi-angincr", type=float, help="In-plane step, degrees; angincr if unset.")
@click.option("--phi-angiter", type=click.IntRange(1), help="In-plane range = +- phi-angincr x phi-angiter.")
@click.option("--symmetry", default="C1", show_default=True, help="Cn, Dn, T, T3, O, I, I1 or I2.")
@click.option("--order", type=click.Choice(["zxz", "zzx"]), default="zxz", show_default=True)
@click.option(
    "--method",
    type=click.Choice(["golden", "rings", "healpix"]),
    help="golden with --angincr, else healpix, if unset.",
)
@click.option("--centre", metavar="PHI,THETA,PSI", callback=_three_numbers, help="Centre of the cone.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="CSV; standard output if unset.")
@overwrite_option
@debug_option
def generate_angles(
    angincr: float | None,
    particle_diameter: float | None,
    resolution: float | None,
    angiter: int | None,
    phi_angincr: float | None,
    phi_angiter: int | None,
    symmetry: str,
    order: str,
    method: "Method | None",
    centre: tuple[float, float, float] | None,
    output: Path | None,
    overwrite: bool,
) -> None:
    """Write a list of rotations: CSV, degrees, one phi,theta,psi (zzx: phi,psi,theta) a row.

    Its size and the gaps it leaves are printed on standard error.
    """
    import numpy as np

    from cryodask.geometry.grids import grid_summary, rotation_grid

    step = _step(angincr, particle_diameter, resolution)
    inplane_step = phi_angincr or step
    cone = min(180.0, step * angiter) if angiter else 180.0
    inplane_range = inplane_step * phi_angiter if phi_angiter else None
    if inplane_range is not None and inplane_range >= 180:
        inplane_range = None
    middle = None if centre is None else np.array(centre)
    angles = rotation_grid(
        step,
        method=method or ("golden" if angincr else "healpix"),
        cone=cone,
        inplane_step=inplane_step,
        inplane_range=inplane_range,
        symmetry=symmetry,
        centre=middle,
    )
    _write(angles[:, COLUMNS[order]], output, overwrite)
    summary = grid_summary(angles, symmetry, cone=cone, inplane_range=inplane_range, centre=middle)
    click.echo(str(summary), err=True)


def _step(angincr: float | None, diameter: float | None, resolution: float | None) -> float:
    from cryodask.errors import InputError
    from cryodask.geometry.grids import crowther_step

    if angincr is not None and (diameter is not None or resolution is not None):
        raise InputError("choose one of --angincr and --particle-diameter with --resolution")
    if angincr is not None:
        return angincr
    if diameter is None or resolution is None:
        raise InputError("--angincr, or --particle-diameter and --resolution, is required")
    return crowther_step(diameter, resolution)


def _write(angles: "np.ndarray", output: Path | None, overwrite: bool) -> None:
    from cryodask.io.files import written_whole

    # adding 0 turns -0.00000 into 0.00000
    rows = (angles.round(5) + 0.0).tolist()
    text = "".join(f"{first:.5f},{second:.5f},{third:.5f}\n" for first, second, third in rows)
    if output is None:
        click.echo(text, nl=False)
        return
    with written_whole(output, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="ascii")
