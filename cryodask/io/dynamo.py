"""Dynamo's particle table (Castano-Diez et al., 2012): 35 columns of text, positions from 1."""

from pathlib import Path

import numpy as np
import pandas as pd

from cryodask.errors import InputError
from cryodask.io.files import written_whole
from cryodask.io.particle_table import TableOptions, angles, column, complete_table, numbers, positions
from cryodask.io.text_numbers import read_number_rows

COLUMNS = 35
LEAST_COLUMNS = 26


def write_dynamo(table: pd.DataFrame, path: Path, options: TableOptions) -> None:
    """Write a Dynamo table; its tdrot, tilt, narot are -psi, -theta, -phi."""
    place = positions(table)
    whole = np.rint(place)
    rows = np.zeros((len(table), COLUMNS))
    rows[:, 0] = np.arange(1, len(table) + 1)
    rows[:, 1:3] = 1
    rows[:, 3:6] = place - whole
    rows[:, 6:9] = -angles(table)[:, ::-1]
    rows[:, 9] = column(table, "score", 0)
    rows[:, 12] = 1
    rows[:, 13:15] = options.tilt_range
    rows[:, 19], rows[:, 20] = numbers(table), options.object_number
    rows[:, 21] = column(table, "class", 1)
    rows[:, 23:26] = whole + 1
    with written_whole(path) as temporary:
        np.savetxt(temporary, rows + 0.0, fmt="%.9g")


def read_dynamo(path: Path, options: TableOptions) -> pd.DataFrame:
    """Read a Dynamo table of 26 columns or more."""
    rows = read_number_rows(path)
    for number, values in rows:
        if len(values) < LEAST_COLUMNS:
            raise InputError(
                f"{path.name} line {number}: expected {LEAST_COLUMNS} or more numbers, found {len(values)}"
            )
    data = np.array([values[:LEAST_COLUMNS] for _, values in rows])
    phi, theta, psi = -data[:, 6:9].T[::-1]
    table = {
        "tomo_num": data[:, 19].astype(int),
        "class": data[:, 21].astype(int),
        **dict(zip("xyz", (data[:, 23:26] + data[:, 3:6] - 1).T, strict=True)),
        "score": data[:, 9],
        **{"phi": phi, "theta": theta, "psi": psi},
    }
    return complete_table(pd.DataFrame(table), options)
