"""Correlation of one tile on a CPU by fused passes: transforms, products, statistics and maxima in cache."""

from typing import Any

import numpy as np

from cryodask.kernels.fused_fold import (
    FoldState,
    fold,
    fold_with_norm,
    fold_with_statistics,
    write_inverse_norm,
)
from cryodask.kernels.fused_forward import half_transform, half_transform_twice, pack_spectrum
from cryodask.kernels.fused_layout import (
    Layout,
    Scratch,
    Shape,
    half_done_floats,
    make_layout,
    make_scratch,
    padded,
)
from cryodask.kernels.memory import GENERAL_GROUP, GROUP, MOMENTS_GROUP
from cryodask.kernels.simd import LANES, aligned_empty
from cryodask.kernels.tile_state import Restriction, slice_of
from cryodask.kernels.transforms import order
from cryodask.kernels.whole_array import half_spectrum


class FusedTile:
    """Spectra of a tile in the order of the fused passes, with their scratch.

    Parameters
    ----------
    block
        (Pz, Py, Px) float32, 2,3,5-smooth lengths, Px even.
    box
        Edge n of the template box, voxels.
    valid
        (Tz, Ty, Tx) positions.
    squares
        Hold the spectrum of block² too.
    """

    def __init__(self, block: np.ndarray, *, box: int, valid: Shape, squares: bool) -> None:
        shape = (int(block.shape[0]), int(block.shape[1]), int(block.shape[2]))
        positions = (int(valid[0]), int(valid[1]), int(valid[2]))
        self.layout = make_layout(shape, positions, box)
        self.valid = positions
        self.signal = self._pack(block)
        self.squares = self._pack(block * block) if squares else None
        self._layouts: dict[float, Layout] = {1.0: self.layout}
        self._scratch: Scratch | None = None
        self._halves: dict[str, np.ndarray] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of spectra and scratch held now."""
        held = [*self.signal, *(self.squares or ()), *self._halves.values(), *(self._scratch or ())]
        return sum(array.nbytes for array in held)

    def drop_squares(self) -> None:
        """Free the spectrum of block² and the scratch of statistics."""
        self.squares = None
        self._halves.clear()

    def fold(
        self,
        templates: Any,
        ids: Any,
        state: dict[str, np.ndarray],
        inverse_norm: Any = None,
        restriction: Restriction | None = None,
    ) -> None:
        """Fold num, or num · inverse_norm, of each rotation into a state, where it is allowed."""
        size = MOMENTS_GROUP if "sum" in state else GROUP
        layout, scratch = self.layout, self._planes(size)
        halves = self._buffer("num", size, layout)
        rows = np.asarray(ids, dtype=np.uint32)
        for start in range(0, len(rows), size):
            group = rows[start : start + size]
            folded = fold_state(state, restriction, slice(start, start + size))
            for half, template in zip(halves, templates[start : start + size], strict=False):
                half_transform(layout, scratch, flat(template), *self.signal, half)
            if inverse_norm is None:
                fold(layout, scratch, halves, group, folded)
            else:
                fold_with_norm(layout, scratch, halves, group, inverse_norm, folded)

    def fold_general(
        self,
        templates: Any,
        masks: Any,
        counts: Any,
        ids: Any,
        state: dict[str, np.ndarray],
        fraction: float,
        restriction: Restriction | None = None,
    ) -> None:
        """Fold the scores of rotations with a mask each into a state, where they are allowed."""
        layout, scratch = self.layout, self._planes(GENERAL_GROUP + 2)
        coarse = self._coarse(fraction)
        halves = self._buffer("num", GENERAL_GROUP, layout)
        statistics = self._buffer("statistics", 2 * GENERAL_GROUP, coarse)
        rows, sums = np.asarray(ids, dtype=np.uint32), np.asarray(counts, dtype=np.float32)
        for start in range(0, len(rows), GENERAL_GROUP):
            group = slice(start, start + GENERAL_GROUP)
            folded = fold_state(state, restriction, group)
            for r, (template, mask) in enumerate(zip(templates[group], masks[group], strict=True)):
                half_transform(layout, scratch, flat(template), *self.signal, halves[r])
                self._statistics(coarse, scratch, mask, statistics[2 * r], statistics[2 * r + 1])
            fold_with_statistics(
                layout, coarse, scratch, halves, statistics, sums[group], rows[group], folded
            )

    def inverse_norm(self, mask: Any, count: float, fraction: float) -> np.ndarray:
        """Return 1/√(N·A - B²), (Tz, Ty, Tx), 0 where it has no meaning."""
        coarse, scratch = self._coarse(fraction), self._planes(2)
        statistics = self._buffer("statistics", 2, coarse)
        self._statistics(coarse, scratch, mask, statistics[0], statistics[1])
        out = np.empty(self.valid, np.float32)
        write_inverse_norm(coarse, scratch, statistics, float(count), out)
        return out

    def _statistics(self, coarse: Layout, scratch: Scratch, mask: Any, a: np.ndarray, b: np.ndarray) -> None:
        if self.squares is None:
            raise ValueError("local statistics need tile_spectra(..., squares=True)")
        spectra, edges = (self.squares[0], self.signal[0]), (self.squares[1], self.signal[1])
        half_transform_twice(coarse, scratch, flat(mask), spectra, edges, (a, b))

    def _pack(self, block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        depth, height, width = self.layout.shape
        out = aligned_empty((self.layout.all_blocks, height, depth, 2, LANES))
        edge = aligned_empty((padded(height) // LANES, depth, 2, LANES))
        scale = 1.0 / (depth * height * width)
        half = half_spectrum(block)
        pack_spectrum(half, np.float32(scale), order(height), order(depth), out, edge)
        return out.reshape(-1), edge.reshape(-1)

    def _coarse(self, fraction: float) -> Layout:
        if fraction not in self._layouts:
            self._layouts[fraction] = make_layout(
                self.layout.shape, self.valid, self.layout.box, fraction=fraction
            )
        return self._layouts[fraction]

    def _planes(self, count: int) -> Scratch:
        if self._scratch is None or self._scratch.planes.size < count * plane_floats(self.layout):
            self._scratch = make_scratch(self.layout, count)
        return self._scratch

    def _buffer(self, name: str, count: int, layout: Layout) -> np.ndarray:
        shape = (count, half_done_floats(layout))
        held = self._halves.get(name)
        if held is None or held.shape[0] < count or held.shape[1] != shape[1]:
            self._halves.pop(name, None)
            self._halves[name] = held = aligned_empty(shape)
        return held


def plane_floats(layout: Layout) -> int:
    """Return the floats of one (y, x) plane."""
    return padded(layout.valid[1]) * padded(layout.shape[2])


def flat(box: Any) -> np.ndarray:
    """Return a box as a flat float32 array."""
    return np.ascontiguousarray(box, dtype=np.float32).reshape(-1)


def fold_state(
    state: dict[str, np.ndarray], restriction: Restriction | None = None, rotations: slice = slice(0)
) -> FoldState:
    """Return a state's arrays for the fused passes, with the restriction of some rotations of a call."""
    none = np.zeros((0, 0, 0))
    found = restriction or Restriction(np.zeros((0, 0, 0), np.int32), np.zeros((0, 0), bool))
    label, allowed = slice_of(found, rotations)
    sums = state.get("sum", none), state.get("square_sum", none)
    return FoldState(state["value"], state["id"], *sums, label, allowed)
