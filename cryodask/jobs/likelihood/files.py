"""Files beside the Zarr result: RELION STAR, table, figure, matrix."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from cryodask.errors import InputError
from cryodask.io.files import written_whole
from cryodask.io.particle_stack import ParticleStack
from cryodask.io.particle_writing import origin_columns, write_particles
from cryodask.results.bioem import bioem_files
from cryodask.results.structure_comparison import comparison_table, draw_comparison


def write_files(dataset: xr.Dataset, stack: ParticleStack, files: Mapping[str, Path]) -> None:
    """Write the files that were asked for, by kind; existing ones are replaced."""
    writers: dict[str, Callable[[Path], None]] = {
        "star": lambda path: write_best_star(path, dataset, stack),
        "csv": lambda path: comparison_table(dataset).to_csv(path, index=False, float_format="%.9g"),
        "png": lambda path: draw_comparison(dataset, path),
        "matrix": lambda path: np.savetxt(
            path, dataset.log_likelihood.transpose("image", "structure").values, fmt="%.9g"
        ),
    }
    texts = bioem_files(dataset) if any(kind.startswith("bioem") for kind in files) else {}
    for kind, final in files.items():
        with written_whole(final, overwrite=True) as temporary:
            if kind.startswith("bioem"):
                temporary.write_text(texts[kind.removeprefix("bioem ")])
            else:
                writers[kind](temporary)


def write_best_star(path: str | Path, dataset: xr.Dataset, stack: ParticleStack) -> None:
    """Write the input's tables with the pose under the structure of largest likelihood.

    Raises
    ------
    InputError
        A result without best poses.
    """
    if "rot" not in dataset:
        raise InputError("files: star needs keep: best")
    by = "log_likelihood" if "log_likelihood" in dataset else "log_likelihood_best"
    best = dataset[by].argmax("structure").compute()
    chosen = dataset.isel(structure=best).compute()
    columns = {
        "rlnAngleRot": chosen.rot.values,
        "rlnAngleTilt": chosen.tilt.values,
        "rlnAnglePsi": chosen.psi.values,
        **origin_columns(stack, chosen.origin_x.values, chosen.origin_y.values),
        "rlnClassNumber": best.values + 1,
        "rlnLogLikeliContribution": chosen[by].values,
    }
    if "pmax" in dataset:
        columns["rlnMaxValueProbDistribution"] = chosen.pmax.values
        columns["rlnNrOfSignificantSamples"] = chosen.n_credible.values
    write_particles(path, stack, columns, overwrite=True)
