"""The second stage of a coarse-to-fine match: candidates scored exactly, climbing to their best rows."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from cryodask.geometry.ladder import BEST_ROWS, Ladder, climb
from cryodask.jobs.tomogram_matching import constants
from cryodask.jobs.tomogram_matching.coarse_maps import CoarseMaps, Peaks
from cryodask.jobs.tomogram_matching.many_templates import join_states
from cryodask.jobs.tomogram_matching.noise_spectrum import read_whitening
from cryodask.jobs.tomogram_matching.pieces import cut_tile
from cryodask.jobs.tomogram_matching.problem import TomogramProblem
from cryodask.jobs.tomogram_matching.rescoring import RESCORED, Rescoring, interpolated
from cryodask.jobs.tomogram_matching.windows import Requests, WindowScorer
from cryodask.search.aggregates import NO_ID, State, States
from cryodask.search.tiles import Batch, Tile


@dataclass(frozen=True)
class TemplateClimb:
    """How coarse scores and rows of one template stand for fine ones.

    Parameters
    ----------
    threshold
        τ: raw coarse scores from it on make candidates.
    score
        What a coarse score is multiplied with to be the expected fine score.
    sigma
        The same of standard deviations of noise.
    step, coarse_step
        Of the fine and the coarse list, degrees.
    symmetry
        Point group of the template.
    coarse_tables
        Folder of the coarse template's constants.
    """

    threshold: float
    score: float
    sigma: float
    step: float
    coarse_step: float
    symmetry: str
    coarse_tables: str


@dataclass(frozen=True)
class Climbing(Rescoring):
    """Maps on the full grid from a search with few rotations, exact where particles may be.

    Candidates are the coarse maxima, of any template or its decoy, from τ on. All full voxels within a coarse
    voxel of one are scored, with every template and its decoy: with fine rows near the best three coarse rows
    of its 3x3x3 neighbourhood, then with rows near the best of these, until none is better. A window is
    climbed whole, beyond the tile's faces too: tiles may be cut anywhere. Elsewhere the maps are those of the
    coarse search in units of fine scores, and the nearest fine rows.

    Parameters
    ----------
    climbs
        Of each template.
    """

    climbs: tuple[TemplateClimb, ...]

    def prepare(self) -> None:
        """Nothing is left to find out: τ was chosen before."""

    def fold(self, tile: Tile, batch: Batch) -> States:
        """Interpolate the coarse maps on a tile and climb from the candidates whose windows touch it."""
        wide, inner = self._widened(tile)
        maps = CoarseMaps(
            self.grid,
            self.coarse.path,
            wide,
            [climb.threshold for climb in self.climbs],
            decoy=self.full.parts[0].decoy_beside,
            reach=float(1 / self.grid.factor),
        )
        peaks = _touching(maps.peaks(), inner)
        rescored = np.zeros(wide.shape, bool)
        for window in peaks.windows:
            rescored[window] = True
        inside = rescored[inner]
        narrow = CoarseMaps(self.grid, self.coarse.path, tile, [np.inf])
        found = []
        for part in self.full.parts:
            own = self._interpolated(part, narrow)
            if peaks.windows:
                climbed = self._climbed(part, wide, peaks, maps)
                for name, best in climbed.items():
                    value, row = best["value"][inner], best["id"][inner]
                    own[name]["value"][inside] = np.where(row != NO_ID, value, 0)[inside]
                    own[name]["id"][inside] = row[inside]
            found.append(own)
        return join_states(self.full, found) | {RESCORED: {"mask": inside}}

    def _interpolated(self, part: TomogramProblem, maps: CoarseMaps) -> States:
        """Return the states of a template as the coarse maps give them, in units of fine scores and rows."""
        climb, nearest = self.climbs[part.number], self._ladder(part).nearest
        states = interpolated(part, maps)
        for name in ("score", *part.names_beside):
            ids = states[name]["id"]
            known = ids != NO_ID
            rows = np.full_like(ids, NO_ID)
            rows[known] = nearest[ids[known]]
            states[name] = {"value": states[name]["value"] * np.float32(climb.score), "id": rows}
        if part.moments:
            sums = states["moments"]
            squares = sums["square_sum"] * climb.sigma**2
            states["moments"] = sums | {"sum": sums["sum"] * climb.sigma, "square_sum": squares}
        return states

    def _widened(self, tile: Tile) -> tuple[Tile, tuple[slice, ...]]:
        """Return the tile and all that a window touching it may hold, and where the tile lies in that."""
        more = 2 * int(1 / self.grid.factor) + 1
        start = tuple(a - more for a in tile.start)
        stop = tuple(b + more for b in tile.stop)
        if not self.grid.wraps:
            start = tuple(max(a, 0) for a in start)
            stop = tuple(min(b, size) for b, size in zip(stop, self.full.shape, strict=True))
        inner = tuple(slice(a - s, b - s) for a, b, s in zip(tile.start, tile.stop, start, strict=True))
        return Tile(tile.index, start, stop, tuple(b - a for a, b in zip(start, stop, strict=True))), inner

    def _climbed(self, part: TomogramProblem, tile: Tile, peaks: Peaks, maps: CoarseMaps) -> States:
        """Return the best score and row of every position in the windows, of a template and its decoy."""
        ladder, copies = self._ladder(part), range(-1, part.beside)
        best = [maps.best_rows(peaks, BEST_ROWS, part.number, copy) for copy in copies]
        states: States = {name: _nothing(tile) for name in ("score", *part.names_beside)}
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
            windows = starts[here], stops[here]
            for copy, state in enumerate(states.values()):
                climb(ladder, best[copy][here], _scoring(scorer, part, copy, windows, state))
        return states

    def _ladder(self, part: TomogramProblem) -> Ladder:
        own = self.climbs[part.number]
        return _read_ladder(own.coarse_tables, part.tables_folder, own.step, own.coarse_step, own.symmetry)


def _nothing(tile: Tile) -> State:
    return {
        "value": np.full(tile.shape, -np.inf, np.float32),
        "id": np.full(tile.shape, NO_ID, np.uint32),
    }


def _scoring(
    scorer: WindowScorer,
    part: TomogramProblem,
    copy: int,
    windows: tuple[np.ndarray, np.ndarray],
    state: State,
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return how a climb scores rows in windows (starts, stops), into a state."""

    def score(rows: np.ndarray, places: np.ndarray) -> np.ndarray:
        request = Requests(rows, places, *windows)
        return scorer.score(copy, request, state, mirrored=part.decoy and copy == part.beside)

    return score


@functools.lru_cache(maxsize=8)
def _read_ladder(coarse: str, fine: str, step: float, coarse_step: float, symmetry: str) -> Ladder:
    rows = Rotation.from_matrix(constants.read_tables(fine).matrices)
    few = Rotation.from_matrix(constants.read_tables(coarse).matrices)
    return Ladder(rows, step, few, coarse_step, symmetry)


def _touching(peaks: Peaks, inner: tuple[slice, ...]) -> Peaks:
    """Return the peaks whose windows touch a part of the tile."""
    first, last = np.array([s.start for s in inner]), np.array([s.stop for s in inner])
    near = ((peaks.stops > first) & (peaks.starts < last)).all(axis=1)
    return Peaks(peaks.places[near], peaks.starts[near], peaks.stops[near])
