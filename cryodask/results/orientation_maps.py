"""Angles of the best orientation at every position, looked up when they are read."""

from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

ANGLES = ("phi", "theta", "psi")
NOT_SEARCHED = 0xFFFFFFFF


def with_best_angles(dataset: xr.Dataset) -> xr.Dataset:
    """Return a result of micrograph matching with `best_phi`, `best_theta`, `best_psi`, lazy, degrees.

    Parameters
    ----------
    dataset
        With `orientation` (y, x), rows of `euler` (row, angle). Where nothing is searched the angles are 0.
    """
    if "orientation" not in dataset or "euler" not in dataset:
        return dataset
    orientation = dataset["orientation"]
    rows = orientation.data
    if not isinstance(rows, da.Array):
        rows = da.from_array(np.asarray(rows), chunks=rows.shape)
    table = dataset["euler"].data
    found: dict[str, Any] = {}
    for number, name in enumerate(ANGLES):
        values = da.map_blocks(_look_up, rows, table=table, column=number, dtype=np.float32)
        found[f"best_{name}"] = (orientation.dims, values, {"units": "degree"})
    return dataset.assign(found)


def _look_up(rows: np.ndarray, *, table: Any, column: int) -> np.ndarray:
    angles = np.asarray(table)[:, column].astype(np.float32)
    searched = rows != NOT_SEARCHED
    return np.where(searched, angles[np.where(searched, rows, 0)], np.float32(0))
