"""What the tasks of a run read by path: the searched image, template spectrum, filters, angles, mask."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cryodask.arrays.module import cuda_is_available
from cryodask.arrays.npy import load_npy
from cryodask.search.store import replacing, write_json
from cryodask.search.tiles import Tile

IMAGE, FILTERS, PREPARED = "image.npy", "filters.npy", "prepared.json"
SPECTRUM, ANGLES, MASK = "spectrum.npy", "angles.npy", "mask.npy"


@dataclass(frozen=True, eq=False)
class Tables:
    """Constants that every task of a run needs whole, on the task's device.

    Parameters
    ----------
    spectrum
        (m, m, m//2 + 1) complex64.
    filters
        (n_p, n_d, n, n//2 + 1).
    """

    spectrum: Any
    filters: Any


def write_tables(folder: Path, *, spectrum: np.ndarray, angles: np.ndarray, mask: np.ndarray | None) -> None:
    """Write what the client knows; the angles come last and mark the whole."""
    folder.mkdir(parents=True, exist_ok=True)
    _save(folder / SPECTRUM, spectrum)
    if mask is not None:
        _save(folder / MASK, mask)
    _save(folder / ANGLES, angles)


def has_tables(folder: Path) -> bool:
    """Say whether `write_tables` was completed."""
    return (folder / ANGLES).is_file()


def write_prepared(folder: Path, image: np.ndarray, filters: np.ndarray, record: dict[str, Any]) -> None:
    """Write what the first task makes; the record comes last and marks the whole."""
    _save(folder / IMAGE, image)
    _save(folder / FILTERS, filters)
    write_json(folder / PREPARED, record)


def is_prepared(folder: Path) -> bool:
    """Say whether `write_prepared` was completed."""
    return (folder / PREPARED).is_file()


def read_prepared(folder: Path) -> dict[str, Any]:
    """Return the record of `write_prepared`."""
    return dict(json.loads((folder / PREPARED).read_text()))


def read_angles(folder: str) -> np.ndarray:
    """Return the angle list (n_o, 3), mapped from its file."""
    return load_npy(Path(folder) / ANGLES, "r")


def read_mask(folder: str, tile: Tile) -> np.ndarray | None:
    """Return where a tile may be searched, None where there is no mask."""
    path = Path(folder) / MASK
    return np.array(load_npy(path, "r")[tile.slices]) if path.is_file() else None


def read_block(folder: str, tile: Tile, *, wrap: bool) -> np.ndarray:
    """Return the data block from a tile's first position on; beyond the image zeros, or its other side."""
    image = load_npy(Path(folder) / IMAGE, "r")
    (top, left), (height, width) = tile.start, tile.block
    if wrap:
        rows = np.arange(top, top + height) % image.shape[0]
        columns = np.arange(left, left + width) % image.shape[1]
        return np.ascontiguousarray(image[rows][:, columns])
    block = np.zeros((height, width), np.float32)
    part = image[top : top + height, left : left + width]
    block[: part.shape[0], : part.shape[1]] = part
    return block


def read_tables(folder: str, xp: Any) -> Tables:
    """Return spectrum and filters on a device; kept per process, since all tasks of a run share them."""
    path = Path(folder)
    marks = tuple((path / name).stat().st_mtime_ns for name in (SPECTRUM, FILTERS))
    return _read_tables(folder, marks, xp.__name__)


@functools.lru_cache(maxsize=2)
def _read_tables(folder: str, marks: tuple[int, ...], module: str) -> Tables:
    spectrum, filters = (load_npy(Path(folder) / name) for name in (SPECTRUM, FILTERS))
    if module == "numpy":
        return Tables(spectrum, filters)
    import cupy

    return Tables(cupy.asarray(spectrum), cupy.asarray(filters))


def module_of(device: str) -> Any:
    """Return the array module that a device name stands for on this worker."""
    if device == "cpu" or (device == "auto" and not cuda_is_available()):
        return np
    import cupy

    return cupy


def _save(path: Path, array: np.ndarray) -> None:
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, array)
