"""The second stage of two: maps on the full grid, scored exactly around the peaks of the first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cryodask.jobs.tomogram_matching import constants
from cryodask.jobs.tomogram_matching.coarse_maps import CoarseMaps
from cryodask.jobs.tomogram_matching.many_templates import MatchProblem, join_states
from cryodask.jobs.tomogram_matching.noise_spectrum import read_whitening
from cryodask.jobs.tomogram_matching.pieces import cut_tile
from cryodask.jobs.tomogram_matching.problem import TomogramProblem
from cryodask.jobs.tomogram_matching.search_grid import SearchGrid
from cryodask.jobs.tomogram_matching.seeding import tile_seeds
from cryodask.jobs.tomogram_matching.windows import Requests, WindowScorer
from cryodask.search.aggregates import NO_ID, Aggregate, State, States
from cryodask.search.problem import Summary, Variable
from cryodask.search.store import RunStore, write_json
from cryodask.search.tiles import Batch, Tile

DEVIATIONS = 3.5  # above the mean of the coarse map, from where on its maxima are scored again
RESCORED = "rescored"


@dataclass(frozen=True)
class Rescoring:
    """Maps on the full grid: interpolated from a coarse search, and exact around its local maxima.

    All full voxels near a coarse maximum of a template or its decoy above mean + 3.5 std of the template's
    coarse scores (near seeds: above 0) are scored with the rows found in its 3x3x3 neighbourhood: those of
    each template, and of each one beside it its own. What a voxel gets depends on the coarse maps alone, so
    tiles may be cut anywhere.

    Parameters
    ----------
    full
        The match on the full grid.
    grid
        The coarse grid.
    coarse
        The run of the coarse search.
    """

    full: MatchProblem
    grid: SearchGrid
    coarse: RunStore

    @property
    def hypotheses(self) -> int:
        """Everything is one: the rows of a voxel are those that the coarse search found."""
        return 1

    @property
    def aggregates(self) -> Mapping[str, Aggregate]:
        """Nothing is merged."""
        return {}

    @property
    def variables(self) -> tuple[Variable, ...]:
        """The maps of the match, and where they are exact."""
        exact = (("long_name", "scored exactly on the full grid"),)
        return (*self.full.variables, Variable(RESCORED, "uint8", 0, (), exact))

    def prepare(self) -> None:
        """Find from the finished coarse search which of its scores are peaks."""
        totals: Summary = {}
        for tile in self.coarse.progress().values():
            for name, value in tile.summary.items():
                totals[name] = totals.get(name, 0.0) + value
        thresholds = []
        for part in self.full.parts:
            if part.near is not None:
                # near seeds there is little noise to tell peaks from, and little to score
                thresholds.append(0.0)
                continue
            count = max(totals.get(f"{part.number}:voxels", 0.0), 1.0)
            mean = totals.get(f"{part.number}:sum", 0.0) / count
            variance = totals.get(f"{part.number}:square_sum", 0.0) / count - mean**2
            thresholds.append(mean + DEVIATIONS * max(variance, 0.0) ** 0.5)
        write_json(self._thresholds, thresholds)

    @property
    def _thresholds(self) -> Path:
        return self.coarse.run_folder / "thresholds.json"

    def fold(self, tile: Tile, batch: Batch) -> States:
        """Interpolate the coarse maps on a tile and score the voxels around their peaks."""
        thresholds = constants.read_numbers(self._thresholds)
        maps = CoarseMaps(
            self.grid, self.coarse.path, tile, thresholds, decoy=self.full.parts[0].decoy_beside
        )
        peaks = maps.peaks()
        rescored = np.zeros(tile.shape, bool)
        for window in peaks.windows:
            rescored[window] = True
        states = []
        for part in self.full.parts:
            own = interpolated(part, maps)
            if peaks.windows:
                self._rescore(part, tile, maps, own, rescored)
            states.append(own)
        return join_states(self.full, states) | {RESCORED: {"mask": rescored}}

    def _rescore(
        self, part: TomogramProblem, tile: Tile, maps: CoarseMaps, states: States, rescored: np.ndarray
    ) -> None:
        """Replace what was interpolated inside the windows by exact scores."""
        names = ["score", *part.names_beside]
        for name in names:
            states[name]["value"][rescored] = -np.inf
            states[name]["id"][rescored] = NO_ID
        requests = [maps.requests(part.number, copy) for copy in range(-1, part.beside)]
        score_pieces(part, tile, requests, [states[name] for name in names])
        for name in names:
            unscored = states[name]["id"] == NO_ID
            states[name]["value"][unscored] = 0.0

    def finish(self, tile: Tile, states: States) -> tuple[dict[str, np.ndarray], Summary]:
        """Turn the states into maps."""
        rest = {name: state for name, state in states.items() if name != RESCORED}
        maps, summary = self.full.finish(tile, rest)
        mask = states[RESCORED]["mask"]
        selected = constants.read_search_mask(Path(self.full.folder), tile)
        if selected is not None:
            mask = mask & selected
        return maps | {RESCORED: mask.astype(np.uint8)}, summary


def interpolated(part: TomogramProblem, maps: CoarseMaps) -> States:
    """Return the states of one template on a tile as the coarse maps give them."""

    def best(value: str, row: str, *lead: int) -> State:
        return {
            "value": maps.linear(value, part.number, *lead),
            "id": maps.nearest(row, part.number, *lead),
        }

    states: States = {"score": best("score_raw", "orientation")}
    for copy, name in enumerate(part.names_beside):
        states[name] = best("beside", "beside_row", copy)
    if part.moments:
        count = np.asarray(part.hypotheses if part.near is None else part.count_rows(maps.tile), np.int64)
        mean = maps.linear("score_mean", part.number).astype(np.float64)
        std = maps.linear("score_std", part.number).astype(np.float64)
        states["moments"] = {"sum": mean * count, "square_sum": (std**2 + mean**2) * count, "count": count}
    return states


def score_pieces(
    part: TomogramProblem, tile: Tile, requests: Sequence[Requests], states: Sequence[State]
) -> None:
    """Score windows of a tile exactly, cell of constant defocus by cell, into its states.

    Parameters
    ----------
    part
        The match of one template on the full grid.
    tile
        Positions on the full grid.
    requests
        Rows and windows, of the template and of each one beside it.
    states
        `value` and `id` of each, changed in place.
    """
    tables = constants.read_tables(part.tables_folder)
    whitening = read_whitening(part.folder)
    halo = part.box - 1
    for cell, piece in cut_tile(tile, part.cells, halo):
        first, last = (
            tuple(edge - start for edge, start in zip(edges, tile.start, strict=True))
            for edges in (piece.start, piece.stop)
        )
        inside = [request.clipped(first, last) for request in requests]
        if not any(len(request.rows) for request in inside):
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
        seeds = None if part.near is None else tile_seeds(part.folder, piece)
        scorer = WindowScorer(block, first, part.rotated(own, seeds=seeds), part.mask_kind)
        for copy, (request, state) in enumerate(zip(inside, states, strict=True)):
            scorer.score(copy, request, state, mirrored=part.decoy and copy == part.beside)
