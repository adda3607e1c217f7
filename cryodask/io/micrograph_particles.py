"""Particles of micrographs as RELION and cisTEM read them; files are read back and compared."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from cryodask.errors import InputError
from cryodask.io.leopard_em import POSE
from cryodask.io.star import read_star, write_star

PathLike = str | os.PathLike[str]
OPTICS = {
    "voltage": "rlnVoltage",
    "spherical_aberration": "rlnSphericalAberration",
    "amplitude_contrast_ratio": "rlnAmplitudeContrast",
    "pixel_size": "rlnMicrographPixelSize",
}
# RELION 3.0 knows a pixel by the detector's (micrometres) and the magnification.
MAGNIFICATION = 10_000.0
CISTEM_COLUMNS = ["psi", "theta", "phi", "x", "y", "z", "pixel_size", "peak"]
_RELATIVE, _ABSOLUTE = 1e-6, 1e-6


def write_relion(path: PathLike, table: pd.DataFrame, *, overwrite: bool = False) -> None:
    """Write a STAR file of RELION 3.1 and later: optics groups and particles.

    Parameters
    ----------
    path
        The file.
    table
        Columns of Leopard-EM's table; refined ones are taken where they are.
    overwrite
        Replace an existing file.
    """
    groups = table[list(OPTICS)].drop_duplicates().reset_index(drop=True)
    numbers = pd.Series(range(1, len(groups) + 1))
    optics = groups.rename(columns=OPTICS)
    optics.insert(0, "rlnOpticsGroup", numbers)
    optics.insert(0, "rlnOpticsGroupName", [f"opticsGroup{number}" for number in numbers])
    optics["rlnImagePixelSize"] = optics["rlnMicrographPixelSize"]
    group = table[list(OPTICS)].merge(groups.assign(group=numbers), how="left", on=list(OPTICS))["group"]
    particles = _relion_particles(table)
    for axis in "XY":
        particles[f"rlnOrigin{axis}Angst"] = _origin(table, axis.lower()) * table["pixel_size"].to_numpy(
            float
        )
    particles["rlnOpticsGroup"] = group.to_numpy()
    _write_checked(path, {"optics": optics, "particles": particles}, overwrite=overwrite)


def write_relion30(path: PathLike, table: pd.DataFrame, *, overwrite: bool = False) -> None:
    """Write a STAR file of RELION 3.0, one block, origins in pixels; see `write_relion`."""
    particles = _relion_particles(table)
    for axis in "XY":
        particles[f"rlnOrigin{axis}"] = _origin(table, axis.lower())
    for name, column in list(OPTICS.items())[:3]:
        particles[column] = table[name].to_numpy(float)
    particles["rlnMagnification"] = MAGNIFICATION
    particles["rlnDetectorPixelSize"] = table["pixel_size"].to_numpy(float) * MAGNIFICATION / 1e4
    _write_checked(path, {"": particles}, overwrite=overwrite)


def write_cistem_coordinates(path: PathLike, table: pd.DataFrame, *, overwrite: bool = False) -> None:
    """Write cisTEM's coordinates.txt: psi theta phi x y z pixel_size peak, one micrograph.

    x and y are in angstrom, z is the defocus relative to that of the micrograph.

    Raises
    ------
    InputError
        Particles of several micrographs, which the file cannot tell apart.
    """
    from cryodask.io.files import written_whole

    if table["micrograph_path"].nunique() > 1:
        raise InputError(
            f"{Path(path).name}: coordinates of cisTEM hold one micrograph, found "
            f"{table['micrograph_path'].nunique()}; export one result at a time"
        )
    values = np.stack(
        [
            *(pose(table, name) for name in ("psi", "theta", "phi")),
            *(pose(table, f"pos_{axis}_img_angstrom") for axis in "xy"),
            pose(table, "relative_defocus"),
            table["pixel_size"].to_numpy(float),
            _score(table),
        ],
        axis=1,
    )
    with written_whole(path, overwrite=overwrite) as temporary:
        np.savetxt(temporary, values, fmt="%.9g", header=" ".join(CISTEM_COLUMNS))
        found = np.loadtxt(temporary, ndmin=2) if len(values) else values
        _compare(path, "coordinates", found, values)


def write_cistem_star(
    path: PathLike, table: pd.DataFrame, stack: PathLike, *, overwrite: bool = False
) -> None:
    """Write cisTEM's STAR file of a particle stack, one loop.

    Parameters
    ----------
    path
        The file.
    table
        Columns of Leopard-EM's table, rows as the images of the stack.
    stack
        The stack's name.
    overwrite
        Replace an existing file.
    """
    offset = pose(table, "relative_defocus")
    pixel_size = table["pixel_size"].to_numpy(float)
    columns: dict[str, object] = {
        "PositionInStack": np.arange(1, len(table) + 1),
        "AnglePsi": pose(table, "psi"),
        "AngleTheta": pose(table, "theta"),
        "AnglePhi": pose(table, "phi"),
        "XShift": 0.0 - _origin(table, "x") * pixel_size,
        "YShift": 0.0 - _origin(table, "y") * pixel_size,
        "Defocus1": table["defocus_u"].to_numpy(float) + offset,
        "Defocus2": table["defocus_v"].to_numpy(float) + offset,
        "DefocusAngle": table["astigmatism_angle"].to_numpy(float),
        "PhaseShift": np.radians(table["phase_shift"].to_numpy(float)),
        "ImageActivity": 1,
        "Occupancy": 100.0,
        "LogP": 0.0,
        "Sigma": 10.0,
        "Score": _score(table),
        "ScoreChange": 0.0,
        "PixelSize": pixel_size,
        "MicroscopeVoltagekV": table["voltage"].to_numpy(float),
        "MicroscopeCsMM": table["spherical_aberration"].to_numpy(float),
        "AmplitudeContrast": table["amplitude_contrast_ratio"].to_numpy(float),
        "StackFilename": f"'{Path(stack)}'",
        "OriginalImageFilename": [f"'{name}'" for name in table["micrograph_path"]],
    }
    frame = pd.DataFrame({f"cisTEM{name}": values for name, values in columns.items()}, index=table.index)
    _write_checked(path, {"": frame}, overwrite=overwrite)


def pose(table: pd.DataFrame, name: str) -> np.ndarray:
    """Return a column of pose or position as it was refined, else as it was found."""
    refined = f"refined_{name}"
    return table[refined if refined in table else name].to_numpy(float)


def _relion_particles(table: pd.DataFrame) -> pd.DataFrame:
    """Return the columns that all versions of RELION share; coordinates are whole 0-based pixels."""
    offset = pose(table, "relative_defocus")
    angles = dict(zip(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), POSE, strict=True))
    return pd.DataFrame(
        {
            "rlnMicrographName": table["micrograph_path"].astype(str).to_numpy(),
            "rlnCoordinateX": pose(table, "pos_x_img"),
            "rlnCoordinateY": pose(table, "pos_y_img"),
            **{column: pose(table, name) for column, name in angles.items()},
            "rlnDefocusU": table["defocus_u"].to_numpy(float) + offset,
            "rlnDefocusV": table["defocus_v"].to_numpy(float) + offset,
            "rlnDefocusAngle": table["astigmatism_angle"].to_numpy(float),
            "rlnPhaseShift": table["phase_shift"].to_numpy(float),
            "rlnCtfBfactor": table["ctf_B_factor"].to_numpy(float),
            "rlnAutopickFigureOfMerit": _score(table),
        }
    )


def _origin(table: pd.DataFrame, axis: str) -> np.ndarray:
    """Return the whole pixel less the position between pixels."""
    name = f"subpixel_{axis}"
    return 0.0 - table[name].to_numpy(float) if name in table else np.zeros(len(table))


def _score(table: pd.DataFrame) -> np.ndarray:
    for name in ("refined_scaled_mip", "score", "scaled_mip"):
        if name in table:
            return table[name].to_numpy(float)
    return np.zeros(len(table))


def _write_checked(path: PathLike, blocks: Mapping[str, pd.DataFrame], *, overwrite: bool) -> None:
    """Write a STAR file, read it back and compare it; a file that reads differently does not stay."""
    write_star(path, dict(blocks), overwrite=overwrite)
    if any(block.empty for block in blocks.values()):
        return
    try:
        found = read_star(path)
        for name, block in blocks.items():
            for column in block.columns:
                _compare(path, column, found[name][column].to_numpy(), block[column].to_numpy())
    except InputError:
        Path(path).unlink(missing_ok=True)
        raise


def _compare(path: PathLike, column: str, found: np.ndarray, written: np.ndarray) -> None:
    """Refuse a column that reads back differently."""
    if written.dtype.kind in "iuf":
        same = np.allclose(found.astype(float), written, rtol=_RELATIVE, atol=_ABSOLUTE, equal_nan=True)
    else:
        same = [str(a).strip("'") for a in found] == [str(b).strip("'") for b in written]
    if not same:
        raise InputError(f"{Path(path).name}: {column} reads back differently from what was written")
