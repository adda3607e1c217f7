"""The likelihood of images at given poses."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from cryodask.errors import InputError
from cryodask.geometry.euler import rotation_from_euler
from cryodask.io.relion_stack import read_star_particles
from cryodask.jobs.disk import scratch_folder
from cryodask.jobs.likelihood.inputs import inputs_of_python
from cryodask.jobs.likelihood.planning import make_problem
from cryodask.jobs.likelihood.problem import LikelihoodProblem
from cryodask.jobs.likelihood.ready_templates import ReadyTemplates

POSE = ("rot", "tilt", "psi", "origin_x", "origin_y")
RELION = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst")
BATCH = 64


def likelihood_at(
    images: Any,
    structure: Any,
    poses: Any,
    *,
    pixel_size: float | None = None,
    optics: Any = None,
    **settings: Any,
) -> pd.DataFrame:
    """Return the likelihood of each image at one given pose, on the CPU.

    The quantities of CryoLike's calc_likelihood_optimal_pose, with the offset removed exactly.

    Parameters
    ----------
    images, pixel_size, optics
        As of `cryodask.likelihood`.
    structure
        A path (map, PDB, mmCIF, text model), or an entry of `structures` as in the configuration.
    poses
        One row an image: a table with rot, tilt, psi (degrees) and origin_x, origin_y (angstrom), or with
        RELION's names; a STAR file; or a result of one structure with best poses.
    **settings
        Keys of the configuration.

    Returns
    -------
    pandas.DataFrame
        name, the pose, `log_likelihood` (nats), `cross_correlation`, `correlation` (offset removed), `scale`,
        `residual_norm` of the image of norm 1.

    Raises
    ------
    InputError
        A wrong value or file; poses that are not one an image; ready templates, which have no other views.
    """
    entry = (
        dict(structure) if isinstance(structure, Mapping) else {"name": "structure", "path": str(structure)}
    )
    inputs = inputs_of_python(images, [entry], pixel_size=pixel_size, optics=optics, settings=settings)
    if inputs.parameters.likelihood.axes != "relion":
        raise InputError("likelihood_at: poses are RELION's; expected likelihood.axes: relion")
    if len(inputs.structures) != 1 or isinstance(inputs.structures[0].model, ReadyTemplates):
        raise InputError("likelihood_at: expected one structure, a map or atoms")
    problem = make_problem(inputs, scratch_folder())
    problem.preparation.write(inputs.stack)
    table = _poses(poses)
    if len(table) != problem.images:
        raise InputError(f"{len(table)} poses for {problem.images} images")
    parts = [
        _scores(problem, table.iloc[start : start + BATCH], start)
        for start in range(0, problem.images, BATCH)
    ]
    found = pd.concat([table, pd.concat(parts, ignore_index=True)], axis=1)
    found.insert(0, "name", inputs.stack.table["name"].to_numpy())
    return found


def _poses(poses: Any) -> pd.DataFrame:
    if isinstance(poses, xr.Dataset):
        one = poses.isel(structure=0) if "structure" in poses.dims else poses
        return pd.DataFrame({name: one[name].values.astype(float) for name in POSE})
    table = read_star_particles(poses).table if isinstance(poses, str | Path) else pd.DataFrame(poses)
    if not set(POSE) <= set(table.columns):
        table = table.rename(columns=dict(zip(RELION, POSE, strict=True)))
    absent = [name for name in POSE if name not in table]
    if absent:
        raise InputError(f"poses: no column {absent[0]}, expected {', '.join(POSE)} or RELION's names")
    found = table[list(POSE)].astype(float).reset_index(drop=True)
    bad = np.argwhere(~np.isfinite(found.to_numpy()))
    if len(bad):
        raise InputError(f"poses row {bad[0][0] + 1}: {POSE[bad[0][1]]} is not a finite number")
    return found


def _scores(problem: LikelihoodProblem, poses: pd.DataFrame, start: int) -> pd.DataFrame:
    maker, grid = problem.maker, problem.maker.grid
    preparation = replace(problem.preparation, is_centred=False)  # origins count from the box
    stop, half = start + len(poses), grid.rotations // 2
    images = preparation.polar(start, stop)[..., :half].astype(np.complex128)
    contrast = preparation.contrast(start, stop)
    # RELION's matrix carries the image's axes into the structure's frame
    matrices = rotation_from_euler(poses[["rot", "tilt", "psi"]].to_numpy(), "relion").as_matrix()
    model = problem.structures[0].model
    assert not isinstance(model, ReadyTemplates)
    slices = maker.slices(model, matrices[:, :2], poses["psi"].to_numpy()).astype(np.complex128)
    kx, ky = grid.kx[:, :half], grid.ky[:, :half]
    x, y = (-poses[f"origin_{axis}"].to_numpy()[:, None, None] * 2 / maker.box_length for axis in "xy")
    slices *= np.exp(-2j * np.pi * (kx * x + ky * y))
    weights = 2 * grid.weights[:, None]

    def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (weights * (a.conj() * b).real).sum(axis=(-2, -1))

    slices /= np.sqrt(product(slices, slices))[:, None, None]
    template = contrast * slices
    box = grid.box_transform[:, :half].astype(complex)
    xy, xx, yy = product(images, template), product(template, template), product(images, images)
    sx, sy = product(box[None], template), product(box[None], images)
    ss = np.full(len(poses), product(box, box))
    form = preparation.form
    form = replace(form, offset="exact") if form.offset == "template" else form
    score, r = form.log_likelihood(xy, xx, sx, ss, sy, yy)
    is_none = form.offset == "none"
    a, b, e = (xx, xy, yy) if is_none else (ss * xx - sx * sx, ss * xy - sx * sy, ss * yy - sy * sy)
    left = e * (1 - r * r) / (1 if is_none else ss)
    return pd.DataFrame(
        {
            "log_likelihood": score + form.constant(ss),
            "cross_correlation": xy / np.sqrt(xx * yy),
            "correlation": r,
            "scale": b / a,
            "residual_norm": np.sqrt(np.maximum(left, 0.0)),
        }
    )
