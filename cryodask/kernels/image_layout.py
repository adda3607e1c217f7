"""Lengths, tables and scratch of the fused correlation of an image tile.

Half spectra are packed as in the volume kernel; 16 values of kx, or 16 rows y, are the lanes of a vector.
16 rows are a strip; what is kept per position lies strip by strip as (x, lane), so that scores are folded as
the inverse transform leaves them.
"""

from typing import NamedTuple

import numpy as np

from cryodask.kernels.simd import LANES, aligned_empty
from cryodask.kernels.transforms import ROW, factors, order, stages

ImageShape = tuple[int, int]


class ImageLayout(NamedTuple):
    """Everything that depends on lengths alone."""

    shape: ImageShape
    valid: ImageShape
    box: int
    blocks: int
    strips: int
    y_order: np.ndarray
    x_order: np.ndarray
    x_turn: np.ndarray
    y_table: np.ndarray
    y_twiddles: np.ndarray
    x_table: np.ndarray
    x_twiddles: np.ndarray


class ImageScratch(NamedTuple):
    """Arrays that one hypothesis needs and the next one overwrites."""

    padded: np.ndarray
    line: np.ndarray
    half: np.ndarray
    columns: np.ndarray


class ImageFold(NamedTuple):
    """What is kept per position, (strips, vx, 16): block sums are float32, `total` and `square` int64."""

    value: np.ndarray
    id: np.ndarray
    block_sum: np.ndarray
    block_square: np.ndarray
    total: np.ndarray
    square: np.ndarray


def rounded_up(length: int) -> int:
    """Return the least multiple of 16 that is not below a length."""
    return -(-length // LANES) * LANES


def is_supported(shape: tuple[int, ...]) -> bool:
    """Say whether the fused passes have transforms for a tile: 2,3,5-smooth lengths, the last even."""
    return shape[1] % 2 == 0 and min(shape) >= 4 and bool(factors(shape[0]) and factors(shape[1] // 2))


def make_layout(shape: ImageShape, valid: ImageShape, box: int) -> ImageLayout:
    """Return the layout of a tile.

    Parameters
    ----------
    shape, valid
        (Ty, Tx) pixels and (vy, vx) positions.
    box
        Edge n of the template, pixels.
    """
    height, half = shape[0], shape[1] // 2
    angle = 2.0 * np.pi * np.arange(half) / shape[1]
    return ImageLayout(
        shape,
        valid,
        box,
        rounded_up(half) // LANES,
        rounded_up(valid[0]) // LANES,
        order(height),
        order(half),
        np.stack([-np.sin(angle), np.cos(angle)], axis=-1).astype(np.float32).ravel(),
        *stages(height),
        *stages(half),
    )


def half_done_floats(layout: ImageLayout) -> int:
    """Return the floats of one hypothesis, transformed back along y alone."""
    return layout.strips * layout.blocks * LANES * ROW


def make_scratch(layout: ImageLayout) -> ImageScratch:
    """Return scratch for a layout."""
    (height, width), edge = layout.shape, rounded_up(layout.box)
    return ImageScratch(
        padded=_zeros(edge * edge),
        line=_zeros(max(rounded_up(height) * ROW, (rounded_up(width) + edge) * LANES)),
        half=_zeros(layout.blocks * LANES * ROW),
        columns=_zeros(layout.blocks * edge * ROW),
    )


def make_fold(layout: ImageLayout) -> ImageFold:
    """Return the state before any hypothesis."""
    size = layout.strips * layout.valid[1] * LANES
    return ImageFold(
        np.full(size, -np.inf, np.float32),
        np.full(size, 0xFFFFFFFF, np.uint32),
        _zeros(size),
        _zeros(size),
        np.zeros(size, np.int64),
        np.zeros(size, np.int64),
    )


def unpack(layout: ImageLayout, array: np.ndarray) -> np.ndarray:
    """Return an array of the state as (vy, vx)."""
    height, width = layout.valid
    strips = array.reshape(layout.strips, width, LANES)
    rows = strips.transpose(0, 2, 1).reshape(layout.strips * LANES, width)
    return np.ascontiguousarray(rows[:height])


def _zeros(size: int) -> np.ndarray:
    out = aligned_empty((size,))
    out[:] = 0.0
    return out
