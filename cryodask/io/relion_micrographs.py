"""RELION's table of micrographs with their CTF: 3.1 and later (optics groups), and 3.0 (one table)."""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from cryodask.errors import InputError
from cryodask.io.files import require_exists
from cryodask.io.star import read_star

PathLike = str | os.PathLike[str]

# Keys of an optics group by RELION's column.
COLUMNS = {
    "rlnDefocusU": "defocus_u",
    "rlnDefocusV": "defocus_v",
    "rlnDefocusAngle": "astigmatism_angle",
    "rlnPhaseShift": "phase_shift",
    "rlnCtfBfactor": "ctf_B_factor",
    "rlnVoltage": "voltage",
    "rlnSphericalAberration": "spherical_aberration",
    "rlnAmplitudeContrast": "amplitude_contrast_ratio",
}
REQUIRED = ("rlnMicrographName", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnVoltage")
PIXEL_SIZES = ("rlnMicrographPixelSize", "rlnMicrographOriginalPixelSize")
ABERRATIONS = ("rlnBeamTiltX", "rlnBeamTiltY", "rlnOddZernike", "rlnEvenZernike")
MAGNIFICATION = {"rlnMagMat00": 1.0, "rlnMagMat01": 0.0, "rlnMagMat10": 0.0, "rlnMagMat11": 1.0}


def read_micrographs(path: PathLike, *, ignore_aberrations: bool = False) -> pd.DataFrame:
    """Read the micrographs of a STAR file.

    Parameters
    ----------
    path
        ``micrographs_ctf.star``.
    ignore_aberrations
        Take files with beam tilt, aberrations or a magnification matrix, and leave these out.

    Returns
    -------
    pandas.DataFrame
        One row a micrograph: `micrograph_path`, `pixel_size` and the keys of an optics group; `line` is the
        line of the file.

    Raises
    ------
    InputError
        No such file, a missing column, an optics group without a row, a micrograph that is not there.
    """
    path = require_exists(path)
    blocks = read_star(path)
    table = _joined(path, blocks)
    missing = [name for name in REQUIRED if name not in table]
    if missing:
        raise InputError(f"{path.name}: missing column {', '.join(missing)}")
    if not ignore_aberrations:
        _refuse_aberrations(path, table)
    found = pd.DataFrame({"line": table["line"]}, index=table.index)
    found["micrograph_path"] = [
        _locate(path, str(name), int(line))
        for name, line in zip(table["rlnMicrographName"], table["line"], strict=True)
    ]
    found["pixel_size"] = _pixel_sizes(path, table)
    for column, key in COLUMNS.items():
        if column in table:
            found[key] = _numbers(path, table, column)
    return found.reset_index(drop=True)


def _joined(path: Path, blocks: dict[str, pd.DataFrame]) -> pd.DataFrame:
    table = blocks.get("micrographs")
    if table is None:
        table = next((block for block in blocks.values() if "rlnMicrographName" in block), None)
    if table is None:
        raise InputError(f"{path.name}: missing column rlnMicrographName")
    table = table.assign(line=table.index)
    optics = blocks.get("optics")
    if optics is None or "rlnOpticsGroup" not in table:
        return table
    unknown = sorted(set(table["rlnOpticsGroup"]) - set(optics["rlnOpticsGroup"]))
    if unknown:
        raise InputError(f"{path.name}: optics group {unknown[0]} has no row in data_optics")
    own = [name for name in optics.columns if name == "rlnOpticsGroup" or name not in table]
    return table.merge(optics[own], on="rlnOpticsGroup", how="left")


def _locate(path: Path, name: str, line: int) -> str:
    """Return the absolute path of a micrograph, relative to the working folder or to the star's."""
    for folder in (Path(), path.parent):
        if (folder / name).is_file():
            return str((folder / name).absolute())
    raise InputError(f"{path.name} line {line}: rlnMicrographName = {name}: no such file")


def _pixel_sizes(path: Path, table: pd.DataFrame) -> np.ndarray:
    for name in PIXEL_SIZES:
        if name in table:
            return _numbers(path, table, name)
    if {"rlnDetectorPixelSize", "rlnMagnification"} <= set(table.columns):
        return 1e4 * _numbers(path, table, "rlnDetectorPixelSize") / _numbers(path, table, "rlnMagnification")
    raise InputError(f"{path.name}: missing column {PIXEL_SIZES[0]}")


def _numbers(path: Path, table: pd.DataFrame, column: str) -> np.ndarray:
    values = pd.to_numeric(table[column], errors="coerce").to_numpy(np.float64)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        line, value = table["line"].iloc[bad[0]], table[column].iloc[bad[0]]
        raise InputError(f"{path.name} line {line}: {column} = {value}, expected a number")
    return values


def _refuse_aberrations(path: Path, table: pd.DataFrame) -> None:
    hint = "not supported; --ignore-aberrations leaves it out"
    for name in ABERRATIONS:
        if name in table:
            text = table[name].astype(str).str.strip("[]").str.split(",")
            given = text.apply(lambda values: any(_is_nonzero(value) for value in values))
            if given.any():
                raise InputError(f"{path.name}: {name} = {table[name][given].iloc[0]}: {hint}")
    for name, unit in MAGNIFICATION.items():
        if name in table and np.any(np.abs(_numbers(path, table, name) - unit) > 1e-6):
            raise InputError(f"{path.name}: {name} is not {unit:g}: {hint}")


def _is_nonzero(value: str) -> bool:
    try:
        return float(value) != 0.0
    except ValueError:
        return False
