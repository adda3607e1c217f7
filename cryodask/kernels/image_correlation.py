"""Cross-correlation of an image tile with many templates, folded into maximum, id and exact sums.

cc(s) = Σ x(s + u) t(u) at the top-left corners s of the template; the tile begins at the first position. Sums
over a block of hypotheses are float32, then added to int64 as multiples of 2^-24 and 2^-20: any order of
blocks, batches and merges gives the same bits. Fused passes do it on a CPU for 2,3,5-smooth lengths; library
FFTs on a GPU and for other lengths.
"""

from typing import Any, Protocol

import numpy as np

from cryodask.arrays.module import array_module
from cryodask.kernels.fft_library import fft_library
from cryodask.kernels.fused_image import (
    SQUARE_SCALE,
    SUM_SCALE,
    end_block,
    fold_strips,
    half_correlate,
    pack_image,
)
from cryodask.kernels.image_layout import (
    half_done_floats,
    is_supported,
    make_fold,
    make_layout,
    make_scratch,
    rounded_up,
    unpack,
)
from cryodask.kernels.simd import LANES, aligned_empty
from cryodask.kernels.transforms import ROW

HISTOGRAM_BINS, HISTOGRAM_LOW, HISTOGRAM_HIGH = 512, -12.5, 22.5
GROUP = 3  # hypotheses that share one pass over the state: more no longer fit the cache
NO_ID = np.uint32(0xFFFFFFFF)
LARGEST_STACK = 32

ImageState = dict[str, Any]


class ImageSearch(Protocol):
    """A tile, its spectrum, and what is kept per position while hypotheses pass."""

    def fold(self, templates: Any, ids: Any) -> None:
        """Fold the scores of templates (b, n, n) with ids (b,) into the state."""

    def end_block(self) -> None:
        """Add the block's sums to the exact ones."""

    def result(self) -> ImageState:
        """Return the state: value, id, sum and square_sum, each (vy, vx), and counts where they are kept."""


def image_search(tile: Any, *, box: int, valid: tuple[int, int], histogram: bool = False) -> ImageSearch:
    """Begin the search of a tile.

    Parameters
    ----------
    tile
        (Ty, Tx) float32; begins at the first position.
    box
        Edge n of the templates, pixels.
    valid
        (vy, vx) positions: at most T - n + 1, or T for an axis on which the tile is the whole periodic image.
    histogram
        Count all scores in 512 bins over [-12.5, 22.5) too.

    Raises
    ------
    ValueError
        If a length does not fit the box.
    """
    for length, positions in zip(tile.shape, valid, strict=True):
        if length < box:
            raise ValueError(f"tile of {length} pixels is smaller than the box of {box}")
        if positions != length and not 1 <= positions <= length - box + 1:
            raise ValueError(f"{positions} positions on {length} pixels, expected at most {length - box + 1}")
    if array_module(tile) is np and is_supported(tile.shape):
        return FusedImage(tile, box=box, valid=valid, histogram=histogram)
    return WholeImage(tile, box=box, valid=valid, histogram=histogram)


class FusedImage:
    """The search of a tile by fused passes on a CPU; parameters as in `image_search`."""

    def __init__(self, tile: np.ndarray, *, box: int, valid: tuple[int, int], histogram: bool) -> None:
        height, width = tile.shape
        self.layout = make_layout((height, width), valid, box)
        self.scratch, self.state = make_scratch(self.layout), make_fold(self.layout)
        self.counts = np.zeros(HISTOGRAM_BINS if histogram else 0, np.int64)
        self.halves = aligned_empty((GROUP, half_done_floats(self.layout)))
        spectrum = aligned_empty((self.layout.blocks, height, 2, LANES))
        self.edge = np.empty((2, height), np.complex64)
        # the fused forward transform is twice as large as the usual one
        scale = np.float32(0.5 / tile.size)
        half = fft_library(np).rfft2(np.asarray(tile, np.float32))
        pack_image(half, scale, self.layout.y_order, spectrum, self.edge)
        self.spectrum = spectrum.reshape(-1)

    def fold(self, templates: Any, ids: Any) -> None:
        """Fold the scores of templates (b, n, n) with ids (b,) into the state."""
        rows = np.asarray(ids, np.uint32)
        for start in range(0, len(rows), GROUP):
            some = rows[start : start + GROUP]
            for template, half in zip(templates[start : start + GROUP], self.halves, strict=False):
                half_correlate(self.layout, self.scratch, template, self.spectrum, self.edge, half)
            fold_strips(self.layout, self.scratch, self.halves, some, self.state, self.counts)

    def end_block(self) -> None:
        """Add the block's sums to the exact ones."""
        end_block(self.state)

    def result(self) -> ImageState:
        """Return the state of all positions."""
        found = {
            "value": unpack(self.layout, self.state.value),
            "id": unpack(self.layout, self.state.id),
            "sum": unpack(self.layout, self.state.total),
            "square_sum": unpack(self.layout, self.state.square),
        }
        return found | ({"counts": self.counts} if self.counts.size else {})


