"""The first stage of two: all rotations on the coarse grid, its maps kept for the second stage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cryodask.jobs.tomogram_matching import constants
from cryodask.jobs.tomogram_matching.cropping import crop_tomogram
from cryodask.jobs.tomogram_matching.many_templates import ManyTemplates, MatchProblem, split_states
from cryodask.jobs.tomogram_matching.particle import in_cube
from cryodask.jobs.tomogram_matching.problem import TomogramProblem
from cryodask.jobs.tomogram_matching.search_grid import SearchGrid
from cryodask.optics.fourier_crop import crop_half_spectrum, crop_volume, resample_mask
from cryodask.optics.template_filter import RadialWeight
from cryodask.search.aggregates import NO_ID, Aggregate, Moments, States
from cryodask.search.problem import Summary, Variable
from cryodask.search.tiles import Batch, Tile

FOLDER = "coarse"  # of the coarse constants, in those of the run


@dataclass(frozen=True)
class CoarseSearch:
    """All rotations on the coarse grid.

    Parameters
    ----------
    search
        The match on the coarse grid.
    full
        The match on the full grid, whose filtered tomogram is cropped.
    grid
        The coarse grid.
    lowpass
        Further factor on the cropped tomogram, over 1/angstrom.
    """

    search: MatchProblem
    full: MatchProblem
    grid: SearchGrid
    lowpass: RadialWeight | None = None

    @property
    def hypotheses(self) -> int:
        """Rotations of all templates."""
        return self.search.hypotheses

    @property
    def aggregates(self) -> Mapping[str, Aggregate]:
        """Those of the search."""
        return self.search.aggregates

    @property
    def variables(self) -> tuple[Variable, ...]:
        """The maps that the second stage reads."""
        template = (("template", len(self.search.parts)),)
        found = [
            Variable("score_raw", "float32", 0.0, template),
            Variable("orientation", "uint32", int(NO_ID), template),
        ]
        if self.search.moments:
            found += [Variable(name, "float32", 0.0, template) for name in ("score_mean", "score_std")]
        if self.search.beside:
            copies = (*template, ("copy", self.search.beside))
            found.append(Variable("beside", "float32", 0.0, copies))
            found.append(Variable("beside_row", "uint32", int(NO_ID), copies))
        return tuple(found)

    def prepare(self) -> None:
        """Filter the tomogram, and crop it."""
        self.full.prepare()
        settings = self.full.tomogram_filter
        crop_tomogram(
            Path(self.full.folder),
            Path(self.search.folder),
            self.grid,
            memory=settings.memory,
            voxel_size=settings.voxel_size,
            weight=self.lowpass,
        )

    def fold(self, tile: Tile, batch: Batch) -> States:
        """Score a batch of rotations on a tile of the coarse grid."""
        return self.search.fold(tile, batch)

    def finish(self, tile: Tile, states: States) -> tuple[dict[str, np.ndarray], Summary]:
        """Turn the states of all rotations into maps; the sums tell what a background score is."""
        selected = constants.read_search_mask(Path(self.search.folder), tile)
        maps: dict[str, list[np.ndarray]] = {}
        summary: Summary = {}
        for part, own in zip(self.search.parts, split_states(self.search, states), strict=True):
            searched = own["score"]["id"] != NO_ID
            if selected is not None:
                searched &= selected
            counts = None if part.near is None else part.count_rows(tile)
            for name, values in _maps(part, own, searched, counts).items():
                maps.setdefault(name, []).append(values)
            scores = own["score"]["value"][searched].astype(np.float64)
            summary[f"{part.number}:voxels"] = float(scores.size)
            summary[f"{part.number}:sum"] = float(scores.sum())
            summary[f"{part.number}:square_sum"] = float(np.square(scores).sum())
        return {name: np.stack(arrays) for name, arrays in maps.items()}, summary


def _maps(
    part: TomogramProblem, states: States, searched: np.ndarray, counts: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Return the maps of one template, with the rotations of each voxel where these differ.

    Where nothing is searched they hold the fill values.
    """

    def kept(values: np.ndarray) -> np.ndarray:
        return np.where(searched, values, 0).astype(np.float32)

    found = {
        "score_raw": kept(states["score"]["value"]),
        "orientation": np.where(searched, states["score"]["id"], NO_ID),
    }
    if part.moments:
        moments = Moments().finalize(states["moments"] | ({} if counts is None else {"count": counts}))
        found |= {"score_mean": kept(moments["mean"]), "score_std": kept(moments["std"])}
    if part.beside:
        beside = [states[name] for name in part.names_beside]
        found["beside"] = np.stack([kept(state["value"]) for state in beside])
        found["beside_row"] = np.stack([np.where(searched, state["id"], NO_ID) for state in beside])
    return found


def coarse_problem(
    full: MatchProblem, grid: SearchGrid, statistics_fractions: Sequence[float]
) -> MatchProblem:
    """Return the match on the coarse grid; its constants lie in a folder of those of the full grid.

    Parameters
    ----------
    full
        The match on the full grid.
    grid
        The coarse grid.
    statistics_fractions
        Of each template: the grid of its local statistics, on the coarse grid.
    """
    factor = float(grid.factor)
    folder = str(Path(full.folder) / FOLDER)
    parts = tuple(
        replace(
            part,
            folder=folder,
            shape=grid.coarse_shape,
            box=grid.coarse_box,
            support=part.support * factor,
            statistics_fraction=fraction,
            margin=grid.coarse_margin,
            cells=replace(part.cells, shape=grid.coarse_shape),
            tomogram_filter=replace(
                part.tomogram_filter, voxel_size=part.tomogram_filter.voxel_size / factor
            ),
        )
        for part, fraction in zip(full.parts, statistics_fractions, strict=True)
    )
    return _like(full, parts)


def with_hypotheses(problem: MatchProblem, counts: Sequence[int]) -> MatchProblem:
    """Return the match with rotation lists of other lengths, one a template."""
    parts = zip(problem.parts, counts, strict=True)
    return _like(problem, tuple(replace(part, hypotheses=count) for part, count in parts))


def _like(problem: MatchProblem, parts: tuple[TomogramProblem, ...]) -> MatchProblem:
    return replace(problem, parts=parts) if isinstance(problem, ManyTemplates) else parts[0]


def coarse_volume(volume: np.ndarray, grid: SearchGrid) -> np.ndarray:
    """Return a template (n, n, n) on the coarse grid: zeros around it, then without its high frequencies."""
    return crop_volume(in_cube(volume, grid.padded_box), grid.coarse_box)


def coarse_mask(mask: np.ndarray, grid: SearchGrid) -> np.ndarray:
    """Return a mask (n, n, n) on the coarse grid."""
    return resample_mask(in_cube(mask, grid.padded_box), grid.coarse_box)


def coarse_filters(filters: np.ndarray | None, grid: SearchGrid) -> np.ndarray | None:
    """Return template filters of the padded box (cell, n', n', n'//2 + 1) on the coarse grid."""
    return None if filters is None else crop_half_spectrum(filters, grid.coarse_box)
