"""Locally normalised correlation of rotated templates with one tile of a tomogram.

Position i of a tile of P voxels scores ``num(i) = Σ_v u(v) block(i + v)``, v over the template box of n voxels:
the tile begins n//2 voxels before its first position. On an axis where positions and voxels are equal in number
the correlation is circular. The score is ``num / √(N·A - B²)`` (Roseman 2003) with A and B the sums of block²
and block under the mask.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from cryodask.arrays.module import array_module
from cryodask.kernels import whole_array
from cryodask.kernels.whole_array import NO_ROW

# Of N², for a tomogram of unit variance: below it the score has no meaning.
LEAST_VARIANCE = 1e-6

Shape = tuple[int, int, int]
State = dict[str, Any]


@dataclass(frozen=True)
class TileSpectra:
    """Spectra of one tile and, if asked for, of its square; shared by every template set run against it."""

    shape: Shape
    valid: Shape
    box: int
    signal: Any
    squares: Any = None


def tile_spectra(block: Any, *, box: int, valid: Shape, squares: bool) -> TileSpectra:
    """Transform a tile once.

    Parameters
    ----------
    block
        (Pz, Py, Px) float32, (z, y, x), of unit variance; begins box//2 voxels before the first position.
    box
        Edge n of the template box, voxels.
    valid
        Positions on each axis: at most P - n + 1, or P for a periodic axis.
    squares
        Transform block² too, as local statistics need it.

    Raises
    ------
    ValueError
        If a length does not fit the box.
    """
    for length, positions in zip(block.shape, valid, strict=True):
        if positions != length and not 1 <= positions <= length - box + 1:
            raise ValueError(f"{positions} positions on {length} voxels, expected at most {length - box + 1}")
        if length < box:
            raise ValueError(f"tile of {length} voxels is smaller than the box of {box}")
    square_spectrum = whole_array.spectrum(block * block) if squares else None
    return TileSpectra(block.shape, valid, box, whole_array.spectrum(block), square_spectrum)


def empty_state(valid: Shape, *, moments: bool, xp: Any = np) -> State:
    """Return the state before any rotation: value -inf, id 4294967295, sums 0.

    Parameters
    ----------
    valid
        (Tz, Ty, Tx) positions.
    moments
        Keep the sum and the sum of squares of all scores too.
    xp
        Array module.
    """
    state = {
        "value": xp.full(valid, -xp.inf, dtype=xp.float32),
        "id": xp.full(valid, NO_ROW, dtype=xp.uint32),
    }
    if moments:
        state["sum"] = xp.zeros(valid, dtype=xp.float64)
        state["square_sum"] = xp.zeros(valid, dtype=xp.float64)
    return state


def correlate_spherical(spectra: TileSpectra, templates: Any, ids: Any, state: State) -> None:
    """Fold num of each rotation into the state; :func:`finish_spherical` makes scores of it at the end.

    Parameters
    ----------
    spectra
        Of the tile.
    templates
        (b, n, n, n) float32, u of each rotation.
    ids
        (b,) rows of the rotations.
    state
        Changed in place.
    """
    for template, row in zip(templates, ids, strict=True):
        num = whole_array.correlate(spectra.signal, template, spectra.shape, spectra.valid)
        whole_array.update(state, num, int(row))


def correlate_with_norm(
    spectra: TileSpectra, templates: Any, ids: Any, inverse_norm: Any, state: State
) -> None:
    """Fold the scores of rotations that share one mask (an axial mask at one direction) into the state.

    Parameters
    ----------
    spectra, templates, ids, state
        See :func:`correlate_spherical`.
    inverse_norm
        (Tz, Ty, Tx) from :func:`local_statistics`; 0 where a position is not scored.
    """
    searched = inverse_norm > 0
    for template, row in zip(templates, ids, strict=True):
        num = whole_array.correlate(spectra.signal, template, spectra.shape, spectra.valid)
        whole_array.update(state, num * inverse_norm, int(row), searched)


def local_statistics(spectra: TileSpectra, mask: Any, count: float, *, statistics_grid: float = 1.0) -> Any:
    """Return 1/√(N·A - B²) at every position, 0 where N·A - B² <= 1e-6 N².

    Parameters
    ----------
    spectra
        With squares.
    mask
        (n, n, n) float32, rotated.
    count
        N, the sum of the mask.
    statistics_grid
        Fraction of Nyquist on which A and B are made; 1 is exact.
    """
    xp = array_module(spectra.signal)
    shape, valid = spectra.shape, spectra.valid
    variance = whole_array.correlate(spectra.squares, mask, shape, valid, statistics_grid)
    total = whole_array.correlate(spectra.signal, mask, shape, valid, statistics_grid)
    variance = xp.float32(count) * variance - total * total
    searched = variance > LEAST_VARIANCE * count * count
    return xp.where(searched, 1.0 / xp.sqrt(xp.where(searched, variance, 1.0)), 0.0).astype(xp.float32)


def correlate_general(
    spectra: TileSpectra,
    templates: Any,
    masks: Any,
    counts: Any,
    ids: Any,
    state: State,
    *,
    statistics_grid: float = 1.0,
) -> None:
    """Fold the scores of rotations with a mask each into the state.

    Parameters
    ----------
    spectra
        With squares.
    templates, masks
        (b, n, n, n) float32, u and rotated mask of each rotation.
    counts
        (b,) mask sums N.
    ids
        (b,) rows of the rotations.
    state
        Changed in place.
    statistics_grid
        Fraction of Nyquist on which A and B are made (:func:`choose_statistics_grid`); 1 is exact.
    """
    for template, mask, count, row in zip(templates, masks, counts, ids, strict=True):
        norm = local_statistics(spectra, mask, float(count), statistics_grid=statistics_grid)
        correlate_with_norm(spectra, template[None], [row], norm, state)


def finish_spherical(state: State, inverse_norm: Any) -> None:
    """Turn the state of :func:`correlate_spherical` into scores, in place.

    Parameters
    ----------
    state
        Of num.
    inverse_norm
        (Tz, Ty, Tx) from :func:`local_statistics`; where it is 0 the score is 0 and no row is kept.
    """
    xp = array_module(inverse_norm)
    searched = inverse_norm > 0
    if "sum" in state:
        state["sum"] *= inverse_norm
        state["square_sum"] *= inverse_norm
        state["square_sum"] *= inverse_norm
    state["id"][~searched] = NO_ROW
    xp.multiply(state["value"], inverse_norm, out=state["value"], where=searched)
    finish_general(state)


def finish_general(state: State) -> None:
    """Set the score to 0 where no rotation was scored, in place."""
    state["value"][state["id"] == NO_ROW] = 0.0
