"""RELION's particle STAR files: 3.0 (read), 3.1, 4 and 5.

Positions are those of the searched tomogram (3.1), of the unbinned tomogram (4), or angstrom from the centre
of the unbinned tomogram (5). Angles: rot = 90 - phi, tilt = theta, psi = -90 - psi of zxz.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from cryodask.errors import InputError
from cryodask.geometry.euler import zxz_to_relion
from cryodask.io.particle_table import TableOptions, angles, column, complete_table, names, positions
from cryodask.io.star import read_star, star_numbers, write_star

COORDINATES = [f"rlnCoordinate{axis}" for axis in "XYZ"]
CENTRED = [f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"]
ORIGINS_ANGSTROM = [f"rlnOrigin{axis}Angst" for axis in "XYZ"]
ORIGINS_PIXEL = [f"rlnOrigin{axis}" for axis in "XYZ"]
ANGLES = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
SCORE = "rlnAutopickFigureOfMerit"


def write_relion31(table: pd.DataFrame, path: Path, options: TableOptions) -> None:
    """Write a RELION 3.1 particle file, positions in voxels of the searched tomogram."""
    voxel_size = options.require_voxel_size("relion3.1")
    place = dict(zip(COORDINATES, positions(table).T, strict=True))
    particles = {
        "rlnMicrographName": names(table),
        **place,
        **_angle_columns(table),
        "rlnPixelSize": voxel_size,
        **_common_columns(table),
    }
    _write(path, particles, {"rlnImagePixelSize": voxel_size}, options)


def write_relion4(table: pd.DataFrame, path: Path, options: TableOptions) -> None:
    """Write a RELION 4 particle file, positions in pixels of the unbinned tomogram."""
    place = dict(zip(COORDINATES, (positions(table) * options.binning).T, strict=True))
    _write_tomo(table, path, place, options, "relion4")


def write_relion5(table: pd.DataFrame, path: Path, options: TableOptions) -> None:
    """Write a RELION 5 particle file, positions in angstrom from the tomogram's centre."""
    pixel = options.require_voxel_size("relion5") / options.binning
    centred = (positions(table) * options.binning - _half_sizes(names(table), options)) * pixel
    _write_tomo(table, path, dict(zip(CENTRED, centred.T, strict=True)), options, "relion5")


def read_relion(path: Path, options: TableOptions) -> pd.DataFrame:
    """Read a RELION 3.0, 3.1, 4 or 5 particle file; shifts are taken from the positions.

    Raises
    ------
    InputError
        No block with coordinates and angles; no pixel size where shifts need one; for RELION 5 no size.
    """
    blocks = read_star(path)
    particles = next((f for f in blocks.values() if _has_positions(f)), None)
    if particles is None:
        raise InputError(f"{path.name}: expected {COORDINATES[0]} or {CENTRED[0]}, and {ANGLES[0]}")
    if particles.empty:
        raise InputError(f"{path.name}: no rows")
    name = "rlnTomoName" if "rlnTomoName" in particles else "rlnMicrographName"
    tomograms = particles[name].astype(str) if name in particles else pd.Series("1", index=particles.index)
    place = _read_positions(path, particles, blocks.get("optics"), tomograms, options)
    table = {
        "tomo_name": tomograms.to_numpy(),
        "class": column(particles, "rlnClassNumber", 1).astype(int),
        **dict(zip("xyz", place.T, strict=True)),
        "score": column(particles, SCORE, np.nan),
        **dict(
            zip(("phi", "theta", "psi"), zxz_to_relion(star_numbers(path, particles, *ANGLES)).T, strict=True)
        ),
    }
    return complete_table(pd.DataFrame(table), options)


def _has_positions(frame: pd.DataFrame) -> bool:
    found = set(frame.columns)
    return set(ANGLES) <= found and (set(COORDINATES) <= found or set(CENTRED) <= found)


def _read_positions(
    path: Path,
    particles: pd.DataFrame,
    optics: pd.DataFrame | None,
    tomograms: pd.Series,
    options: TableOptions,
) -> np.ndarray:
    """0-based voxel positions (N, 3): coordinates, less the shifts that refinement left."""
    shift = _read_shifts(path, particles, optics, options)
    if set(CENTRED) <= set(particles.columns):
        pixel = _pixel_sizes(path, particles, optics, options)
        centred = star_numbers(path, particles, *CENTRED) / pixel[:, np.newaxis]
        return (centred + _half_sizes(tomograms, options) - shift) / options.binning
    place = star_numbers(path, particles, *COORDINATES) - shift
    return place / options.binning if "rlnTomoName" in particles else place


