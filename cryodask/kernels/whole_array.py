"""Correlation of a tile by whole-array library FFTs: on a GPU, and for lengths the fused passes lack."""

from typing import Any

import numpy as np

from cryodask.arrays.module import array_module
from cryodask.kernels.cuda_update import cuda_update, rotations_per_call
from cryodask.kernels.fft_library import fft_library
from cryodask.kernels.tile_state import LEAST_VARIANCE, Restriction, Shape, State, slice_of


class WholeTile:
    """Spectra of a tile in the library's order.

    Parameters
    ----------
    block
        (Pz, Py, Px) float32, NumPy or CuPy.
    box
        Edge n of the template box, voxels.
    valid
        (Tz, Ty, Tx) positions.
    squares
        Hold the spectrum of block² too.
    """

    def __init__(self, block: Any, *, box: int, valid: Shape, squares: bool) -> None:
        self.shape = block.shape
        self.box = box
        self.valid = valid
        self.signal = half_spectrum(block)
        self.squares = half_spectrum(block * block) if squares else None
        self.stack = 1 if array_module(block) is np else rotations_per_call(block.size)

    def drop_squares(self) -> None:
        """Free the spectrum of block²."""
        self.squares = None

    def fold(
        self,
        templates: Any,
        ids: Any,
        state: State,
        inverse_norm: Any = None,
        restriction: Restriction | None = None,
    ) -> None:
        """Fold num, or num · inverse_norm, of each rotation into a state, where it is allowed."""
        xp = array_module(self.signal)
        fold_score = update if xp is np else cuda_update
        rows = [int(row) for row in ids]
        for start in range(0, len(rows), self.stack):
            some = slice(start, start + self.stack)
            scores = self.correlate(self.signal, templates[some])
            for number, (score, row) in enumerate(zip(scores, rows[some], strict=True), start=start):
                if restriction is not None:
                    allowed = xp.asarray(restriction.allowed[number])[restriction.label]
                    score = xp.where(allowed, score, xp.float32(-xp.inf))
                fold_score(state, score, row, inverse_norm)

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
        for number, (template, mask, count, row) in enumerate(
            zip(templates, masks, counts, ids, strict=True)
        ):
            norm = self.inverse_norm(mask, float(count), fraction)
            one = None if restriction is None else slice_of(restriction, slice(number, number + 1))
            self.fold(template[None], [row], state, norm, one)

    def inverse_norm(self, mask: Any, count: float, fraction: float) -> Any:
        """Return 1/√(N·A - B²), (Tz, Ty, Tx), 0 where it has no meaning."""
        if self.squares is None:
            raise ValueError("local statistics need tile_spectra(..., squares=True)")
        xp = array_module(self.signal)
        total = self.correlate(self.signal, mask, fraction)
        variance = xp.float32(count) * self.correlate(self.squares, mask, fraction) - total * total
        inside = variance > LEAST_VARIANCE * count * count
        return xp.where(inside, 1.0 / xp.sqrt(xp.where(inside, variance, 1.0)), 0.0).astype(xp.float32)

    def correlate(self, tile_spectrum: Any, box: Any, fraction: float = 1.0) -> Any:
        """Return Σ_v box(v) block(i + v) at the positions i, (..., Tz, Ty, Tx).

        Parameters
        ----------
        tile_spectrum
            (Pz, Py, Px//2 + 1).
        box
            (..., n, n, n) float32.
        fraction
            Frequencies ky, kx at or above this fraction of Nyquist are left out.
        """
        xp = array_module(tile_spectrum)
        fft = fft_library(xp)
        product = fft.rfftn(xp.asarray(box), self.shape, axes=(-3, -2, -1))
        xp.conj(product, out=product)
        product *= tile_spectrum
        if fraction < 1.0:
            ky, kx = abs(xp.fft.fftfreq(self.shape[1])), xp.fft.rfftfreq(self.shape[2])
            product *= (ky < 0.5 * fraction)[:, None] & (kx < 0.5 * fraction)
        full = fft.irfftn(product, self.shape, axes=(-3, -2, -1))
        return full[..., : self.valid[0], : self.valid[1], : self.valid[2]]


def half_spectrum(block: Any) -> Any:
    """Return the half spectrum of a tile: (Pz, Py, Px) float32 to (Pz, Py, Px//2 + 1) complex64."""
    xp = array_module(block)
    return fft_library(xp).rfftn(xp.asarray(block, dtype=xp.float32))


def update(state: State, score: Any, row: int, inverse_norm: Any = None) -> None:
    """Fold one rotation's scores into a tile's state; ties go to the lowest row, NaN never wins.

    Parameters
    ----------
    state
        ``value``, ``id`` and perhaps ``sum``, ``square_sum``, each (Tz, Ty, Tx).
    score
        (Tz, Ty, Tx) float32.
    row
        The rotation's row.
    inverse_norm
        (Tz, Ty, Tx) factor; positions where it is 0 keep their state.
    """
    xp = array_module(score)
    if inverse_norm is not None:
        score = xp.where(inverse_norm > 0, score * inverse_norm, -xp.inf)
    value, ids = state["value"], state["id"]
    better = (score > value) | ((score == value) & (ids > row))
    better &= score > -xp.inf
    xp.copyto(value, score, where=better)
    xp.copyto(ids, ids.dtype.type(row), where=better)
    if "sum" in state:
        finite = xp.nan_to_num(score, nan=0.0, posinf=0.0, neginf=0.0)
        state["sum"] += finite
        state["square_sum"] += finite * finite
