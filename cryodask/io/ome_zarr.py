"""OME-Zarr volumes: versions 0.4 (Zarr 2) and 0.5 (Zarr 3) are read, 0.5 with sharding is written.

Moore et al. (2023), "OME-Zarr: a cloud-optimized bioimaging file format", and the NGFF specification 0.5.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from cryodask.errors import InputError
from cryodask.io.files import is_url, require_exists
from cryodask.io.header import (
    Slices,
    Triple,
    VolumeHeader,
    block_slices,
    bounded_slices,
    known_spacing,
)
from cryodask.io.remote import reached

SHARD_EDGE = 256
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


def read_block(path: str | os.PathLike[str], slices: Sequence[slice], level: int = 0) -> np.ndarray:
    """Read one region (z, y, x) as stored; only the chunks that it touches are loaded."""
    stored = _open_level(path, level)
    index: list[slice | int] = [0] * stored.array.ndim
    for axis, part in zip(
        stored.axes, bounded_slices(slices, stored.triple(stored.array.shape)), strict=True
    ):
        index[axis] = part

    def read() -> np.ndarray:
        return np.asarray(stored.array[tuple(index)])

    block = reached(os.fspath(path), read) if is_url(path) else read()
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
        name: str | None = None,
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
        paths = [str(level) for level in range(len(self._levels))]
        self._metadata = multiscales([image(name or Path(os.fspath(path)).stem, paths, spacing, origin)])
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
                fill_level(fine, coarse)
            # last, since a store at an address cannot be renamed when it is complete
            self._group.attrs["ome"] = self._metadata


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


def thinned(block: np.ndarray) -> np.ndarray:
    """Return the first of 2x2x2 voxels (z, y, x): for numbers that only name something, such as rows."""
    return block[::2, ::2, ::2]


def fill_level(fine: Any, coarse: Any, halve: Callable[[np.ndarray], np.ndarray] = halved) -> None:
    """Fill a level of a pyramid from the one before, in bounded memory.

    Shard by shard, and a shard chunk by chunk, since its source is eight times larger.

    Parameters
    ----------
    fine, coarse
        Zarr arrays (..., z, y, x), the coarse one sharded and half as long (rounded up) along z, y and x.
    halve
        Makes a coarse block (z, y, x) of a fine one.
    """
    for leading in np.ndindex(coarse.shape[:-3]):
        for slices in block_slices(coarse.shape[-3:], coarse.shards[-3:]):
            shard = np.empty([s.stop - s.start for s in slices], coarse.dtype)
            for part in block_slices(shard.shape, coarse.chunks[-3:]):
                source = tuple(
                    slice(2 * (s.start + p.start), 2 * (s.start + p.stop))
                    for s, p in zip(slices, part, strict=True)
                )
                shard[part] = halve(np.asarray(fine[(*leading, *source)]))
            coarse[(*leading, *slices)] = shard


def image(
    name: str,
    paths: Sequence[str],
    spacing: Triple | None,
    origin: Triple,
    *,
    channel: str | None = None,
) -> dict[str, Any]:
    """Return the OME-Zarr 0.5 metadata of one pyramid of factor 2; a coarse voxel lies between its parts.

    Parameters
    ----------
    name
        Of the image.
    paths
        Its levels in the group, finest first.
    spacing, origin
        Of the finest level (z, y, x), angstrom; none where the spacing is unknown.
    channel
        Name of an axis before z, y, x.
    """
    unit = {"unit": "angstrom"} if spacing else {}
    step = np.array(spacing or (1.0, 1.0, 1.0))
    lead = 0 if channel is None else 1
    datasets = []
    for level, path in enumerate(paths):
        place = np.array(origin) + step * (2**level - 1) / 2
        transforms = [
            {"type": "scale", "scale": [1.0] * lead + (step * 2**level).tolist()},
            {"type": "translation", "translation": [0.0] * lead + place.tolist()},
        ]
        datasets.append({"path": path, "coordinateTransformations": transforms})
    axes = [] if channel is None else [{"name": channel, "type": "channel"}]
    axes += [{"name": axis, "type": "space", **unit} for axis in "zyx"]
    return {"name": name, "axes": axes, "datasets": datasets}


def multiscales(images: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what the attribute `ome` of a group of images says; viewers open the first."""
    return {"version": "0.5", "multiscales": list(images)}


def _open_level(path: str | os.PathLike[str], level: int) -> StoredLevel:
    address = os.fspath(path)
    if is_url(address):
        return reached(address, lambda: _level_of(_open_address(address), address, level))
    return _level_of(_open_folder(path), Path(address).name, level)


def _level_of(node: Any, name: str, level: int) -> StoredLevel:
    import zarr

    if isinstance(node, zarr.Array):
        return _plain_array(node, name)
    attributes = dict(node.attrs)
    entries = attributes.get("ome", attributes).get("multiscales")
    if not entries:
        arrays = ", ".join(sorted(node.array_keys())) or "none"
        raise InputError(f"{name}: no multiscales metadata (arrays: {arrays})")
    datasets = entries[0]["datasets"]
    if not 0 <= level < len(datasets):
        raise InputError(f"{name}: level {level}, expected 0 to {len(datasets) - 1}")
    array = node[datasets[level]["path"]]
    names = [axis if isinstance(axis, str) else axis["name"] for axis in entries[0].get("axes", "zyx")]
    axes = _spatial_axes(name, names, array.shape)
    scale, origin = _placement(entries[0], datasets[level], axes)
    return StoredLevel(array, axes, scale, origin)


def _open_folder(path: str | os.PathLike[str]) -> Any:
    import zarr
    from zarr.errors import ContainsGroupError, GroupNotFoundError, NodeTypeValidationError

    require_exists(path)
    try:
        return zarr.open(os.fspath(path), mode="r")
    except (FileNotFoundError, GroupNotFoundError, ContainsGroupError, NodeTypeValidationError) as error:
        raise InputError(f"{Path(os.fspath(path)).name}: not a Zarr store ({error})") from error


def _open_address(address: str) -> Any:
    """Open what is there as Zarr 3, else 2: asked for either, Zarr sends four requests where one will do."""
    import zarr

    try:
        return zarr.open(address, mode="r", zarr_format=3)
    except FileNotFoundError:
        return zarr.open(address, mode="r", zarr_format=2)


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
