"""Pyramids of the maps of a result, so that OME-Zarr viewers open it at any magnification."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import zarr

from cryodask.io.header import Triple
from cryodask.io.ome_zarr import (
    fill_level,
    halved,
    image,
    multiscales,
    pyramid_shapes,
    shard_shape,
    thinned,
)

FOLDER = "pyramid"
CHUNK = 64  # the coarsest level fits into one chunk
NAMES_OF_THINGS = ("orientation", "class_id")  # between two rows or classes there is nothing


def add_pyramids(path: str, names: Sequence[str], voxel_size: float, origin: Triple) -> dict[str, Any]:
    """Write the coarser levels of maps, `pyramid/<map>/1..`, in bounded memory; levels there are replaced.

    Parameters
    ----------
    path
        The result store with its full maps (z, y, x) or (template, z, y, x).
    names
        Of the maps; viewers show the first.
    voxel_size, origin
        Of the full maps, angstrom; (z, y, x).

    Returns
    -------
    dict
        OME-Zarr 0.5 metadata of the store, one image a map.
    """
    group = zarr.open_group(path, mode="r+", zarr_format=3, use_consolidated=False)
    images = []
    for name in names:
        levels = _levels(group, name)
        for fine, coarse in pairwise(levels):
            fill_level(fine, coarse, thinned if name in NAMES_OF_THINGS else halved)
        channel = "template" if levels[0].ndim == 4 else None
        paths = [level.path for level in levels]
        images.append(image(name, paths, (voxel_size,) * 3, origin, channel=channel))
    return multiscales(images)


def _levels(group: zarr.Group, name: str) -> list[Any]:
    """Return the full map and its empty coarser levels, each as long as half the one before."""
    full: Any = group[name]
    *leading, nz, ny, nx = full.shape
    ones = (1,) * len(leading)
    coarser = pyramid_shapes((nz, ny, nx), count_levels((nz, ny, nx)))[1:]
    return [full] + [
        group.create_array(
            f"{FOLDER}/{name}/{level}",
            shape=(*leading, *shape),
            chunks=(*ones, *(CHUNK,) * 3),
            shards=(*ones, *shard_shape(shape, CHUNK)),
            dtype=full.dtype,
            fill_value=full.fill_value,
            compressors=full.compressors,
            dimension_names=full.metadata.dimension_names,
            overwrite=True,
        )
        for level, shape in enumerate(coarser, start=1)
    ]


def count_levels(shape: Sequence[int]) -> int:
    """Return how many times a map is halved until it fits into one chunk."""
    return max(-(-max(shape) // CHUNK) - 1, 0).bit_length()
