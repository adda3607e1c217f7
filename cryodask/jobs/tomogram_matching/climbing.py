"""The second stage of a coarse-to-fine match: candidates scored exactly, climbing to their best rows."""

import functools
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from cryodask.geometry.ladder import BEST_ROWS, Ladder, climb
from cryodask.geometry.neighbours import RowFinder
from cryodask.jobs.tomogram_matching import constants
from cryodask.jobs.tomogram_matching.coarse_maps import CoarseMaps, Peaks
from cryodask.jobs.tomogram_matching.noise_spectrum import read_whitening
from cryodask.jobs.tomogram_matching.pieces import cut_tile
from cryodask.jobs.tomogram_matching.problem import TomogramProblem
from cryodask.jobs.tomogram_matching.rescoring import RESCORED, Rescoring
from cryodask.jobs.tomogram_matching.windows import Requests, WindowScorer
from cryodask.search.aggregates import NO_ID, State, States
from cryodask.search.tiles import Batch, Tile


@dataclass(frozen=True)
class CoarseUnits:
    """How coarse scores and rows stand for fine ones.

    Parameters
    ----------
    threshold
        τ: raw coarse scores from it on make candidates.
    score
        What a coarse score is multiplied with to be the expected fine score.
    sigma
        The same of standard deviations of noise.
    """

    threshold: float
    score: float
    sigma: float


