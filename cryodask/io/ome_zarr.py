"""OME-Zarr volumes: versions 0.4 (Zarr 2) and 0.5 (Zarr 3) are read, 0.5 with sharding is written.

Moore et al. (2023), "OME-Zarr: a cloud-optimized bioimaging file format", and the NGFF specification 0.5.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from cryodask.errors import InputError
from cryodask.io.files import is_url, require_exists
from cryodask.io.header import Slices, Triple, VolumeHeader, block_slices, known_spacing

SHARD_EDGE = 256
TRIES = 3
ANGSTROM = {
    "angstrom": 1.0,
    "picometer": 0.01,
    "nanometer": 10.0,
    "micrometer": 1e4,
    "millimeter": 1e7,
    "meter": 1e10,
}


@dataclass(frozen=True)
class StoredLevel:
    """One resolution level: the Zarr array, which of its axes are z, y, x, and where it lies in angstrom."""

    array: Any
    axes: tuple[int, int, int]
    scale: Triple | None
    origin: Triple

    def triple(self, values: Sequence[int]) -> tuple[int, int, int]:
        """Pick the z, y, x entries of something with one entry an axis."""
        z, y, x = (int(values[axis]) for axis in self.axes)
        return z, y, x


def read_header(path: str | os.PathLike[str], level: int = 0) -> VolumeHeader:
    """Read shape, type, voxel size and origin of one level, in angstrom whatever unit is stored.

    Raises
    ------
    InputError
        No Zarr store, no such level, or axes other than z, y, x with more than one entry.
    """
    stored = _open_level(path, level)
    array = stored.array
    return VolumeHeader(
        "zarr",
        stored.triple(array.shape),
        np.dtype(array.dtype).newbyteorder("="),
        stored.scale,
        stored.origin,
        stored.triple(array.chunks),
    )


def read_block(path: str | os.PathLike[str], slices: Slices, level: int = 0) -> np.ndarray:
    """Read one region (z, y, x) as stored; only the chunks that it touches are loaded."""
    stored = _open_level(path, level)
    index: list[slice | int] = [0] * stored.array.ndim
    for axis, part in zip(stored.axes, slices, strict=True):
        index[axis] = part
    block = np.asarray(stored.array[tuple(index)])
    order = [sorted(stored.axes).index(axis) for axis in stored.axes]
    return np.ascontiguousarray(block.transpose(order), dtype=block.dtype.newbyteorder("="))


class ZarrWriter:
    """Writes blocks (z, y, x) of whole shards into level 0 of a new OME-Zarr 0.5 group."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        shape: tuple[int, int, int],
        dtype: np.dtype,
        spacing: Triple | None,
        origin: Triple,
        *,
        chunk: int = 64,
        pyramid: int = 0,
    ) -> None:
        import zarr

        self._group = zarr.open_group(os.fspath(path), mode="w", zarr_format=3)
        self._levels: list[Any] = [
            self._group.create_array(
                str(level),
                shape=edges,
                chunks=(chunk,) * 3,
                shards=shard_shape(edges, chunk),
                dtype=dtype,
                dimension_names=("z", "y", "x"),
            )
            for level, edges in enumerate(pyramid_shapes(shape, pyramid))
        ]
        name = Path(os.fspath(path)).stem
        self._group.attrs["ome"] = multiscales(name, len(self._levels), spacing, origin)
        self.shape, self.dtype, self.block_shape = shape, dtype, shard_shape(shape, chunk)

    def write(self, slices: Slices, block: np.ndarray) -> None:
        """Write one block at its place."""
        self._levels[0][slices] = block

    def __enter__(self) -> "ZarrWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            for fine, coarse in pairwise(self._levels):
                _fill_level(fine, coarse)


def _fill_level(fine: Any, coarse: Any) -> None:
    """Fill a level shard by shard, a shard chunk by chunk: its source is eight times larger."""
    for slices in block_slices(coarse.shape, coarse.shards):
        shard = np.empty([s.stop - s.start for s in slices], coarse.dtype)
        for part in block_slices(shard.shape, coarse.chunks):
            source = tuple(
                slice(2 * (s.start + p.start), 2 * (s.start + p.stop))
                for s, p in zip(slices, part, strict=True)
            )
            shard[part] = halved(fine[source])
        coarse[slices] = shard


