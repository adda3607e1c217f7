"""Stacks of particle images with what is known of each: one reader for every format.

RELION STAR (3.0, 3.1 to 5), cryoSPARC .cs, MRC and MRCS, .npy, Zarr, EMAN HDF, and arrays.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cryodask.errors import InputError
from cryodask.io.cryosparc import read_cs_particles
from cryodask.io.files import require_exists
from cryodask.io.image_stacks import ImagePlaces, read_stack_header
from cryodask.io.particle_columns import NUMBERS
from cryodask.io.relion_stack import find_file, read_star_particles, search_folders

if TYPE_CHECKING:
    import xarray

PathLike = str | os.PathLike[str]
CHUNK_BYTES = 32 << 20
PIXEL_SIZE_TOLERANCE = 0.005
UNSAID = 1.0  # angstrom: what programs that know no pixel size write into headers


@dataclass(frozen=True)
class ParticleStack:
    """Particle images, lazy, and a table with one row an image.

    Parameters
    ----------
    source
        The file, or "array".
    images : DataArray (particle, y, x) float32
        On Dask chunks that are read from the files inside their tasks; attrs ``pixel_size`` (angstrom or
        None) and ``source``.
    table : DataFrame
        name, file, image_number (from 0), optics_group, pixel_size (angstrom), voltage (kV), cs (mm),
        amplitude_contrast, phase_shift (deg), defocus_u, defocus_v (angstrom), defocus_angle (deg from x),
        b_factor (A^2), origin_x, origin_y (angstrom, RELION's sign), rot, tilt, psi, psi_prior (RELION's,
        deg), coordinate_x, coordinate_y (pixels of the micrograph), micrograph, helical_tube (-1 none). NaN
        where not known.
    places : ImagePlaces or None
        Where each image lies, for tasks that read their own; None for arrays.
    blocks, block
        The blocks of the STAR file as read, and which of them holds the particles; empty for other sources.
    """

    source: str
    images: "xarray.DataArray"
    table: pd.DataFrame
    places: ImagePlaces | None = None
    blocks: dict[str, pd.DataFrame] = field(default_factory=dict)
    block: str = ""

    def __len__(self) -> int:
        return len(self.table)

    @property
    def box(self) -> int:
        """Pixels along an edge of the square images."""
        return int(self.images.shape[-1])

    @property
    def pixel_size(self) -> float | None:
        """Angstrom, None where no file says it."""
        size = self.images.attrs["pixel_size"]
        return None if size is None else float(size)

    @property
    def has_defocus(self) -> bool:
        """Whether the table has defoci; all 0 counts as none."""
        defocus = self.table[["defocus_u", "defocus_v"]].to_numpy()
        return bool(np.isfinite(defocus).all() and defocus.any())

    def take(self, rows: Any) -> "ParticleStack":
        """Return some particles (a slice, numbers or a mask), the rows of the STAR block with them."""
        blocks = dict(self.blocks)
        if self.block:
            blocks[self.block] = blocks[self.block].iloc[rows]
        table = self.table.iloc[rows].reset_index(drop=True)
        if self.places is None:
            return replace(self, images=self.images[rows], table=table, blocks=blocks)
        places = self.places.take(rows)
        images = _lazy_images(places, self.box, self.pixel_size, self.source)
        return replace(self, images=images, table=table, places=places, blocks=blocks)


def open_particles(
    path: PathLike,
    *,
    root: PathLike | None = None,
    pixel_size: float | None = None,
    images: PathLike | None = None,
) -> ParticleStack:
    """Open a stack of particle images; headers are read, images are not.

    Parameters
    ----------
    path
        STAR, .cs, MRC, MRCS, .npy, HDF (EMAN) or Zarr.
    root
        Folder that the names of images in a STAR or .cs file are relative to. By default each is looked up
        from the working folder, then the file's folder, then its parents.
    pixel_size
        Angstrom; replaces what the files say.
    images
        For a STAR file without rlnImageName: the stack of which row k describes image k.

    Raises
    ------
    InputError
        A file that is missing or damaged; "row 12: 000031@a.mrcs: image 31, stack has 30 images"; images that
        are not square, or of unequal sizes; pixel sizes that differ by more than 0.5 %.
    """
    path = require_exists(path)
    blocks: dict[str, pd.DataFrame] = {}
    block = ""
    if path.suffix.lower() == ".star":
        star = read_star_particles(path, images=images)
        table, blocks, block = star.table, star.blocks, star.block
    elif path.suffix.lower() == ".cs":
        table = read_cs_particles(path)
    else:
        table = _bare_table(path)
    places, box, headers = _locate(path, table, search_folders(path, root))
    if pixel_size is None:
        _check_headers(path, table, places, headers)
    size = _one_pixel_size(path, table, pixel_size)
    table["pixel_size"] = np.nan if size is None else size
    array = _lazy_images(places, box, size, str(path.absolute()))
    return ParticleStack(str(path.absolute()), array, table, places, blocks, block)


def particles_from_array(
    images: Any, *, pixel_size: float | None = None, optics: Mapping[str, Any] | pd.DataFrame | None = None
) -> ParticleStack:
    """Make a stack of an array.

    Parameters
    ----------
    images : array (particle, y, x)
        NumPy, Dask, xarray (its ``pixel_size`` attribute is used) or torch.
    pixel_size : angstrom
    optics
        Columns of `ParticleStack.table`: one value for all, or one an image.

    Raises
    ------
    InputError
        Not (particle, y, x) square; no pixel size; an unknown column; a memory map, whose file should be
        given.
    """
    import dask.array as da
    import xarray

    if isinstance(images, xarray.DataArray):
        pixel_size = images.attrs.get("pixel_size") if pixel_size is None else pixel_size
        images = images.data
    if isinstance(images, np.memmap):
        raise InputError("images: a memory map would be copied into every task; give the name of its file")
    array = images if isinstance(images, da.Array) else np.asarray(images)
    if array.ndim != 3 or array.shape[1] != array.shape[2]:
        raise InputError(f"images of shape {tuple(array.shape)}: expected (particle, y, x), square")
    if pixel_size is None:
        raise InputError("pixel_size is required with an array of images")
    chunks = (_chunk_length(array.shape[-1]), -1, -1)
    array = array.rechunk(chunks) if isinstance(array, da.Array) else da.from_array(array, chunks=chunks)
    table = _empty_table(["" for _ in range(len(array))], range(len(array)))
    table["name"] = [f"{i + 1:06d}@array" for i in range(len(array))]
    table["pixel_size"] = float(pixel_size)
    for column, values in dict(optics if optics is not None else {}).items():
        if column not in table:
            raise InputError(f"optics: unknown column {column}, expected {', '.join(NUMBERS)}")
        table[column] = np.broadcast_to(np.asarray(values), len(table))
    attributes = {"pixel_size": float(pixel_size), "source": "array"}
    named = xarray.DataArray(array.astype(np.float32), dims=("particle", "y", "x"), attrs=attributes)
    return ParticleStack("array", named, table)


def _bare_table(path: Path) -> pd.DataFrame:
    """Return the table of a file of images alone."""
    header = read_stack_header(path)
    table = _empty_table([str(path.absolute())] * header.count, range(header.count))
    table["name"] = [f"{i + 1:06d}@{path.name}" for i in range(header.count)]
    return _with_stored_columns(path, table) if path.is_dir() else table


def _with_stored_columns(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """Take the columns that a Zarr store of particles keeps beside its images."""
    import zarr

    group = zarr.open(path, mode="r")
    if isinstance(group, zarr.Group):
        for key, array in group.arrays():
            if key in table and key not in ("file", "image_number") and array.shape == (len(table),):
                values = np.asarray(array[:])
                table[key] = values.astype(object) if values.dtype.kind in "UTO" else values
    return table


def _empty_table(files: list[str], numbers: range) -> pd.DataFrame:
    table: dict[str, Any] = {
        "name": "",
        "file": files,
        "image_number": np.asarray(numbers, np.int64),
        "optics_group": 1,
        "pixel_size": np.nan,
        **dict.fromkeys(NUMBERS, np.nan),
        "micrograph": "",
        "helical_tube": -1,
    }
    return pd.DataFrame(table).assign(origin_x=0.0, origin_y=0.0)


def _locate(
    path: Path, table: pd.DataFrame, folders: list[Path]
) -> tuple[ImagePlaces, int, list[float | None]]:
    """Find every image, check that it is there and of one size, and fill in the headers' pixel sizes."""
    number, names = pd.factorize(table["file"])
    box, found = 0, []
    sizes: list[float | None] = []
    for i, name in enumerate(names):
        rows = np.flatnonzero(number == i)
        place = find_file(str(name), folders)
        if place is None:
            looked = folders[0] if len(folders) == 1 else f"{folders[0]}, {folders[1]} and its parents"
            image = table["name"].iloc[rows[0]]
            raise InputError(f"{path.name} row {rows[0] + 1}: {image}: no such file (looked in {looked})")
        header = read_stack_header(place)
        _check_numbers(path, table.iloc[rows], rows, header.count)
        box = _check_shape(path, table, int(rows[0]), place, header.shape, box)
        sizes.append(header.pixel_size)
        if header.pixel_size is not None:
            table.loc[rows, "pixel_size"] = table.loc[rows, "pixel_size"].fillna(header.pixel_size)
        found.append(str(place.absolute()))
    places = ImagePlaces(tuple(found), number.astype(np.int64), table["image_number"].to_numpy())
    return places, box, sizes


