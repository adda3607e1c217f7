"""A match in two stages: its coarse search planned and written beside the match on the full grid."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cryodask.geometry.euler import rotation_from_euler
from cryodask.jobs.tomogram_matching import constants
from cryodask.jobs.tomogram_matching.area import SearchArea, write_selection
from cryodask.jobs.tomogram_matching.coarse_area import CoarseArea
from cryodask.jobs.tomogram_matching.coarse_search import (
    CoarseSearch,
    coarse_filters,
    coarse_mask,
    coarse_problem,
    coarse_volume,
)
from cryodask.jobs.tomogram_matching.constants import Tables
from cryodask.jobs.tomogram_matching.inputs import MatchInputs, viewing_directions
from cryodask.jobs.tomogram_matching.many_templates import MatchProblem
from cryodask.jobs.tomogram_matching.planning import (
    Resources,
    calibrate,
    has_constants,
    make_plan,
    share_of_rows,
    template_volumes,
)
from cryodask.jobs.tomogram_matching.problem import TomogramProblem
from cryodask.jobs.tomogram_matching.rescoring import Rescoring
from cryodask.jobs.tomogram_matching.search_grid import SearchGrid, choose_search_grid
from cryodask.jobs.tomogram_matching.seeding import write_seeds
from cryodask.jobs.tomogram_matching.weighting import make_template_filters
from cryodask.kernels.rotation import rotation_coefficients
from cryodask.kernels.statistics_grid import choose_statistics_grid
from cryodask.optics.frequency import half_frequencies
from cryodask.optics.template_filter import RadialWeight
from cryodask.search.plan import plan_shards
from cryodask.search.store import RunStore
from cryodask.search.tiles import TilePlan

COARSE = "coarse"  # folder of its maps, in that of the run
SHARD = 128  # positions of the full grid that a task of the second stage scores, on an axis


@dataclass(frozen=True)
class FirstStage:
    """The coarse search of a match.

    Parameters
    ----------
    problem, plan, area, store
        What is searched, its tiles, where, and where its maps go.
    """

    problem: CoarseSearch
    plan: TilePlan
    area: CoarseArea
    store: RunStore

    @property
    def second(self) -> Rescoring:
        """The search problem of the second stage."""
        return Rescoring(self.problem.full, self.problem.grid, self.store)

    @property
    def attributes(self) -> dict[str, Any]:
        """What a result says of it."""
        plan = {"grid": self.plan.grid, "tile": self.plan.core, "block": self.plan.block}
        return {
            "search_factor": float(self.problem.grid.factor),
            "statistics_grid": self.problem.search.parts[0].statistics_fraction,
            "plan": json.dumps(plan),
        }

    def begin(self, inputs: MatchInputs) -> None:
        """Create the store and write what the tasks read, unless it is resumed."""
        if not self.store.exists():
            self.store.create(self.plan, self.problem.variables, ("z", "y", "x"), {})
        if has_constants(self.problem.search):
            return
        folder = Path(self.problem.search.folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_selection(self.area, folder)
        seeds = on_coarse_grid(inputs, self.problem.grid).seeds
        if seeds is not None:
            write_seeds(folder, seeds)
        for tables, part in zip(self._tables(inputs), self.problem.search.parts, strict=True):
            Path(part.tables_folder).mkdir(exist_ok=True)
            constants.write_tables(Path(part.tables_folder), tables)

    def _tables(self, inputs: MatchInputs) -> Iterator[Tables]:
        for each, part in zip(inputs.every, self.problem.full.parts, strict=True):
            yield make_coarse_tables(each, part, self.problem.grid)

    @property
    def scratch_bytes(self) -> float:
        """Bytes of the cropped tomogram, its spectrum, and the maps."""
        maps = sum(
            np.dtype(v.dtype).itemsize * math.prod(length for _, length in v.leading)
            for v in self.problem.variables
        )
        lengths = math.prod(self.problem.grid.coarse_lengths)
        return 8.0 * lengths + maps * math.prod(self.problem.grid.coarse_shape)

    def measured_seconds(self, inputs: MatchInputs) -> float:
        """CPU seconds of all rotations on all tiles, measured by a short calibration."""
        seconds = 0.0
        for tables, part in zip(self._tables(inputs), self.problem.search.parts, strict=True):
            each = calibrate(part, tables, self.plan.tiles[0])
            seconds += each * part.hypotheses * len(self.plan.tiles)
        return seconds * self.share(inputs)

    def share(self, inputs: MatchInputs) -> float:
        """Return about which share of all rotations its tiles need."""
        return share_of_rows(on_coarse_grid(inputs, self.problem.grid), self.problem.search, self.plan)


def make_first_stage(
    inputs: MatchInputs,
    full: MatchProblem,
    area: SearchArea,
    resources: Resources,
    folder: Path,
    plan: TilePlan | None = None,
) -> FirstStage | None:
    """Plan the coarse search of a match; None where the full grid is searched.

    Parameters
    ----------
    inputs, full, area, resources
        The match on the full grid.
    folder
        Where its maps go.
    plan
        Of a run that is resumed.

    Raises
    ------
    InputError
        A search grid too coarse for the band.
    ResourceError
        Where no tile fits the memory.
    """
    grid = choose_search_grid(inputs)
    if grid is None:
        return None
    fractions = [_statistics_fraction(each, grid) for each in inputs.every]
    problem = CoarseSearch(coarse_problem(full, grid, fractions), full, grid)
    where = CoarseArea(area, grid)
    plan = plan or make_plan(on_coarse_grid(inputs, grid), problem.search, where, resources)
    return FirstStage(problem, plan, where, RunStore(str(folder)))


def on_coarse_grid(inputs: MatchInputs, grid: SearchGrid) -> MatchInputs:
    """Return inputs whose voxels, and with them the positions of seeds, are those of the coarse grid."""
    factor = float(grid.factor)
    seeds = inputs.seeds
    if seeds is not None:
        seeds = replace(seeds, positions=seeds.positions * factor)
    others = tuple(on_coarse_grid(other, grid) for other in inputs.others)
    return replace(inputs, voxel_size=inputs.voxel_size / factor, seeds=seeds, others=others)


def _statistics_fraction(inputs: MatchInputs, grid: SearchGrid) -> float:
    if inputs.mask_kind != "general":
        return 1.0
    mask = coarse_mask(inputs.particle.mask, grid)
    return choose_statistics_grid(mask, inputs.parameters.statistics_grid).fraction


def second_plan(area: SearchArea) -> TilePlan:
    """Return the tiles of the second stage: few voxels of them are scored, so that they may be many."""
    return plan_shards(area.shape, SHARD, is_wanted=None if area.is_everything else area.has)


def make_coarse_tables(
    inputs: MatchInputs, problem: TomogramProblem, grid: SearchGrid, lowpass: RadialWeight | None = None
) -> Tables:
    """Return the tables of one template on the coarse grid.

    Parameters
    ----------
    inputs
        Of the template.
    problem
        Its match on the full grid.
    grid
        The coarse grid.
    lowpass
        Factor on the template beyond its filters, over 1/angstrom.
    """
    volumes = [coarse_volume(volume, grid) for volume in template_volumes(inputs, problem)]
    mask = coarse_mask(inputs.particle.mask, grid)
    filters = make_template_filters(in_padded_box(inputs, grid), problem.cells)
    return Tables(
        matrices=rotation_from_euler(inputs.angles).as_matrix(),
        templates=np.stack([rotation_coefficients(volume, problem.interpolation) for volume in volumes]),
        mask=mask,
        mask_coefficients=rotation_coefficients(mask, "linear"),
        directions=viewing_directions(inputs.angles),
        template_filters=_low_passed(coarse_filters(filters, grid), grid, inputs.voxel_size, lowpass),
        seed_rows=None if inputs.seeds is None else inputs.seed_rows,
    )


def _low_passed(
    filters: np.ndarray | None, grid: SearchGrid, voxel_size: float, lowpass: RadialWeight | None
) -> np.ndarray | None:
    """Return template filters of the coarse box (cell, b, b, b//2 + 1) times a further low-pass."""
    if lowpass is None:
        return filters
    kz, ky, kx = half_frequencies((grid.coarse_box,) * 3, voxel_size / float(grid.factor))
    curve = lowpass(np.sqrt(kz**2 + ky**2 + kx**2)).astype(np.float32)
    return curve[None] if filters is None else filters * curve


def in_padded_box(inputs: MatchInputs, grid: SearchGrid) -> MatchInputs:
    """Return inputs with zeros around the template, the band counted in the Fourier pixels of that box."""
    band, grown = inputs.band, grid.padded_box / grid.box
    band = band if band is None or grown == 1 else band.scaled(grown)
    return replace(inputs, particle=inputs.particle.in_box(grid.padded_box), band=band)
