"""Runs of tomogram matching: checked and planned together, computed as one queue of tasks."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryodask.errors import IncompleteError, InputError
from cryodask.io.files import require_folder
from cryodask.jobs.tomogram_matching.area import search_area
from cryodask.jobs.tomogram_matching.checks import check_supported
from cryodask.jobs.tomogram_matching.inputs import load_inputs
from cryodask.jobs.tomogram_matching.match_run import MatchRun
from cryodask.jobs.tomogram_matching.outputs import check_disk, check_existing, check_finished, nearest_folder
from cryodask.jobs.tomogram_matching.planning import (
    Resources,
    fingerprint,
    make_plan,
    make_problem,
)
from cryodask.jobs.tomogram_matching.result import (
    check_rows_fit,
    map_files,
    result_name,
)
from cryodask.jobs.tomogram_matching.two_stages import COARSE, make_first_stage, second_plan
from cryodask.search.driver import Progress, drive
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
        plan = make_plan(problem, area, resources) if first is None else second_plan(area)
    return MatchRun(
        inputs, area, problem, plan, store, final, files, first, is_finished, overwrite and not resume
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
    client: "Client | None" = None,
    resources: Resources | None = None,
    cleanup: bool = True,
    listen: Callable[[Progress], None] = lambda progress: None,
    tell: Callable[[str], None] = lambda notice: None,
) -> list[Path]:
    """Compute runs as one queue of tasks, each result published as it completes.

    Parameters
    ----------
    runs
        From `open_runs`.
    client
        Dask client; default: the active one, else threads of this process.
    resources
        Gives the rotations of a task.
    cleanup
        Remove plan, records and constants of finished runs.
    listen
        Called after every task.
    tell
        Called with what a user should know of a finished run.

    Returns
    -------
    list of pathlib.Path
        The results, in order.

    Raises
    ------
    IncompleteError
        Where tiles failed.
    """
    batch = resources.angle_batch if resources else None
    with _executor(client) as (executor, slots):
        planned, progress = [], Progress()
        for number, run in enumerate(runs):
            if run.is_finished:
                continue
            if run.replaces:
                shutil.rmtree(run.store.path, ignore_errors=True)

            def complete(run: MatchRun = run) -> None:
                for notice in run.complete(progress, keep_run=not cleanup):
                    tell(notice)

            planned += run.planned(2 * number, slots(), batch, complete)
        try:
            drive(planned, executor, slots=slots, listen=listen, progress=progress)
        except (InputError, IncompleteError):
            for run in runs:
                run.forget()
            raise
    return [run.final for run in runs]


@contextmanager
def _executor(client: "Client | None") -> Iterator[tuple[Executor, Callable[[], int]]]:
    """Yield where tasks run, and how many run at once: a batch system's workers come and go."""
    client = client or _active_client()
    if client is not None:
        client.wait_for_workers(1)
        yield client.get_executor(pure=False, retries=2), lambda: max(1, sum(client.nthreads().values()))
        return
    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        yield pool, lambda: threads


def _active_client() -> "Client | None":
    from distributed import default_client

    try:
        return default_client()
    except ValueError:
        return None


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
