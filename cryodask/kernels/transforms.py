"""Fourier transforms in place, 16 at once, for lengths of factors 2, 3, 4 and 5.

A line is N rows of 16 real and 16 imaginary parts. The forward transform takes rows in natural order and
leaves frequency k in row ``order[k]`` (decimation in frequency, Gentleman and Sande 1966); the inverse takes
that order and leaves natural order (decimation in time, Cooley and Tukey 1965): nothing is reordered. Neither
is scaled.
"""

from functools import lru_cache
from typing import Any

import numba
import numpy as np

from cryodask.kernels.simd import LANES, fill, load, store

ROW = 2 * LANES
JIT: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy"}


@lru_cache(maxsize=64)
def factors(length: int) -> tuple[int, ...]:
    """Return the radices of a length, 4 first; empty if another prime divides it."""
    found = []
    for radix in (4, 2, 3, 5):
        while length % radix == 0:
            found.append(radix)
            length //= radix
    return tuple(found) if length == 1 else ()


@lru_cache(maxsize=64)
def order(length: int) -> np.ndarray:
    """Return the row of each frequency after the forward transform."""
    k = np.arange(length)
    row, span = np.zeros(length, np.int64), length
    for radix in factors(length):
        span //= radix
        row += (k % radix) * span
        k //= radix
    return row