@dataclass(frozen=True)
class Climbing(Rescoring):
    """Maps on the full grid from a search with few rotations, exact where particles may be.

    Candidates are the coarse maxima from τ on. All full voxels within a coarse voxel of one are scored with
    fine rows near the best three coarse rows of its 3x3x3 neighbourhood, then with rows near the best of
    these, until none is better. A window is climbed whole, beyond the tile's faces too: tiles may be cut
    anywhere. Elsewhere the maps are those of the coarse search in units of fine scores, and the nearest fine
    rows.

    Parameters
    ----------
    units
        τ, and what coarse scores are multiplied with.
    step, coarse_step
        Of the fine and the coarse list, degrees.
    symmetry
        Point group of the template.
    coarse_tables
        Folder of the coarse template's constants.
    """

    units: CoarseUnits
    step: float
    coarse_step: float
    symmetry: str
    coarse_tables: str

    @property
    def part(self) -> TomogramProblem:
        """The match of the one template."""
        return self.full.parts[0]

    def prepare(self) -> None:
        """Nothing is left to find out: τ was chosen before."""

    def fold(self, tile: Tile, batch: Batch) -> States:
        """Interpolate the coarse maps on a tile and climb from the candidates whose windows touch it."""
        states = self._interpolated(tile)
        wide, inner = self._widened(tile)
        maps = CoarseMaps(
            self.grid, self.coarse.path, wide, [self.units.threshold], reach=float(1 / self.grid.factor)
        )
        peaks = _touching(maps.peaks(), inner)
        rescored = np.zeros(wide.shape, bool)
        for window in peaks.windows:
            rescored[window] = True
        if peaks.windows:
            best = self._climbed(wide, peaks, maps.best_rows(peaks, BEST_ROWS))
            inside = rescored[inner]
            value, row = best["value"][inner], best["id"][inner]
            scored = inside & (row != NO_ID)
            states["score"]["value"][inside] = np.where(scored, value, 0)[inside]
            states["score"]["id"][inside] = row[inside]
        return states | {RESCORED: {"mask": rescored[inner]}}

    def _interpolated(self, tile: Tile) -> States:
        """Return the states of a tile as the coarse maps give them, in units of fine scores and rows."""
        maps = CoarseMaps(self.grid, self.coarse.path, tile, [np.inf])
        ids = maps.nearest("orientation", 0)
        known = ids != NO_ID
        rows = np.full_like(ids, NO_ID)
        rows[known] = self._lists().nearest[ids[known]]
        value = maps.linear("score_raw", 0) * np.float32(self.units.score)
        states: States = {"score": {"value": value, "id": rows}}
        if self.part.moments:
            count = self.part.hypotheses
            mean = maps.linear("score_mean", 0).astype(np.float64) * self.units.sigma
            std = maps.linear("score_std", 0).astype(np.float64) * self.units.sigma
            sums = {"sum": mean * count, "square_sum": (std**2 + mean**2) * count}
            states["moments"] = sums | {"count": np.asarray(count, np.int64)}
        return states

    def _widened(self, tile: Tile) -> tuple[Tile, tuple[slice, ...]]:
        """Return the tile and all that a window touching it may hold, and where the tile lies in that."""
        more = 2 * int(1 / self.grid.factor) + 1
        start = tuple(a - more for a in tile.start)
        stop = tuple(b + more for b in tile.stop)
        if not self.grid.wraps:
            start = tuple(max(a, 0) for a in start)
            stop = tuple(min(b, size) for b, size in zip(stop, self.part.shape, strict=True))
        inner = tuple(slice(a - s, b - s) for a, b, s in zip(tile.start, tile.stop, start, strict=True))
        return Tile(tile.index, start, stop, tuple(b - a for a, b in zip(start, stop, strict=True))), inner

    def _climbed(self, tile: Tile, peaks: Peaks, best: np.ndarray) -> State:
        """Return the best score and row of every position in the windows."""
        part, ladder = self.part, self._lists().ladder
        state: State = {
            "value": np.full(tile.shape, -np.inf, np.float32),
            "id": np.full(tile.shape, NO_ID, np.uint32),
        }
        tables = constants.read_tables(part.tables_folder)
        whitening = read_whitening(part.folder)
        halo = part.box - 1
        for cell, piece in cut_tile(tile, part.cells, halo):
            first, last = (
                tuple(edge - start for edge, start in zip(edges, tile.start, strict=True))
                for edges in (piece.start, piece.stop)
            )
            starts, stops = np.maximum(peaks.starts, first), np.minimum(peaks.stops, last)
            here = (stops > starts).all(axis=1)
            if not here.any():
                continue
            block = constants.read_block(
                Path(part.folder),
                replace(piece, block=tuple(size + halo for size in piece.shape)),
                before=part.box // 2,
                halo=halo,
                margin=part.margin,
                wrap=part.wrap,
            )
            own = replace(tables, template_filters=part.template_filter(tables, cell, whitening))
            scorer = WindowScorer(block, first, part.rotated(own), part.mask_kind)

            def score(
                rows: np.ndarray,
                places: np.ndarray,
                scorer: WindowScorer = scorer,
                windows: tuple[np.ndarray, np.ndarray] = (starts[here], stops[here]),
            ) -> np.ndarray:
                return scorer.score(0, Requests(rows, places, *windows), state)

            climb(ladder, best[here], score)
        return state

    def _lists(self) -> "_Lists":
        part = self.part
        return _read_lists(self.coarse_tables, part.tables_folder, self.step, self.coarse_step, self.symmetry)


@dataclass(frozen=True, eq=False)
class _Lists:
    """Both rotation lists of a match: how to climb, and the fine row nearest to each coarse one."""

    ladder: Ladder
    nearest: np.ndarray


@functools.lru_cache(maxsize=2)
def _read_lists(coarse: str, fine: str, step: float, coarse_step: float, symmetry: str) -> _Lists:
    rows = Rotation.from_matrix(constants.read_tables(fine).matrices)
    few = Rotation.from_matrix(constants.read_tables(coarse).matrices)
    nearest = RowFinder(rows, symmetry).nearest(few)[1][:, 0].astype(np.uint32)
    return _Lists(Ladder(rows, step, few, coarse_step, symmetry), nearest)


def _touching(peaks: Peaks, inner: tuple[slice, ...]) -> Peaks:
    """Return the peaks whose windows touch a part of the tile."""
    first, last = np.array([s.start for s in inner]), np.array([s.stop for s in inner])
    near = ((peaks.stops > first) & (peaks.starts < last)).all(axis=1)
    return Peaks(peaks.places[near], peaks.starts[near], peaks.stops[near])
