"""Defocus of each tilt as estimated by Gctf, CTFFIND or IMOD, for joining to a tilt file."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryodask.errors import InputError
from cryodask.io.files import require_exists
from cryodask.io.star import read_star_table, star_numbers
from cryodask.io.text_numbers import read_number_rows
from cryodask.io.tilt_checks import NANOMETRE, checked_defocus, mean_defocus

# number, two defoci, azimuth, phase shift; what follows differs between versions
CTFFIND_COLUMNS = 5
CTFFIND_HEADER = {
    "voltage": r"acceleration voltage:\s*([\d.]+)\s*keV",
    "cs": r"spherical aberration:\s*([\d.]+)\s*mm",
    "amplitude_contrast": r"amplitude contrast:\s*([\d.]+)",
}
GCTF_OPTICS = {
    "voltage": "rlnVoltage",
    "cs": "rlnSphericalAberration",
    "amplitude_contrast": "rlnAmplitudeContrast",
}


@dataclass(frozen=True, eq=False)
class DefocusTable:
    """What a table of defoci says of each tilt, in its own order.

    Parameters
    ----------
    defocus
        (T,) angstrom, the mean of the two where there are two.
    phase_shift
        (T,) degrees.
    angles
        (T,) degrees, where the table names them.
    optics
        Those of voltage (kV), cs (mm) and amplitude_contrast that the table states.
    """

    defocus: np.ndarray
    phase_shift: np.ndarray | None = None
    angles: np.ndarray | None = None
    optics: dict[str, float] | None = None


def read_gctf(path: Path) -> DefocusTable:
    """Read the STAR table that Gctf writes, one row a tilt.

    Raises
    ------
    InputError
        No column rlnDefocusU or rlnDefocusV; a value that is not a number.
    """
    table = read_star_table(path, "rlnDefocusU", "rlnDefocusV")
    first, second = star_numbers(path, table, "rlnDefocusU", "rlnDefocusV").T
    stated = {name: column for name, column in GCTF_OPTICS.items() if column in table}
    return DefocusTable(
        defocus=mean_defocus(path, first, second),
        phase_shift=star_numbers(path, table, "rlnPhaseShift")[:, 0] if "rlnPhaseShift" in table else None,
        optics={name: float(star_numbers(path, table, column)[0, 0]) for name, column in stated.items()},
    )


def read_defocus_text(path: Path) -> DefocusTable:
    """Read the text table of CTFFIND 4 or 5, or one defocus in nanometres a line.

    Raises
    ------
    InputError
        Another number of columns; values that cannot be nanometres or, from CTFFIND, angstrom.
    """
    rows = read_number_rows(path)
    columns = len(rows[0][1])
    for line, found in rows:
        if len(found) != columns:
            raise InputError(f"{path.name} line {line}: expected {columns} numbers, found {len(found)}")
    values = np.array([found for _, found in rows])
    if columns == 1:
        return DefocusTable(defocus=checked_defocus(path, NANOMETRE * values[:, 0]))
    if columns < CTFFIND_COLUMNS:
        place = f"{path.name} line {rows[0][0]}"
        raise InputError(f"{place}: {columns} numbers, expected 1 (defocus in nm) or the columns of CTFFIND")
    return DefocusTable(
        defocus=mean_defocus(path, values[:, 1], values[:, 2]),
        phase_shift=np.degrees(values[:, 4]),
        optics=_ctffind_optics(path),
    )


def _ctffind_optics(path: Path) -> dict[str, float]:
    text = require_exists(path).read_text(encoding="utf-8-sig", errors="replace")
    header = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    found = {name: re.search(pattern, header) for name, pattern in CTFFIND_HEADER.items()}
    return {name: float(match.group(1)) for name, match in found.items() if match}
