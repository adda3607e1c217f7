"""Coarse to fine on a 5 degree search: CPU time beside the exhaustive search and pyTME, and what it misses.

    python benchmarks/coarse_to_fine.py TEMPLATES --folder F --pytme-python /path/to/venv/bin/python

TEMPLATES holds 5mrc.mrc (a ribosome at 10 angstrom a voxel). 300 copies, with fine scores from 0.9 to 1.5 of
the threshold at one expected false positive, lie in white noise under a wedge of +-60 degrees and a low-pass
of 25 angstrom. The exhaustive search and pyTME are extrapolated from a few rotations; an exhaustive search
finds at a particle is at least the best of the rows within 11 degrees of its rotation, 7 x 7 x 7 voxels
around it; noise moves some to other rows and up to six voxels off, where they score higher.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from planted import HALF_RADIUS, Planted, Search, best_near, found_picks, make_planted, ribosome, write_job
from scipy.spatial.transform import Rotation
from tomogram import ONE_THREAD, Worker, cpu_seconds

import cryodask
from cryodask.jobs.tomogram_matching import constants
from cryodask.jobs.tomogram_matching.area import search_area
from cryodask.jobs.tomogram_matching.inputs import load_inputs
from cryodask.jobs.tomogram_matching.parameters import read_parameters
from cryodask.jobs.tomogram_matching.planning import Resources, make_plan, make_problem, write_constants
from cryodask.jobs.tomogram_matching.problem import TomogramProblem
from cryodask.picking.thresholds import false_positive_threshold
from cryodask.search.tiles import Batch, Tile

CELLS, STEP, ROTATIONS = (3, 10, 10), 5.0, 124416


def prepare(templates: Path, folder: Path) -> tuple[Planted, float, Path]:
    """Plant the particles and write the job."""
    search = Search(ribosome(templates), voxel_size=10.0, lowpass=25.0, radius=150.0, edge=30.0)
    voxels = float(np.prod([count * search.box + 10 for count in CELLS]))
    theta = false_positive_threshold(search.sigma(), voxels * ROTATIONS, 1.0)
    planted = make_planted(search, CELLS, np.linspace(0.9, 1.5, 300) * theta, seed=5)
    job = write_job(search, planted, folder, STEP, strategy="coarse_to_fine")
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    return planted, theta, path


def exhaustive(path: Path, folder: Path, rotations: int) -> tuple[TomogramProblem, float]:
    """Return the exhaustive search, prepared, and its CPU seconds from a few rotations."""
    row = read_parameters(path)[0].model_copy(update={"strategy": "exhaustive", "search_grid": "full"})
    inputs = load_inputs(row)
    problem = make_problem(inputs, folder / "exhaustive", Resources(device="cpu")).parts[0]
    write_constants(inputs, problem, search_area(inputs))
    problem.prepare()
    plan = make_plan(inputs, problem, search_area(inputs), Resources())
    times = []
    for count in (8, 8 + rotations, 8, 8 + rotations):
        start = time.process_time()
        problem.fold(plan.tiles[0], Batch(0, count))
        times.append(time.process_time() - start)
    each = (times[3] - times[2]) / rotations
    return problem, each * problem.hypotheses * len(plan.tiles)


def pytme(python: str, problem: TomogramProblem, folder: Path, shape: tuple[int, ...]) -> float:
    """Return the CPU seconds of pyTME for all rotations, on the filtered tomogram."""
    tables = constants.read_tables(problem.tables_folder)
    whole = Tile(0, (0, 0, 0), shape, shape)
    read: dict[str, Any] = {"before": 0, "halo": 0, "margin": problem.margin, "wrap": False}
    rotated = problem.rotated(replace(tables, template_filters=tables.template_filters[:1]))
    template, _ = rotated.templates(0, np.array([0]), [tables.mask])
    arrays = {
        "tomo": constants.read_block(Path(problem.folder), whole, **read),
        "template": template[0],
        "mask_sphere": tables.mask,
        "rotations": tables.matrices[:64, ::-1, ::-1],
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", np.ascontiguousarray(array, np.float32))
    np.savetxt(folder / "planted.csv", np.zeros((1, 4)), fmt="%d", delimiter=",")
    worker = Worker(python, "pytme", "numpyfftw", folder, "spherical")
    worker.ask("0 4")
    few, many = worker.ask("0 16")["cpu"], worker.ask("0 64")["cpu"]
    worker.close()
    return (many - few) / 48 * problem.hypotheses


def run(path: Path) -> tuple[float, float, str]:
    """Run the job by the command line: CPU seconds in all, in tasks, and what was chosen."""
    command = [sys.executable, "-m", "cryodask", "match-tomogram", str(path), "--overwrite", "--json"]
    command += ["--workers", "2", "--threads", "1"]
    start = cpu_seconds()
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | ONE_THREAD)
    return cpu_seconds() - start, json.loads(done.stdout)["core_seconds"], done.stderr.splitlines()[0]


def judge(folder: Path, exact: np.ndarray, planted: Planted, theta: float, matrices: np.ndarray) -> None:
    """Print what was missed of the particles above the threshold, and how the others compare."""
    result = cryodask.open_result(folder / "tomogram.zarr")
    picks = cryodask.pick(result, threshold=theta, refine="none", min_distance=150.0, edge="none")
    above = exact[:, 4] >= theta
    found, scores, rows = found_picks(picks, exact, HALF_RADIUS)
    found &= above
    print(f"above the threshold {above.sum()}, found {found.sum()}; all picks {len(picks)}")
    share = scores[found] / exact[found, 4]
    print(f"same or higher score {np.mean(share > 1 - 1e-3):.3f}, least share of the score {share.min():.3f}")
    truth = planted.rotations[found]
    for name, chosen in (("coarse to fine", rows[found]), ("exhaustive", exact[found, 3].astype(int))):
        apart = (Rotation.from_matrix(matrices[chosen]) * truth.inv()).magnitude()
        print(f"{name}: median angular error {np.degrees(np.median(apart)):.2f} degrees")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("templates", type=Path)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--pytme-python", help="interpreter with pytme==0.3.6; none: cryodask alone")
    parser.add_argument("--rotations", type=int, default=128, help="of the exhaustive search")
    options = parser.parse_args()
    planted, theta, path = prepare(options.templates, options.folder)
    total, tasks, text = run(path)
    print(text)
    problem, whole = exhaustive(path, options.folder, options.rotations)
    print(f"coarse to fine: {total:.0f} CPU s, {tasks:.0f} of them in tasks")
    print(f"exhaustive: {whole:.0f} CPU s, {whole / total:.1f} times as much")
    if options.pytme_python:
        peer = pytme(options.pytme_python, problem, options.folder, planted.tomogram.shape)
        print(f"pyTME {peer:.0f} CPU s: {peer / whole:.1f} x exhaustive, {peer / total:.1f} x coarse to fine")
    matrices = constants.read_tables(problem.tables_folder).matrices
    judge(options.folder, best_near(problem, planted), planted, theta, matrices)


if __name__ == "__main__":
    main()
