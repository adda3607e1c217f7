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


def mean_defocus(path: Path, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the mean (T,) of the two defoci of each tilt, angstrom, and warn of strong astigmatism."""
    apart = float(np.abs(first - second).max())
    if apart > ASTIGMATISM_LIMIT:
        log.warning("%s: astigmatism up to %.2f µm is ignored", path.name, apart / MICROMETRE)
    return (first + second) / 2
