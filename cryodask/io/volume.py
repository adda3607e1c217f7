"""Volumes of every format: headers, regions, lazy arrays, and writing in blocks."""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryodask.errors import InputError
from cryodask.io import em, hdf5, mrc, ome_zarr
from cryodask.io.files import is_url, require_exists, require_new, written_whole
from cryodask.io.header import Triple, VolumeHeader, as_spacing, bounded_slices
from cryodask.io.raw import COMPRESSED

if TYPE_CHECKING:
    import xarray

PathLike = str | os.PathLike[str]
Blocks = np.ndarray | Iterable[np.ndarray] | Callable[[int, int], np.ndarray]

SUFFIXES = {
    **dict.fromkeys((".mrc", ".mrcs", ".rec", ".map", ".ccp4"), "mrc"),
    ".em": "em",
    ".zarr": "zarr",
    **dict.fromkeys((".h5", ".hdf", ".hdf5"), "hdf5"),
}
READERS: dict[str, Any] = {"mrc": mrc, "em": em, "hdf5": hdf5}
SLAB_BYTES = 32 << 20
LAZY_BYTES, REMOTE_BYTES = 32 << 20, 1 << 20


def volume_format(path: PathLike) -> str:
    """Return "mrc", "em", "zarr" or "hdf5" from the suffix; a folder or an address is Zarr.

    Raises
    ------
    InputError
        No known suffix.
    """
    local = Path(os.fspath(path))
    suffix = Path(local.stem).suffix if local.suffix.lower() in COMPRESSED else local.suffix
    if suffix.lower() in SUFFIXES:
        return SUFFIXES[suffix.lower()]
    if is_url(path) or local.is_dir():
        return "zarr"
    raise InputError(f"{local.name}: unknown volume format, expected {', '.join(SUFFIXES)}")


def read_header(path: PathLike, level: int = 0) -> VolumeHeader:
    """Read what the file says about the volume; the voxels are not touched.

    Raises
    ------
    InputError
        No such file, an unknown format, a damaged or truncated file, no such level.
    """
    kind = volume_format(path)
    if kind == "zarr":
        return ome_zarr.read_header(path, level)
    return READERS[kind].read_header(_local_file(path, level))


def read_stored(path: PathLike, slices: Sequence[slice], level: int = 0) -> np.ndarray:
    """Read one region (z, y, x) in its stored type, native byte order, C order."""
    kind = volume_format(path)
    if kind == "zarr":
        return ome_zarr.read_block(path, slices, level)
    part = bounded_slices(slices, read_header(path, level).shape)
    return READERS[kind].read_block(_local_file(path, level), part)


def read_region(path: PathLike, slices: Sequence[slice], level: int = 0) -> np.ndarray:
    """Read one region (z, y, x) as float32, C order; only that region is read from the file."""
    return np.ascontiguousarray(read_stored(path, slices, level), dtype=np.float32)


def read_volume(path: PathLike, level: int = 0) -> np.ndarray:
    """Read a whole volume (z, y, x) as float32: for templates and masks, not for tomograms."""
    return read_region(path, (slice(None),) * 3, level)


def open_volume(path: PathLike, level: int = 0) -> "xarray.DataArray":
    """Open a volume lazily.

    Parameters
    ----------
    path
        MRC, REC, MAP, EM, HDF5 or OME-Zarr; an address for Zarr.
    level
        Resolution level of an OME-Zarr pyramid.

    Returns
    -------
    xarray.DataArray
        (z, y, x) float32 on Dask chunks that are read from the file inside their tasks. Coordinates in
        angstrom (in voxels where the voxel size is unknown); attrs ``voxel_size`` (angstrom or None),
        ``origin`` (z, y, x in angstrom) and ``source``.

    Raises
    ------
    InputError
        As `read_header`.
    """
    import dask.array as da
    import xarray
    from dask.array.core import normalize_chunks

    header = read_header(path, level)
    limit = LAZY_BYTES
    if is_url(path) and header.chunks:  # what is not asked for should not travel
        limit = max(REMOTE_BYTES, 4 * math.prod(header.chunks))
    chunks = normalize_chunks(
        "auto", header.shape, limit=limit, dtype=np.float32, previous_chunks=header.chunks
    )
    source = os.fspath(path) if is_url(path) else str(Path(path).absolute())
    array = da.map_blocks(
        _read_chunk,
        source,
        level,
        chunks=chunks,
        dtype=np.float32,
        meta=np.empty((0, 0, 0), np.float32),
        name=f"volume-{_token(source, level)}",
    )
    spacing = header.spacing or (1.0, 1.0, 1.0)
    coordinates = {
        axis: (axis, np.arange(n) * step + place, {"units": "angstrom"} if header.spacing else {})
        for axis, n, step, place in zip("zyx", header.shape, spacing, header.origin, strict=True)
    }
    attributes = {"voxel_size": header.voxel_size, "origin": header.origin, "source": source}
    return xarray.DataArray(array, coords=coordinates, dims=("z", "y", "x"), attrs=attributes)


