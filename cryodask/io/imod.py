"""Text files of IMOD: tilt angles, defocus, and the command file of the reconstruction."""

from pathlib import Path

import numpy as np

from cryodask.errors import InputError
from cryodask.io.text_numbers import read_number_rows
from cryodask.io.tilt_checks import checked_angles


def read_tilt_angles(path: Path, column: int | None = None) -> np.ndarray:
    """Read the tilt angles (T,) in degrees of a ``.tlt``, ``.rawtlt`` or other text file, one line a tilt.

    Parameters
    ----------
    path
        The file.
    column
        Column, from 1, of the angle where there are several.

    Raises
    ------
    InputError
        Several columns and none chosen; a line without the column; fewer than two tilts.
    """
    rows = read_number_rows(path)
    number, values = max(rows, key=lambda row: len(row[1]))
    if column is None and len(values) > 1:
        raise InputError(f"{path.name} line {number}: {len(values)} numbers, expected 1 (or set tilt_column)")
    short = [line for line, found in rows if len(found) < (column or 1)]
    if short:
        raise InputError(f"{path.name} line {short[0]}: no column {column}")
    return checked_angles(path, np.array([found[(column or 1) - 1] for _, found in rows]))
