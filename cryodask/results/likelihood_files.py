"""Files beside the Zarr result: RELION STAR, table, figure, matrix."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from cryodask.errors import InputError
from cryodask.io.files import written_whole
from cryodask.io.particle_lists import open_particle_list, select_rows
from cryodask.io.particle_stack import ParticleStack
from cryodask.io.particle_writing import origin_columns, write_particles
from cryodask.results.bioem import bioem_files
from cryodask.results.cryolike_files import write_cryolike_tree
from cryodask.results.structure_comparison import comparison_table, draw_comparison


def write_files(dataset: xr.Dataset, stack: ParticleStack, files: Mapping[str, Path]) -> None:
    """Write the files that were asked for, by kind; existing ones are replaced."""
    writers: dict[str, Callable[[Path], None]] = {
        "star": lambda path: write_best_star(path, dataset, stack),
        "csv": lambda path: comparison_table(dataset).to_csv(path, index=False, float_format="%.9g"),
        "png": lambda path: draw_comparison(dataset, path),
        "cryolike": lambda path: write_cryolike_tree(dataset, path),
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


def stack_of(dataset: xr.Dataset) -> ParticleStack:
    """Open the images that a stored result was made of.

    Raises
    ------
    InputError
        A result of an array; images that are gone or changed in number.
    """
    parameters = json.loads(dataset.attrs.get("parameters", "{}"))
    paths = parameters.get("images")
    if not paths or paths == "array":
        raise InputError("the images were an array: give them to cryodask.io.particle_writing themselves")
    options = parameters["image_options"]
    count = None if options["n_stacks"] == "all" else options["n_stacks"]
    paths = [paths] if isinstance(paths, str) else paths
    stack = open_particle_list(paths, root=options["root"], pixel_size=options["pixel_size"], n_stacks=count)
    stack = stack.take(select_rows(stack, options["select"])) if options["select"] != "all" else stack
    if len(stack) != dataset.sizes["image"]:
        raise InputError(f"{paths[0]}: {len(stack)} images, the result has {dataset.sizes['image']}")
    return stack


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