def pyramid_shapes(shape: tuple[int, int, int], levels: int) -> list[tuple[int, int, int]]:
    """Return the shapes of level 0 and of `levels` coarser ones, each half (rounded up) of the one before."""
    shapes = [shape]
    for _ in range(levels):
        z, y, x = (-(-n // 2) for n in shapes[-1])
        shapes.append((z, y, x))
    return shapes


def shard_shape(shape: Sequence[int], chunk: int) -> tuple[int, int, int]:
    """Return a shard: whole chunks, about 256 voxels an edge, no longer than the array needs."""
    z, y, x = (min(-(-n // chunk), max(1, SHARD_EDGE // chunk)) * chunk for n in shape)
    return z, y, x


def halved(block: np.ndarray) -> np.ndarray:
    """Return the means over 2x2x2 voxels (z, y, x); an odd last voxel stands for its missing neighbour."""
    padded = np.pad(block, [(0, n % 2) for n in block.shape], mode="edge")
    z, y, x = (n // 2 for n in padded.shape)
    means = padded.reshape(z, 2, y, 2, x, 2).mean(axis=(1, 3, 5), dtype=np.float32)
    return np.rint(means).astype(block.dtype) if block.dtype.kind in "iu" else means.astype(block.dtype)


def multiscales(name: str, levels: int, spacing: Triple | None, origin: Triple) -> dict[str, Any]:
    """Return OME-Zarr 0.5 metadata of a pyramid of factor 2; a coarse voxel lies between its parts."""
    unit = {"unit": "angstrom"} if spacing else {}
    step = np.array(spacing or (1.0, 1.0, 1.0))
    datasets = []
    for level in range(levels):
        place = np.array(origin) + step * (2**level - 1) / 2
        transforms = [
            {"type": "scale", "scale": (step * 2**level).tolist()},
            {"type": "translation", "translation": place.tolist()},
        ]
        datasets.append({"path": str(level), "coordinateTransformations": transforms})
    axes = [{"name": axis, "type": "space", **unit} for axis in "zyx"]
    return {"version": "0.5", "multiscales": [{"name": name, "axes": axes, "datasets": datasets}]}


def _open_level(path: str | os.PathLike[str], level: int) -> StoredLevel:
    import zarr

    name = Path(os.fspath(path)).name
    node = _open_node(path)
    if isinstance(node, zarr.Array):
        return _plain_array(node, name)
    attributes = dict(node.attrs)
    entries = attributes.get("ome", attributes).get("multiscales")
    if not entries:
        raise InputError(
            f"{name}: no multiscales metadata (arrays: {', '.join(sorted(node.array_keys())) or 'none'})"
        )
    datasets = entries[0]["datasets"]
    if not 0 <= level < len(datasets):
        raise InputError(f"{name}: level {level}, expected 0 to {len(datasets) - 1}")
    array = node[datasets[level]["path"]]
    names = [axis if isinstance(axis, str) else axis["name"] for axis in entries[0].get("axes", "zyx")]
    axes = _spatial_axes(name, names, array.shape)
    scale, origin = _placement(entries[0], datasets[level], axes)
    return StoredLevel(array, axes, scale, origin)


def _open_node(path: str | os.PathLike[str]) -> Any:
    import zarr
    from zarr.errors import ContainsGroupError, GroupNotFoundError, NodeTypeValidationError

    if is_url(path):
        return _open_address(os.fspath(path))
    require_exists(path)
    try:
        return zarr.open(os.fspath(path), mode="r")
    except (FileNotFoundError, GroupNotFoundError, ContainsGroupError, NodeTypeValidationError) as error:
        raise InputError(f"{Path(os.fspath(path)).name}: not a Zarr store ({error})") from error


def _open_address(address: str) -> Any:
    """Open a store by its address, in three tries: what fails there may be anything, and may pass."""
    import zarr

    reason: Exception | None = None
    for _ in range(TRIES):
        try:
            return zarr.open(address, mode="r")
        except Exception as error:
            reason = error
    raise InputError(f"{address}: {type(reason).__name__}: {reason}") from reason


def _plain_array(array: Any, name: str) -> StoredLevel:
    names = ["?"] * (array.ndim - 3) + ["z", "y", "x"]
    return StoredLevel(array, _spatial_axes(name, names, array.shape), None, (0.0, 0.0, 0.0))


def _spatial_axes(name: str, names: list[str], shape: tuple[int, ...]) -> tuple[int, int, int]:
    if not {"z", "y", "x"} <= set(names):
        raise InputError(f"{name}: axes {', '.join(names)}, expected z, y, x")
    for axis, edge in zip(names, shape, strict=True):
        if axis not in ("z", "y", "x") and edge != 1:
            raise InputError(f"{name}: axis {axis} has {edge} entries, expected 1")
    return names.index("z"), names.index("y"), names.index("x")


def _placement(entry: Any, dataset: Any, axes: tuple[int, int, int]) -> tuple[Triple | None, Triple]:
    """Voxel size and origin in angstrom: the dataset's transforms first, then those of the whole pyramid."""
    stored_axes = entry.get("axes", "zyx")
    scale, origin = np.ones(len(stored_axes)), np.zeros(len(stored_axes))
    for transforms in (
        dataset.get("coordinateTransformations", []),
        entry.get("coordinateTransformations", []),
    ):
        for transform in transforms:
            factor = np.array(transform.get("scale", 1.0))
            scale, origin = scale * factor, origin * factor + np.array(transform.get("translation", 0.0))
    units = [axis.get("unit", "angstrom") if isinstance(axis, dict) else "angstrom" for axis in stored_axes]
    angstrom = np.array([ANGSTROM.get(unit, 1.0) for unit in units])
    picked = list(axes)
    z, y, x = (float(f"{value:.9g}") for value in (origin * angstrom)[picked])
    return known_spacing((scale * angstrom)[picked]), (z, y, x)
