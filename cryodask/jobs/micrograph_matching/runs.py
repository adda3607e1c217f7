"""Runs of micrograph matching: checked and planned together, computed as one queue of tasks."""

import json
import math
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from cryodask.errors import ResourceError
from cryodask.jobs import execution
from cryodask.jobs.disk import check_disk, nearest_folder
from cryodask.jobs.execution import Stage, iso_time
from cryodask.jobs.micrograph_matching import constants
from cryodask.jobs.micrograph_matching.binning import choose_binning
from cryodask.jobs.micrograph_matching.config import MatchConfig
from cryodask.jobs.micrograph_matching.inputs import Explicit, MatchInputs, TemplateCache, load_inputs
from cryodask.jobs.micrograph_matching.outputs import (
    check_distinct,
    check_existing,
    check_finished,
    default_result,
    store_path,
)
from cryodask.jobs.micrograph_matching.planning import (
    POSITION_BYTES,
    Resources,
    fingerprint,
    make_plan,
    make_problem,
    measured_seconds,
    rough_seconds,
    working_set,
    write_constants,
)
from cryodask.jobs.micrograph_matching.problem import MicrographProblem
from cryodask.jobs.micrograph_matching.rescoring import Rescoring
from cryodask.jobs.micrograph_matching.result import finish_store, map_files
from cryodask.jobs.micrograph_matching.two_stages import (
    COARSE,
    Choices,
    FirstStage,
    make_first_stage,
    second_plan,
    second_working_set,
)
from cryodask.results.accessor import open_result
from cryodask.results.leopard_em import write_maps
from cryodask.search.driver import Progress
from cryodask.search.store import RunStore, check_same_run
from cryodask.search.tiles import TilePlan

# Partial results on the disk at once, for two workers: workers + 8, and one that is being folded.
PARTIALS = 11


@dataclass
class MatchRun:
    """One micrograph with one template: its inputs, its plan, and where its results go."""

    inputs: MatchInputs
    problem: MicrographProblem
    plan: TilePlan
    store: RunStore
    final: Path
    files: dict[str, str]
    first: FirstStage | None = None
    is_finished: bool = False
    replaces: bool = False
    started: float = field(default_factory=time.time)
    new_folders: list[Path] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The pair's name, for messages."""
        return f"{self.inputs.config.micrograph_name} with {self.inputs.config.template_name}"

    @property
    def search(self) -> MicrographProblem:
        """What all orientations of its list are searched on: the first stage where there is one."""
        return self.problem if self.first is None else self.first.problem

    @property
    def search_plan(self) -> TilePlan:
        """The tiles of that search."""
        return self.plan if self.first is None else self.first.plan

    @cached_property
    def last(self) -> "MicrographProblem | Rescoring":
        """The problem whose maps are the result."""
        return self.problem if self.first is None else self.first.second(self.inputs, self.problem)

    @property
    def stages(self) -> list[Stage]:
        """What is computed, in order."""
        search = Stage(self.search, self.search_plan, self.store, self.seconds_each)
        if self.first is None:
            return [search]
        return [replace(search, store=self.first.store), Stage(self.last, self.plan, self.store, 1.0)]

    @property
    def stored_bytes(self) -> float:
        """Bytes of the result, uncompressed, and of its map files."""
        maps = sum(np.dtype(variable.dtype).itemsize for variable in self.last.variables)
        return float(math.prod(self.problem.shape)) * (maps + 4 * len(self.files))

    @property
    def scratch_bytes(self) -> float:
        """Bytes of the constants and of a few partial results while running."""
        padding = self.inputs.config.cryodask.padding
        spectrum = 4.0 * (padding * self.problem.box) ** 3
        image = 4.0 * math.prod(self.inputs.binning.searched_shape)
        filters = 4.0 * self.problem.scores_each * self.problem.box**2 / 2
        if self.first is not None:  # its own constants and maps
            spectrum, image, filters = 2 * spectrum, 2 * image, 2 * filters
            image += self.stored_bytes
        return spectrum + image + filters + PARTIALS * POSITION_BYTES * math.prod(self.search_plan.core)

    @property
    def working_set(self) -> float:
        """Bytes of a task."""
        inputs = self.inputs if self.first is None else self.first.inputs
        needed = working_set(inputs, self.search, self.search_plan.block, self.search_plan.core)
        if self.first is None:
            return needed
        return max(needed, second_working_set(self.problem, self.inputs.config.cryodask.padding))

    @property
    def seconds_each(self) -> float:
        """CPU seconds of one orientation on one tile, by a rule of thumb."""
        return rough_seconds(self.search, self.search_plan.block)

    def rough_seconds(self) -> float:
        """CPU seconds of the whole search, without a second stage, by a rule of thumb."""
        return self.seconds_each * self.search.hypotheses * len(self.search_plan.tiles)

    def measured_seconds(self) -> float:
        """CPU seconds of the whole search, without a second stage, measured by a short calibration."""
        inputs = self.inputs if self.first is None else self.first.inputs
        with tempfile.TemporaryDirectory(prefix="cryodask-") as folder:
            each = measured_seconds(inputs, self.search, self.search_plan.tiles[0], Path(folder))
        return each * self.search.hypotheses * len(self.search_plan.tiles)

    def begin(self) -> None:
        """Create the store, unless it is resumed."""
        if not self.store.exists():
            shutil.rmtree(self.store.path, ignore_errors=True)
            self.new_folders = [f for f in self.final.parents if not f.exists()]
            self.store.create(self.plan, self.last.variables, ("y", "x"), fingerprint(self.inputs))
        if not constants.has_tables(Path(self.problem.folder)):
            write_constants(self.inputs, self.problem)
        if self.first is not None:
            self.first.begin()

    def forget(self) -> None:
        """Remove what was begun and has nothing to resume."""
        if not constants.is_prepared(Path(self.search.folder)):
            shutil.rmtree(self.store.path, ignore_errors=True)
            with suppress(OSError):
                for folder in self.new_folders:
                    folder.rmdir()

    def complete(self, progress: Progress, *, keep_run: bool) -> list[str]:
        """Finish the result, write the maps and give it its name; return what should be told."""
        stored, finished = self.store.progress(), time.time()
        extra = {
            "started": iso_time(self.started),
            "finished": iso_time(finished),
            "cost": json.dumps(
                {"wall_seconds": finished - self.started, "core_seconds": progress.cpu_seconds}
            ),
            "fingerprint": json.dumps(fingerprint(self.inputs)),
        }
        if self.first is not None and isinstance(self.last, Rescoring):
            extra |= self.first.attributes(self.last)
        summaries = [stored[tile.index].summary for tile in self.plan.tiles]
        notices = finish_store(self.store.path, self.inputs, self.problem, self.plan, summaries, extra)
        if self.files:
            write_maps(open_result(self.store.path), self.files)
        self.store.publish(str(self.final), keep_run=keep_run)
        return [f"{self.name}: {notice}" for notice in notices]


