"""Files of images: how many they hold, and reading any of them by number.

MRC and MRCS (a section is an image), NumPy's .npy, a Zarr array (image, y, x), and EMAN's HDF with one group
an image. Nothing but the images asked for is read.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from cryodask.arrays.npy import load_npy
from cryodask.errors import InputError
from cryodask.io import mrc
from cryodask.io.files import require_exists, written_whole

MRC_SUFFIXES = (".mrc", ".mrcs", ".st", ".map", ".gz", ".bz2")
HDF_SUFFIXES = (".hdf", ".h5", ".hdf5")
EMAN_IMAGES = "MDF/images"
EMAN_FLOAT = 7  # EMUtil::EM_FLOAT, the type of the pixels
_WHOLE = slice(None)


@dataclass(frozen=True)
class StackHeader:
    """What a file of images says about itself: images, (y, x) pixels of one, angstrom a pixel if known."""

    count: int
    shape: tuple[int, int]
    pixel_size: float | None = None


@dataclass(frozen=True)
class ImagePlaces:
    """Where each image of a stack lies; small, so that tasks read their own images.

    Parameters
    ----------
    files
        Absolute names.
    file_number, image_number : (image,) int64
        Which file, and which image in it, both from 0.
    """

    files: tuple[str, ...]
    file_number: np.ndarray
    image_number: np.ndarray

    def __len__(self) -> int:
        return len(self.file_number)

    def take(self, rows: Any) -> "ImagePlaces":
        """Return the places of some rows (a slice, numbers or a mask) and only the files that they need."""
        chosen = self.file_number[rows]
        used, number = np.unique(chosen, return_inverse=True)
        files = tuple(self.files[i] for i in used)
        return replace(self, files=files, file_number=number, image_number=self.image_number[rows])

    def read(self) -> np.ndarray:
        """Read all images, (image, y, x) float32, each file once and in rising order."""
        images: np.ndarray | None = None
        for number, name in enumerate(self.files):
            rows = np.flatnonzero(self.file_number == number)
            block = read_images(name, self.image_number[rows])
            if images is None:
                images = np.empty((len(self), *block.shape[1:]), np.float32)
            images[rows] = block
        return np.empty((0, 0, 0), np.float32) if images is None else images


def read_stack_header(path: str | os.PathLike[str]) -> StackHeader:
    """Read what a file of images holds, without its images.

    Raises
    ------
    InputError
        No such file; an unknown suffix; not (image, y, x).
    """
    path = require_exists(path)
    kind = _kind(path)
    if kind == "mrc":
        header = mrc.read_header(path)
        count, *shape = header.shape
        return StackHeader(count, (shape[0], shape[1]), _in_plane(header.spacing))
    if kind == "hdf":
        return _hdf_header(path)
    array = _array(os.fspath(path))
    if array.ndim not in (2, 3):
        raise InputError(f"{path.name}: {array.ndim} axes, expected (image, y, x)")
    count, y, x = (1, *array.shape) if array.ndim == 2 else array.shape
    size = None if kind == "npy" else _zarr_pixel_size(path, array)
    return StackHeader(count, (y, x), size)


def write_stack(
    path: str | os.PathLike[str], images: np.ndarray, *, pixel_size: float, overwrite: bool = False
) -> None:
    """Write images (n, y, x), n at least 1, as an MRC stack of float32.

    Parameters
    ----------
    path
        The file; it has its name only when it is complete.
    images
        (n, y, x).
    pixel_size
        Angstrom.
    overwrite
        Replace an existing file.
    """
    import mrcfile

    with (
        written_whole(path, overwrite=overwrite) as temporary,
        mrcfile.new(temporary, overwrite=True) as file,
    ):
        file.set_data(np.asarray(images, np.float32))
        file.set_image_stack()
        file.voxel_size = pixel_size
        file.add_label("Written by cryodask")


def write_eman_stack(
    path: str | os.PathLike[str],
    images: np.ndarray,
    *,
    pixel_size: float,
    attributes: Sequence[dict[str, Any]] = (),
) -> None:
    """Write images (n, y, x) as a stack of EMAN, in the place of an older one.

    Parameters
    ----------
    path
        The file, .hdf; it has its name only when it is complete.
    images
        (n, y, x).
    pixel_size
        Angstrom.
    attributes
        Of each image: numbers or lists of them by name.
    """
    import h5py

    with written_whole(path, overwrite=True) as temporary, h5py.File(temporary, "w") as file:
        group = file.create_group(EMAN_IMAGES)
        group.attrs["imageid_max"] = np.int32(len(images) - 1)
        for number, image in enumerate(images):
            own = group.create_group(str(number))
            own.create_dataset("image", data=np.asarray(image, np.float32))
            y, x = image.shape
            sizes = {
                "nx": np.int32(x),
                "ny": np.int32(y),
                "nz": np.int32(1),
                "datatype": np.int32(EMAN_FLOAT),
            }
            scale = {f"apix_{axis}": np.float32(pixel_size) for axis in "xyz"}
            more = attributes[number] if len(attributes) else {}
            for name, value in {**sizes, **scale, **more}.items():
                own.attrs[f"EMAN.{name}"] = value


def read_images(path: str | os.PathLike[str], numbers: Sequence[int] | np.ndarray) -> np.ndarray:
    """Read images of one file by number (from 0, any order), as float32 (image, y, x)."""
    path = Path(path)
    numbers = np.asarray(numbers, np.int64)
    order = np.argsort(numbers, kind="stable")
    pieces = [_read_run(path, start, stop) for start, stop in _runs(np.unique(numbers))]
    block = np.concatenate(pieces)
    result = np.empty((len(numbers), *block.shape[1:]), np.float32)
    result[order] = block[np.searchsorted(np.unique(numbers), numbers[order])]
    return result


def _runs(numbers: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield (first, one past the last) of consecutive numbers."""
    breaks = np.flatnonzero(np.diff(numbers) > 1) + 1
    for run in np.split(numbers, breaks):
        yield int(run[0]), int(run[-1]) + 1


