"""Maps over a micrograph as tables name them: an MRC file, or a variable of a result store."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from cryodask.errors import InputError
from cryodask.io import volume
from cryodask.io.image import read_image_header

PathLike = str | os.PathLike[str]


def map_shape(path: str, field: str) -> tuple[int, int]:
    """Return the shape (y, x) of a map.

    Parameters
    ----------
    path
        MRC file, or ``RESULT.zarr/VARIABLE``.
    field
        What names the map, for messages.

    Raises
    ------
    InputError
        "FIELD = PATH: no such file", or no map of two dimensions.
    """
    if not path or not Path(path).exists():
        raise InputError(f"{field} = {path or '(empty)'}: no such file")
    if _is_stored(path):
        array = _stored(path)
        if array.ndim != 2:
            raise InputError(f"{field} = {path}: {array.ndim} dimensions, expected 2-D")
        return int(array.shape[0]), int(array.shape[1])
    header = read_image_header(path)
    return header.shape[1], header.shape[2]


def read_map(path: str, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
    """Read a region (y, x) of a map as float32; only that region is read."""
    if _is_stored(path):
        return np.asarray(_stored(path)[rows, columns], np.float32)
    return volume.read_region(path, (slice(0, 1), rows, columns))[0]


def _is_stored(path: str) -> bool:
    return Path(path).is_dir()


def _stored(path: str) -> Any:
    import zarr

    array = zarr.open(path, mode="r")
    if not isinstance(array, zarr.Array):
        raise InputError(f"{path}: a store, expected one of its variables such as {path}/score_mean")
    return array
