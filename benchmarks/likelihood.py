"""Likelihoods of GroEL chain A: CPU seconds of best poses, of integrated likelihoods, of making templates.

The workloads are those on which CryoLike d209d6b was measured: B64 (64 px, 2 A, 239 views, 200 images, 81
displacements, 128 rotations) and B128 (128 px, 1 A; 46 views, 64 images, 256 rotations), signal to noise 0.1.
Imports and compiled code are warm; one thread. Run from the repository:

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/likelihood.py STRUCTURE.pdb --work B64
"""

import argparse
import json
import resource
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from cryodask.geometry.views import ring_views
from cryodask.io.particle_stack import particles_from_array
from cryodask.jobs.likelihood.job import load_inputs
from cryodask.jobs.likelihood.parameters import LikelihoodParameters
from cryodask.jobs.likelihood.planning import make_plan, make_problem
from cryodask.jobs.likelihood.problem import LikelihoodProblem, forget_blocks
from cryodask.kernels.polar_transform import images_from_polar, whole_circle
from cryodask.search.task import score_tile
from cryodask.search.tiles import Batch

MEMORY = 2 * 2**30


@dataclass(frozen=True)
class Work:
    """A workload; `distance` of views in radians."""

    box: int
    pixel_size: float
    images: int
    distance: float
    factor: float = 1.0


WORKS = {
    "B64": Work(64, 2.0, 200, 4 / (4 * np.pi)),
    "B128": Work(128, 1.0, 64, 16 / (4 * np.pi)),
    "S96": Work(64, 2.0, 128, 8 / (4 * np.pi)),
    "S96half": Work(64, 2.0, 128, 8 / (4 * np.pi), 0.5),
}


def make(
    work: Work, pdb: str, folder: Path, precision: str, keep: list[str]
) -> tuple[LikelihoodProblem, float]:
    """Return a prepared problem on simulated images, and the CPU seconds of its templates."""
    rng = np.random.default_rng(0)
    optics = pd.DataFrame({"defocus_u": rng.uniform(8000, 20000, work.images)})
    optics["defocus_v"] = optics["defocus_u"] + rng.uniform(-1000, 1000, work.images)
    optics["defocus_angle"] = rng.uniform(-90, 90, work.images)
    optics = optics.assign(voltage=300.0, cs=2.7, amplitude_contrast=0.1)
    content = {
        "images": "array",
        "structures": {"groel": pdb},
        "keep": keep,
        "grid": {
            "resolution_factor": work.factor, "precision": precision, "max_displacement_pixels": 4,
            "n_displacements_x": 9, "n_displacements_y": 9,
        },
    }  # fmt: skip
    noise = rng.standard_normal((work.images, work.box, work.box))
    parameters = LikelihoodParameters.from_mapping(content)
    blank = particles_from_array(noise, pixel_size=work.pixel_size, optics=optics)
    problem = make_problem(load_inputs(parameters, blank), folder)
    views = ring_views(work.distance)
    problem = replace(problem, views=(views,))
    problem.preparation.write(blank)
    start = time.process_time()
    templates = problem.maker.templates(problem.structures[0], views)
    seconds = time.process_time() - start
    clean = signal(problem, templates, rng)
    stack = particles_from_array(
        clean + noise * clean.std() / np.sqrt(0.1), pixel_size=work.pixel_size, optics=optics
    )
    load_inputs(parameters, stack)
    problem.preparation.write(stack)
    problem.prepare()
    return problem, seconds


def signal(problem: LikelihoodProblem, templates: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return images of random templates, displacements and rotations under their CTFs."""
    grid = problem.maker.grid
    full = np.empty((problem.images, *grid.shape), complex)
    for i in range(problem.images):
        view, d, w = (
            int(rng.integers(n)) for n in (len(templates), len(problem.displacements), grid.rotations)
        )
        moved = whole_circle(templates[view] * problem.phases[d])
        contrast = problem.preparation.contrast(i, i + 1)[0]
        full[i] = np.roll(moved, -w, axis=-1) * np.concatenate([contrast, contrast], axis=-1)
    return images_from_polar(full, grid.weights[:, None], grid.kx, grid.ky, grid.box)


def measure(problem: LikelihoodProblem) -> dict[str, float]:
    """Return CPU seconds and millions of poses a CPU second of all images against all templates."""
    plan = make_plan(problem, MEMORY)
    poses = problem.images * problem.hypotheses * len(problem.displacements) * problem.rotations
    score_tile(problem, plan.tiles[0], [Batch(0, 1)])  # compiles
    best = np.inf
    for _ in range(2):
        start = time.process_time()
        for tile in plan.tiles:
            forget_blocks()
            problem.finish(tile, score_tile(problem, tile, [Batch(0, problem.hypotheses)]))
        best = min(best, time.process_time() - start)
    return {"cpu_seconds": best, "million_poses_per_cpu_second": poses / best / 1e6}


def main() -> None:
    """Measure one workload and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pdb")
    parser.add_argument("--work", choices=WORKS, default="B64")
    parser.add_argument("--precision", choices=["single", "double"], default="single")
    options = parser.parse_args()
    found: dict[str, object] = {"work": options.work, "precision": options.precision}
    for keep in (["best"], ["best", "likelihood"], ["best", "likelihood", "summary"]):
        with tempfile.TemporaryDirectory() as folder:
            problem, seconds = make(WORKS[options.work], options.pdb, Path(folder), options.precision, keep)
            found["templates_cpu_seconds"] = seconds
            found["+".join(keep)] = measure(problem)
    found["peak_rss_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
