"""RELION's STAR files of particle images: 3.0 (one table) and 3.1 to 5 (optics groups)."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cryodask.errors import InputError
from cryodask.io.files import require_exists
from cryodask.io.particle_columns import NUMBERS, RELION
from cryodask.io.star import read_star

IMAGE_NAME = "rlnImageName"
GROUP = "rlnOpticsGroup"
DEFOCUS = "rlnDefocusU"
PIXEL_SIZE = "rlnImagePixelSize"
MICROMETRE = 1e4


@dataclass(frozen=True)
class StarParticles:
    """A particle STAR file: its blocks as they are, which of them holds the particles, and the house's table.

    `table` has the columns of `NUMBERS` and file, image_number (from 0), name, optics_group, pixel_size
    (NaN where the file does not say), micrograph, helical_tube.
    """

    blocks: dict[str, pd.DataFrame]
    block: str
    table: pd.DataFrame


def read_star_particles(
    path: str | os.PathLike[str], *, images: str | os.PathLike[str] | None = None
) -> StarParticles:
    """Read a particle STAR file, without looking for its images.

    Parameters
    ----------
    path
        The STAR file.
    images
        For a file without rlnImageName: the stack of which row k describes image k.

    Raises
    ------
    InputError
        No block with rlnImageName; a name that is not ``number@file``; an optics group that the optics
        table lacks.
    """
    path = require_exists(path)
    blocks = read_star(path)
    wanted = IMAGE_NAME if images is None else DEFOCUS
    name = next((key for key, frame in blocks.items() if wanted in frame and key != "optics"), None)
    if name is None:
        raise InputError(f"{path.name}: {wanted} is missing, expected a file of particle images")
    particles = blocks[name]
    if particles.empty:
        raise InputError(f"{path.name}: no rows")
    rows = _with_optics(path, particles, blocks.get("optics"))
    if images is not None:
        stack = Path(images).absolute()
        rows = rows.assign(**{IMAGE_NAME: [f"{i + 1:06d}@{stack}" for i in range(len(rows))]})
    return StarParticles(blocks, name, _house_table(path, rows))


def split_image_name(name: str) -> tuple[int, str] | None:
    """Return image number (from 0) and file of ``k@file``, None where the name is not of that form."""
    number, at, file = name.partition("@")
    if not at:
        return 0, name  # one image a file
    return (int(number) - 1, file) if number.isdigit() and int(number) > 0 and file else None


def find_file(name: str, folders: list[Path]) -> Path | None:
    """Return the first place of a file: its own if absolute, else below the first folder that has it."""
    if Path(name).is_absolute():
        return Path(name) if Path(name).exists() else None
    return next((folder / name for folder in folders if (folder / name).exists()), None)


def search_folders(path: Path, root: str | os.PathLike[str] | None) -> list[Path]:
    """Return where images may lie: `root` alone if given, else the working and the file's folder, its
    parents."""
    if root is not None:
        return [Path(root).absolute()]
    here = path.absolute().parent
    return list(dict.fromkeys([Path.cwd(), here, *here.parents]))


def _with_optics(path: Path, particles: pd.DataFrame, optics: pd.DataFrame | None) -> pd.DataFrame:
    """Join the optics columns that the particles lack."""
    if optics is None or GROUP not in optics:
        return particles
    if GROUP not in particles:
        if len(optics) > 1:
            raise InputError(f"{path.name}: {GROUP} is missing beside {len(optics)} optics groups")
        particles = particles.assign(**{GROUP: optics[GROUP].iloc[0]})
    known = optics.drop_duplicates(GROUP).set_index(GROUP)
    unknown = sorted(set(particles[GROUP]) - set(known.index))
    if unknown:
        row = int(np.flatnonzero(particles[GROUP] == unknown[0])[0]) + 1
        raise InputError(f"{path.name} row {row}: optics group {unknown[0]} is not in data_optics")
    extra = [column for column in known.columns if column not in particles]
    return particles.join(known[extra], on=GROUP)


def _house_table(path: Path, rows: pd.DataFrame) -> pd.DataFrame:
    names = rows[IMAGE_NAME].astype(str)
    places = [split_image_name(name) for name in names]
    bad = next((i for i, place in enumerate(places) if place is None), None)
    if bad is not None:
        raise InputError(f"{path.name} row {bad + 1}: {names.iloc[bad]}: expected number@file, from 1")
    pixel_size = _pixel_sizes(path, rows)
    table: dict[str, Any] = {
        "name": names.to_numpy(),
        "file": [place[1] for place in places if place],
        "image_number": np.array([place[0] for place in places if place], np.int64),
        "optics_group": _column(path, rows, GROUP, 1).astype(np.int64),
        "pixel_size": pixel_size,
        **dict.fromkeys(NUMBERS, np.nan),
    }
    table |= {house: _column(path, rows, name, np.nan) for house, name in RELION.items()}
    table |= {f"origin_{axis}": _origins(path, rows, axis, pixel_size) for axis in "xy"}
    table["micrograph"] = (
        rows.get("rlnMicrographName", pd.Series("", index=rows.index)).astype(str).to_numpy()
    )
    table["helical_tube"] = _column(path, rows, "rlnHelicalTubeID", -1).astype(np.int64)
    return pd.DataFrame(table)


def _column(path: Path, rows: pd.DataFrame, name: str, absent: float) -> np.ndarray:
    if name not in rows:
        return np.full(len(rows), absent)
    values = pd.to_numeric(rows[name], errors="coerce").to_numpy(np.float64)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise InputError(
            f"{path.name} row {bad[0] + 1}: {name} = {rows[name].iloc[bad[0]]}, expected a finite number"
        )
    return values


def _pixel_sizes(path: Path, rows: pd.DataFrame) -> np.ndarray:
    if PIXEL_SIZE in rows:
        return _column(path, rows, PIXEL_SIZE, np.nan)
    if {"rlnDetectorPixelSize", "rlnMagnification"} <= set(rows.columns):
        detector = _column(path, rows, "rlnDetectorPixelSize", np.nan)
        return MICROMETRE * detector / _column(path, rows, "rlnMagnification", np.nan)
    return _column(path, rows, "rlnPixelSize", np.nan)


def _origins(path: Path, rows: pd.DataFrame, axis: str, pixel_size: np.ndarray) -> np.ndarray:
    """Angstrom; a file without origins has its particles in the middle."""
    axis = axis.upper()
    if f"rlnOrigin{axis}Angst" in rows:
        return _column(path, rows, f"rlnOrigin{axis}Angst", 0.0)
    pixels = _column(path, rows, f"rlnOrigin{axis}", 0.0)
    return pixels * pixel_size if pixels.any() else pixels