def _read_run(path: Path, start: int, stop: int) -> np.ndarray:
    kind = _kind(path)
    if kind == "mrc":
        return mrc.read_block(path, (slice(start, stop), _WHOLE, _WHOLE))
    if kind == "hdf":
        return _read_hdf(path, start, stop)
    array = _array(os.fspath(path))
    return np.asarray(array[None] if array.ndim == 2 else array[start:stop])


def _kind(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix in MRC_SUFFIXES:
        return "mrc"
    if suffix in HDF_SUFFIXES:
        return "hdf"
    if suffix == ".npy":
        return "npy"
    if path.is_dir():
        return "zarr"
    raise InputError(f"{path.name}: unknown format of images, expected MRC, MRCS, HDF, .npy or Zarr")


@lru_cache(maxsize=8)
def _array(name: str) -> Any:
    """Open a .npy file through a memory map, or the array of images of a Zarr store."""
    path = Path(name)
    if path.suffix.lower() == ".npy":
        try:
            return load_npy(path, mmap_mode="r")
        except ValueError as error:
            raise InputError(f"{path.name}: not an array of numbers ({error})") from error
    import zarr

    try:
        node = zarr.open(name, mode="r")
    except (FileNotFoundError, ValueError) as error:
        raise InputError(f"{path.name}: not a Zarr store ({error})") from error
    if isinstance(node, zarr.Array):
        return node
    found = [key for key, array in node.arrays() if array.ndim == 3]
    key = "images" if "images" in found else found[0] if len(found) == 1 else None
    if key is None:
        raise InputError(f"{path.name}: expected an array images, found {', '.join(found) or 'none'}")
    return node[key]


def _zarr_pixel_size(path: Path, array: Any) -> float | None:
    import zarr

    size = array.attrs.get("pixel_size", zarr.open(path, mode="r").attrs.get("pixel_size"))
    return None if size is None else float(size)


def _in_plane(spacing: tuple[float, float, float] | None) -> float | None:
    """Return the pixel size; the z spacing of a stack means nothing."""
    return None if spacing is None else float(f"{(spacing[1] + spacing[2]) / 2:.6g}")


def _open_hdf(path: Path) -> Any:
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path.name}: not a readable HDF5 file ({error})") from error
    if EMAN_IMAGES not in file:
        file.close()
        raise InputError(f"{path.name}: no {EMAN_IMAGES}, expected a stack as EMAN writes it")
    return file


def _hdf_header(path: Path) -> StackHeader:
    with _open_hdf(path) as file:
        group = file[EMAN_IMAGES]
        numbers = [int(key) for key in group if key.isdigit()]
        first = group[str(min(numbers))] if numbers else None
        if first is None or "image" not in first:
            raise InputError(f"{path.name}: {EMAN_IMAGES} holds no image")
        size = float(first.attrs.get("EMAN.apix_x", 0.0))
        y, x = first["image"].shape[-2:]
        is_volume = first["image"].ndim == 3  # one three-dimensional image is a stack of its sections
        count = first["image"].shape[0] if is_volume and len(numbers) == 1 else max(numbers) + 1
        return StackHeader(count, (y, x), size if size > 0 else None)


def _read_hdf(path: Path, start: int, stop: int) -> np.ndarray:
    with _open_hdf(path) as file:
        group = file[EMAN_IMAGES]
        if group["0"]["image"].ndim == 3:
            return group["0"]["image"][start:stop]
        try:
            return np.stack([group[str(i)]["image"][()] for i in range(start, stop)])
        except KeyError as error:
            raise InputError(f"{path.name}: an image of {start} to {stop - 1} is missing") from error
