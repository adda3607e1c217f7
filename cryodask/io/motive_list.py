"""Motive lists of STOPGAP (STAR) and of TOM and av3 (EM): positions from 1, a whole voxel and a shift."""

from pathlib import Path

import numpy as np
import pandas as pd

from cryodask.errors import InputError
from cryodask.io.particle_table import (
    ANGLES,
    TableOptions,
    angles,
    column,
    complete_table,
    numbers,
    positions,
)
from cryodask.io.star import read_star_table, star_numbers, write_star

BLOCK = "stopgap_motivelist"
ORIGIN = ["orig_x", "orig_y", "orig_z"]
SHIFT = ["x_shift", "y_shift", "z_shift"]
ROWS = 20


def write_stopgap(table: pd.DataFrame, path: Path, options: TableOptions) -> None:
    """Write a STOPGAP motive list."""
    count = np.arange(1, len(table) + 1)
    whole, shift = _whole_and_shift(table)
    phi, theta, psi = angles(table).T
    halves = np.where(options.split_halves & (count % 2 == 0), "B", "A")
    motl = {
        "motl_idx": count,
        "tomo_num": numbers(table),
        "object": options.object_number,
        "subtomo_num": count,
        "halfset": halves,
        **dict(zip(ORIGIN, whole.T, strict=True)),
        "score": column(table, "score", 0),
        **dict(zip(SHIFT, shift.T, strict=True)),
        **{"phi": phi, "psi": psi, "the": theta},
        "class": column(table, "class", 1).astype(int),
    }
    write_star(path, {BLOCK: pd.DataFrame(motl)}, column_numbers="")


def read_stopgap(path: Path, options: TableOptions) -> pd.DataFrame:
    """Read a STOPGAP motive list."""
    motl = read_star_table(path, "tomo_num", *ORIGIN, *SHIFT, "phi", "psi", "the")
    table = pd.DataFrame(
        {
            "tomo_num": star_numbers(path, motl, "tomo_num")[:, 0].astype(int),
            "class": column(motl, "class", 1).astype(int),
            **_position_columns(star_numbers(path, motl, *ORIGIN), star_numbers(path, motl, *SHIFT)),
            "score": column(motl, "score", np.nan),
            **dict(zip(ANGLES, star_numbers(path, motl, "phi", "the", "psi").T, strict=True)),
        }
    )
    return complete_table(table, options)


def write_em(table: pd.DataFrame, path: Path, options: TableOptions) -> None:
    """Write an EM motive list, float32, 20 values a particle."""
    from cryodask.io.volume import write_volume

    whole, shift = _whole_and_shift(table)
    phi, theta, psi = angles(table).T
    motl = np.zeros((len(table), ROWS), np.float32)
    motl[:, 0] = column(table, "score", 0)
    motl[:, 3] = np.arange(1, len(table) + 1)
    motl[:, 4], motl[:, 5] = numbers(table), options.object_number
    motl[:, 7:10], motl[:, 10:13] = whole, shift
    motl[:, 16], motl[:, 17], motl[:, 18] = phi, psi, theta
    motl[:, 19] = column(table, "class", 1)
    write_volume(path, motl[np.newaxis])


def read_em(path: Path, options: TableOptions) -> pd.DataFrame:
    """Read an EM motive list."""
    from cryodask.io.volume import read_volume

    motl = read_volume(path)
    if motl.shape[0] != 1 or motl.shape[2] != ROWS:
        raise InputError(f"{path.name}: shape {motl.shape}, expected 20 x N")
    motl = motl[0].astype(float)
    table = pd.DataFrame(
        {
            "tomo_num": motl[:, 4].astype(int),
            "class": motl[:, 19].astype(int),
            **_position_columns(motl[:, 7:10], motl[:, 10:13]),
            "score": motl[:, 0],
            **{"phi": motl[:, 16], "theta": motl[:, 18], "psi": motl[:, 17]},
        }
    )
    return complete_table(table, options)


def _whole_and_shift(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    place = positions(table)
    whole = np.rint(place)
    return whole + 1, place - whole


def _position_columns(whole: np.ndarray, shift: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip("xyz", (whole + shift - 1).T, strict=True))
