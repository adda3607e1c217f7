"""What a classification will cost: correlations, memory and disk, before anything is written."""

import math
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from cryodask.errors import ResourceError
from cryodask.jobs.classify.job import Classification
from cryodask.jobs.classify.prepare import make_grid
from cryodask.jobs.classify.run import CLOSING, SETTLING, TRIAL
from cryodask.kernels.polar_correlation import AngleTable, correlate
from cryodask.kernels.simd import LANES
from cryodask.kernels.steerable import Basis

PROFILES = 8  # coefficients of a frequency: what works of some thousand images keep
COPIES = 4  # of a chunk of input images in a task that prepares it


def plan_cost(job: Classification) -> dict[str, Any]:
    """Return the cost of a first stage of every run, with the rate of this machine.

    Returns
    -------
    dict
        images, classes, runs, passes, triples (image x reference x offset), core_seconds, memory_bytes (a
        worker), disk_bytes.
    """
    p, count = job.parameters, len(job.stack)
    classes = max(2, count // p.class_size(count))
    offsets = (2 * round(p.xr / p.ts) + 1) * (2 * round(p.y_range / p.ts) + 1)
    passes = p.passes + SETTLING + CLOSING + TRIAL * p.splits
    triples = p.runs * count * classes * passes * (1 + offsets) // 2
    rate = _seconds_a_triple(job)
    return {
        "images": count,
        "classes": classes,
        "runs": p.runs,
        "passes": passes,
        "triples": triples,
        "core_seconds": round(triples * rate, 3),
        "memory_bytes": _memory(job, classes * offsets),
        "disk_bytes": _disk(job, classes),
    }


def check_fits(job: Classification, memory: float) -> None:
    """Refuse what does not fit the memory of a worker or the disk.

    Raises
    ------
    ResourceError
    """
    cost = plan_cost(job)
    if cost["memory_bytes"] > memory:
        need, have = cost["memory_bytes"] / 2**20, memory / 2**20
        raise ResourceError(f"a worker needs {need:.0f} MiB and has {have:.0f} MiB: raise --memory")
    folder = job.folder.path.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if cost["disk_bytes"] > free:
        need, have = cost["disk_bytes"] / 2**30, free / 2**30
        raise ResourceError(f"{Path(folder)}: needs {need:.1f} GiB and has {have:.1f} GiB free")


def _memory(job: Classification, references: int) -> int:
    rings, frequencies = make_grid(job.parameters).shape
    box, working = job.stack.box, job.shape.working_box
    chunk = min(job.chunk, len(job.stack))
    coefficients = 8 * rings * frequencies + 8 * PROFILES * frequencies
    prepared = chunk * 4 * COPIES * (box**2 + working**2)
    classified = chunk * (2 * coefficients + 8 * working**2) + 3 * references * 8 * PROFILES * frequencies
    return int(max(prepared, classified))


def _disk(job: Classification, classes: int) -> int:
    count, working = len(job.stack), job.shape.working_box
    rings, frequencies = make_grid(job.parameters).shape
    images = 2 * 4 * working**2 * count
    states = 4 * job.parameters.runs * (25 * count + 8 * classes * rings * frequencies)
    averages = 4 * classes * (2 * job.stack.box**2 + working**2)
    given = 0 if job.stack.places is not None else 4 * count * job.stack.box**2
    return int(images + states + averages + given)


def _seconds_a_triple(job: Classification) -> float:
    """Measure the correlation on two batches of random numbers."""
    grid = make_grid(job.parameters)
    starts = np.arange(grid.frequencies + 1, dtype=np.int64) * PROFILES
    size = int(starts[-1])
    basis = Basis(starts, np.zeros((size, grid.shape[0]), np.float32), np.ones(size, np.float32))
    rng = np.random.default_rng(0)
    images = rng.standard_normal((4, 2, size, LANES), dtype=np.float32)
    references = rng.standard_normal((40, 1, size)).astype(np.complex64)
    best = math.inf
    for _ in range(3):  # the first compiles
        begun = time.perf_counter()
        correlate(images, references, basis, AngleTable(48, grid.frequencies))
        best = min(best, time.perf_counter() - begun)
    return best / (len(images) * LANES * len(references))
