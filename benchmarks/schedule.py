"""What the scheduler and the client hold during a very long job: 200 tomograms at 3 degrees, no-op kernel.

    python benchmarks/schedule.py --tasks 20000

The job is that of 200 tomograms of 500 x 1000 x 1000 voxels: 18 tiles each and 576000 rotations in tasks of
240, 8.6 million tasks. It is driven through a LocalCluster until so many tasks are done; their work is to
wait: the driver, the scheduler (in the client's process) and the window between them are measured. Without
waiting the scheduler's queue runs empty all the time, and it keeps some notes each time that it fills again.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class NoWork:
    """A search whose kernel does nothing, for a while."""

    hypotheses: int
    seconds: float = 0.0
    variables = ()

    @property
    def aggregates(self):
        return {}

    def prepare(self):
        pass

    def fold(self, tile, batch):
        time.sleep(self.seconds)
        return {}

    def finish(self, tile, states):
        return {}, {}


@dataclass(frozen=True)
class NoStore:
    """A store that keeps nothing."""

    path: str = ""

    def progress(self):
        return {}

    def write_tile(self, tile, arrays, summary):
        pass

    def write_partial(self, tile, ranges, states):
        from cryodask.search.store import Part

        return Part(ranges, "")

    read_partial = find_partial = lambda self, *arguments: {}

    def has_tile(self, tile):
        return True

    def remove_partials(self, parts):
        pass


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--tomograms", type=int, default=200)
    parser.add_argument("--rotations", type=int, default=576_000)
    parser.add_argument("--batch", type=int, default=240)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.02, help="that a task waits")
    options = parser.parse_args()
    print(json.dumps(drive_job(options), indent=1))


def drive_job(options: argparse.Namespace) -> dict[str, float]:
    from cryodask.cluster import open_cluster
    from cryodask.search.driver import drive

    runs = [planned(number, options) for number in range(options.tomograms)]
    process, seen, most = psutil.Process(), [], [0, 0]
    with open_cluster("local", workers=options.workers) as client:
        scheduler = client.cluster.scheduler

        def listen(progress) -> None:
            most[0], most[1] = max(most[0], len(scheduler.tasks)), progress.tasks
            if progress.tasks % 1000 == 0:
                seen.append(process.memory_info().rss / 2**20)
            if progress.tasks >= options.tasks:
                raise KeyboardInterrupt

        start, cpu = time.perf_counter(), time.process_time()
        try:
            drive(runs, client.get_executor(pure=False, retries=2), slots=options.workers, listen=listen)
        except KeyboardInterrupt:
            print("stopped as asked", file=sys.stderr)
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    tenths = [round(seen[len(seen) * n // 10 - 1], 1) for n in range(1, 11)]
    return {
        "tasks": most[1],
        "most_tasks_with_scheduler": most[0],
        "client_and_scheduler_MiB_after_each_tenth": tenths,
        "wall_seconds": round(wall, 1),
        "client_cpu_ms_a_task": round(1e3 * cpu / most[1], 2),
    }


def planned(number: int, options: argparse.Namespace):
    from cryodask.search.driver import PlannedRun
    from cryodask.search.task import Run
    from cryodask.search.tiles import TilePlan

    shape, core, block = (500, 1000, 1000), (250, 334, 334), (300, 384, 384)
    plan = TilePlan(shape, core, core, block, (2, 3, 3), range(18))
    run = Run(number, NoWork(options.rotations, options.seconds), NoStore())
    return PlannedRun(run, plan, options.batch, lambda: None, lambda: None, str(number))


if __name__ == "__main__":
    import schedule  # under its own name, so that worker processes find its classes

    schedule.main()
