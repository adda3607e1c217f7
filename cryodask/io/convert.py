"""A volume from one format into another, block by block."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from cryodask.errors import InputError
from cryodask.io import em, mrc
from cryodask.io.files import require_new
from cryodask.io.header import Slices, VolumeHeader, as_spacing, block_slices
from cryodask.io.ome_zarr import shard_shape
from cryodask.io.volume import PathLike, block_writer, read_header, read_stored, volume_format

BLOCK_BYTES = 64 << 20
LARGEST_CHUNK = 128
TARGET_DTYPES = {"mrc": mrc.DTYPES, "em": em.DTYPES}


def convert_volume(
    source: PathLike,
    target: PathLike,
    *,
    level: int = 0,
    chunk: int = 64,
    pyramid: int = 0,
    voxel_size: float | Sequence[float] | None = None,
    dtype: Any = None,
    overwrite: bool = False,
) -> VolumeHeader:
    """Convert a volume chunk by chunk, keeping voxel size and origin; memory does not grow with the volume.

    Parameters
    ----------
    source, target
        MRC, REC, MAP, EM, HDF5 or OME-Zarr, by suffix.
    level
        Resolution level of an OME-Zarr source.
    chunk
        Edge of a Zarr chunk in voxels, 1 to 128.
    pyramid
        Coarser levels (factor 2, mean) of an OME-Zarr target.
    voxel_size
        Angstrom; replaces the source's.
    dtype
        Type of a stored voxel; by default the source's, or the nearest that the target has.
    overwrite
        Replace an existing target.

    Returns
    -------
    VolumeHeader
        Of the target.

    Raises
    ------
    InputError
        As `read_header`; "NAME exists; use --overwrite"; a value that does not fit `dtype`.
    """
    if not 1 <= chunk <= LARGEST_CHUNK:
        raise InputError(f"chunk = {chunk}: expected 1 to {LARGEST_CHUNK}")
    kind = volume_format(target)
    if pyramid and kind != "zarr":
        raise InputError(f"pyramid = {pyramid}: only OME-Zarr has levels")
    require_new(target, overwrite=overwrite)
    header = read_header(source, level)
    stored = np.dtype(dtype) if dtype is not None else nearest_dtype(header.dtype, kind)
    spacing = as_spacing(voxel_size) or header.spacing
    options = {"chunk": chunk, "pyramid": pyramid} if kind == "zarr" else {}
    with block_writer(
        target, header.shape, stored, spacing, header.origin, overwrite=overwrite, **options
    ) as writer:
        for slices in _plan(header, kind, chunk):
            writer.write(slices, cast(read_stored(source, slices, level), stored))
    return read_header(target)


def nearest_dtype(dtype: np.dtype, kind: str) -> np.dtype:
    """Return the first type of the format that holds every value of `dtype`, else float32."""
    allowed = TARGET_DTYPES.get(kind, (dtype,))
    if dtype in allowed:
        return dtype
    return next((item for item in allowed if np.can_cast(dtype, item, "safe")), np.dtype(np.float32))


def cast(block: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return the block in another type, rounding to integers.

    Raises
    ------
    InputError
        A value lies outside the range of `dtype`.
    """
    if np.can_cast(block.dtype, dtype, "safe"):
        return block.astype(dtype, copy=False)
    limits = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    finite = block[np.isfinite(block)]
    for value in (finite.min(), finite.max()) if finite.size else ():
        if not float(limits.min) <= float(value) <= float(limits.max):
            raise InputError(
                f"value {float(value):g} does not fit dtype {dtype} ({limits.min} to {limits.max})"
            )
    if dtype.kind not in "iu":
        return block.astype(dtype)
    if finite.size < block.size:
        raise InputError(f"non-finite voxels do not fit dtype {dtype}")
    return np.rint(block).astype(dtype)


def reading_blocks(header: VolumeHeader) -> Iterator[Slices]:
    """Yield the regions in which to walk through a volume: full rows, whole chunks, at most 64 MiB each."""
    return block_slices(header.shape, _row_blocks(header))


def _plan(header: VolumeHeader, kind: str, chunk: int) -> Iterator[Slices]:
    if kind == "zarr":
        return block_slices(header.shape, shard_shape(header.shape, chunk))
    return reading_blocks(header)


def _row_blocks(header: VolumeHeader) -> tuple[int, int, int]:
    rows, columns = header.shape[1:]
    budget = max(1, BLOCK_BYTES // (columns * max(4, header.dtype.itemsize)))
    if header.chunks is None:
        y = min(rows, budget)
        return max(1, budget // rows), y, columns
    z, y = min(header.chunks[0], budget), max(1, budget // header.chunks[0])
    whole_chunks = y // header.chunks[1] * header.chunks[1]
    return z, whole_chunks or y, columns