def _check_headers(path: Path, table: pd.DataFrame, places: ImagePlaces, headers: list[float | None]) -> None:
    """Refuse images whose header says another pixel size than the table; a header of 1 says nothing."""
    for file, header in enumerate(headers):
        if header is None or header == UNSAID:
            continue
        row = int(np.flatnonzero(places.file_number == file)[0])
        said = float(table["pixel_size"].iloc[row])
        if abs(said - header) > PIXEL_SIZE_TOLERANCE * header:
            raise InputError(
                f"{path.name} row {row + 1}: pixel size {said:g} A, but {header:g} A in the header of "
                f"{Path(places.files[file]).name}; --pixel-size says which is right"
            )


def _check_numbers(path: Path, table: pd.DataFrame, rows: np.ndarray, count: int) -> None:
    beyond = np.flatnonzero(table["image_number"].to_numpy() >= count)
    if len(beyond):
        name = table["name"].iloc[beyond[0]]
        image = table["image_number"].iloc[beyond[0]] + 1
        row = rows[beyond[0]] + 1
        raise InputError(f"{path.name} row {row}: {name}: image {image}, stack has {count} images")


def _check_shape(
    path: Path, table: pd.DataFrame, row: int, place: Path, shape: tuple[int, int], box: int
) -> int:
    y, x = shape
    if y != x:
        raise InputError(f"{path.name} row {row + 1}: {place.name}: {y} x {x}, expected square images")
    if box and x != box:
        first, here = table["optics_group"].iloc[[0, row]]
        if first != here:
            raise InputError(
                f"{path.name}: optics group {here} has box {x}, group {first} has {box}; split the file"
            )
        raise InputError(
            f"{path.name} row {row + 1}: {place.name}: box {x}, rows before it have {box}; expected one size"
        )
    return x