def _read_shifts(
    path: Path, particles: pd.DataFrame, optics: pd.DataFrame | None, options: TableOptions
) -> np.ndarray:
    if set(ORIGINS_ANGSTROM) <= set(particles.columns):
        shift = star_numbers(path, particles, *ORIGINS_ANGSTROM)
        return shift / _pixel_sizes(path, particles, optics, options)[:, np.newaxis] if shift.any() else shift
    if set(ORIGINS_PIXEL) <= set(particles.columns):
        return star_numbers(path, particles, *ORIGINS_PIXEL)
    return np.zeros((len(particles), 3))


def _pixel_sizes(
    path: Path, particles: pd.DataFrame, optics: pd.DataFrame | None, options: TableOptions
) -> np.ndarray:
    """Angstrom of the unit in which a row's coordinates are given."""
    unbinned = "rlnTomoName" in particles
    wanted = "rlnTomoTiltSeriesPixelSize" if unbinned else "rlnImagePixelSize"
    if not unbinned and "rlnPixelSize" in particles:
        return star_numbers(path, particles, "rlnPixelSize")[:, 0]
    if optics is not None and {wanted, "rlnOpticsGroup"} <= set(optics.columns):
        sizes = optics.set_index("rlnOpticsGroup")[wanted]
        return particles["rlnOpticsGroup"].map(sizes).to_numpy(float)
    if options.voxel_size is None:
        raise InputError(f"{path.name}: no {wanted}, voxel_size is required")
    return np.full(len(particles), options.voxel_size / (options.binning if unbinned else 1))


def _half_sizes(tomograms: pd.Series, options: TableOptions) -> np.ndarray:
    """Half the unbinned size (N, 3) in (x, y, z) order, pixels."""
    shape = options.tomogram_shape
    if shape is None:
        raise InputError("relion5: tomogram_shape (unbinned z, y, x in pixels) is required")
    if not isinstance(shape, Mapping):
        return np.tile(np.array(shape, float)[::-1] / 2, (len(tomograms), 1))
    unknown = sorted(set(tomograms) - set(shape))
    if unknown:
        raise InputError(f"relion5: no tomogram_shape for {', '.join(unknown)}")
    return np.array([shape[name][::-1] for name in tomograms], float).reshape(-1, 3) / 2


def _write_tomo(
    table: pd.DataFrame, path: Path, place: dict[str, np.ndarray], options: TableOptions, dialect: str
) -> None:
    tomograms = names(table)
    index = tomograms.groupby(tomograms).cumcount() + 1
    particles = {
        "rlnTomoName": tomograms,
        "rlnTomoParticleName": tomograms + "/" + index.astype(str),
        **place,
        **_angle_columns(table),
        **_common_columns(table),
    }
    pixel = options.require_voxel_size(dialect) / options.binning
    _write(path, particles, {"rlnTomoTiltSeriesPixelSize": pixel}, options)


def _angle_columns(table: pd.DataFrame) -> dict[str, np.ndarray]:
    return dict(zip(ANGLES, zxz_to_relion(angles(table)).T, strict=True))


def _common_columns(table: pd.DataFrame) -> dict[str, object]:
    return {
        "rlnOpticsGroup": 1,
        "rlnGroupNumber": 1,
        **dict.fromkeys(ORIGINS_ANGSTROM, 0.0),
        "rlnClassNumber": column(table, "class", 1).astype(int),
        "rlnRandomSubset": np.arange(len(table)) % 2 + 1,
        SCORE: column(table, "score", 0),
    }


def _write(path: Path, particles: dict[str, object], pixel: dict[str, float], options: TableOptions) -> None:
    optics = {
        "rlnOpticsGroup": [1],
        "rlnOpticsGroupName": ["opticsGroup1"],
        "rlnSphericalAberration": [options.cs],
        "rlnVoltage": [options.voltage],
        "rlnAmplitudeContrast": [options.amplitude_contrast],
        **{name: [size] for name, size in pixel.items()},
    }
    write_star(path, {"optics": pd.DataFrame(optics), "particles": pd.DataFrame(particles)})
