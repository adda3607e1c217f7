"""Z-scores whose null distribution comes from the surroundings, for symmetric and very strong particles.

A pixel at a particle that scores high in every orientation has a high mean itself, which swallows its peak;
the median of the means around it does not.
"""

import numpy as np
from scipy.interpolate import RegularGridInterpolator

# Larger windows are thinned to about this many samples along an edge: their medians hardly change.
LARGEST_EDGE = 128
MAD_TO_SIGMA = 1.4826


def local_zscore(
    mip: np.ndarray, mean: np.ndarray, std: np.ndarray, box: int, allowed: np.ndarray | None = None
) -> np.ndarray:
    """Return (mip - mu)/sqrt(v), mu and v from a window of the template's size around each position.

    mu = median(mean), v = (1.4826 median |mean - mu|)^2 + median(std^2), evaluated every box//16 pixels and
    interpolated linearly.

    Parameters
    ----------
    mip, mean, std
        (y, x) maps of a search.
    box
        Edge n of the template; the window has that edge, made odd, and is clipped at borders.
    allowed
        (y, x) positions that count; all by default.

    Returns
    -------
    numpy.ndarray
        (y, x) float32; 0 where v is 0 or the position does not count.
    """
    reach, step = box // 2, max(1, box // 16)
    thin = max(1, (2 * reach + 1) // LARGEST_EDGE)
    rows, columns = (_grid(length, step) for length in mip.shape)
    centre, variance = np.zeros((len(rows), len(columns))), np.zeros((len(rows), len(columns)))
    for i, y in enumerate(rows):
        for j, x in enumerate(columns):
            window = (
                slice(max(0, y - reach), y + reach + 1, thin),
                slice(max(0, x - reach), x + reach + 1, thin),
            )
            centre[i, j], variance[i, j] = _null(mean[window], std[window], _part(allowed, window))
    mu, v = (_interpolated(rows, columns, values, mip.shape) for values in (centre, variance))
    z = np.where(v > 0, (mip - mu) / np.sqrt(np.where(v > 0, v, 1.0)), 0.0)
    return np.where(True if allowed is None else allowed, z, 0.0).astype(np.float32)


def _null(mean: np.ndarray, std: np.ndarray, allowed: np.ndarray | None) -> tuple[float, float]:
    if allowed is not None:
        mean, std = mean[allowed], std[allowed]
    if not mean.size:
        return 0.0, 0.0
    mu = float(np.median(mean))
    spread = MAD_TO_SIGMA * float(np.median(np.abs(mean - mu)))
    return mu, spread**2 + float(np.median(np.square(std, dtype=np.float64)))


def _part(allowed: np.ndarray | None, window: tuple[slice, slice]) -> np.ndarray | None:
    return None if allowed is None else allowed[window]


def _grid(length: int, step: int) -> np.ndarray:
    """Return places every `step`, the last one too."""
    return np.unique(np.append(np.arange(0, length, step), length - 1))


def _interpolated(
    rows: np.ndarray, columns: np.ndarray, values: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray:
    if min(values.shape) == 1:
        return np.broadcast_to(values.mean(), shape)
    # one axis at a time keeps the memory at that of the map
    along_x = np.array([np.interp(np.arange(shape[1]), columns, row) for row in values])
    place = RegularGridInterpolator((rows,), along_x)
    return np.asarray(place(np.arange(shape[0])[:, None]))