class WholeImage:
    """The search of a tile by library FFTs, on NumPy or CuPy; parameters as in `image_search`."""

    def __init__(self, tile: Any, *, box: int, valid: tuple[int, int], histogram: bool) -> None:
        xp = self.xp = array_module(tile)
        self.shape, self.box, self.valid = tile.shape, box, valid
        self.spectrum = fft_library(xp).rfft2(xp.asarray(tile, dtype=xp.float32))
        self.value = xp.full(valid, -xp.inf, xp.float32)
        self.id = xp.full(valid, NO_ID, xp.uint32)
        self.block = xp.zeros((2, *valid), xp.float32)
        self.sums = xp.zeros((2, *valid), xp.int64)
        self.counts = xp.zeros(HISTOGRAM_BINS if histogram else 0, xp.int64)
        self.stack = 1 if xp is np else templates_per_call(tile.shape, _free_memory())

    def fold(self, templates: Any, ids: Any) -> None:
        """Fold the scores of templates (b, n, n) with ids (b,) into the state."""
        rows = np.asarray(ids, np.uint32)
        for start in range(0, len(rows), self.stack):
            some = rows[start : start + self.stack]
            scores = self._scores(templates[start : start + self.stack])
            if self.xp is np:
                for score, row in zip(scores, some, strict=True):
                    self._update(score, row)
            else:
                from cryodask.kernels.cuda_image import update_image

                update_image(scores, some, self.value, self.id, self.block)
            if self.counts.size:
                self._count(scores)

    def _scores(self, templates: Any) -> Any:
        fft = fft_library(self.xp)
        product = fft.rfft2(self.xp.asarray(templates, dtype=self.xp.float32), self.shape, axes=(-2, -1))
        self.xp.conj(product, out=product)
        product *= self.spectrum
        whole = fft.irfft2(product, self.shape, axes=(-2, -1))
        return whole[..., : self.valid[0], : self.valid[1]]

    def _update(self, score: np.ndarray, row: np.uint32) -> None:
        better = (score > self.value) | ((score == self.value) & (row < self.id))
        np.copyto(self.value, score, where=better)
        np.copyto(self.id, row, where=better)
        self.block[0] += score
        self.block[1] += score * score

    def _count(self, scores: Any) -> None:
        xp = self.xp
        place = xp.floor(
            (scores.ravel() - HISTOGRAM_LOW) * (HISTOGRAM_BINS / (HISTOGRAM_HIGH - HISTOGRAM_LOW))
        )
        place = xp.clip(place, 0, HISTOGRAM_BINS - 1).astype(xp.int64)
        self.counts += xp.bincount(place, minlength=HISTOGRAM_BINS)

    def end_block(self) -> None:
        """Add the block's sums to the exact ones."""
        xp = self.xp
        for sums, block, scale in zip(self.sums, self.block, (SUM_SCALE, SQUARE_SCALE), strict=True):
            sums += xp.rint(block.astype(xp.float64) * scale).astype(xp.int64)
        self.block[:] = 0

    def result(self) -> ImageState:
        """Return the state of all positions."""
        found = {"value": self.value, "id": self.id, "sum": self.sums[0], "square_sum": self.sums[1]}
        return found | ({"counts": self.counts} if self.counts.size else {})


def templates_per_call(shape: tuple[int, ...], free: float) -> int:
    """Return how many templates one FFT call may hold: 1 to 32, in two fifths of a device's free memory.

    Parameters
    ----------
    shape
        (Ty, Tx) of the tile.
    free
        Bytes.
    """
    each = 16 * shape[0] * shape[1]
    return int(max(1, min(LARGEST_STACK, 0.4 * free // each)))


def _free_memory() -> float:
    import cupy

    return float(cupy.cuda.runtime.memGetInfo()[0] + cupy.get_default_memory_pool().free_bytes())


def workspace_bytes(block: tuple[int, int], valid: tuple[int, int], box: int) -> float:
    """Return the bytes that the search of a tile holds, the tile and its result included.

    Parameters
    ----------
    block, valid
        (Ty, Tx) and (vy, vx).
    box
        Edge n of the templates, pixels.
    """
    height, half = block[0], rounded_up(block[1] // 2)
    strips, edge = rounded_up(valid[0]), rounded_up(box)
    spectra = 4.0 * block[0] * block[1] + 2 * 8.0 * height * half
    halves = GROUP * 8.0 * strips * half
    scratch = 4.0 * (edge * edge + half * ROW // LANES + half * edge * 2) + 4.0 * max(height, half) * ROW
    state = (32.0 + 24.0) * strips * valid[1]
    return spectra + halves + scratch + state
