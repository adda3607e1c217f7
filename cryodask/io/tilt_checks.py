"""What the readers of tilt metadata hold their numbers against."""

import logging
from pathlib import Path

import numpy as np

from cryodask.errors import InputError

log = logging.getLogger(__name__)

MICROMETRE = 1e4
NANOMETRE = 10.0
STEEPEST = 90.0
# angstrom; the search takes the mean defocus of a tilt
ASTIGMATISM_LIMIT = 3000.0
PLAUSIBLE_MICROMETRES = (0.002, 25.0)


def checked_angles(path: Path, angles: np.ndarray) -> np.ndarray:
    """Return tilt angles (T,) in degrees if they can be those of a tilt series.

    Raises
    ------
    InputError
        Fewer than two; one beyond 90 degrees.
    """
    if len(angles) < 2:
        raise InputError(f"{path.name}: {len(angles)} tilt, expected 2 or more")
    steep = np.abs(angles) > STEEPEST
    if steep.any():
        raise InputError(f"{path.name}: tilt angle {angles[steep][0]:g}, expected -90 to 90 degrees")
    return angles


def checked_defocus(path: Path, defocus: np.ndarray) -> np.ndarray:
    """Return defocus (T,) in angstrom if it can be that of a tilt series; warn of overfocus.

    Raises
    ------
    InputError
        The median is no defocus of any microscopy, so the unit is another one.
    """
    median = float(np.median(defocus))
    least, greatest = PLAUSIBLE_MICROMETRES
    if median and not least <= abs(median) / MICROMETRE <= greatest:
        raise InputError(
            f"{path.name}: median defocus {median / MICROMETRE:g} µm, expected {least:g} to {greatest:g} µm"
            " (another unit?)"
        )
    if median < 0:
        log.warning("%s: defocus is negative, expected positive for underfocus", path.name)
    return defocus


def mean_defocus(path: Path, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the mean (T,) of the two defoci of each tilt, angstrom, and warn of strong astigmatism.

    Raises
    ------
    InputError
        As `checked_defocus`.
    """
    apart = float(np.abs(first - second).max())
    if apart > ASTIGMATISM_LIMIT:
        log.warning("%s: astigmatism up to %.2f µm is ignored", path.name, apart / MICROMETRE)
    return checked_defocus(path, (first + second) / 2)
