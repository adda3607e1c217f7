"""cryoSPARC's particle files (.cs): NumPy records, one a particle."""

import os
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial.transform import Rotation

from cryodask.arrays.npy import load_npy
from cryodask.errors import InputError
from cryodask.geometry.euler import euler_from_rotation
from cryodask.io.files import require_exists, written_whole
from cryodask.io.particle_columns import NUMBERS

PLAIN = {
    "voltage": "ctf/accel_kv",
    "cs": "ctf/cs_mm",
    "amplitude_contrast": "ctf/amp_contrast",
    "defocus_u": "ctf/df1_A",
    "defocus_v": "ctf/df2_A",
    "b_factor": "ctf/bfactor",
    "coordinate_x": "location/center_x_frac",
    "coordinate_y": "location/center_y_frac",
}
RADIANS = {"defocus_angle": "ctf/df_angle_rad", "phase_shift": "ctf/phase_shift_rad"}


def read_cs_particles(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a .cs file into the house's table, without looking for its images.

    Returns
    -------
    DataFrame
        As `relion_stack.StarParticles.table`. Rotation vectors become RELION's angles, shifts its origins;
        of 2D alignments psi alone. Coordinates are pixels of the micrograph.

    Raises
    ------
    InputError
        Not a .cs file; a field that is missing, by name.
    """
    path = require_exists(path)
    try:
        records = load_npy(path)
    except ValueError as error:
        raise InputError(f"{path.name}: not a cryoSPARC file ({error})") from error
    for field in ("blob/path", "blob/idx"):
        if field not in (records.dtype.names or ()):
            raise InputError(
                f"{path.name}: {field} is missing, expected cryoSPARC particles with their blobs"
            )
    if not len(records):
        raise InputError(f"{path.name}: no rows")
    return pd.DataFrame(_table(records))


def copy_records(source: str | os.PathLike[str], path: str | os.PathLike[str], names: list[str]) -> None:
    """Write the records of some particles of a .cs file, unchanged, in the order of their names.

    Parameters
    ----------
    source
        The .cs file they are taken from.
    path
        The .cs file to write.
    names
        ``number@file``, as `read_cs_particles` names them.
    """
    records = load_npy(require_exists(source))
    row = {name: i for i, name in enumerate(_names(records))}
    with written_whole(path, overwrite=True) as temporary, temporary.open("wb") as stream:
        np.save(stream, records[[row[name] for name in names]])


def _names(records: np.ndarray) -> list[str]:
    files = (_text(value).lstrip(">") for value in records["blob/path"])
    return [f"{int(i) + 1:06d}@{file}" for i, file in zip(records["blob/idx"], files, strict=True)]


def _table(records: np.ndarray) -> dict[str, Any]:
    files = [_text(value).lstrip(">") for value in records["blob/path"]]
    numbers = records["blob/idx"].astype(np.int64)
    table: dict[str, Any] = {
        "name": _names(records),
        "file": files,
        "image_number": numbers,
        "optics_group": _field(records, "ctf/exp_group_id", 1).astype(np.int64),
        "pixel_size": _field(records, "blob/psize_A", np.nan),
        **dict.fromkeys(NUMBERS, np.nan),
    }
    table |= {house: _field(records, name, np.nan) for house, name in PLAIN.items()}
    table |= {house: np.degrees(_field(records, name, np.nan)) for house, name in RADIANS.items()}
    table |= _alignment(records) | _location(records, table)
    return table


def _alignment(records: np.ndarray) -> dict[str, Any]:
    names = records.dtype.names or ()
    found = next((key for key in ("alignments3D", "alignments2D") if f"{key}/shift" in names), None)
    if found is None:
        return {"origin_x": 0.0, "origin_y": 0.0}
    size = _field(records, f"{found}/psize_A", np.nan)
    if not (size > 0).all():
        size = _field(records, "blob/psize_A", np.nan)
    shift = records[f"{found}/shift"] * size[:, None]
    result: dict[str, Any] = {"origin_x": shift[:, 0], "origin_y": shift[:, 1]}
    if f"{found}/pose" in names:
        pose = records[f"{found}/pose"].astype(np.float64)
        if found == "alignments2D":
            return result | {"psi": np.degrees(pose.reshape(len(records)))}
        # cryoSPARC's vector turns the projection's frame into the particle's
        angles = euler_from_rotation(Rotation.from_rotvec(-pose), "relion")
        result |= dict(zip(("rot", "tilt", "psi"), angles.T, strict=True))
    return result


def _location(records: np.ndarray, table: dict[str, Any]) -> dict[str, Any]:
    names = records.dtype.names or ()
    count = len(records)
    place: dict[str, Any] = {"micrograph": "", "helical_tube": np.full(count, -1, np.int64)}
    if "location/micrograph_path" in names:
        place["micrograph"] = [_text(value).lstrip(">") for value in records["location/micrograph_path"]]
    if "location/micrograph_shape" in names:
        shape = records["location/micrograph_shape"].astype(np.float64)
        place["coordinate_x"] = table["coordinate_x"] * shape[:, 1]
        place["coordinate_y"] = table["coordinate_y"] * shape[:, 0]
    else:
        place |= {"coordinate_x": np.nan, "coordinate_y": np.nan}
    return place


def _field(records: np.ndarray, name: str, absent: float) -> np.ndarray:
    if name not in (records.dtype.names or ()):
        return np.full(len(records), absent)
    return records[name].astype(np.float64)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