@lru_cache(maxsize=64)
def stages(length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return radix, span and twiddle offset of each stage, and all twiddles (real, imaginary).

    The twiddles of a stage are w^(p j) with w = exp(-2πi/(radix·span)), j < span outer, 0 < p < radix inner.
    """
    table, twiddles, span, offset = [], [], length, 0
    for radix in factors(length):
        block, span = span, span // radix
        angle = -2.0 * np.pi / block * np.outer(np.arange(span), np.arange(1, radix)).ravel()
        table.append((radix, span, offset))
        twiddles.append(np.stack([np.cos(angle), np.sin(angle)], axis=-1).ravel())
        offset += 2 * angle.size
    values = np.concatenate(twiddles) if twiddles else np.zeros(0)
    return np.array(table, np.int64).reshape(-1, 3), values.astype(np.float32)


@numba.njit(**JIT)
def forward(x: np.ndarray, start: int, table: np.ndarray, w: np.ndarray) -> None:
    """Transform the line that begins at float `start` of `x`."""
    length = table[0, 0] * table[0, 1]
    for s in range(table.shape[0]):
        radix, span, offset = table[s, 0], table[s, 1], table[s, 2]
        blocks = length // (radix * span)
        if radix == 4:
            _forward4(x, start, span, blocks, w, offset)
        elif radix == 2:
            _forward2(x, start, span, blocks, w, offset)
        elif radix == 3:
            _forward3(x, start, span, blocks, w, offset)
        else:
            _forward5(x, start, span, blocks, w, offset)


@numba.njit(**JIT)
def inverse(x: np.ndarray, start: int, table: np.ndarray, w: np.ndarray) -> None:
    """Transform back the line that begins at float `start` of `x`."""
    length = table[0, 0] * table[0, 1]
    for s in range(table.shape[0] - 1, -1, -1):
        radix, span, offset = table[s, 0], table[s, 1], table[s, 2]
        blocks = length // (radix * span)
        if radix == 4:
            _inverse4(x, start, span, blocks, w, offset)
        elif radix == 2:
            _inverse2(x, start, span, blocks, w, offset)
        elif radix == 3:
            _inverse3(x, start, span, blocks, w, offset)
        else:
            _inverse5(x, start, span, blocks, w, offset)


@numba.njit(inline="always")
def _turn(ar: Any, ai: Any, wr: Any, wi: Any) -> Any:
    return ar * wr - ai * wi, ar * wi + ai * wr


@numba.njit(inline="always")
def _dft4(ar: Any, ai: Any, br: Any, bi: Any, cr: Any, ci: Any, dr: Any, di: Any) -> Any:
    sr, si, tr, ti = ar + cr, ai + ci, ar - cr, ai - ci
    ur, ui, vr, vi = br + dr, bi + di, br - dr, bi - di
    return sr + ur, si + ui, tr + vi, ti - vr, sr - ur, si - ui, tr - vi, ti + vr


@numba.njit(**JIT)
def _forward4(x: np.ndarray, start: int, span: int, blocks: int, w: np.ndarray, offset: int) -> None:
    step = span * ROW
    for j in range(span):
        t = offset + 6 * j
        w1r, w1i = fill(w[t]), fill(w[t + 1])
        w2r, w2i = fill(w[t + 2]), fill(w[t + 3])
        w3r, w3i = fill(w[t + 4]), fill(w[t + 5])
        for block in range(blocks):
            a = start + block * 4 * step + j * ROW
            b = a + step
            c = b + step
            d = c + step
            ar, ai, br, bi, cr, ci, dr, di = _dft4(
                load(x, a), load(x, a + LANES), load(x, b), load(x, b + LANES),
                load(x, c), load(x, c + LANES), load(x, d), load(x, d + LANES),
            )  # fmt: skip
            store(x, a, ar)
            store(x, a + LANES, ai)
            br, bi = _turn(br, bi, w1r, w1i)
            store(x, b, br)
            store(x, b + LANES, bi)
            cr, ci = _turn(cr, ci, w2r, w2i)
            store(x, c, cr)
            store(x, c + LANES, ci)
            dr, di = _turn(dr, di, w3r, w3i)
            store(x, d, dr)
            store(x, d + LANES, di)


@numba.njit(**JIT)
def _inverse4(x: np.ndarray, start: int, span: int, blocks: int, w: np.ndarray, offset: int) -> None:
    step = span * ROW
    for j in range(span):
        t = offset + 6 * j
        w1r, w1i = fill(w[t]), fill(w[t + 1])
        w2r, w2i = fill(w[t + 2]), fill(w[t + 3])
        w3r, w3i = fill(w[t + 4]), fill(w[t + 5])
        for block in range(blocks):
            a = start + block * 4 * step + j * ROW
            b = a + step
            c = b + step
            d = c + step
            # Real and imaginary parts exchanged: a forward butterfly is then an inverse one.
            bi, br = _turn(load(x, b + LANES), load(x, b), w1r, w1i)
            ci, cr = _turn(load(x, c + LANES), load(x, c), w2r, w2i)
            di, dr = _turn(load(x, d + LANES), load(x, d), w3r, w3i)
            ai, ar, bi, br, ci, cr, di, dr = _dft4(load(x, a + LANES), load(x, a), bi, br, ci, cr, di, dr)
            store(x, a, ar)
            store(x, a + LANES, ai)
            store(x, b, br)
            store(x, b + LANES, bi)
            store(x, c, cr)
            store(x, c + LANES, ci)
            store(x, d, dr)
            store(x, d + LANES, di)


@numba.njit(**JIT)
def _forward2(x: np.ndarray, start: int, span: int, blocks: int, w: np.ndarray, offset: int) -> None:
    step = span * ROW
    for j in range(span):
        wr, wi = fill(w[offset + 2 * j]), fill(w[offset + 2 * j + 1])
        for block in range(blocks):
            a = start + block * 2 * step + j * ROW
            b = a + step
            ar, ai, br, bi = load(x, a), load(x, a + LANES), load(x, b), load(x, b + LANES)
            store(x, a, ar + br)
            store(x, a + LANES, ai + bi)
            br, bi = _turn(ar - br, ai - bi, wr, wi)
            store(x, b, br)
            store(x, b + LANES, bi)


@numba.njit(**JIT)
def _inverse2(x: np.ndarray, start: int, span: int, blocks: int, w: np.ndarray, offset: int) -> None:
    step = span * ROW
    for j in range(span):
        wr, wi = fill(w[offset + 2 * j]), fill(w[offset + 2 * j + 1])
        for block in range(blocks):
            a = start + block * 2 * step + j * ROW
            b = a + step
            ar, ai = load(x, a), load(x, a + LANES)
            bi, br = _turn(load(x, b + LANES), load(x, b), wr, wi)
            store(x, a, ar + br)
            store(x, a + LANES, ai + bi)
            store(x, b, ar - br)
            store(x, b + LANES, ai - bi)


@numba.njit(inline="always")
def _dft3(ar: Any, ai: Any, br: Any, bi: Any, cr: Any, ci: Any) -> Any:
    half, height = fill(np.float32(0.5)), fill(np.float32(0.8660254037844386))
    sr, si = br + cr, bi + ci
    tr, ti = ar - half * sr, ai - half * si
    ur, ui = height * (bi - ci), height * (cr - br)
    return ar + sr, ai + si, tr + ur, ti + ui, tr - ur, ti - ui


@numba.njit(**JIT)
def _forward3(x: np.ndarray, start: int, span: int, blocks: int, w: np.ndarray, offset: int) -> None:
    step = span * ROW
    for j in range(span):
        t = offset + 4 * j
        w1r, w1i, w2r, w2i = fill(w[t]), fill(w[t + 1]), fill(w[t + 2]), fill(w[t + 3])
        for block in range(blocks):
            a = start + block * 3 * step + j * ROW
            b = a + step
            c = b + step
            ar, ai, br, bi, cr, ci = _dft3(
                load(x, a), load(x, a + LANES), load(x, b), load(x, b + LANES), load(x, c), load(x, c + LANES)
            )
            store(x, a, ar)
            store(x, a + LANES, ai)
            br, bi = _turn(br, bi, w1r, w1i)
            store(x, b, br)
            store(x, b + LANES, bi)
            cr, ci = _turn(cr, ci, w2r, w2i)
            store(x, c, cr)
            store(x, c + LANES, ci)


@numba.njit(**JIT)
def _inverse3(x: np.ndarray, start: int, span: int, blocks: int, w: np.ndarray, offset: int) -> None:
    step = span * ROW
    for j in range(span):
        t = offset + 4 * j
        w1r, w1i, w2r, w2i = fill(w[t]), fill(w[t + 1]), fill(w[t + 2]), fill(w[t + 3])
        for block in range(blocks):
            a = start + block * 3 * step + j * ROW
            b = a + step
            c = b + step
            bi, br = _turn(load(x, b + LANES), load(x, b), w1r, w1i)
            ci, cr = _turn(load(x, c + LANES), load(x, c), w2r, w2i)
            ai, ar, bi, br, ci, cr = _dft3(load(x, a + LANES), load(x, a), bi, br, ci, cr)
            store(x, a, ar)
            store(x, a + LANES, ai)
            store(x, b, br)
            store(x, b + LANES, bi)
            store(x, c, cr)
            store(x, c + LANES, ci)


@numba.njit(inline="always")
def _dft5(ar: Any, ai: Any, br: Any, bi: Any, cr: Any, ci: Any, dr: Any, di: Any, er: Any, ei: Any) -> Any:
    c1, c2 = fill(np.float32(0.30901699437494745)), fill(np.float32(-0.8090169943749475))
    s1, s2 = fill(np.float32(0.9510565162951535)), fill(np.float32(0.5877852522924731))
    pr, pi, qr, qi = br + er, bi + ei, cr + dr, ci + di
    ur, ui, vr, vi = br - er, bi - ei, cr - dr, ci - di
    fr, fi = ar + c1 * pr + c2 * qr, ai + c1 * pi + c2 * qi
    gr, gi = ar + c2 * pr + c1 * qr, ai + c2 * pi + c1 * qi
    hr, hi = s1 * ur + s2 * vr, s1 * ui + s2 * vi
    kr, ki = s2 * ur - s1 * vr, s2 * ui - s1 * vi
    return (
        ar + pr + qr, ai + pi + qi, fr + hi, fi - hr, gr + ki, gi - kr, gr - ki, gi + kr, fr - hi, fi + hr
    )  # fmt: skip


@numba.njit(**JIT)
def _forward5(x: np.ndarray, start: int, span: int, blocks: int, w: np.ndarray, offset: int) -> None:
    step = span * ROW
    for j in range(span):
        t = offset + 8 * j
        w1r, w1i, w2r, w2i = fill(w[t]), fill(w[t + 1]), fill(w[t + 2]), fill(w[t + 3])
        w3r, w3i, w4r, w4i = fill(w[t + 4]), fill(w[t + 5]), fill(w[t + 6]), fill(w[t + 7])
        for block in range(blocks):
            a = start + block * 5 * step + j * ROW
            b, c, d, e = a + step, a + 2 * step, a + 3 * step, a + 4 * step
            ar, ai, br, bi, cr, ci, dr, di, er, ei = _dft5(
                load(x, a), load(x, a + LANES), load(x, b), load(x, b + LANES), load(x, c),
                load(x, c + LANES), load(x, d), load(x, d + LANES), load(x, e), load(x, e + LANES),
            )  # fmt: skip
            store(x, a, ar)
            store(x, a + LANES, ai)
            br, bi = _turn(br, bi, w1r, w1i)
            store(x, b, br)
            store(x, b + LANES, bi)
            cr, ci = _turn(cr, ci, w2r, w2i)
            store(x, c, cr)
            store(x, c + LANES, ci)
            dr, di = _turn(dr, di, w3r, w3i)
            store(x, d, dr)
            store(x, d + LANES, di)
            er, ei = _turn(er, ei, w4r, w4i)
            store(x, e, er)
            store(x, e + LANES, ei)


@numba.njit(**JIT)
def _inverse5(x: np.ndarray, start: int, span: int, blocks: int, w: np.ndarray, offset: int) -> None:
    step = span * ROW
    for j in range(span):
        t = offset + 8 * j
        w1r, w1i, w2r, w2i = fill(w[t]), fill(w[t + 1]), fill(w[t + 2]), fill(w[t + 3])
        w3r, w3i, w4r, w4i = fill(w[t + 4]), fill(w[t + 5]), fill(w[t + 6]), fill(w[t + 7])
        for block in range(blocks):
            a = start + block * 5 * step + j * ROW
            b, c, d, e = a + step, a + 2 * step, a + 3 * step, a + 4 * step
            bi, br = _turn(load(x, b + LANES), load(x, b), w1r, w1i)
            ci, cr = _turn(load(x, c + LANES), load(x, c), w2r, w2i)
            di, dr = _turn(load(x, d + LANES), load(x, d), w3r, w3i)
            ei, er = _turn(load(x, e + LANES), load(x, e), w4r, w4i)
            ai, ar, bi, br, ci, cr, di, dr, ei, er = _dft5(
                load(x, a + LANES), load(x, a), bi, br, ci, cr, di, dr, ei, er
            )
            store(x, a, ar)
            store(x, a + LANES, ai)
            store(x, b, br)
            store(x, b + LANES, bi)
            store(x, c, cr)
            store(x, c + LANES, ci)
            store(x, d, dr)
            store(x, d + LANES, di)
            store(x, e, er)
            store(x, e + LANES, ei)
