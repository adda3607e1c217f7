"""One row of a parameter file as a run: its plan, its stages, and what completes its result."""

import json
import math
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryodask.jobs.execution import Stage, iso_time
from cryodask.jobs.tomogram_matching import constants
from cryodask.jobs.tomogram_matching.area import SearchArea
from cryodask.jobs.tomogram_matching.inputs import MatchInputs
from cryodask.jobs.tomogram_matching.many_templates import MatchProblem
from cryodask.jobs.tomogram_matching.planning import (
    calibrate,
    fingerprint,
    has_constants,
    make_tables,
    rough_seconds,
    working_set,
    write_constants,
)
from cryodask.jobs.tomogram_matching.problem import LEAST_FOR_ZSCORE
from cryodask.jobs.tomogram_matching.rescoring import Rescoring
from cryodask.jobs.tomogram_matching.result import (
    MapKey,
    finish_store,
    write_maps,
)
from cryodask.jobs.tomogram_matching.two_stages import FirstStage
from cryodask.search.driver import Progress
from cryodask.search.store import RunStore
from cryodask.search.tiles import TilePlan

if TYPE_CHECKING:
    pass

# with two slots rotations are split where tiles are fewer, and leave at most so many partials on the disk
SPLIT_BELOW, PARTIALS = 8, 13
PYRAMID = 8 / 7  # bytes of a map and its coarser levels, by those of the map


@dataclass
class MatchRun:
    """One row: its inputs, its plan, and where its results go; `replaces` an unfinished run of that name.

    `share` is the part of all rotations that its tiles need, `first` the coarse search before it.
    """

    inputs: MatchInputs
    area: SearchArea
    problem: MatchProblem
    plan: TilePlan
    store: RunStore
    final: Path
    files: dict[MapKey, Path]
    share: float = 1.0
    first: FirstStage | None = None
    is_finished: bool = False
    replaces: bool = False
    started: float = field(default_factory=time.time)
    new_folders: list[Path] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The result's name, for messages."""
        return self.final.name

    @property
    def search(self) -> MatchProblem:
        """What all rotations are searched on: the coarse grid where there is one."""
        return self.problem if self.first is None else self.first.problem.search

    @property
    def search_plan(self) -> TilePlan:
        """The tiles of that search."""
        return self.plan if self.first is None else self.first.plan

    @property
    def last(self) -> "MatchProblem | Rescoring":
        """The problem whose maps are the result."""
        return self.problem if self.first is None else self.first.second

    @property
    def stored_bytes(self) -> float:
        """Bytes of the result, uncompressed."""
        voxels = float(np.prod(self.problem.shape))
        maps = sum(
            np.dtype(v.dtype).itemsize * math.prod(length for _, length in v.leading)
            for v in self.last.variables
        )
        files = 4 * len([key for key in self.files if key.suffix != "csv"])
        return voxels * (maps * PYRAMID + files)

    @property
    def scratch_bytes(self) -> float:
        """Bytes of the filtered tomogram, its spectrum, and a few partial results while running."""
        spectra = 8.0 * float(np.prod([axis.length for axis in self.problem.tomogram_filter.axes]))
        if self.first is not None:
            spectra += self.first.scratch_bytes
        if len(self.search_plan.tiles) >= SPLIT_BELOW:
            return spectra
        states = 8 * (1 + self.problem.beside) + 16 * self.problem.moments
        return spectra + PARTIALS * states * float(np.prod(self.search_plan.core))

    @property
    def working_set(self) -> float:
        """Bytes of a task."""
        return working_set(self.search, self.search_plan.block, self.search_plan.core)

    @property
    def seconds_each(self) -> float:
        """CPU seconds of one rotation on one tile, by a rule of thumb."""
        return rough_seconds(self.search, self.search_plan.block) * self.share

    def rough_seconds(self) -> float:
        """CPU seconds of all rotations on all tiles, by a rule of thumb."""
        return self.seconds_each * self.search.hypotheses * len(self.search_plan.tiles)

    def measured_seconds(self) -> float:
        """CPU seconds of all rotations on all tiles, measured by a short calibration."""
        if self.first is not None:
            return self.first.measured_seconds(self.inputs)
        seconds = 0.0
        for inputs, part in zip(self.inputs.every, self.problem.parts, strict=True):
            each = calibrate(part, make_tables(inputs, part), self.plan.tiles[0])
            seconds += each * part.hypotheses * len(self.plan.tiles)
        return seconds * self.share

    def begin(self) -> None:
        """Create the store, unless it is resumed."""
        if not self.store.exists():
            shutil.rmtree(self.store.path, ignore_errors=True)
            self.new_folders = [f for f in self.final.parents if not f.exists()]
            marks = fingerprint(self.inputs)
            self.store.create(self.plan, self.last.variables, ("z", "y", "x"), marks)
        if not has_constants(self.problem):
            write_constants(self.inputs, self.problem, self.area)
        if self.first is not None:
            self.first.begin(self.inputs)

    @property
    def stages(self) -> list[Stage]:
        """What is computed, in order."""
        if self.first is None:
            return [Stage(self.problem, self.plan, self.store, self.seconds_each)]
        return [
            Stage(self.first.problem, self.first.plan, self.first.store, self.seconds_each),
            Stage(self.first.second, self.plan, self.store, 1.0),
        ]

    def forget(self) -> None:
        """Remove what was begun and has nothing to resume."""
        if not constants.is_prepared(Path(self.problem.folder)):
            shutil.rmtree(self.store.path, ignore_errors=True)
            with suppress(OSError):
                for folder in self.new_folders:
                    folder.rmdir()

    def complete(self, progress: Progress, *, keep_run: bool) -> list[str]:
        """Finish the result, write the maps and give them their names; return what should be told."""
        stored = self.store.progress()
        summaries = [stored[tile.index].summary for tile in self.plan.tiles]
        finished = time.time()
        extra: dict[str, Any] = {
            "started": iso_time(self.started),
            "finished": iso_time(finished),
            "cost": json.dumps(
                {"wall_seconds": finished - self.started, "core_seconds": progress.cpu_seconds}
            ),
            "fingerprint": json.dumps(fingerprint(self.inputs)),
        }
        if self.first is not None:
            extra |= self.first.attributes
        names = [variable.name for variable in self.last.variables]
        finish_store(self.store.path, self.inputs, self.problem, self.plan, summaries, names, extra)
        write_maps(self.store.path, self.inputs, self.files)
        notices = list(constants.read_prepared(self.problem.folder)["notices"])
        if self.problem.moments and not all(part.has_zscore for part in self.problem.parts):
            notices.append(f"fewer than {LEAST_FOR_ZSCORE} rotations of a template, no zscore")
        self.store.publish(str(self.final), keep_run=keep_run)
        return [f"{self.name}: {notice}" for notice in notices]