def open_runs(
    configs: Sequence[MatchConfig],
    resources: Resources,
    *,
    output: Path | None = None,
    explicit: Explicit | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> list[MatchRun]:
    """Check every pair of micrograph and template and plan its run; nothing is written.

    Parameters
    ----------
    configs
        One for each pair.
    resources
        Memory and tiling.
    output
        The result of a single pair; of several, the store that holds a group for each micrograph and in it
        one for each template.
    explicit
        Arrays in place of the configuration's grids.
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
    many, templates = len(configs) > 1, TemplateCache()
    finals = [_final(config, output, many) for config in configs]
    check_distinct(configs, finals)
    runs: list[MatchRun] = []
    choices: Choices = {}
    for config, final in zip(configs, finals, strict=True):
        inputs = load_inputs(config, explicit=explicit, is_one_of_many=many, templates=templates)
        runs.append(_open_run(inputs, final, resources, choices, resume=resume, overwrite=overwrite))
    left = [run for run in runs if not run.is_finished]
    if left:
        folder = nearest_folder(left[0].final.absolute().parent)
        scratch = sum(sorted((run.scratch_bytes for run in left), reverse=True)[:2])
        check_disk(folder, scratch + sum(run.stored_bytes for run in left))
    return runs


def _final(config: MatchConfig, output: Path | None, many: bool) -> Path:
    final = (default_result(config) if output is None else output).expanduser().absolute()
    return final / config.micrograph_name / config.template_name if many and output is not None else final


def _open_run(
    inputs: MatchInputs,
    final: Path,
    resources: Resources,
    choices: Choices,
    *,
    resume: bool,
    overwrite: bool,
) -> MatchRun:
    store, files = RunStore(str(store_path(final))), map_files(inputs)
    check_existing(inputs, final, store, files, resume=resume, overwrite=overwrite)
    inputs, problem, first = _stages(inputs, store, resources, choices)
    # an unfinished store beside a finished one is an interrupted --overwrite: that is what goes on
    is_finished = resume and final.exists() and not store.exists()
    if is_finished:
        check_finished(final, inputs)
    if resume and store.exists():
        plan, before = store.read_plan()
        check_same_run(before, fingerprint(inputs))
    else:
        plan = make_plan(inputs, problem, resources) if first is None else second_plan(problem)
    run = MatchRun(inputs, problem, plan, store, final, files, first, is_finished)
    run.replaces = overwrite and not resume
    if run.working_set > resources.memory:
        raise ResourceError(
            f"{run.name}: a tile of {' x '.join(map(str, run.search_plan.block))} needs "
            f"{run.working_set / 2**30:.3g} GiB, a worker has "
            f"{resources.memory / 2**30:.3g} GiB; raise --memory or set cryodask.tile smaller"
        )
    return run


def _stages(
    inputs: MatchInputs, store: RunStore, resources: Resources, choices: Choices
) -> tuple[MatchInputs, MicrographProblem, FirstStage | None]:
    """Return the inputs and the problem at full size, and the coarse search before it."""
    if inputs.config.cryodask.strategy == "coarse_to_fine":
        # bin_to is then that of the first stage
        inputs = replace(inputs, binning=choose_binning(None, 1.0, inputs.box, inputs.image_shape), share=1.0)
    problem = make_problem(inputs, store.constants, resources)
    return inputs, problem, make_first_stage(inputs, resources, store.run_folder / COARSE, choices)


def execute(runs: Sequence[MatchRun], *, resources: Resources | None = None, **options: Any) -> list[Path]:
    """Compute runs from `open_runs` as one queue of tasks, each result published as it completes.

    Options and errors are those of `cryodask.jobs.execution.execute`.
    """
    mark_groups(runs)
    return execution.execute(runs, batch=resources.whole_batch if resources else None, **options)


def mark_groups(runs: Sequence[MatchRun]) -> None:
    """Make the groups of a store that holds several pairs, so that it opens as one."""
    for root in {run.final.parents[1] for run in runs if run.final.parents[1].suffix == ".zarr"}:
        group = zarr.open_group(root, mode="a", zarr_format=3)
        for run in runs:
            if run.final.parents[1] == root:
                group.require_group(run.final.parent.name)
