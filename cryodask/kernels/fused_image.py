"""The fused passes of image correlation: from a template to scores, folded strip by strip in cache."""

import numba
import numpy as np

from cryodask.kernels.fused_forward import multiply_conjugate
from cryodask.kernels.fused_real import real_forward, real_inverse
from cryodask.kernels.image_layout import ImageFold, ImageLayout, ImageScratch
from cryodask.kernels.simd import LANES, transpose
from cryodask.kernels.transforms import JIT, ROW, forward, inverse

SUM_SCALE, SQUARE_SCALE = 2.0**24, 2.0**20


@numba.njit(**JIT)
def pack_image(
    spectrum: np.ndarray, scale: float, y_order: np.ndarray, out: np.ndarray, edge: np.ndarray
) -> None:
    """Reorder a half spectrum for the fused passes.

    Parameters
    ----------
    spectrum
        (Ty, Tx//2 + 1) complex64.
    scale
        Factor on all values.
    y_order
        Row of each frequency.
    out
        (blocks, Ty, 2, 16) float32, written: kx < Tx//2.
    edge
        (2, Ty) complex64, written: kx = 0 and kx = Tx//2, in natural order.
    """
    height, width = spectrum.shape
    out[:] = 0.0
    for y in range(height):
        row = y_order[y]
        for k in range(width - 1):
            value = spectrum[y, k] * scale
            out[k // LANES, row, 0, k % LANES] = value.real
            out[k // LANES, row, 1, k % LANES] = value.imag
        edge[0, y] = spectrum[y, 0] * scale
        edge[1, y] = spectrum[y, width - 1] * scale


@numba.njit(**JIT)
def half_correlate(
    t: ImageLayout,
    s: ImageScratch,
    template: np.ndarray,
    spectrum: np.ndarray,
    edge: np.ndarray,
    out: np.ndarray,
) -> None:
    """Correlate a template with the tile up to the inverse transform along x.

    Parameters
    ----------
    t, s
        Layout and scratch.
    template
        (n, n) float32.
    spectrum, edge
        The tile's, from :func:`pack_image`; the spectrum flat.
    out
        (strips, blocks · 16, 2, 16) float32, flat, written.
    """
    _rows_forward(t, s, template)
    height, padded_rows = t.shape[0], (t.box + LANES - 1) // LANES * LANES
    step = t.blocks * LANES * ROW
    for block in range(t.blocks):
        source = block * padded_rows * ROW
        s.line[: t.box * ROW] = s.columns[source : source + t.box * ROW]
        s.line[t.box * ROW : height * ROW] = np.float32(0.0)
        forward(s.line, 0, t.y_table, t.y_twiddles)
        if block == 0:
            _keep_edge(t, s)
        multiply_conjugate(s.line, 0, spectrum, block * height * ROW, height)
        if block == 0:
            _edge_product(t, s, edge)
        inverse(s.line, 0, t.y_table, t.y_twiddles)
        for strip in range(t.strips):
            target = strip * step + block * LANES * ROW
            transpose(s.line, strip * LANES * ROW, ROW, out, target, ROW)
            transpose(s.line, strip * LANES * ROW + LANES, ROW, out, target + LANES, ROW)


@numba.njit(**JIT)
def _rows_forward(t: ImageLayout, s: ImageScratch, template: np.ndarray) -> None:
    """Transform the rows of a template: columns (block, y, 2, 16)."""
    n, edge = t.box, (t.box + LANES - 1) // LANES * LANES
    for y in range(n):
        s.padded[y * edge : y * edge + n] = template[y]
    for first in range(0, n, LANES):
        for x in range(0, edge, LANES):
            transpose(s.padded, first * edge + x, edge, s.line, x * LANES, LANES)
        s.line[n * LANES : t.shape[1] * LANES] = np.float32(0.0)
        real_forward(s.line, s.half, t.x_order, t.x_turn, t.x_table, t.x_twiddles)
        for block in range(t.blocks):
            source, target = block * LANES * ROW, (block * edge + first) * ROW
            transpose(s.half, source, ROW, s.columns, target, ROW)
            transpose(s.half, source + LANES, ROW, s.columns, target + LANES, ROW)


@numba.njit(**JIT)
def _keep_edge(t: ImageLayout, s: ImageScratch) -> None:
    """Copy the column of kx = 0 and Tx/2, which the product with the spectrum of kx = 0 destroys."""
    for y in range(t.shape[0]):
        s.half[2 * y] = s.line[y * ROW]
        s.half[2 * y + 1] = s.line[y * ROW + LANES]


@numba.njit(**JIT)
def _edge_product(t: ImageLayout, s: ImageScratch, edge: np.ndarray) -> None:
    """Replace the column of kx = 0 by the products at kx = 0 and Tx/2, one as i times the other."""
    height = t.shape[0]
    for y in range(height):
        here, mate = 2 * t.y_order[y], 2 * t.y_order[(height - y) % height]
        a = complex(s.half[here], s.half[here + 1])
        b = complex(s.half[mate], -s.half[mate + 1])
        first, last = 0.5 * (a + b), -0.5j * (a - b)
        product = edge[0, y] * np.conj(first) + 1j * (edge[1, y] * np.conj(last))
        row = t.y_order[y] * ROW
        s.line[row] = product.real
        s.line[row + LANES] = product.imag


@numba.njit(**JIT)
def fold_strips(
    t: ImageLayout, s: ImageScratch, halves: np.ndarray, ids: np.ndarray, state: ImageFold, counts: np.ndarray
) -> None:
    """Transform a group of hypotheses back along x and fold their scores, a strip at a time.

    Parameters
    ----------
    t, s
        Layout and scratch.
    halves
        (b, floats) from :func:`half_correlate`.
    ids
        (b,) uint32.
    state
        Changed in place.
    counts
        Histogram of scores, int64, changed in place; empty for none.
    """
    floats, step = t.valid[1] * LANES, t.blocks * LANES * ROW
    rows = t.valid[0] - (t.strips - 1) * LANES
    for strip in range(t.strips):
        begin = strip * floats
        value, best = state.value[begin : begin + floats], state.id[begin : begin + floats]
        first, second = state.block_sum[begin : begin + floats], state.block_square[begin : begin + floats]
        for r in range(ids.size):
            real_inverse(s.line, halves[r], strip * step, t.x_order, t.x_turn, t.x_table, t.x_twiddles)
            score = s.line[:floats]
            hits = _moments(score, value, first, second)
            if hits > 0:
                _maximum(score, ids[r], value, best)
            if counts.size > 0:
                _count(score, LANES if strip < t.strips - 1 else rows, counts)


@numba.njit(**JIT)
def _moments(score: np.ndarray, value: np.ndarray, first: np.ndarray, second: np.ndarray) -> int:
    """Add scores to the block sums; return how many reach the maximum."""
    hits = np.uint32(0)
    for i in range(score.size):
        a = score[i]
        first[i] += a
        second[i] += a * a
        hits += np.uint32(a >= value[i])
    return int(hits)


@numba.njit(**JIT)
def _maximum(score: np.ndarray, row: int, value: np.ndarray, best: np.ndarray) -> None:
    """Keep the larger score and on a tie the lower id."""
    for i in range(score.size):
        larger = score[i] > value[i]
        tied = (score[i] == value[i]) & (row < best[i])
        best[i] = row if larger | tied else best[i]
        value[i] = score[i] if larger else value[i]


@numba.njit(**JIT)
def _count(score: np.ndarray, lanes: int, counts: np.ndarray) -> None:
    """Count scores of the first lanes in equal bins over [-12.5, 22.5); what is beyond goes to the ends."""
    scale = np.float32(counts.size / 35.0)
    for start in range(0, score.size, LANES):
        for lane in range(lanes):
            place = int(np.floor((score[start + lane] + np.float32(12.5)) * scale))
            counts[min(max(place, 0), counts.size - 1)] += 1


@numba.njit(**JIT)
def end_block(state: ImageFold) -> None:
    """Add the block's float32 sums to the exact integers, and begin the next block."""
    for i in range(state.total.size):
        state.total[i] += np.int64(np.rint(np.float64(state.block_sum[i]) * SUM_SCALE))
        state.block_sum[i] = 0.0
    for i in range(state.square.size):
        state.square[i] += np.int64(np.rint(np.float64(state.block_square[i]) * SQUARE_SCALE))
        state.block_square[i] = 0.0
