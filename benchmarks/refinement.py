"""Particle refinement: CPU time of cryodask beside Leopard-EM 1.2, in alternation on one machine.

    python benchmarks/refinement.py --leopard-python /path/to/venv/bin/python

The work is one particle in a box of 136 pixels, a template of 128 voxels, 384 rotations and 11 defoci, at 81
shifts. Each program runs in a process of its own, on one thread; compilation and set-up do not count.
Leopard-EM is called by its own function for the correlation of batches on the CPU, followed by its z-score
and maximum; its best batch counts. Without --leopard-python cryodask alone is timed.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

EDGE, BOX, ROTATIONS = 128, 136, 384
DEFOCI = np.arange(-100.0, 101.0, 20.0)
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
BATCHES = (1, 4, 32)


def prepared(path: Path) -> None:
    """Write what both programs start from."""
    from cryodask.geometry.local_grid import LocalGrid
    from cryodask.geometry.zyz import zyz_angles, zyz_matrices
    from cryodask.kernels.slices import template_spectrum
    from cryodask.optics.ctf_image import ImageCtf, ctf_image

    rng = np.random.default_rng(0)
    axis = np.arange(EDGE) - EDGE // 2
    lines = [np.exp(-((axis[:, None] - p) ** 2) / 8) for p in rng.normal(0, EDGE / 10, (3, 60))]
    template = np.einsum("za,ya,xa->zyx", *lines, optimize=True).astype(np.float32)
    start = zyz_matrices(np.array([[40.0, 70.0, 25.0]]))
    matrices = start @ LocalGrid(psi_step=0.15).matrices()[:ROTATIONS]
    optics = ImageCtf(1.0, 5200.0, 4950.0, 25.0, b_factor=60.0)
    ctf = [ctf_image((EDGE, EDGE), optics, defocus_offset=float(d)) for d in DEFOCI]
    image = rng.standard_normal((BOX, BOX)).astype(np.float32)
    spectrum = np.fft.rfft2(image).astype(np.complex64)
    spectrum[0, 0] = 0
    spectrum *= np.sqrt(image.size) / np.sqrt(np.sum(np.abs(np.fft.fft2(image)) ** 2))
    image = np.fft.irfft2(spectrum, image.shape) * np.sqrt(image.size)  # variance 1, as both programs take it
    np.savez(
        path,
        image=image.astype(np.float32),
        image_dft=spectrum,
        matrices=matrices,
        angles=zyz_angles(matrices),
        filters=np.stack(ctf)[None].astype(np.float32),
        template=template_spectrum(template),
    )


def cryodask_run(stored: dict) -> tuple[float, float]:
    from cryodask.kernels.pose_search import PoseHypotheses, Surroundings, best_pose
    from cryodask.kernels.slices import slice_axes

    reach = BOX - EDGE + 1
    places = np.argwhere(np.ones((reach, reach), bool))
    flat = np.ones(len(places), np.float32)
    around = Surroundings(stored["image"], places, 0 * flat, flat)
    tried = PoseHypotheses(
        stored["template"], (slice_axes(stored["matrices"]),), stored["filters"], 0, ROTATIONS
    )
    best_pose(around, tried)
    start = time.process_time()
    best = best_pose(around, tried)
    return time.process_time() - start, best.z


def leopard_run(stored: dict, batch: int) -> tuple[float, float]:
    import roma
    import torch
    from leopard_em.backend import cross_correlation

    torch.set_num_threads(1)
    image, template, filters = (torch.as_tensor(stored[k]) for k in ("image_dft", "template", "filters"))
    angles = torch.as_tensor(stored["angles"], dtype=torch.float32)
    reach = BOX - EDGE + 1

    def run(count: int) -> tuple[float, float]:
        start, best = time.process_time(), -np.inf
        for i in range(0, count, batch):
            scores = cross_correlation.do_batched_orientation_cross_correlate_cpu(
                image_dft=image,
                template_dft=template,
                rotation_matrices=roma.euler_to_rotmat("ZYZ", angles[i : i + batch], degrees=True),
                projective_filters=filters,
            )[..., :reach, :reach]
            z = scores / torch.ones_like(scores[0, 0, 0])
            best = max(best, float(z.max()))
        return time.process_time() - start, best

    with torch.no_grad():
        run(32)
        return run(ROTATIONS)


def measured(python: str, program: str, batch: int, path: Path) -> dict:
    words = [python, __file__, "--measure", program, str(batch), str(path)]
    environment = os.environ | ONE_THREAD
    if program == "leopard":
        environment.pop("PYTHONPATH", None)
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1][:160]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--leopard-python", help="Interpreter of an environment with Leopard-EM 1.2.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        program, batch, path = options.measure
        with np.load(path) as file:
            stored = dict(file)
        seconds, z = cryodask_run(stored) if program == "cryodask" else leopard_run(stored, int(batch))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"ms": 1e3 * seconds / (ROTATIONS * len(DEFOCI)), "MiB": peak, "z": z}))
        return
    programs = [(sys.executable, "cryodask", 0)]
    if options.leopard_python:
        programs += [(options.leopard_python, "leopard", batch) for batch in BATCHES]
    found: dict[str, list[dict]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "work.npz"
        prepared(path)
        for _ in range(options.rounds):
            for python, program, batch in programs:
                name = program if program == "cryodask" else f"{program} batch {batch}"
                found.setdefault(name, []).append(measured(python, program, batch, path))
    for name, runs in found.items():
        good = [run for run in runs if "ms" in run]
        if not good:
            print(f"{name}: {runs[0]['error']}")
            continue
        ms = statistics.median(run["ms"] for run in good)
        print(f"{name}: {ms:.4f} ms of CPU a hypothesis, {good[0]['MiB']:.0f} MiB, best z {good[0]['z']:.5f}")


if __name__ == "__main__":
    main()