def _one_pixel_size(path: Path, table: pd.DataFrame, given: float | None) -> float | None:
    if given is not None:
        return float(given)
    sizes = table["pixel_size"].to_numpy()
    if np.isnan(sizes).any():
        return None
    low, high = int(np.argmin(sizes)), int(np.argmax(sizes))
    if sizes[low] <= 0:
        raise InputError(
            f"{path.name} row {low + 1}: pixel size {sizes[low]:g}, expected more than 0 angstrom"
        )
    if sizes[high] > (1 + PIXEL_SIZE_TOLERANCE) * sizes[low]:
        first, other = table["optics_group"].iloc[[low, high]]
        raise InputError(
            f"{path.name}: pixel size {sizes[low]:g} A (row {low + 1}, optics group {first}) and "
            f"{sizes[high]:g} A (row {high + 1}, optics group {other}), expected one size"
        )
    return float(sizes[0])


def _chunk_length(box: int) -> int:
    return max(1, CHUNK_BYTES // (4 * box * box))


def _lazy_images(places: ImagePlaces, box: int, pixel_size: float | None, source: str) -> "xarray.DataArray":
    import dask.array as da
    import xarray
    from dask.base import tokenize
    from dask.highlevelgraph import HighLevelGraph

    length = _chunk_length(box)
    starts = range(0, len(places), length)
    name = f"particles-{tokenize(source, places.files, places.file_number, places.image_number)}"
    graph: dict[Any, Any] = {
        (name, i, 0, 0): (ImagePlaces.read, places.take(slice(first, first + length)))
        for i, first in enumerate(starts)
    }
    counts = tuple(min(length, len(places) - first) for first in starts)
    array = da.Array(
        HighLevelGraph.from_collections(name, graph),
        name,
        (counts, (box,), (box,)),
        meta=np.empty((0, 0, 0), np.float32),
    )
    attributes = {"pixel_size": pixel_size, "source": source}
    return xarray.DataArray(array, dims=("particle", "y", "x"), attrs=attributes)
