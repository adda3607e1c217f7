"""HDF5 volumes: EMAN2's layout, or a file with one three-dimensional dataset."""

import os
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from cryodask.errors import InputError
from cryodask.io.header import Slices, Triple, VolumeHeader, known_spacing

EMAN_GROUP = "MDF/images/0"
EMAN_IMAGE = f"{EMAN_GROUP}/image"
MICROMETRE = 1e4


def read_header(path: Path) -> VolumeHeader:
    """Read shape, type, voxel size and origin of the file's volume.

    The voxel size is EMAN's ``apix_x, apix_y, apix_z`` or the dataset's ``element_size_um``.

    Raises
    ------
    InputError
        Not an HDF5 file, or not exactly one three-dimensional dataset.
    """
    with _opened(path) as file:
        dataset = _volume(path, file)
        spacing, origin = _placement(dataset)
        z, y, x = dataset.shape
        return VolumeHeader(
            "hdf5", (z, y, x), dataset.dtype.newbyteorder("="), spacing, origin, dataset.chunks
        )


def read_block(path: Path, slices: Slices) -> np.ndarray:
    """Read one region (z, y, x) as stored."""
    with _opened(path) as file:
        block = _volume(path, file)[slices]
    return np.ascontiguousarray(block, dtype=block.dtype.newbyteorder("="))


class Hdf5Writer:
    """Writes blocks (z, y, x) of a new volume in EMAN2's layout."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        shape: tuple[int, int, int],
        dtype: np.dtype,
        spacing: Triple | None,
        origin: Triple,
        *,
        chunk: int = 64,
    ) -> None:
        import h5py

        self.shape, self.dtype = shape, dtype
        self._file = h5py.File(path, "w")
        self._dataset = self._file.create_dataset(
            EMAN_IMAGE, shape=shape, dtype=dtype, chunks=tuple(min(chunk, n) for n in shape)
        )
        attributes = self._file[EMAN_GROUP].attrs
        for axis, edge, step, place in zip("zyx", shape, spacing or (0.0, 0.0, 0.0), origin, strict=True):
            attributes[f"EMAN.n{axis}"] = edge
            attributes[f"EMAN.apix_{axis}"] = step
            attributes[f"EMAN.origin_{axis}"] = place

    def write(self, slices: Slices, block: np.ndarray) -> None:
        """Write one block at its place."""
        self._dataset[slices] = block

    def __enter__(self) -> "Hdf5Writer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _opened(path: Path) -> Any:
    import h5py

    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path.name}: not a readable HDF5 file ({error})") from error


def _volume(path: Path, file: Any) -> Any:
    import h5py

    if EMAN_IMAGE in file and file[EMAN_IMAGE].ndim == 3:
        return file[EMAN_IMAGE]
    names: list[str] = []

    def note(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and node.ndim == 3:
            names.append(name)

    file.visititems(note)
    if len(names) != 1:
        found = ", ".join(names) or "none"
        raise InputError(f"{path.name}: expected one three-dimensional dataset, found {found}")
    return file[names[0]]


def _placement(dataset: Any) -> tuple[Triple | None, Triple]:
    eman = dataset.parent.attrs
    if "EMAN.apix_x" in eman:
        z, y, x = (float(eman.get(f"EMAN.origin_{axis}", 0.0)) for axis in "zyx")
        return known_spacing([float(eman.get(f"EMAN.apix_{axis}", 0.0)) for axis in "zyx"]), (z, y, x)
    if "element_size_um" in dataset.attrs:
        sizes = np.asarray(dataset.attrs["element_size_um"], dtype=float) * MICROMETRE
        return known_spacing(sizes.tolist()), (0.0, 0.0, 0.0)
    return None, (0.0, 0.0, 0.0)
