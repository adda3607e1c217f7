"""Lengths, tables and scratch of the fused correlation of one tile shape.

Half spectra are packed: the frequency kx = Px/2 rides in the imaginary part of kx = 0, which is real after
the other two axes are transformed back. 16 values of kx are the lanes of a vector.
"""

from typing import NamedTuple

import numpy as np

from cryodask.kernels.simd import LANES, aligned_empty
from cryodask.kernels.transforms import ROW, factors, order, stages

Shape = tuple[int, int, int]


class Layout(NamedTuple):
    """Everything that depends on lengths alone; `rows` and `blocks` are the ky rows and kx blocks kept."""

    shape: Shape
    valid: Shape
    box: int
    blocks: int
    all_blocks: int
    nyquist: bool
    rows: np.ndarray
    dft: np.ndarray
    x_order: np.ndarray
    x_turn: np.ndarray
    z_table: np.ndarray
    z_twiddles: np.ndarray
    y_table: np.ndarray
    y_twiddles: np.ndarray
    x_table: np.ndarray
    x_twiddles: np.ndarray


class Scratch(NamedTuple):
    """Arrays that one rotation needs and the next one overwrites."""

    columns: np.ndarray
    line: np.ndarray
    column: np.ndarray
    second: np.ndarray
    nyquist: np.ndarray
    x_lines: np.ndarray
    planes: np.ndarray
    sums: np.ndarray


def padded(length: int) -> int:
    """Return the least multiple of 16 that is not below a length."""
    return -(-length // LANES) * LANES


def is_supported(shape: tuple[int, ...]) -> bool:
    """Say whether the fused passes have transforms for a tile: 2,3,5-smooth lengths, the last even."""
    even = shape[2] % 2 == 0 and shape[2] >= 4
    return even and min(shape) >= 2 and all(factors(length) for length in shape)


def make_layout(shape: Shape, valid: Shape, box: int, fraction: float = 1.0) -> Layout:
    """Return the layout of a tile.

    Parameters
    ----------
    shape, valid
        (Pz, Py, Px) voxels and (Tz, Ty, Tx) positions.
    box
        Edge n of the template box, voxels.
    fraction
        Frequencies ky, kx at or above this fraction of Nyquist are left out.
    """
    half = shape[2] // 2
    all_blocks = padded(half) // LANES
    kept = half if fraction >= 1.0 else min(half, int(np.ceil(fraction * half)))
    frequency = np.abs(np.fft.fftfreq(shape[1]))
    rows = order(shape[1])[(frequency < 0.5 * fraction) | (fraction >= 1.0)]
    k = np.arange(half)
    angle = 2.0 * np.pi * k / shape[2]
    tables = [stages(length) for length in (shape[0], shape[1], half)]
    return Layout(
        shape,
        valid,
        box,
        padded(kept) // LANES,
        all_blocks,
        fraction >= 1.0,
        np.sort(rows),
        _dft_matrix(box, shape[2], kept, all_blocks),
        order(half),
        np.stack([-np.sin(angle), np.cos(angle)], axis=-1).astype(np.float32).ravel(),
        *(array for pair in tables for array in pair),
    )


def _dft_matrix(box: int, length: int, kept: int, blocks: int) -> np.ndarray:
    """Return exp(-2πi k x/length) as (blocks, box, 2, 16), flat, 0 for k not kept."""
    k = np.arange(blocks * LANES)
    angle = -2.0 * np.pi / length * np.outer(np.arange(box), k)
    matrix = np.stack([np.cos(angle), np.sin(angle)], axis=1) * (k < kept)
    out = aligned_empty((blocks, box, 2, LANES))
    out[:] = matrix.reshape(box, 2, blocks, LANES).transpose(2, 0, 1, 3)
    return out.reshape(-1)


def nyquist_rows(shape: Shape, box: int) -> int:
    """Return the rows that a line of 16 ky takes in the plane of kx = Px/2."""
    return max(shape[0], padded(box))


def half_done_floats(layout: Layout) -> int:
    """Return the floats of one rotation's spectrum, transformed back along z alone."""
    return layout.valid[0] * layout.blocks * layout.rows.size * ROW


def make_scratch(layout: Layout, planes: int) -> Scratch:
    """Return scratch for a layout, with room for a number of (y, x) planes.

    Parameters
    ----------
    layout
        With all frequencies.
    planes
        Planes kept at a time.
    """
    pz, py, px = layout.shape
    n = layout.box
    line_rows = max(padded(py), padded(px) // 2 + LANES, padded(n))
    plane = padded(layout.valid[1]) * padded(px)
    return Scratch(
        columns=_zeros(py * n * ROW),
        line=_zeros(line_rows * ROW),
        column=_zeros(pz * ROW),
        second=_zeros(pz * ROW),
        nyquist=_zeros(padded(py) // LANES * nyquist_rows(layout.shape, n) * ROW),
        x_lines=_zeros(padded(layout.valid[1]) // LANES * layout.all_blocks * LANES * ROW),
        planes=_zeros(planes * plane),
        sums=_zeros(2 * layout.valid[2]),
    )


def _zeros(size: int) -> np.ndarray:
    out = aligned_empty((size,))
    out[:] = 0.0
    return out
