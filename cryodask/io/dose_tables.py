"""Accumulated dose of each tilt from a text file, one value a line."""

from pathlib import Path

import numpy as np

from cryodask.errors import InputError
from cryodask.io.text_numbers import read_number_rows


def read_dose(path: Path) -> np.ndarray:
    """Read the dose (T,) accumulated by the end of each tilt, electrons per square angstrom.

    Parameters
    ----------
    path
        Text file in the order of the tilt file.

    Raises
    ------
    InputError
        Several columns; a negative dose; the same dose for every tilt, so not an accumulated one.
    """
    rows = read_number_rows(path)
    for line, values in rows:
        if len(values) != 1:
            raise InputError(f"{path.name} line {line}: {len(values)} numbers, expected 1 (accumulated dose)")
        if values[0] < 0:
            raise InputError(f"{path.name} line {line}: dose {values[0]:g}, expected 0 or more")
    dose = np.array([values[0] for _, values in rows])
    if len(dose) > 1 and np.ptp(dose) == 0:
        raise InputError(
            f"{path.name}: dose {dose[0]:g} at every tilt, expected the dose accumulated by its end"
        )
    return dose
