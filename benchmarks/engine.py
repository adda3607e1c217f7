"""What the engine costs: tomogram matching driven through a LocalCluster beside its kernel in a plain loop.

    python benchmarks/engine.py --cpu-seconds 120

Both do the same tiles and batches of workload W, in as many processes. The plain loop has its blocks and
tables in memory and keeps nothing. Times are user and system seconds of all processes: workers, scheduler and
client. Start-up, imports, compilation and the filtering of the tomogram come before; writing the result is
measured in the workers and told apart.
"""

import argparse
import json
import math
import multiprocessing
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from workload import VOXEL_SIZE, make_workload, write_workload

WRITING: list[float] = []  # CPU seconds of each tile that this process has written


def main() -> None:
    options = read_options()
    with tempfile.TemporaryDirectory(prefix="cryodask-engine-") as folder:
        folder = Path(folder)
        run = prepared_run(folder, options)
        tasks, batch = task_list(run, options)
        print(
            f"{len(run.plan.tiles)} tiles of {run.plan.block} x {run.problem.hypotheses} rotations, "
            f"{options.mask} mask: {len(tasks)} tasks of {batch} rotations, {options.workers} processes"
        )
        rounds = [measure(run, tasks, batch, options, folder / f"{n}") for n in range(options.rounds)]
    ratio = statistics.median(each["ratio"] for each in rounds)
    print(f"engine / plain loop: {ratio:.4f} (median of {len(rounds)})")
    print(json.dumps({"ratio": ratio, "rounds": rounds}))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cpu-seconds", type=float, default=120.0, help="of the plain loop, at least")
    parser.add_argument("--shape", type=int, nargs=3, default=(128, 256, 256), metavar=("Z", "Y", "X"))
    parser.add_argument("--box", type=int, default=40)
    parser.add_argument("--mask", choices=["sphere", "tight"], default="sphere")
    parser.add_argument("--no-moments", dest="moments", action="store_false")
    parser.add_argument("--ntiles", type=int, help="exactly so many tiles")
    parser.add_argument("--batch", type=int, help="rotations of a task")
    parser.add_argument("--memory", default="2GiB", help="of a worker")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1)
    return parser.parse_args()


def prepared_run(folder: Path, options: argparse.Namespace):
    """Return a run of W with as many rotations as the time asks for, its tomogram filtered already."""
    from cryodask.cluster import parse_memory
    from cryodask.jobs.tomogram_matching.planning import Resources

    resources = Resources(float(parse_memory(options.memory)), options.ntiles, device="cpu")
    workload = make_workload(tuple(options.shape), box=options.box, n_rotations=16, n_planted=1)
    write_workload(workload, folder)
    run = open_run(folder, options, resources)
    once = 1.1 * run.measured_seconds() / run.problem.hypotheses
    rotations = max(16, math.ceil(options.cpu_seconds / once))
    workload = make_workload(tuple(options.shape), box=options.box, n_rotations=rotations, n_planted=1)
    write_workload(workload, folder)
    run = open_run(folder, options, resources)
    run.begin()
    run.problem.prepare()
    return run


def open_run(folder: Path, options: argparse.Namespace, resources):
    from cryodask.jobs.tomogram_matching.parameters import MatchParameters
    from cryodask.jobs.tomogram_matching.runs import open_runs

    given = {
        "tomogram": str(folder / "tomo.mrc"),
        "template": str(folder / "template.mrc"),
        "mask": str(folder / f"mask_{options.mask}.mrc"),
        "angles": {"file": str(folder / "angles_zxz_deg.csv"), "units": "degree"},
        "voxel_size": VOXEL_SIZE,
        "boundary": "wrap",
        "interpolation": "linear",
        "moments": options.moments,
    }
    return open_runs([MatchParameters.from_native(given)], resources, final=folder / "W.zarr")[0]


def task_list(run, options: argparse.Namespace) -> tuple[list, int]:
    """Return every tile and batch of a run, and the rotations of a batch as the job would choose them."""
    from cryodask.jobs.tomogram_matching.planning import rough_seconds
    from cryodask.search.plan import split_hypotheses
    from cryodask.search.tiles import Batch

    count = run.problem.hypotheses
    batch = split_hypotheses(
        count,
        tiles=len(run.plan.tiles),
        slots=options.workers,
        seconds_each=rough_seconds(run.problem, run.plan.block),
        batch=options.batch,
    )
    starts = range(0, count, batch)
    return [(t, Batch(first, min(first + batch, count))) for t in run.plan.tiles for first in starts], batch


