"""What the tasks of a run read by path: tables, the filtered tomogram, the search mask."""

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from cryodask.arrays.npy import load_npz
from cryodask.search.store import replacing, write_json
from cryodask.search.tiles import Tile

CHUNK = 64


@dataclass(frozen=True)
class Tables:
    """Constants that every task needs whole.

    Parameters
    ----------
    matrices
        (row, 3, 3) rotations in (x, y, z), template to data.
    templates
        (copy, z, y, x) interpolation coefficients: the template, its noise templates, its mirror
        image.
    mask, mask_coefficients
        (z, y, x) the mask, and its interpolation coefficients.
    template_filters
        (cell, z, y, x//2 + 1) factors over the half spectrum of the box, one set a cell of constant defocus,
        whitening left out; none for no filter.
    seed_rows
        (seed,) how many rows each seed allows; none where orientations are free.
    directions
        (row,) number of the viewing direction of each row, for masks that are axial.
    """

    matrices: np.ndarray
    templates: np.ndarray
    mask: np.ndarray
    mask_coefficients: np.ndarray
    directions: np.ndarray
    template_filters: np.ndarray | None = None
    seed_rows: np.ndarray | None = None


def write_tables(folder: Path, tables: Tables) -> None:
    """Write the tables once."""
    with replacing(folder / "tables.npz") as temporary, temporary.open("wb") as stream:
        np.savez(stream, **{name: table for name, table in vars(tables).items() if table is not None})


def has_tables(folder: Path) -> bool:
    """Say whether the tables are written; they come last of what the client writes."""
    return (folder / "tables.npz").is_file()


def read_tables(folder: str) -> Tables:
    """Read the tables; kept per process, since all tasks of a run share them."""
    return _read_tables(*file_now(Path(folder) / "tables.npz"))


@functools.lru_cache(maxsize=4)
def _read_tables(path: Path, written: tuple[int, int]) -> Tables:
    return Tables(**load_npz(path))


def read_prepared(folder: str) -> dict[str, Any]:
    """Read what the filtering of the tomogram found: `scale`, `mean`, `notices`, `whitening`."""
    return _read_prepared(*file_now(Path(folder) / "prepared.json"))


@functools.lru_cache(maxsize=4)
def _read_prepared(path: Path, written: tuple[int, int]) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def read_numbers(path: Path) -> list[float]:
    """Read a list of numbers that a run has written."""
    return list(json.loads(path.read_text()))


def file_now(path: Path) -> tuple[Path, tuple[int, int]]:
    """Return a path with what tells its file from an overwritten run's: workers outlive runs."""
    stat = path.stat()
    return path, (stat.st_ino, stat.st_mtime_ns)


def write_prepared(folder: Path, content: dict[str, Any]) -> None:
    """Mark the filtered tomogram as whole."""
    write_json(folder / "prepared.json", content)


def is_prepared(folder: Path) -> bool:
    """Say whether the filtered tomogram is whole."""
    return (folder / "prepared.json").is_file()


def create_array(path: Path, shape: tuple[int, ...], dtype: str) -> zarr.Array:
    """Make an uncompressed array, written by slabs and read by tiles; it replaces a half-written one."""
    chunks = tuple(min(CHUNK, size) for size in shape)
    return zarr.create_array(
        path, shape=shape, chunks=chunks, dtype=dtype, compressors=None, fill_value=0, overwrite=True
    )


def filtered_path(folder: Path) -> Path:
    """Return where the filtered, extended tomogram lies."""
    return folder / "filtered.zarr"


def mask_path(folder: Path) -> Path:
    """Return where the search mask lies, if there is one."""
    return folder / "search_mask.zarr"


def read_search_mask(folder: Path, tile: Tile) -> np.ndarray | None:
    """Return where a tile is searched; None where there is no mask."""
    if not mask_path(folder).exists():
        return None
    mask = zarr.open_array(mask_path(folder), mode="r")
    return np.asarray(mask[tile.slices]).astype(bool)


def read_block(folder: Path, tile: Tile, *, before: int, halo: int, margin: int, wrap: bool) -> np.ndarray:
    """Read the data block of a tile from the filtered tomogram, scaled to unit variance.

    Parameters
    ----------
    before
        Voxels of the block before the first position (the box centre).
    halo
        Box - 1: voxels needed beyond the positions.
    margin
        Where the data begin in the filtered volume.
    wrap
        Read across the edges of the tomogram from the other side; else zeros lie there.
    """
    filtered = zarr.open_array(filtered_path(folder), mode="r")
    block = np.zeros(tile.block, np.float32)
    pieces = [
        list(stretches(start + margin - before, min(length, count + halo), size, wrap))
        for start, count, length, size in zip(tile.start, tile.shape, tile.block, filtered.shape, strict=True)
    ]
    for z_to, z_from in pieces[0]:
        for y_to, y_from in pieces[1]:
            for x_to, x_from in pieces[2]:
                block[z_to, y_to, x_to] = filtered[z_from, y_from, x_from]
    block *= np.float32(read_prepared(str(folder))["scale"])
    return block


def stretches(first: int, count: int, size: int, wrap: bool) -> Iterator[tuple[slice, slice]]:
    """Yield (where in the block, where in the volume) for each stretch of `count` voxels from `first`.

    Beyond the edges of the volume it goes on at the other side with `wrap`; else nothing lies there.
    """
    at = 0
    while at < count:
        source = first + at
        if wrap:
            source %= size
            stretch = min(size - source, count - at)
        elif source < 0:
            at -= source
            continue
        else:
            stretch = min(size - source, count - at)
            if stretch <= 0:
                return
        yield slice(at, at + stretch), slice(source, source + stretch)
        at += stretch
