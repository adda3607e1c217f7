"""From peaks to the particle table that `io.particles` writes."""

import json
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy.spatial.transform import Rotation

from cryodask.errors import InputError
from cryodask.geometry.euler import euler_from_rotation, rotation_from_euler
from cryodask.geometry.symmetry import symmetry_group
from cryodask.io.particle_table import ANGLES, COLUMNS
from cryodask.picking.thresholds import Threshold, source_name

SYMMETRY_STREAM = 7
GRID_SCORE = "score_grid"


def particle_table(
    dataset: xr.Dataset, peaks: pd.DataFrame, *, tomo_name: str | None = None, tomo_num: int | None = None
) -> pd.DataFrame:
    """Build the particle table of one tomogram.

    Parameters
    ----------
    dataset
        Result the peaks come from.
    peaks
        template, z, y, x, dz, dy, dx, angle_row and score columns, one row a peak; phi, theta, psi in place
        of the angles of the row, and score_grid, where orientations were refined.
    tomo_name, tomo_num
        Names in place of the result's own.

    Returns
    -------
    pandas.DataFrame
        The columns of `COLUMNS`; x, y, z 0-based sub-voxel positions, x_a, y_a, z_a angstrom, phi, theta,
        psi zxz degrees, quaternions of the rotation that carries the template into the tomogram, qw >= 0.
        What the result does not hold is NaN. Refined peaks add score_grid, the raw score before.
    """
    count = len(peaks)
    places = peaks[["x", "y", "z"]].to_numpy(float) + peaks[["dx", "dy", "dz"]].to_numpy(float)
    origin = np.array(dataset.attrs.get("origin", (0.0, 0.0, 0.0)), float)[::-1]
    angstrom = places * voxel_size_of(dataset) + origin
    template = peaks["template"].to_numpy(int)
    euler = dataset["euler"].values[template, peaks["angle_row"].to_numpy(int)]
    if set(ANGLES) <= set(peaks):
        euler = peaks[ANGLES].to_numpy(float)
    columns = [*COLUMNS, *(name for name in (GRID_SCORE,) if name in peaks)]
    names = np.array(template_names(dataset), object)
    table = pd.DataFrame(
        {
            "tomo_name": [tomo_name or str(dataset.attrs.get("tomo_name", "tomogram"))] * count,
            "tomo_num": int(dataset.attrs.get("tomo_num", 0)) if tomo_num is None else tomo_num,
            "template": names[template],
            "class": template + 1,
            "angle_row": peaks["angle_row"].to_numpy(int),
            **dict(zip(("x", "y", "z"), places.T, strict=True)),
            **dict(zip(("x_a", "y_a", "z_a"), angstrom.T, strict=True)),
            **{name: peaks[name].to_numpy(float) for name in columns if name in _OPTIONAL and name in peaks},
        },
        index=pd.RangeIndex(count),
    ).reindex(columns=columns)
    return with_angles(table, np.asarray(euler, float).reshape(-1, 3))


_OPTIONAL = frozenset({"score", "score_raw", "zscore", "noise", "margin", "qvalue", GRID_SCORE})


def with_angles(table: pd.DataFrame, euler: np.ndarray) -> pd.DataFrame:
    """Return the table with new orientations, (n, 3) zxz degrees, and their quaternions."""
    angles = dict(zip(("phi", "theta", "psi"), euler.T, strict=True))
    if len(table) == 0:
        return table.assign(**angles)
    x, y, z, w = rotation_from_euler(euler).as_quat(canonical=True).T
    return table.assign(**angles, qw=w, qx=x, qy=y, qz=z)


def randomized(table: pd.DataFrame, symmetry: str, *, seed: int) -> pd.DataFrame:
    """Right-multiply each orientation by a random element of the point group.

    Orientations of a symmetric particle otherwise crowd in one asymmetric unit, which biases subtomogram
    averaging. The draw depends on the seed, the tomogram number and the row alone.

    Parameters
    ----------
    table
        Particle table with phi, theta, psi.
    symmetry
        Point group of the template.
    seed
        Integer >= 0; the tomogram number is taken from the table.
    """
    group = symmetry_group(symmetry)
    if len(table) == 0 or len(group) == 1:
        return table
    sequence = np.random.SeedSequence([seed, SYMMETRY_STREAM, int(table["tomo_num"].iloc[0])])
    drawn = np.random.Generator(np.random.Philox(sequence)).integers(len(group), size=len(table))
    rotation: Rotation = rotation_from_euler(table[["phi", "theta", "psi"]].to_numpy(float)) * group[drawn]
    return with_angles(table, euler_from_rotation(rotation))


_OPTICS = ("voltage", "cs", "amplitude_contrast", "tilt_range")


def voxel_size_of(dataset: xr.Dataset) -> float:
    """Return the voxel size of a result in angstrom."""
    size = dataset.attrs.get("voxel_size")
    if size is None or not np.isfinite(size) or size <= 0:
        raise InputError(f"{source_name(dataset)}: voxel size unknown, set --voxel-size")
    return float(size)


def template_names(dataset: xr.Dataset) -> list[str]:
    """Return one name for each template."""
    names = dataset.attrs.get("template_names")
    if isinstance(names, str):
        names = json.loads(names) if names.startswith("[") else [names]
    return list(names or [f"template {i + 1}" for i in range(dataset.sizes["template"])])


def table_attributes(
    dataset: xr.Dataset, threshold: Threshold, *, score: str, symmetry: str, diameter: float | None
) -> dict[str, Any]:
    """Return what a report or the next step must know of how a table was made."""
    return {
        "voxel_size": voxel_size_of(dataset),
        "binning": float(dataset.attrs.get("binning", 1.0)),
        "symmetry": symmetry,
        "particle_diameter": diameter,
        "ranked_by": score,
        "threshold_map": threshold.name,
        "thresholds": list(threshold.values),
        "rule": threshold.rule,
        "optics": {name: dataset.attrs[name] for name in _OPTICS if name in dataset.attrs},
    }