def measure(run, tasks: list, batch: int, options: argparse.Namespace, folder: Path) -> dict[str, float]:
    plain = plain_seconds(run.problem, tasks, options.workers)
    total, writing, wall = engine_seconds(run, batch, options, folder)
    found = {
        "plain_cpu_seconds": plain,
        "engine_cpu_seconds": total - writing,
        "writing_cpu_seconds": writing,
        "engine_wall_seconds": wall,
        "ratio": (total - writing) / plain,
    }
    print("  ".join(f"{name} {value:.3f}" for name, value in found.items()), flush=True)
    return found


def plain_seconds(problem, tasks: list, workers: int) -> float:
    """Return the CPU seconds of the kernel alone over all tasks, shared out to processes."""
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        shares = [tasks[n::workers] for n in range(workers)]
        return sum(pool.map(plain_loop, [problem] * workers, shares))


def plain_loop(problem, tasks: list) -> float:
    from cryodask.jobs.tomogram_matching import constants

    warm(problem, *tasks[0])
    tables, spent = constants.read_tables(problem.tables_folder), 0.0
    at, block = None, None
    for tile, batch in tasks:
        if tile != at:
            at, block = tile, read_block(problem, tile)
        start = time.process_time()
        problem.fold_block(block, tables, tile, batch)
        spent += time.process_time() - start
    return spent


def read_block(problem, tile):
    from cryodask.jobs.tomogram_matching import constants

    box, halo = problem.box // 2, problem.box - 1
    return constants.read_block(
        Path(problem.folder), tile, before=box, halo=halo, margin=problem.margin, wrap=problem.wrap
    )


def warm(problem, tile, batch) -> None:
    """Import, compile and fill the caches of a process."""
    problem.fold(tile, replace(batch, stop=min(batch.stop, batch.start + 8)))


def engine_seconds(run, batch: int, options: argparse.Namespace, folder: Path) -> tuple[float, float, float]:
    """Return CPU seconds of a driven run on all processes, those of writing tiles, and wall seconds."""
    from cryodask.cluster import open_cluster
    from cryodask.search.driver import PlannedRun, drive
    from cryodask.search.task import Run
    from cryodask.search.tiles import Batch

    store = timed_store(str(folder))
    store.create(run.plan, run.problem.variables, ("z", "y", "x"), {})
    task = Run(0, run.problem, store)
    planned = PlannedRun(task, run.plan, batch, lambda: None, lambda: None, "W")
    with open_cluster("local", workers=options.workers, memory=options.memory) as client:
        client.run(warm, run.problem, run.plan.tiles[0], Batch(0, min(8, batch)))
        client.run(warm_writing, store)
        before, start = all_seconds(client), time.perf_counter()
        drive([planned], client.get_executor(pure=False, retries=2), slots=options.workers)
        wall, after = time.perf_counter() - start, all_seconds(client)
        writing = sum(client.run(written).values())
    return after - before, writing, wall


def all_seconds(client) -> float:
    """Return the CPU seconds of client, scheduler and workers so far."""
    return time.process_time() + sum(client.run(time.process_time).values())


def timed_store(path: str):
    from cryodask.search.store import RunStore

    @dataclass(frozen=True)
    class TimedStore(RunStore):
        """Notes what it takes to write a tile: a worker of one thread does nothing else meanwhile."""

        def write_tile(self, tile, arrays, summary) -> None:
            start = time.process_time()
            super().write_tile(tile, arrays, summary)
            note_writing(time.process_time() - start)

    return TimedStore(path)


def note_writing(seconds: float) -> None:
    WRITING.append(seconds)


def written() -> float:
    return sum(WRITING)


def warm_writing(store) -> None:
    """Import what opening and writing a store imports."""
    store.read_plan()
    store.progress()
    import zarr

    dict(zarr.open_group(store.path, mode="r").arrays())


if __name__ == "__main__":
    import engine  # under its own name, so that worker processes find its functions

    sys.exit(engine.main())
