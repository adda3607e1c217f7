"""From orientations to the templates of an image search, block by block."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cryodask.arrays.module import array_module
from cryodask.kernels.image_correlation import ImageSearch
from cryodask.kernels.slices import (
    border_mean,
    dark_and_centred,
    extract_slices,
    project_centred,
    unit_energy,
)

BLOCK = 8  # consecutive orientations whose scores are summed in float32


@dataclass(frozen=True, eq=False)
class Projector:
    """What makes the templates of a search.

    Parameters
    ----------
    spectrum
        (m, m, m//2 + 1) complex64 from `template_spectrum`.
    axes
        (n_p, rows, 3, 2) float64 from `slice_axes`, one set a pixel size, of orientations from `first` on.
    filters
        (n_p, n_d, n, n//2 + 1): CTF times the filters, real or complex.
    limit
        Longest frequency that any filter leaves, cycles per pixel.
    image_size
        (H, W) to scale projections as Leopard-EM 1.2 does; None for unit energy.
    first, total
        Number of the first orientation in `axes`, and of all orientations that ids count; by default those in
        `axes` are all.
    """

    spectrum: Any
    axes: np.ndarray
    filters: Any
    limit: float = 1.0
    image_size: tuple[int, int] | None = None
    first: int = 0
    total: int | None = None

    @property
    def box(self) -> int:
        """Edge n of the templates, pixels."""
        return int(self.filters.shape[-2])

    @cached_property
    def centred_filters(self) -> Any:
        """The filters, with what makes projections dark and centred; defocus outermost: (n_d, n_p, ...)."""
        xp = array_module(self.filters)
        filters = self.filters * xp.asarray(dark_and_centred(self.box))
        return xp.ascontiguousarray(xp.swapaxes(filters, 0, 1))

    @property
    def orientations(self) -> int:
        """How many orientations ids count."""
        return int(self.axes.shape[1]) if self.total is None else self.total

    def templates(self, start: int, stop: int) -> tuple[Any, np.ndarray]:
        """Return the templates of orientations start to stop - 1, and their ids.

        Returns
        -------
        templates, ids
            (rows · n_d · n_p, n, n) float32, in the order of summation: orientation outermost, then defocus.
        """
        sizes, defoci = self.filters.shape[:2]
        axes = self.axes[:, start - self.first : stop - self.first].reshape(-1, 3, 2)
        slices = extract_slices(self.spectrum, axes, self.box, limit=self.limit)
        by_row = slices.reshape(sizes, stop - start, *slices.shape[1:]).swapaxes(0, 1)[:, None]
        images = project_centred(by_row, self.centred_filters).reshape(-1, self.box, self.box)
        made = unit_energy(images) if self.image_size is None else leopard_energy(images, self.image_size)
        each = (np.arange(sizes)[None, :] * defoci + np.arange(defoci)[:, None]) * self.orientations
        ids = np.arange(start, stop)[:, None, None] + each
        return made, ids.ravel().astype(np.uint32)


def fold_orientations(search: ImageSearch, projector: Projector, start: int, stop: int) -> None:
    """Fold orientations start to stop - 1, all defoci and pixel sizes, into a search.

    `start` is a multiple of the block length, so that blocks are the same however orientations are divided.
    """
    # on a GPU one call holds a block; on a CPU the templates of more orientations would leave the cache
    step = 1 if array_module(projector.spectrum) is np else BLOCK
    for first in range(start, stop, BLOCK):
        last = min(first + BLOCK, stop)
        for row in range(first, last, step):
            search.fold(*projector.templates(row, min(row + step, last)))
        search.end_block()


def leopard_energy(projections: Any, image_size: tuple[int, int]) -> Any:
    """Return projections scaled as Leopard-EM 1.2 scales them: the variance of the box inside the image.

    Parameters
    ----------
    projections
        (..., n, n) float32.
    image_size
        (H, W) of the image.
    """
    xp = array_module(projections)
    n, (height, width) = projections.shape[-1], image_size
    centred = (projections - border_mean(projections)).astype(xp.float64)
    mean = centred.mean(axis=(-2, -1), keepdims=True) * (n * n / (height * width)) ** 2
    energy = xp.square(centred - mean).sum(axis=(-2, -1), keepdims=True)
    energy += (height - n) * (width - n) * mean**2
    return (centred / xp.sqrt(xp.where(energy > 0, energy, 1.0))).astype(xp.float32)
