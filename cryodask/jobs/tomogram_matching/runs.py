"""Runs of tomogram matching: checked and planned together, computed as one queue of tasks."""

import json
import logging
import math
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryodask.errors import InputError
from cryodask.io.files import require_folder
from cryodask.jobs import execution
from cryodask.jobs.disk import check_disk, nearest_folder
from cryodask.jobs.execution import iso_time
from cryodask.jobs.tomogram_matching import constants
from cryodask.jobs.tomogram_matching.area import SearchArea, search_area
from cryodask.jobs.tomogram_matching.checks import check_supported
from cryodask.jobs.tomogram_matching.inputs import MatchInputs, load_inputs
from cryodask.jobs.tomogram_matching.many_templates import MatchProblem
from cryodask.jobs.tomogram_matching.notices import Notices
from cryodask.jobs.tomogram_matching.outputs import check_existing, check_finished
from cryodask.jobs.tomogram_matching.planning import (
    Resources,
    calibrate,
    fingerprint,
    has_constants,
    make_plan,
    make_problem,
    make_tables,
    rough_seconds,
    share_of_rows,
    working_set,
    write_constants,
)
from cryodask.jobs.tomogram_matching.problem import LEAST_FOR_ZSCORE
from cryodask.jobs.tomogram_matching.result import (
    MapKey,
    check_rows_fit,
    finish_store,
    map_files,
    result_name,
    write_maps,
)
from cryodask.search.driver import Progress
from cryodask.search.store import RunStore, check_same_run
from cryodask.search.tiles import TilePlan

if TYPE_CHECKING:
    from distributed import Client

    from cryodask.jobs.tomogram_matching.parameters import MatchParameters

log = logging.getLogger("cryodask")
# with two slots rotations are split where tiles are fewer, and leave at most so many partials on the disk
SPLIT_BELOW, PARTIALS = 8, 13
PYRAMID = 8 / 7  # bytes of a map and its coarser levels, by those of the map


@dataclass
class MatchRun:
    """One row: its inputs, its plan, and where its results go; `replaces` an unfinished run of that name.

    `share` is the part of all rotations that its tiles need.
    """

    inputs: MatchInputs
    area: SearchArea
    problem: MatchProblem
    plan: TilePlan
    store: RunStore
    final: Path
    files: dict[MapKey, Path]
    share: float = 1.0
    is_finished: bool = False
    replaces: bool = False
    started: float = field(default_factory=time.time)
    new_folders: list[Path] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The result's name, for messages."""
        return self.final.name

    @property
    def stored_bytes(self) -> float:
        """Bytes of the result, uncompressed."""
        voxels = float(np.prod(self.problem.shape))
        maps = sum(
            np.dtype(v.dtype).itemsize * math.prod(length for _, length in v.leading)
            for v in self.problem.variables
        )
        files = 4 * len([key for key in self.files if key.suffix != "csv"])
        return voxels * (maps * PYRAMID + files)

    @property
    def scratch_bytes(self) -> float:
        """Bytes of the filtered tomogram, its spectrum, and a few partial results while running."""
        spectra = 8.0 * float(np.prod([axis.length for axis in self.problem.tomogram_filter.axes]))
        if len(self.plan.tiles) >= SPLIT_BELOW:
            return spectra
        states = 8 * (1 + self.problem.beside) + 16 * self.problem.moments
        return spectra + PARTIALS * states * float(np.prod(self.plan.core))

    @property
    def working_set(self) -> float:
        """Bytes of a task."""
        return working_set(self.problem, self.plan.block, self.plan.core)

    @property
    def seconds_each(self) -> float:
        """CPU seconds of one rotation on one tile, by a rule of thumb."""
        return rough_seconds(self.problem, self.plan.block) * self.share

    def rough_seconds(self) -> float:
        """CPU seconds of all rotations on all tiles, by a rule of thumb."""
        return self.seconds_each * self.problem.hypotheses * len(self.plan.tiles)

    def measured_seconds(self) -> float:
        """CPU seconds of all rotations on all tiles, measured by a short calibration."""
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
            self.store.create(self.plan, self.problem.variables, ("z", "y", "x"), marks)
        if not has_constants(self.problem):
            write_constants(self.inputs, self.problem, self.area)

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
        extra = {
            "started": iso_time(self.started),
            "finished": iso_time(finished),
            "cost": json.dumps(
                {"wall_seconds": finished - self.started, "core_seconds": progress.cpu_seconds}
            ),
            "fingerprint": json.dumps(fingerprint(self.inputs)),
        }
        finish_store(self.store.path, self.inputs, self.problem, self.plan, summaries, extra)
        write_maps(self.store.path, self.inputs, self.files)
        notices = list(constants.read_prepared(self.problem.folder)["notices"])
        if self.problem.moments and not all(part.has_zscore for part in self.problem.parts):
            notices.append(f"fewer than {LEAST_FOR_ZSCORE} rotations of a template, no zscore")
        self.store.publish(str(self.final), keep_run=keep_run)
        return [f"{self.name}: {notice}" for notice in notices]


