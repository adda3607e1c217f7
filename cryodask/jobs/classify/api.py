"""Classification as functions of Python."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import xarray as xr

from cryodask.io.particle_stack import ParticleStack, open_particles, particles_from_array
from cryodask.jobs.classify.job import plan_classification, run_classification
from cryodask.jobs.classify.parameters import make_parameters
from cryodask.results.accessor import CLASSES, class_tables, open_result
from cryodask.results.class_selection import Selection, read_class_tables, select_particles

if TYPE_CHECKING:
    from distributed import Client

NATIVE = {
    "images_per_class": "img_per_grp",
    "target_box": "target_nx",
    "search_range": "xr",
    "validate": "validate_by",
}


def classify(
    particles: Any,
    *,
    radius: float,
    output: str | Path | None = None,
    pixel_size: float | None = None,
    optics: pd.DataFrame | None = None,
    client: "Client | None" = None,
    resume: bool = False,
    overwrite: bool = False,
    **options: Any,
) -> xr.Dataset:
    """Classify a stack of particles.

    Parameters
    ----------
    particles
        A file that `cryodask.open_particles` reads, or an array (image, y, x).
    radius : pixels of the input
    output
        Folder of the results; None keeps the dataset alone, in memory.
    pixel_size : angstrom
    optics : DataFrame
        Of an array: defocus_u, defocus_v, voltage and so on, one row an image.
    client
        Dask client; threads of this process by default.
    resume, overwrite : bool
        Continue, or replace, what is in `output`.
    **options
        Of `cryodask classify`, e.g. ``images_per_class``, ``classes``, ``runs``, ``seed``, ``target_radius``,
        ``target_box``, ``search_range``.

    Returns
    -------
    xarray.Dataset
        class_average, working_average, class_id, reason, angle (degrees), shift (angstrom), mirror, score
        and the others of the documentation.

    Raises
    ------
    InputError
    """
    stack = _stack(particles, pixel_size, optics)
    named = {NATIVE.get(key, key): value for key, value in options.items()}
    parameters = make_parameters({"radius": radius, **named})
    if output is not None:
        return open_result(_run(stack, parameters, Path(output), client, resume=resume, overwrite=overwrite))
    with tempfile.TemporaryDirectory(prefix="cryodask-") as folder:
        path = _run(stack, parameters, Path(folder) / "classes", client)
        ds = open_result(path).load()
        ds.encoding[CLASSES] = read_class_tables(path)  # the folder vanishes
        return ds


def _run(
    stack: ParticleStack, parameters: Any, output: Path, client: "Client | None", **options: bool
) -> Path:
    import warnings

    def tell(notice: str) -> None:
        warnings.warn(notice, stacklevel=4)

    job = plan_classification(stack, parameters, output, tell=tell, **options)
    run_classification(job, client=client, tell=tell)
    return output


def _stack(particles: Any, pixel_size: float | None, optics: pd.DataFrame | None) -> ParticleStack:
    if isinstance(particles, str | Path):
        return open_particles(particles, pixel_size=pixel_size)
    return particles_from_array(particles, pixel_size=pixel_size, optics=optics)


def select(result: str | Path | xr.Dataset, **conditions: Any) -> pd.DataFrame:
    """Return the particles of chosen classes as a table with RELION's columns.

    Parameters
    ----------
    result
        OUTPUT of a classification, or the dataset of one.
    **conditions
        Fields of `Selection`: classes, exclude, min_resolution, min_agreement, min_size, max_pixel_error,
        recentre, split_mirrors, duplicates, unaccounted.

    Raises
    ------
    InputError
    """
    source = class_tables(result) if isinstance(result, xr.Dataset) else result
    return select_particles(source, Selection.from_conditions(conditions)).table
