"""Correlation of a tile by whole-array library FFTs: on a GPU, and for lengths that the fused CPU passes lack."""

from typing import Any

from cryodask.arrays.module import array_module
from cryodask.kernels.template import fft_module

NO_ROW = 4294967295


def spectrum(block: Any) -> Any:
    """Return the half spectrum of a tile: (Pz, Py, Px) float32 to (Pz, Py, Px//2 + 1) complex64."""
    return fft_module(array_module(block)).rfftn(block)


def correlate(
    tile_spectrum: Any, box: Any, shape: tuple[int, ...], valid: tuple[int, ...], fraction: float = 1.0
) -> Any:
    """Return Σ_v box(v) block(i + v) at the valid positions.

    Parameters
    ----------
    tile_spectrum
        (Pz, Py, Px//2 + 1) from :func:`spectrum`.
    box
        (n, n, n) float32, (z, y, x).
    shape, valid
        (Pz, Py, Px) and the number of positions on each axis.
    fraction
        Frequencies at or above this fraction of Nyquist are left out.
    """
    xp = array_module(tile_spectrum)
    fft = fft_module(xp)
    product = fft.rfftn(box, shape)
    xp.conj(product, out=product)
    product *= tile_spectrum
    if fraction < 1.0:
        for axis, kept in enumerate(_kept_frequencies(xp, shape, fraction)):
            product *= kept.reshape([-1 if i == axis else 1 for i in range(3)])
    full = fft.irfftn(product, shape)
    return full[: valid[0], : valid[1], : valid[2]]


def _kept_frequencies(xp: Any, shape: tuple[int, ...], fraction: float) -> list[Any]:
    axes = [xp.fft.fftfreq(shape[0]), xp.fft.fftfreq(shape[1]), xp.fft.rfftfreq(shape[2])]
    return [(abs(k) < 0.5 * fraction).astype(xp.float32) for k in axes]


def update(state: dict[str, Any], score: Any, row: int, searched: Any = None) -> None:
    """Fold one rotation's scores into a tile's state; ties go to the lowest row, NaN never wins.

    Parameters
    ----------
    state
        ``value``, ``id`` and perhaps ``sum``, ``square_sum``, each (Tz, Ty, Tx).
    score
        (Tz, Ty, Tx) float32.
    row
        The rotation's row.
    searched
        (Tz, Ty, Tx) bool; positions elsewhere keep their state.
    """
    xp = array_module(score)
    value, ids = state["value"], state["id"]
    better = (score > value) | ((score == value) & (ids > row))
    better &= score > -xp.inf
    if searched is not None:
        better &= searched
    xp.copyto(value, score, where=better)
    xp.copyto(ids, ids.dtype.type(row), where=better)
    if "sum" in state:
        finite = xp.nan_to_num(score, nan=0.0, posinf=0.0, neginf=0.0)
        state["sum"] += finite
        state["square_sum"] += finite * finite
