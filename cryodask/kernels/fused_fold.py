"""From spectra transformed back along z to scores, folded into a tile's state plane by plane, in cache."""

from typing import NamedTuple

import numba
import numpy as np

from cryodask.kernels.fused_layout import Layout, Scratch
from cryodask.kernels.fused_real import real_inverse
from cryodask.kernels.simd import LANES, load, store, transpose
from cryodask.kernels.transforms import JIT, ROW, inverse

LEAST_VARIANCE = np.float32(1e-6)


class FoldState(NamedTuple):
    """A tile's aggregates, each (Tz, Ty, Tx); the sums are empty when they are not kept.

    `label` (Tz, Ty, Tx) and `allowed` (b, kinds) are those of a `Restriction`, empty where there is none.
    """

    value: np.ndarray
    id: np.ndarray
    sum: np.ndarray
    square_sum: np.ndarray
    label: np.ndarray
    allowed: np.ndarray


@numba.njit(**JIT)
def fold(t: Layout, s: Scratch, halves: np.ndarray, ids: np.ndarray, state: FoldState) -> None:
    """Fold num of a group of rotations into the state.

    Parameters
    ----------
    t, s
        Layout and scratch with a plane for each rotation.
    halves
        (b, floats) from ``half_transform``.
    ids
        (b,) uint32 rows.
    state
        Changed in place.
    """
    size = _plane_floats(t)
    for z in range(t.valid[0]):
        for r in range(ids.size):
            _plane(t, s, halves[r], z, r * size)
        _update_plane(t, s, ids, z, state)


@numba.njit(**JIT)
def fold_with_norm(
    t: Layout, s: Scratch, halves: np.ndarray, ids: np.ndarray, inverse_norm: np.ndarray, state: FoldState
) -> None:
    """As :func:`fold`, for scores num · inverse_norm (Tz, Ty, Tx); where that is 0 nothing is scored."""
    size = _plane_floats(t)
    width = _width(t)
    for z in range(t.valid[0]):
        for r in range(ids.size):
            _plane(t, s, halves[r], z, r * size)
            for y in range(t.valid[1]):
                begin = r * size + y * width
                _scale(s.planes[begin : begin + t.valid[2]], inverse_norm[z, y])
        _update_plane(t, s, ids, z, state)


@numba.njit(**JIT)
def fold_with_statistics(
    t: Layout,
    c: Layout,
    s: Scratch,
    halves: np.ndarray,
    statistics: np.ndarray,
    counts: np.ndarray,
    ids: np.ndarray,
    state: FoldState,
) -> None:
    """As :func:`fold`, for scores num / √(N·A - B²).

    Parameters
    ----------
    c
        Layout of A and B; the scratch has two more planes than rotations.
    statistics
        (2b, floats) from ``half_transform_twice``: A and B of each rotation.
    counts
        (b,) float32 mask sums N.
    """
    size, width = _plane_floats(t), _width(t)
    square, total = ids.size * size, (ids.size + 1) * size
    for z in range(t.valid[0]):
        for r in range(ids.size):
            _plane(t, s, halves[r], z, r * size)
            _plane(c, s, statistics[2 * r], z, square)
            _plane(c, s, statistics[2 * r + 1], z, total)
            for y in range(t.valid[1]):
                a, b = square + y * width, total + y * width
                norm = s.planes[a : a + t.valid[2]]
                _inverse_norm(norm, s.planes[b : b + t.valid[2]], counts[r])
                begin = r * size + y * width
                _scale(s.planes[begin : begin + t.valid[2]], norm)
        _update_plane(t, s, ids, z, state)


@numba.njit(**JIT)
def write_inverse_norm(
    c: Layout, s: Scratch, statistics: np.ndarray, count: float, inverse_norm: np.ndarray
) -> None:
    """Write 1/√(N·A - B²) (Tz, Ty, Tx) of one mask; the scratch has two planes."""
    size, width = _plane_floats(c), _width(c)
    for z in range(c.valid[0]):
        _plane(c, s, statistics[0], z, 0)
        _plane(c, s, statistics[1], z, size)
        for y in range(c.valid[1]):
            norm = s.planes[y * width : y * width + c.valid[2]]
            _inverse_norm(norm, s.planes[size + y * width : size + y * width + c.valid[2]], count)
            inverse_norm[z, y] = norm


@numba.njit(**JIT)
def _width(t: Layout) -> int:
    return (t.shape[2] + LANES - 1) // LANES * LANES


@numba.njit(**JIT)
def _plane_floats(t: Layout) -> int:
    return (t.valid[1] + LANES - 1) // LANES * LANES * _width(t)


