"""The second stage of a coarse-to-fine match: candidates scored at full size, climbing to their best rows."""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from scipy.ndimage import map_coordinates

from cryodask.arrays.npy import load_npy
from cryodask.geometry.ladder import BEST_ROWS, Ladder, climb
from cryodask.geometry.zyz import zyz_matrices, zyz_rotations
from cryodask.jobs.micrograph_matching import constants
from cryodask.jobs.micrograph_matching.binning import Binning
from cryodask.jobs.micrograph_matching.coarse_model import (
    full_moments,
    local_thresholds,
    miss_model,
    stage_view,
)
from cryodask.jobs.micrograph_matching.coarse_pilot import APART
from cryodask.jobs.micrograph_matching.preparation import prepare_image
from cryodask.jobs.micrograph_matching.problem import MicrographProblem
from cryodask.jobs.micrograph_matching.result import RESCORED
from cryodask.kernels.slices import slice_axes
from cryodask.kernels.window_search import WindowSearch
from cryodask.picking.image_peaks import image_peaks
from cryodask.search.aggregates import NO_ID, Aggregate, ExactMoments, States
from cryodask.search.problem import Summary, Variable
from cryodask.search.store import RunStore, replacing, write_json
from cryodask.search.tiles import Batch, Tile

CANDIDATES, RECORD = "candidates.npy", "second_stage.json"
SPLINE_MARGIN = 12  # coarse pixels beyond which a spline forgets what it passed through


