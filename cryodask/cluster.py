"""Where the work runs: processes or threads of this machine, its GPUs, or a cluster by its address."""

import json
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryodask.errors import ClusterError, InputError

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger("cryodask")
CONNECT_SECONDS = 10
# a worker holds Python, its libraries and the pieces of a tile in flight besides the planned working set
MEMORY_FACTOR, MEMORY_BASE = 1.5, 512 * 2**20

SETTINGS = {
    # a batch system may take long to give the first worker
    "distributed.scheduler.no-workers-timeout": "1h",
    # a task outlives workers that die of preemption
    "distributed.scheduler.allowed-failures": 10,
    # no task waits on a worker, to be blamed for its death; they are too long to gain by waiting there
    "distributed.scheduler.worker-saturation": 1.0,
    # watching costs 6 % of a core beside one worker when done as often as by default; now 1.5 %
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "2s",
    "distributed.worker.memory.monitor-interval": "500ms",
    # the default gives every freed array back to the system, and each new one costs page faults again
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 2**26,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 2**25,
    # results of tasks are small: the working set is what fills a worker, and it cannot be spilled
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
}


def parse_memory(size: str | int) -> int:
    """Return the number of bytes of a size such as `2GiB`, `500 MB` or a plain number of bytes.

    Raises
    ------
    InputError
        If it is no positive size.
    """
    from dask.utils import parse_bytes

    try:
        # parse_bytes takes a unit alone for one of it
        count = int(parse_bytes(size)) if any(letter.isdigit() for letter in str(size)) else 0
    except (ValueError, TypeError):
        count = 0
    if count <= 0:
        raise InputError(f"memory = {size}: expected a size such as 2GiB or 500MB")
    return count


def task_memory(memory: str | int, threads: int | None) -> float:
    """Return the bytes that one task may plan with: the threads of a worker share its memory."""
    return parse_memory(memory) / (threads or 1)


def parse_device(device: str) -> tuple[str, tuple[int, ...]]:
    """Return the kind (`cpu` or `cuda`) and the device numbers of `cpu`, `cuda` or `cuda:0,1`.

    Raises
    ------
    InputError
        If it is none of these.
    """
    kind, colon, numbers = device.partition(":")
    parts = numbers.split(",") if colon else []
    if kind not in ("cpu", "cuda") or (kind == "cpu" and colon) or not all(part.isdigit() for part in parts):
        raise InputError(f"device = {device}: expected cpu, cuda or cuda:0,1")
    return kind, tuple(int(part) for part in parts)


@contextmanager
def open_cluster(
    where: str = "local",
    *,
    workers: int | None = None,
    threads: int | None = None,
    memory: str | int = "2GiB",
    device: str = "cpu",
) -> "Iterator[Client]":
    """Yield a Dask client, connected to a cluster that is started here unless `where` names one.

    Parameters
    ----------
    where
        `local` (processes), `threads` (in this process), `cuda` (one process a GPU of this machine), the
        address of a scheduler, or the path of a scheduler file.
    workers
        Processes (threads with `threads`); default one a core, fewer where they would not fit in memory; one
        a GPU with `cuda`. Not used with a running cluster.
    threads
        Threads a worker, 1 by default.
    memory
        Memory that the plan gives a worker; the worker itself may take somewhat more.
    device
        `cpu`, `cuda` or `cuda:0,1`; `cuda` with `local` starts GPU workers.

    Raises
    ------
    ClusterError
        No GPU, or no cluster at the address.
    """
    import dask
    from distributed import Client

    kind, numbers = parse_device(device)
    with dask.config.set(SETTINGS):
        if where == "threads":
            if kind == "cuda":
                require_gpus(numbers)
            cluster = _threads(workers, threads)
        elif where == "cuda" or (where == "local" and kind == "cuda"):
            cluster = _gpus(numbers, threads)
        elif where == "local":
            cluster = _processes(workers, threads, parse_memory(memory))
        else:
            with _connect(where) as client:
                _check_limits(client, task_memory(memory, threads))
                yield client
            return
        with cluster, Client(cluster) as client:
            yield client


