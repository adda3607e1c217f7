"""A match in two stages: its coarse search planned and written beside the match on the full grid."""

import json
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cryodask.jobs.tomogram_matching import constants
from cryodask.jobs.tomogram_matching.area import SearchArea, write_selection
from cryodask.jobs.tomogram_matching.climbing import Climbing, TemplateClimb
from cryodask.jobs.tomogram_matching.coarse_area import CoarseArea
from cryodask.jobs.tomogram_matching.coarse_choice import ChosenStage, choose_first_stage, restored
from cryodask.jobs.tomogram_matching.coarse_search import (
    CoarseSearch,
    coarse_mask,
    coarse_problem,
    with_hypotheses,
)
from cryodask.jobs.tomogram_matching.coarse_tables import make_coarse_tables, on_coarse_grid
from cryodask.jobs.tomogram_matching.constants import Tables
from cryodask.jobs.tomogram_matching.inputs import MatchInputs
from cryodask.jobs.tomogram_matching.many_templates import MatchProblem
from cryodask.jobs.tomogram_matching.planning import (
    BYTES_OF_MAPS,
    Resources,
    calibrate,
    has_constants,
    make_plan,
    share_of_rows,
)
from cryodask.jobs.tomogram_matching.rescoring import Rescoring
from cryodask.jobs.tomogram_matching.search_grid import SearchGrid, choose_search_grid
from cryodask.jobs.tomogram_matching.seeding import write_seeds
from cryodask.kernels.statistics_grid import choose_statistics_grid
from cryodask.search.plan import plan_shards
from cryodask.search.store import RunStore, write_json
from cryodask.search.tiles import TilePlan

log = logging.getLogger("cryodask")
COARSE = "coarse"  # folder of its maps, in that of the run
SHARD = 128  # positions of the full grid that a task of the second stage scores, on an axis
LEAST_SHARD, SHARD_BYTES = 32, 2**29  # fewer where the maps of many templates would take more memory


@dataclass(frozen=True)
class FirstStage:
    """The coarse search of a match.

    Parameters
    ----------
    problem, plan, area, store
        What is searched, its tiles, where, and where its maps go.
    chosen
        How few rotations it searches, from coarse to fine; None where it searches all.
    """

    problem: CoarseSearch
    plan: TilePlan
    area: CoarseArea
    store: RunStore
    chosen: ChosenStage | None = None

    @property
    def second(self) -> Rescoring:
        """The search problem of the second stage."""
        full, grid, chosen = self.problem.full, self.problem.grid, self.chosen
        if chosen is None:
            return Rescoring(full, grid, self.store)
        climbs = tuple(
            TemplateClimb(
                threshold=each.threshold,
                score=each.regression,
                sigma=each.sigma,
                step=each.fine_step,
                coarse_step=each.step,
                symmetry=each.symmetry,
                coarse_tables=part.tables_folder,
            )
            for each, part in zip(chosen.templates, self.problem.search.parts, strict=True)
        )
        return Climbing(full, grid, self.store, climbs=climbs)

    @property
    def attributes(self) -> dict[str, Any]:
        """What a result says of it."""
        plan = {"grid": self.plan.grid, "tile": self.plan.core, "block": self.plan.block}
        own = {} if self.chosen is None else {"coarse_to_fine": json.dumps(self.chosen.described())}
        return own | {
            "search_factor": float(self.problem.grid.factor),
            "statistics_grid": self.problem.search.parts[0].statistics_fraction,
            "plan": json.dumps(plan),
        }

    def begin(self, inputs: MatchInputs) -> None:
        """Create the store and write what the tasks read, unless it is resumed."""
        if not self.store.exists():
            self.store.create(self.plan, self.problem.variables, ("z", "y", "x"), {})
            if self.chosen is not None:
                write_json(_choice_file(self.store), self.chosen.described())
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
        lowpass, grid = self.problem.lowpass, self.problem.grid
        for number, (each, part) in enumerate(zip(inputs.every, self.problem.full.parts, strict=True)):
            chosen = self.chosen
            own = each if chosen is None else replace(each, angles=chosen.templates[number].angles)
            yield make_coarse_tables(own, part, grid, lowpass)

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
        """CPU seconds of all rotations on all tiles, measured by a short calibration, and of the climbs."""
        seconds = 0.0
        for tables, part in zip(self._tables(inputs), self.problem.search.parts, strict=True):
            each = calibrate(part, tables, self.plan.tiles[0])
            seconds += each * part.hypotheses * len(self.plan.tiles)
        return seconds * self.share(inputs) * (1.0 if self.chosen is None else self.chosen.whole)

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
    store = RunStore(str(folder))
    chosen = None
    if inputs.parameters.strategy == "coarse_to_fine":
        chosen = _chosen(inputs, full, area, store)
    grid = choose_search_grid(inputs) if chosen is None else chosen.grid
    if grid is None:
        return None
    fractions = [_statistics_fraction(each, grid) for each in inputs.every]
    search = coarse_problem(full, grid, fractions)
    if chosen is not None:
        search = with_hypotheses(search, [len(each.angles) for each in chosen.templates])
    problem = CoarseSearch(search, full, grid, None if chosen is None else chosen.lowpass)
    where = CoarseArea(area, grid)
    plan = plan or make_plan(on_coarse_grid(inputs, grid), problem.search, where, resources)
    return FirstStage(problem, plan, where, store, chosen)


def _chosen(inputs: MatchInputs, full: MatchProblem, area: SearchArea, store: RunStore) -> ChosenStage | None:
    """Return the choice of an unfinished run, else a new one; None where everything is searched."""
    if _choice_file(store).exists():
        return restored(inputs, full, json.loads(_choice_file(store).read_text()))
    tiles = len(second_plan(area, len(inputs.every)).tiles)
    chosen, text = choose_first_stage(inputs, full, area, tiles=tiles)
    if chosen is None:
        log.warning("%s%s", inputs.parameters.source.place, text)
    return chosen


def _choice_file(store: RunStore) -> Path:
    return store.run_folder / "choice.json"


def _statistics_fraction(inputs: MatchInputs, grid: SearchGrid) -> float:
    if inputs.mask_kind != "general":
        return 1.0
    mask = coarse_mask(inputs.particle.mask, grid)
    return choose_statistics_grid(mask, inputs.parameters.statistics_grid).fraction


def second_plan(area: SearchArea, templates: int = 1) -> TilePlan:
    """Return the tiles of the second stage: few voxels of them are scored, so that they may be many."""
    edge = SHARD
    while edge > LEAST_SHARD and BYTES_OF_MAPS * templates * edge**3 > SHARD_BYTES:
        edge //= 2
    return plan_shards(area.shape, edge, is_wanted=None if area.is_everything else area.has)