@dataclass(frozen=True)
class Rescoring:
    """Maps at full size from a coarse search, exact where particles may be.

    A coarse score is a candidate from τ on, and stands for its eight neighbours. All full pixels within a
    coarse pixel of a candidate are scored with rows near its three best coarse ones, then near the best of
    these, until none is better, at all defoci and pixel sizes. Elsewhere the maps are those of the coarse
    search, in units of full scores. A window is climbed whole, beyond the tile's edge too: tiles may be cut
    anywhere.

    Parameters
    ----------
    full, coarse
        The match at full size, and the first stage.
    store
        Of the first stage's maps.
    threshold
        z-score of the faintest particles that count.
    miss_rate
        Share of these that may be missed.
    step, coarse_step
        Of the lists, degrees.
    symmetry
        Point group of the template.
    seed
        Of the run.
    """

    full: MicrographProblem
    coarse: MicrographProblem
    store: RunStore
    threshold: float
    miss_rate: float
    step: float
    coarse_step: float
    symmetry: str
    seed: int

    @property
    def hypotheses(self) -> int:
        """Everything is one: which rows a place tries, the first stage found."""
        return 1

    @property
    def aggregates(self) -> Mapping[str, Aggregate]:
        """Nothing is merged."""
        return {}

    @property
    def variables(self) -> tuple[Variable, ...]:
        """The maps of the match, and where they are exact."""
        exact = (("long_name", "scored exactly at full size"),)
        return (*self.full.variables, Variable(RESCORED, "uint8", 0, (), exact))

    @property
    def binning(self) -> Binning:
        """Of the first stage."""
        return self.coarse.preparation.binning

    def prepare(self) -> None:
        """Prepare the full image, and choose the candidates."""
        prepare_image(Path(self.full.folder), self.full.preparation)
        if (self._folder / RECORD).is_file():
            return
        model, share = miss_model(
            stage_view(self.full), stage_view(self.coarse), symmetry=self.symmetry, seed=self.seed
        )
        maps = {name: self._coarse_map(name) for name in ("mip", "score_mean", "score_std", "orientation")}
        moments = maps["score_mean"], maps["score_std"]
        tau = local_thresholds(model, share, moments, zscore=self.threshold, miss_rate=self.miss_rate)
        excess = maps["mip"] - tau
        peaks = image_peaks(excess, 0.0, mask_radius=APART, allowed=maps["orientation"] != NO_ID)
        rows = best_rows(maps["mip"], maps["orientation"], peaks)
        with replacing(self._folder / CANDIDATES) as temporary, temporary.open("wb") as stream:
            np.save(stream, np.concatenate([peaks, rows], axis=1))
        level = model.coarse_threshold(self.threshold, self.miss_rate)
        record = {
            "share": share,
            "regression": model.regression,
            "threshold": level,
            "miss": model.miss_probability(level, self.threshold),
            "candidates": len(peaks),
        }
        write_json(self._folder / RECORD, record)

    def record(self) -> dict[str, Any]:
        """Return what `prepare` found: share of energy kept, likeness, τ, miss probability, candidates."""
        return dict(json.loads((self._folder / RECORD).read_text()))

    @property
    def _folder(self) -> Path:
        return Path(self.full.folder)

    def _coarse_map(self, name: str, region: tuple[slice, ...] = (slice(None),) * 2) -> np.ndarray:
        array = zarr.open_group(self.store.path, mode="r")[name]
        assert isinstance(array, zarr.Array)
        return np.asarray(array[region])

    def fold(self, tile: Tile, batch: Batch) -> States:
        """Interpolate the coarse maps on a tile, and climb from the candidates whose windows touch it."""
        states, record = self._interpolated(tile), self.record()
        rescored = np.zeros(tile.shape, bool)
        candidates = load_npy(self._folder / CANDIDATES)
        starts, stops = self._windows(candidates[:, :2])
        first, last = np.array(tile.start), np.array(tile.stop)
        touching = ((stops > first) & (starts < last)).all(axis=1)
        value = np.full(tile.shape, -np.inf, np.float32)
        ids = np.full(tile.shape, NO_ID, np.uint32)
        for start, stop, rows in zip(
            starts[touching], stops[touching], candidates[touching, 2:], strict=True
        ):
            scores, hypotheses = self._climbed(start, stop, rows)
            low, high = np.maximum(start, first), np.minimum(stop, last)
            inside = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True))
            here = tuple(slice(a - f, b - f) for a, b, f in zip(low, high, first, strict=True))
            new, rows_here = scores[inside], hypotheses[inside]
            better = (new > value[here]) | ((new == value[here]) & (rows_here < ids[here]))
            value[here] = np.where(better, new, value[here])
            ids[here] = np.where(better, rows_here, ids[here])
            rescored[here] = True
        score = states["score"]
        score["value"] = np.where(rescored, value, score["value"] * np.float32(record["regression"]))
        score["id"] = np.where(rescored, ids, score["id"])
        return states | {RESCORED: {"mask": rescored}}

    def finish(self, tile: Tile, states: States) -> tuple[dict[str, np.ndarray], Summary]:
        """Turn the states into maps."""
        mask = states[RESCORED]["mask"]
        maps, summary = self.full.finish(tile, {"score": states["score"], "moments": states["moments"]})
        return maps | {RESCORED: (mask & (maps["hypothesis"] != NO_ID)).astype(np.uint8)}, summary

    def _interpolated(self, tile: Tile) -> States:
        """Return the states of a tile as the coarse maps give them: means and spreads in full units."""
        axes = zip(tile.start, tile.stop, self.coarse.shape, strict=True)
        at = [np.clip(self.binning.places(np.arange(a, b)), 0, size - 1) for a, b, size in axes]
        lows = [max(0, int(place[0]) - SPLINE_MARGIN) for place in at]
        region = tuple(slice(a, int(p[-1]) + 2 + SPLINE_MARGIN) for a, p in zip(lows, at, strict=True))
        places = np.meshgrid(*(place - low for place, low in zip(at, lows, strict=True)), indexing="ij")
        near = tuple(np.rint(place).astype(np.intp) for place in places)

        def smooth(name: str) -> np.ndarray:
            values = self._coarse_map(name, region).astype(np.float64)
            return np.asarray(map_coordinates(values, places, order=3, mode="nearest"))

        mean, std = full_moments(smooth("score_mean"), smooth("score_std"), self.record()["share"])
        count = self.full.orientations * self.full.scores_each
        exact = ExactMoments()
        sums = {
            "sum": np.rint(mean * count * exact.scale).astype(np.int64),
            "square_sum": np.rint((std**2 + mean**2) * count * exact.square_scale).astype(np.int64),
            "count": np.asarray(count, np.int64),
        }
        orientation, hypothesis = (
            self._coarse_map(name, region)[near] for name in ("orientation", "hypothesis")
        )
        known = orientation != NO_ID
        rest = np.where(known, hypothesis, 0) // self.coarse.orientations
        row = self._ladder().nearest[np.where(known, orientation, 0)]
        ids = np.where(known, rest * self.full.orientations + row, NO_ID).astype(np.uint32)
        return {"score": {"value": smooth("mip").astype(np.float32), "id": ids}, "moments": sums}

    def _windows(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return first and one past the last full pixel (P, 2) within a coarse pixel of coarse places."""
        binning, half = self.binning, self.full.box // 2
        centre = (places + binning.searched_box // 2) / binning.ratio - half
        reach = 1.0 / binning.ratio
        starts = np.ceil(centre - reach - 1e-9).astype(np.int64)
        stops = np.floor(centre + reach + 1e-9).astype(np.int64) + 1
        return np.maximum(starts, 0), np.minimum(stops, self.full.shape)

    def _climbed(
        self, start: np.ndarray, stop: np.ndarray, best: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the largest score and its hypothesis at every position of a window."""
        shape, n = tuple((stop - start).tolist()), self.full.box
        block_shape = tuple(length + n - 1 for length in shape)
        place = Tile(0, tuple(start.tolist()), tuple(stop.tolist()), block_shape)
        xp = constants.module_of(self.full.device)
        block = constants.read_block(self.full.folder, place, wrap=False)
        windows = np.lib.stride_tricks.sliding_window_view(block, (n, n)).reshape(-1, n, n)
        tables = constants.read_tables(self.full.folder, xp)
        search = WindowSearch(xp.asarray(windows), tables.spectrum, tables.filters, self.full.limit)
        angles = constants.read_angles(self.full.folder)
        magnification = self.full.preparation.optics.ctf.magnification
        value, ids = np.full(len(windows), -np.inf, np.float32), np.full(len(windows), NO_ID, np.uint32)

        def score(rows: np.ndarray, _: np.ndarray) -> np.ndarray:
            matrices = zyz_matrices(np.asarray(angles[rows]))
            axes = [slice_axes(matrices, scale=s, magnification=magnification) for s in self.full.scales]
            scores, numbers = search.best(axes)
            hypotheses = (numbers * self.full.orientations + rows[:, None]).astype(np.uint32)
            for new, mine in zip(scores, hypotheses, strict=True):
                better = (new > value) | ((new == value) & (mine < ids))
                value[better], ids[better] = new[better], mine[better]
            return scores.max(axis=1).astype(np.float64)

        climb(self._ladder(), best[None], score)
        return value.reshape(shape), ids.reshape(shape)

    def _ladder(self) -> Ladder:
        return _read_ladder(self.full.folder, self.coarse.folder, self.step, self.coarse_step, self.symmetry)


def best_rows(mip: np.ndarray, orientation: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    """Return the rows of the three best different orientations around peaks (P, 2), (P, 3), -1 for none."""
    padded = np.pad(mip, 1, constant_values=-np.inf)
    rows = np.pad(orientation.astype(np.int64), 1, constant_values=-1)
    found = np.full((len(peaks), BEST_ROWS), -1, np.int64)
    for peak, (y, x) in enumerate(peaks.tolist()):
        around = slice(y, y + 3), slice(x, x + 3)
        order = np.argsort(-padded[around].ravel(), kind="stable")
        ordered = rows[around].ravel()[order]
        ordered = ordered[(ordered >= 0) & (ordered != NO_ID)]
        chosen = list(dict.fromkeys(ordered.tolist()))[:BEST_ROWS]
        found[peak, : len(chosen)] = chosen
    return found


@functools.lru_cache(maxsize=2)
def _read_ladder(full: str, coarse: str, step: float, coarse_step: float, symmetry: str) -> Ladder:
    fine, few = (zyz_rotations(np.asarray(constants.read_angles(folder))) for folder in (full, coarse))
    return Ladder(fine, step, few, coarse_step, symmetry)