def _processes(workers: int | None, threads: int | None, memory: int) -> Any:
    from distributed import LocalCluster
    from distributed.system import MEMORY_LIMIT

    limit = int(MEMORY_FACTOR * memory) + MEMORY_BASE
    fitting = max(1, MEMORY_LIMIT // limit)
    per_worker = threads or 1
    return LocalCluster(
        n_workers=workers or min(fitting, math.ceil(_cores() / per_worker)),
        threads_per_worker=per_worker,
        processes=True,
        memory_limit=limit,
        dashboard_address=":0",
        silence_logs=logging.CRITICAL,
    )


def _threads(workers: int | None, threads: int | None) -> Any:
    from distributed import LocalCluster

    return LocalCluster(
        n_workers=1,
        threads_per_worker=(workers or _cores()) * (threads or 1),
        processes=False,
        memory_limit=0,
        dashboard_address=":0",
        silence_logs=logging.CRITICAL,
    )


def require_gpus(numbers: tuple[int, ...]) -> None:
    """Refuse where there is no CUDA device, or not one that is named."""
    from cryodask.arrays.module import count_cuda_devices

    present = count_cuda_devices()
    if not present:
        raise ClusterError(
            "no CUDA device found, expected a GPU and CuPy (pip install 'cryodask[gpu]'); use --device cpu, "
            "or --cluster of a machine that has one"
        )
    missing = [number for number in numbers if number >= present]
    if missing:
        raise ClusterError(f"device = cuda:{missing[0]}: {present} CUDA device(s) found")


def _gpus(numbers: tuple[int, ...], threads: int | None) -> Any:
    require_gpus(numbers)
    try:
        from dask_cuda import LocalCUDACluster
    except ImportError:
        raise ClusterError("dask-cuda is not installed (pip install 'cryodask[gpu]')") from None
    chosen = {"CUDA_VISIBLE_DEVICES": list(numbers)} if numbers else {}
    try:
        return LocalCUDACluster(
            threads_per_worker=threads or 1,
            # arrays leave the device before a task ends, so nothing there can be spilled
            memory_limit=0,
            device_memory_limit=0,
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
            **chosen,
        )
    except Exception as error:
        raise ClusterError(f"cannot start workers on the CUDA devices: {error}") from None


def _connect(where: str) -> "Client":
    from distributed import Client

    path = Path(where)
    is_file = path.is_file()
    if not is_file and ":" not in where:
        raise ClusterError(f"cannot reach {where}: expected local, cuda, a scheduler's address or its file")
    target = {"scheduler_file": str(path)} if is_file else {"address": where}
    try:
        if is_file:
            _check_scheduler_file(path)
        return Client(**target, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ClusterError(f"cannot reach {where}: {reason}") from None


def _check_limits(client: "Client", memory: float) -> None:
    """Warn where a worker that runs already would be killed for what the plan lets its tasks use."""
    for worker in client.scheduler_info(n_workers=-1)["workers"].values():
        limit, threads = worker["memory_limit"], worker["nthreads"]
        needed = MEMORY_FACTOR * memory * threads + MEMORY_BASE
        if limit and limit < needed:
            fitting = max(0.0, (limit - MEMORY_BASE) / MEMORY_FACTOR / threads / 2**30)
            log.warning(
                "workers of the cluster are limited to %.2f GiB and may need %.2f GiB for tasks of %.2f GiB "
                "(%d at once); tasks of up to %.2f GiB are safe, see --memory",
                limit / 2**30,
                needed / 2**30,
                memory / 2**30,
                threads,
                fitting,
            )
            return


def _check_scheduler_file(path: Path) -> None:
    try:
        json.loads(path.read_text(encoding="utf-8"))["address"]
    except (ValueError, KeyError, TypeError):
        raise ClusterError(f"cannot reach {path}: expected a scheduler file (JSON with an address)") from None


def _cores() -> int:
    from dask.system import CPU_COUNT

    return int(CPU_COUNT)