def write_volume(
    path: PathLike,
    array_or_blocks: Blocks,
    *,
    shape: Sequence[int] | None = None,
    voxel_size: float | Sequence[float] | None = None,
    origin: Sequence[float] = (0.0, 0.0, 0.0),
    dtype: Any = np.float32,
    overwrite: bool = False,
) -> None:
    """Write a volume slab by slab; the file has its name only when it is complete.

    Parameters
    ----------
    path
        The suffix decides the format.
    array_or_blocks
        An array (z, y, x) (NumPy, Dask, xarray, memory map), an iterable of consecutive z slabs, or a
        function of (z start, z stop) that returns a slab.
    shape
        (z, y, x); not needed for an array.
    voxel_size
        Angstrom: one number, three in (z, y, x) order, or None for unknown.
    origin
        Position of voxel (0, 0, 0), (z, y, x) in angstrom.
    dtype
        Type of a stored voxel.
    overwrite
        Replace an existing file.

    Raises
    ------
    InputError
        "NAME exists; use --overwrite", a type that the format lacks, slabs that do not add up to the shape.
    """
    edges = tuple(int(n) for n in (getattr(array_or_blocks, "shape", None) or shape or ()))
    if len(edges) != 3:
        raise InputError(f"{Path(os.fspath(path)).name}: shape {edges}, expected three edges (z, y, x)")
    with block_writer(
        path, edges, np.dtype(dtype), as_spacing(voxel_size), _triple(origin), overwrite=overwrite
    ) as target:
        start = 0
        for slab in _slabs(array_or_blocks, edges, getattr(target, "block_shape", (1,))[0]):
            stop = start + slab.shape[0]
            if stop > edges[0] or slab.shape[1:] != edges[1:]:
                raise InputError(f"slab of shape {slab.shape} at z = {start} does not fit the volume {edges}")
            target.write((slice(start, stop), slice(0, edges[1]), slice(0, edges[2])), slab)
            start = stop
        if start != edges[0]:
            raise InputError(f"slabs end at z = {start}, expected {edges[0]}")


@contextmanager
def block_writer(
    path: PathLike,
    shape: tuple[int, int, int],
    dtype: np.dtype,
    spacing: Triple | None,
    origin: Triple,
    *,
    overwrite: bool = False,
    **options: int,
) -> Iterator[Any]:
    """Open a volume for writing by blocks under a temporary name; options are ``chunk`` and ``pyramid``."""
    kind = volume_format(path)
    if Path(os.fspath(path)).suffix.lower() in COMPRESSED:
        raise InputError(f"{Path(os.fspath(path)).name}: compressed volumes are read, not written")
    _check_dtype(path, kind, dtype)
    if kind == "zarr" and is_url(path):
        require_new(path, overwrite=overwrite)
        with _zarr_writer(path, path, shape, dtype, spacing, origin, options) as writer:
            yield writer
        return
    with (
        written_whole(path, overwrite=overwrite) as temporary,
        _writer(kind, temporary, path, shape, dtype, spacing, origin, options) as writer,
    ):
        yield writer


def _writer(
    kind: str,
    path: Path,
    final: PathLike,
    shape: tuple[int, int, int],
    dtype: np.dtype,
    spacing: Triple | None,
    origin: Triple,
    options: dict[str, int],
) -> Any:
    if kind == "zarr":
        return _zarr_writer(path, final, shape, dtype, spacing, origin, options)
    if kind == "hdf5":
        return hdf5.Hdf5Writer(path, shape, dtype, spacing, origin)
    return READERS[kind].writer(path, shape, dtype, spacing, origin)


def _zarr_writer(
    path: PathLike,
    final: PathLike,
    shape: tuple[int, int, int],
    dtype: np.dtype,
    spacing: Triple | None,
    origin: Triple,
    options: dict[str, int],
) -> ome_zarr.ZarrWriter:
    """Return a writer whose image has the final name, whatever the file is called meanwhile."""
    chunk, pyramid = options.get("chunk", 64), options.get("pyramid", 0)
    name = Path(os.fspath(final)).stem
    return ome_zarr.ZarrWriter(path, shape, dtype, spacing, origin, chunk=chunk, pyramid=pyramid, name=name)


def _check_dtype(path: PathLike, kind: str, dtype: np.dtype) -> None:
    allowed = getattr(READERS.get(kind), "DTYPES", None)
    if allowed and dtype.newbyteorder("=") not in allowed:
        names = ", ".join(str(item) for item in allowed)
        raise InputError(
            f"{Path(os.fspath(path)).name}: dtype {dtype} does not exist in {kind}, expected {names}"
        )


def _slabs(source: Any, shape: tuple[int, ...], multiple: int) -> Iterator[np.ndarray]:
    thickness = max(1, SLAB_BYTES // max(1, 4 * shape[1] * shape[2]))
    thickness = -(-thickness // multiple) * multiple
    ranges = [(z, min(z + thickness, shape[0])) for z in range(0, shape[0], thickness)]
    if callable(source):
        yield from (np.asarray(source(start, stop)) for start, stop in ranges)
    elif hasattr(source, "shape"):
        yield from (np.asarray(source[start:stop]) for start, stop in ranges)
    else:
        yield from source


def _local_file(path: PathLike, level: int) -> Path:
    if level:
        raise InputError(f"{Path(path).name}: level {level}, but only OME-Zarr has levels")
    return require_exists(path)


def _read_chunk(source: str, level: int, block_info: dict[Any, Any]) -> np.ndarray:
    slices = [slice(start, stop) for start, stop in block_info[None]["array-location"]]
    return read_region(source, slices, level)


def _token(source: str, level: int) -> str:
    from dask.tokenize import tokenize

    modified = None if is_url(source) else Path(source).stat().st_mtime_ns
    return str(tokenize(source, level, modified))


def _triple(values: Sequence[float]) -> Triple:
    z, y, x = (float(value) for value in values)
    return z, y, x