@numba.njit(**JIT)
def _plane(t: Layout, s: Scratch, half: np.ndarray, z: int, target: int) -> None:
    """Transform one z back along y and x: (y, x) from float `target` of the planes on."""
    strips = (t.valid[1] + LANES - 1) // LANES
    x_rows = t.all_blocks * LANES
    rows = t.rows.size
    for block in range(t.blocks):
        source = (block * t.valid[0] + z) * rows * ROW
        if rows < t.shape[1]:
            s.line[: t.shape[1] * ROW] = np.float32(0.0)
        for i in range(rows):
            row = t.rows[i] * ROW
            store(s.line, row, load(half, source + i * ROW))
            store(s.line, row + LANES, load(half, source + i * ROW + LANES))
        inverse(s.line, 0, t.y_table, t.y_twiddles)
        for strip in range(strips):
            begin = (strip * x_rows + block * LANES) * ROW
            transpose(s.line, strip * LANES * ROW, ROW, s.x_lines, begin, ROW)
            transpose(s.line, strip * LANES * ROW + LANES, ROW, s.x_lines, begin + LANES, ROW)
    for strip in range(strips):
        begin = strip * x_rows * ROW
        s.x_lines[begin + t.blocks * LANES * ROW : begin + x_rows * ROW] = np.float32(0.0)
        real_inverse(s.line, s.x_lines, begin, t.x_order, t.x_turn, t.x_table, t.x_twiddles)
        width = _width(t)
        for x in range(0, width, LANES):
            transpose(s.line, x * LANES, LANES, s.planes, target + strip * LANES * width + x, width)


@numba.njit(**JIT)
def _inverse_norm(square: np.ndarray, total: np.ndarray, count: float) -> None:
    """Replace A by 1/√(N·A - B²), or 0."""
    least = LEAST_VARIANCE * np.float32(count) * np.float32(count)
    for x in range(square.size):
        variance = np.float32(count) * square[x] - total[x] * total[x]
        inside = variance > least
        root = np.sqrt(variance if inside else np.float32(1.0))
        square[x] = np.float32(1.0) / root if inside else np.float32(0.0)


@numba.njit(**JIT)
def _scale(score: np.ndarray, norm: np.ndarray) -> None:
    """Multiply by the norm; -inf where it is 0."""
    for x in range(score.size):
        score[x] = score[x] * norm[x] if norm[x] > np.float32(0.0) else np.float32(-np.inf)


@numba.njit(**JIT)
def _forbid(score: np.ndarray, label: np.ndarray, allowed: np.ndarray) -> None:
    """Put -inf where a rotation is not allowed."""
    for x in range(score.size):
        score[x] = score[x] if allowed[label[x]] else np.float32(-np.inf)


@numba.njit(**JIT)
def _update_plane(t: Layout, s: Scratch, ids: np.ndarray, z: int, state: FoldState) -> None:
    size, width = _plane_floats(t), _width(t)
    for y in range(t.valid[1]):
        for r in range(ids.size):
            begin = r * size + y * width
            if state.label.size > 0:
                _forbid(s.planes[begin : begin + t.valid[2]], state.label[z, y], state.allowed[r])
            _maximum(s.planes[begin : begin + t.valid[2]], ids[r], state.value[z, y], state.id[z, y])
        if state.sum.size > 0:
            _moments(s, y * width, size, ids.size, state.sum[z, y], state.square_sum[z, y])


@numba.njit(**JIT)
def _maximum(score: np.ndarray, row: int, value: np.ndarray, ids: np.ndarray) -> None:
    """Keep the larger score and on a tie the lower row; rows are touched only where a line changes."""
    hits = np.uint32(0)
    for x in range(score.size):
        hits += np.uint32(score[x] >= value[x])
    if hits == 0:
        return
    for x in range(score.size):
        larger = score[x] > value[x]
        tied = (score[x] == value[x]) & (row < ids[x]) & (score[x] > np.float32(-np.inf))
        ids[x] = row if larger | tied else ids[x]
        value[x] = score[x] if larger else value[x]


@numba.njit(**JIT)
def _moments(
    s: Scratch, begin: int, size: int, rotations: int, total: np.ndarray, square: np.ndarray
) -> None:
    """Add a group's scores, summed in float32, to the float64 sums."""
    first, second = s.sums[: total.size], s.sums[total.size : 2 * total.size]
    first[:] = np.float32(0.0)
    second[:] = np.float32(0.0)
    for r in range(rotations):
        scores = s.planes[begin + r * size : begin + r * size + total.size]
        for x in range(total.size):
            score = scores[x] if abs(scores[x]) < np.float32(np.inf) else np.float32(0.0)
            first[x] += score
            second[x] += score * score
    for x in range(total.size):
        total[x] += np.float64(first[x])
    for x in range(total.size):
        square[x] += np.float64(second[x])
