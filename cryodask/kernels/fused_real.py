"""Real transforms of 16 lines at once, as complex ones of half the length (Numerical Recipes, 12.3).

A packed half spectrum holds the frequency of half the length, which is real, in the imaginary part of
frequency 0. The turn of frequency k is i exp(2πi k/length), as pairs of real and imaginary part.
"""

import numba
import numpy as np

from cryodask.kernels.simd import LANES, fill, load, store
from cryodask.kernels.transforms import JIT, ROW, forward, inverse


@numba.njit(**JIT)
def real_inverse(
    line: np.ndarray,
    source: np.ndarray,
    begin: int,
    x_order: np.ndarray,
    x_turn: np.ndarray,
    table: np.ndarray,
    twiddles: np.ndarray,
) -> None:
    """Transform packed half lines back to reals, unscaled: line[x·16 + lane].

    Parameters
    ----------
    line
        Written; length · 16 floats.
    source, begin
        (half, 2, 16) from this float on: frequencies in natural order.
    x_order, x_turn, table, twiddles
        `order`, turns and `stages` of half the length.
    """
    half = x_order.size
    first, last = load(source, begin), load(source, begin + LANES)
    store(line, 0, first + last)
    store(line, LANES, first - last)
    for k in range(1, half // 2 + 1):
        a, b = begin + k * ROW, begin + (half - k) * ROW
        ar, ai, br, bi = (
            load(source, a), load(source, a + LANES), load(source, b), load(source, b + LANES)
        )  # fmt: skip
        sr, si, dr, di = ar + br, ai - bi, ar - br, ai + bi
        wr, wi = fill(x_turn[2 * k]), fill(x_turn[2 * k + 1])
        tr, ti = dr * wr - di * wi, dr * wi + di * wr
        i, j = x_order[k] * ROW, x_order[half - k] * ROW
        store(line, i, sr + tr)
        store(line, i + LANES, si + ti)
        store(line, j, sr - tr)
        store(line, j + LANES, ti - si)
    inverse(line, 0, table, twiddles)


@numba.njit(**JIT)
def real_forward(
    line: np.ndarray,
    target: np.ndarray,
    x_order: np.ndarray,
    x_turn: np.ndarray,
    table: np.ndarray,
    twiddles: np.ndarray,
) -> None:
    """Transform 16 lines of reals to packed half spectra, twice as large as the usual ones.

    Parameters
    ----------
    line
        line[x·16 + lane]; changed.
    target
        (half, 2, 16), written from float 0 on: frequencies in natural order.
    x_order, x_turn, table, twiddles
        As in :func:`real_inverse`.
    """
    half = x_order.size
    forward(line, 0, table, twiddles)
    two = fill(np.float32(2.0))
    first, last = load(line, 0), load(line, LANES)
    store(target, 0, two * (first + last))
    store(target, LANES, two * (first - last))
    for k in range(1, half // 2 + 1):
        i, j = x_order[k] * ROW, x_order[half - k] * ROW
        ar, ai, br, bi = load(line, i), load(line, i + LANES), load(line, j), load(line, j + LANES)
        sr, si, dr, di = ar + br, ai - bi, ar - br, ai + bi
        # the conjugate turn: -i exp(-2πi k/length)
        wr, wi = fill(x_turn[2 * k]), fill(x_turn[2 * k + 1])
        tr, ti = dr * wr + di * wi, di * wr - dr * wi
        a, b = k * ROW, (half - k) * ROW
        store(target, a, sr + tr)
        store(target, a + LANES, si + ti)
        store(target, b, sr - tr)
        store(target, b + LANES, ti - si)
