"""Locally normalised correlation of rotated templates with one tile of a tomogram.

Position i of a tile of P voxels scores ``num(i) = Σ_v u(v) block(i + v)``, v over the template box of n
voxels: the tile begins n//2 voxels before its first position. On an axis with as many positions as voxels the
correlation is circular. The score is ``num / √(N·A - B²)`` (Roseman 2003), A and B the sums of block² and
block under the mask.
"""

from typing import Any, Protocol

import numpy as np

from cryodask.arrays.module import array_module
from cryodask.kernels.fused import FusedTile
from cryodask.kernels.fused_layout import is_supported
from cryodask.kernels.memory import bytes_per_voxel, workspace_bytes
from cryodask.kernels.tile_state import (
    Restriction,
    Shape,
    State,
    empty_state,
    finish_general,
    finish_spherical,
)
from cryodask.kernels.whole_array import WholeTile

__all__ = [
    "Restriction",
    "State",
    "TileSpectra",
    "bytes_per_voxel",
    "correlate_general",
    "correlate_spherical",
    "correlate_with_norm",
    "empty_state",
    "finish_general",
    "finish_spherical",
    "local_statistics",
    "tile_spectra",
    "workspace_bytes",
]


class TileSpectra(Protocol):
    """Spectra of a tile and the scratch to search it."""

    def drop_squares(self) -> None:
        """Free what local statistics alone need."""

    def fold(
        self,
        templates: Any,
        ids: Any,
        state: State,
        inverse_norm: Any = None,
        restriction: Restriction | None = None,
    ) -> None:
        """Fold num, or num · inverse_norm, of each rotation into a state, where it is allowed."""

    def fold_general(
        self,
        templates: Any,
        masks: Any,
        counts: Any,
        ids: Any,
        state: State,
        fraction: float,
        restriction: Restriction | None = None,
    ) -> None:
        """Fold the scores of rotations with a mask each into a state, where they are allowed."""

    def inverse_norm(self, mask: Any, count: float, fraction: float) -> Any:
        """Return 1/√(N·A - B²), (Tz, Ty, Tx), 0 where it has no meaning."""


def tile_spectra(block: Any, *, box: int, valid: Shape, squares: bool) -> TileSpectra:
    """Transform a tile once; every template set run against it shares the result.

    Parameters
    ----------
    block
        (Pz, Py, Px) float32, (z, y, x), of unit variance; begins box//2 voxels before the first position.
    box
        Edge n of the template box, voxels.
    valid
        Positions on each axis: at most P - n + 1, or P for a periodic axis.
    squares
        Transform block² too, as local statistics need it; ``drop_squares()`` of the result frees it again.

    Raises
    ------
    ValueError
        If a length does not fit the box.
    """
    for length, positions in zip(block.shape, valid, strict=True):
        if length < box:
            raise ValueError(f"tile of {length} voxels is smaller than the box of {box}")
        if positions != length and not 1 <= positions <= length - box + 1:
            raise ValueError(f"{positions} positions on {length} voxels, expected at most {length - box + 1}")
    if array_module(block) is np and is_supported(block.shape):
        return FusedTile(block, box=box, valid=valid, squares=squares)
    return WholeTile(block, box=box, valid=valid, squares=squares)


def correlate_spherical(
    spectra: TileSpectra, templates: Any, ids: Any, state: State, restriction: Restriction | None = None
) -> None:
    """Fold num of each rotation into the state; ``finish_spherical`` makes scores of it at the end.

    Parameters
    ----------
    spectra
        From :func:`tile_spectra`.
    templates
        (b, n, n, n) float32, u of each rotation.
    ids
        (b,) rows of the rotations.
    state
        From ``empty_state``, changed in place.
    restriction
        Positions that a rotation may not score keep their state.
    """
    spectra.fold(templates, ids, state, None, restriction)


def correlate_with_norm(
    spectra: TileSpectra,
    templates: Any,
    ids: Any,
    inverse_norm: Any,
    state: State,
    restriction: Restriction | None = None,
) -> None:
    """Fold the scores of rotations that share one mask (an axial mask at one direction) into the state.

    Parameters
    ----------
    spectra, templates, ids, state, restriction
        See :func:`correlate_spherical`; ``finish_general`` at the end.
    inverse_norm
        (Tz, Ty, Tx) from :func:`local_statistics`; 0 where a position is not scored.
    """
    spectra.fold(templates, ids, state, inverse_norm, restriction)


def correlate_general(
    spectra: TileSpectra,
    templates: Any,
    masks: Any,
    counts: Any,
    ids: Any,
    state: State,
    *,
    statistics_grid: float = 1.0,
    restriction: Restriction | None = None,
) -> None:
    """Fold the scores of rotations with a mask each into the state; ``finish_general`` at the end.

    Parameters
    ----------
    spectra
        From :func:`tile_spectra`, with squares.
    templates, masks
        (b, n, n, n) float32, u and rotated mask of each rotation.
    counts
        (b,) mask sums N.
    ids
        (b,) rows of the rotations.
    state
        From ``empty_state``, changed in place.
    statistics_grid
        Fraction of Nyquist on which A and B are made (``choose_statistics_grid``); 1 is exact.
    restriction
        See :func:`correlate_spherical`.
    """
    spectra.fold_general(templates, masks, counts, ids, state, statistics_grid, restriction)


def local_statistics(spectra: TileSpectra, mask: Any, count: float, *, statistics_grid: float = 1.0) -> Any:
    """Return 1/√(N·A - B²) at every position, (Tz, Ty, Tx) float32, 0 where N·A - B² <= 1e-6 N².

    Parameters
    ----------
    spectra
        From :func:`tile_spectra`, with squares.
    mask
        (n, n, n) float32, rotated.
    count
        N, the sum of the mask.
    statistics_grid
        Fraction of Nyquist on which A and B are made; 1 is exact.
    """
    return spectra.inverse_norm(mask, float(count), statistics_grid)
