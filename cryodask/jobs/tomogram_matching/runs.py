"""Runs of tomogram matching: checked and planned together, computed as one queue of tasks."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryodask.errors import InputError
from cryodask.io.files import require_folder
from cryodask.jobs import execution
from cryodask.jobs.disk import check_disk, nearest_folder
from cryodask.jobs.tomogram_matching import constants
from cryodask.jobs.tomogram_matching.area import search_area
from cryodask.jobs.tomogram_matching.checks import check_supported
from cryodask.jobs.tomogram_matching.inputs import load_inputs
from cryodask.jobs.tomogram_matching.match_run import MatchRun
from cryodask.jobs.tomogram_matching.outputs import check_existing, check_finished
from cryodask.jobs.tomogram_matching.planning import (
    Resources,
    fingerprint,
    make_plan,
    make_problem,
    share_of_rows,
)
from cryodask.jobs.tomogram_matching.result import (
    check_rows_fit,
    map_files,
    result_name,
)
from cryodask.jobs.tomogram_matching.two_stages import COARSE, make_first_stage, second_plan
from cryodask.jobs.tomogram_matching.voxel_checks import check_voxels
from cryodask.search.store import RunStore, check_same_run

if TYPE_CHECKING:
    from distributed import Client

    from cryodask.jobs.tomogram_matching.parameters import MatchParameters


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
    unread = [run for run in runs if not (run.is_finished or constants.is_prepared(run.store.constants))]
    if len(runs) > 1:
        check_voxels(run.problem.tomogram_filter for run in unread)
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
    plan = None
    if resume and store.exists():
        plan, before = store.read_plan()
        check_same_run(before, fingerprint(inputs))
    coarse = store.run_folder / COARSE
    known = RunStore(str(coarse)).read_plan()[0] if plan and RunStore(str(coarse)).exists() else None
    first = make_first_stage(inputs, problem, area, resources, coarse, known)
    if plan is None:
        plan = (
            make_plan(inputs, problem, area, resources)
            if first is None
            else second_plan(area, len(inputs.every))
        )
    share = share_of_rows(inputs, problem, plan) if first is None else first.share(inputs)
    replaces = overwrite and not resume
    return MatchRun(inputs, area, problem, plan, store, final, files, share, first, is_finished, replaces)


def _needed_bytes(runs: Sequence[MatchRun]) -> dict[Path, float]:
    """Return the bytes that results, and the scratch of the two runs that overlap, need in each folder."""
    needed: dict[Path, float] = {}
    left = [run for run in runs if not run.is_finished]
    for run in left:
        folder = nearest_folder(run.final.parent)
        needed[folder] = needed.get(folder, 0.0) + run.stored_bytes
    scratch = sum(sorted((run.scratch_bytes for run in left), reverse=True)[:2])
    return {folder: size + scratch for folder, size in needed.items()}


def execute(runs: Sequence[MatchRun], *, resources: Resources | None = None, **options: Any) -> list[Path]:
    """Compute runs from `open_runs` as one queue of tasks, each result published as it completes.

    `resources` gives the rotations of a task; other options and errors are those of
    `cryodask.jobs.execution.execute`.
    """
    return execution.execute(runs, batch=resources.angle_batch if resources else None, **options)


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