def open_runs(
    rows: Sequence["MatchParameters"],
    resources: Resources,
    *,
    final: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> list[MatchRun]:
    """Check every row and plan its run; nothing is written.

    Parameters
    ----------
    rows
        Parameters, one tomogram each.
    resources
        Memory and tiling.
    final
        Where the result of a single row goes, instead of the output folder and name of its parameters.
    resume
        Continue unfinished runs and skip finished ones.
    overwrite
        Replace results of the same name.

    Raises
    ------
    InputError
        A wrong value or file, an existing result, a changed run.
    ResourceError
        No tile fits the memory, or the results do not fit the disk.
    """
    check_supported(rows)
    runs = [_open_run(row, resources, final, resume=resume, overwrite=overwrite) for row in rows]
    names = [run.final for run in runs]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{name}: {names.count(name)} rows write this result; give them different names")
    for folder, size in _needed_bytes(runs).items():
        check_disk(folder, size)
    return runs


def _open_run(
    parameters: "MatchParameters",
    resources: Resources,
    final: Path | None,
    *,
    resume: bool,
    overwrite: bool,
) -> MatchRun:
    if final is None:
        require_folder(parameters.locate(parameters.output))
    inputs = load_inputs(parameters)
    final = final or Path(parameters.locate(parameters.output)) / result_name(inputs)
    store = RunStore(str(final.with_name(f"{final.name.removesuffix('.zarr')}.partial.zarr")))
    files = map_files(inputs, final.parent)
    check_rows_fit(inputs, files)
    check_existing(final, store, files, resume=resume, overwrite=overwrite)
    area = search_area(inputs)
    problem = make_problem(inputs, store.constants, resources)
    # an unfinished store beside a finished one is an interrupted --overwrite: that is what goes on
    is_finished = resume and final.exists() and not store.exists()
    if is_finished:
        check_finished(final, inputs)
    if resume and store.exists():
        plan, before = store.read_plan()
        check_same_run(before, fingerprint(inputs))
    else:
        plan = make_plan(inputs, problem, area, resources)
    share = share_of_rows(inputs, problem, plan)
    return MatchRun(
        inputs, area, problem, plan, store, final, files, share, is_finished, overwrite and not resume
    )


def _needed_bytes(runs: Sequence[MatchRun]) -> dict[Path, float]:
    """Return the bytes that results, and the scratch of the two runs that overlap, need in each folder."""
    needed: dict[Path, float] = {}
    left = [run for run in runs if not run.is_finished]
    for run in left:
        folder = nearest_folder(run.final.parent)
        needed[folder] = needed.get(folder, 0.0) + run.stored_bytes
    scratch = sum(sorted((run.scratch_bytes for run in left), reverse=True)[:2])
    return {folder: size + scratch for folder, size in needed.items()}


def execute(
    runs: Sequence[MatchRun],
    *,
    resources: Resources | None = None,
    listen: Callable[[Progress], None] = lambda progress: None,
    tell: Callable[[str], None] = log.warning,
    **options: Any,
) -> list[Path]:
    """Compute runs from `open_runs` as one queue of tasks, each result published as it completes.

    `resources` gives the rotations of a task; other options and errors are those of
    `cryodask.jobs.execution.execute`.
    """
    notices = Notices(runs, listen, tell)
    batch = resources.angle_batch if resources else None
    return execution.execute(runs, batch=batch, listen=notices.listen, tell=notices.tell, **options)


def run(
    rows: Sequence["MatchParameters"],
    *,
    client: "Client | None" = None,
    resources: Resources | None = None,
    resume: bool = False,
    overwrite: bool = False,
    cleanup: bool = True,
    **callbacks: Any,
) -> list[Path]:
    """Match tomograms and store the results: `open_runs` and `execute` in one.

    Returns
    -------
    list of pathlib.Path
        The result stores, in order; the maps of other formats lie beside them.
    """
    resources = resources or Resources()
    runs = open_runs(rows, resources, resume=resume, overwrite=overwrite)
    return execute(runs, client=client, resources=resources, cleanup=cleanup, **callbacks)
