"""Micrograph matching: CPU time of cryodask beside Leopard-EM 1.2, in alternation on one machine.

    python benchmarks/micrograph.py --leopard-python /path/to/venv/bin/python
    python benchmarks/micrograph.py --stages

The work is an image of 512 or 1024 pixels (noise of amplitude spectrum 1 + 3/(1 + (k/0.03)^2)), a template of
128 voxels, 240 orientations and 3 defoci. Each program runs in a process of its own, on one thread;
compilation and set-up do not count. Leopard-EM is called by its own inner function for the CPU, in batches of
orientations, with its statistics as written and compiled. Without --leopard-python cryodask alone is timed.
On a machine with a GPU, --gpu measures correlations per second there (4096 pixels, template of 512).
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ORIENTATIONS, DEFOCI, BOX = 240, (-300.0, 0.0, 300.0), 128
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
LEOPARD = ("batch1", "batch8", "batch8 compiled", "batch1 compiled")


def workload(size: int, box: int = BOX, orientations: int = ORIENTATIONS) -> dict:
    rng = np.random.default_rng(0)
    k = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) * (1 + 3 / (1 + (k / 0.03) ** 2))
    places = rng.normal(0, box / 10, (3, 60))
    axis = np.arange(box) - box // 2
    lines = [np.exp(-((axis[:, None] - p) ** 2) / 8) for p in places]
    template = np.einsum("za,ya,xa->zyx", *lines, optimize=True).astype(np.float32)
    angles = np.stack(
        [
            rng.uniform(0, 360, orientations),
            rng.uniform(0, 180, orientations),
            rng.uniform(0, 360, orientations),
        ]
    )
    return {"spectrum": spectrum, "template": template, "angles": angles.T, "size": size, "box": box}


def filters_of(work: dict) -> tuple:
    """Whitened, normalised image and template filters, by cryodask's own optics for both programs."""
    from cryodask.optics.ctf_image import ImageCtf, ctf_image
    from cryodask.optics.image_filters import filter_grid, normalized_image, whitening_curve

    shape, box = (work["size"],) * 2, (work["box"],) * 2
    spectrum = work["spectrum"]
    spectrum[0, 0] = 0
    curve = whitening_curve(spectrum, shape)
    optics = ImageCtf(1.0, 5200.0, 4950.0, 25.0, b_factor=60.0)
    ctf = np.stack([ctf_image(box, optics, defocus_offset=d) for d in DEFOCI])
    image = normalized_image(spectrum, shape, filter_grid(shape, [curve]))
    return image, (ctf * filter_grid(box, [curve]))[None].astype(np.float32)


def prepared(size: int, path: Path) -> None:
    """Write what a program starts from, so that neither needs the other's libraries."""
    from cryodask.kernels.slices import template_spectrum

    work = workload(size)
    image, filters = filters_of(work)
    spectrum = np.fft.rfft2(image).astype(np.complex64)
    spectrum *= np.sqrt(image.size) / np.sqrt(np.sum(np.abs(np.fft.fft2(image)) ** 2))
    np.savez(
        path,
        image=image,
        filters=filters,
        angles=work["angles"],
        template=template_spectrum(work["template"]),
        image_dft=spectrum,
    )


def cryodask_seconds(stored: dict, crop: str) -> float:
    from cryodask.geometry.zyz import zyz_matrices
    from cryodask.kernels.image_correlation import image_search
    from cryodask.kernels.image_projection import Projector, fold_orientations
    from cryodask.kernels.slices import slice_axes

    size = stored["image"].shape[0]
    valid = size if crop == "same" else size - BOX + 1
    axes = slice_axes(zyz_matrices(stored["angles"]))[None]
    projector = Projector(stored["template"], axes, stored["filters"])

    def run(count: int) -> float:
        search = image_search(stored["image"], box=BOX, valid=(valid, valid))
        start = time.process_time()
        fold_orientations(search, projector, 0, count)
        return time.process_time() - start

    run(8)
    return run(ORIENTATIONS)


def leopard_seconds(stored: dict, variant: str) -> float:
    import roma
    import torch
    from leopard_em.backend import cross_correlation, utils

    torch.set_num_threads(1)
    batch = 8 if "batch8" in variant else 1
    update = utils.do_iteration_statistics_updates
    update = torch.compile(update) if "compiled" in variant else update
    image, template, filters = (torch.as_tensor(stored[k]) for k in ("image_dft", "template", "filters"))
    angles = torch.as_tensor(stored["angles"], dtype=torch.float32)
    size = stored["image"].shape[0]
    steps = torch.tensor([d * ORIENTATIONS for d in range(len(DEFOCI))], dtype=torch.int32)

    def run(count: int) -> float:
        mip = torch.full((size, size), -float("inf"))
        best = torch.full((size, size), -1, dtype=torch.int32)
        total, square = torch.zeros(size, size), torch.zeros(size, size)
        start = time.process_time()
        for i in range(0, count, batch):
            matrices = roma.euler_to_rotmat("ZYZ", angles[i : i + batch], degrees=True)
            ids = (torch.arange(i, i + batch, dtype=torch.int32) + steps[:, None]).flatten()
            scores = cross_correlation.do_batched_orientation_cross_correlate_cpu(
                image_dft=image, template_dft=template, rotation_matrices=matrices, projective_filters=filters
            )
            update(
                cross_correlation=scores,
                current_indexes=ids,
                mip=mip,
                best_global_index=best,
                correlation_sum=total,
                correlation_squared_sum=square,
                img_h=size,
                img_w=size,
            )
        return time.process_time() - start

    with torch.no_grad():
        run(16)
        return run(ORIENTATIONS)


def measure_here(program: str, variant: str, path: str) -> None:
    with np.load(path) as file:
        stored = dict(file)
    seconds = cryodask_seconds(stored, variant) if program == "cryodask" else leopard_seconds(stored, variant)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"ms": 1e3 * seconds / (ORIENTATIONS * len(DEFOCI)), "MiB": peak}))


def measured(python: str, program: str, variant: str, path: Path) -> dict:
    words = [python, __file__, "--measure", program, variant, str(path)]
    environment = os.environ | ONE_THREAD
    if program == "leopard":
        environment.pop("PYTHONPATH", None)
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1][:160]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def stages(size: int) -> None:
    """Print where a correlation's time goes, and the floor of bytes moved."""
    from cryodask.geometry.zyz import zyz_matrices
    from cryodask.kernels.fused_image import fold_strips, half_correlate
    from cryodask.kernels.image_correlation import image_search
    from cryodask.kernels.image_projection import Projector
    from cryodask.kernels.slices import extract_slices, slice_axes

    work = workload(size)
    image, filters = filters_of(work)
    from cryodask.kernels.slices import template_spectrum

    projector = Projector(
        template_spectrum(work["template"]), slice_axes(zyz_matrices(work["angles"]))[None], filters
    )
    search = image_search(image, box=BOX, valid=(size - BOX + 1,) * 2)
    templates, ids = projector.templates(0, 1)

    def timed(function, repeats: int = 60) -> float:
        function()
        start = time.process_time()
        for _ in range(repeats):
            function()
        return 1e3 * (time.process_time() - start) / repeats

    half = lambda: half_correlate(  # noqa: E731
        search.layout, search.scratch, templates[0], search.spectrum, search.edge, search.halves[0]
    )
    fold = lambda: fold_strips(  # noqa: E731
        search.layout, search.scratch, search.halves, ids, search.state, search.counts
    )
    slices = timed(lambda: extract_slices(projector.spectrum, projector.axes[:, 0], BOX)) / len(DEFOCI)
    whole = timed(lambda: projector.templates(0, 1)) / len(DEFOCI)
    moved = 4.0 * (2 * search.spectrum.size + 2 * search.halves[0].size + 8 * search.state.value.size)
    source = np.ones(int(moved // 8), np.float32)
    floor = timed(lambda: source.copy())
    print(
        f"{size} px, ms of CPU a correlation: slice {slices:.3f}, rest of projection {whole - slices:.3f}, "
    )
    print(
        f"  forward, product, inverse y {timed(half):.3f}, inverse x and update {timed(fold) / len(ids):.3f}"
    )
    print(f"  a copy of the bytes that must move ({moved / 2**20:.1f} MiB): {floor:.3f}")


def gpu() -> None:
    """Measure correlations per second on a GPU; without one say so, and run the same path on NumPy, small."""
    from cryodask.arrays.module import cuda_is_available

    if cuda_is_available():
        import cupy

        rate = library_rate(cupy, 4096, 512, cupy.cuda.Device().synchronize)
        name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
        print(f"{name}: {rate:.0f} correlations per second, 4096 px, template 512, library FFTs")
        return
    print("no CUDA device that CuPy can use: nothing measured on a GPU")
    rate = library_rate(np, 256, 32, lambda: None)
    print(f"the same path on NumPy: {rate:.0f} correlations per second, 256 px, template 32")


def library_rate(xp, size: int, box: int, synchronize) -> float:
    """Return correlations per second of the search by library FFTs, slices and projections included."""
    from cryodask.geometry.zyz import zyz_matrices
    from cryodask.kernels.image_correlation import WholeImage
    from cryodask.kernels.image_projection import Projector, fold_orientations
    from cryodask.kernels.slices import slice_axes, template_spectrum

    work = workload(size, box=box, orientations=16)
    image, filters = filters_of(work)
    axes = slice_axes(zyz_matrices(work["angles"]))[None]
    projector = Projector(template_spectrum(xp.asarray(work["template"])), axes, xp.asarray(filters))
    valid = (size - box + 1,) * 2
    search = WholeImage(xp.asarray(image), box=box, valid=valid, histogram=False)
    fold_orientations(search, projector, 0, 8)
    synchronize()
    start = time.perf_counter()
    fold_orientations(search, projector, 0, 16)
    synchronize()
    return 16 * len(DEFOCI) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--leopard-python")
    parser.add_argument("--stages", action="store_true")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure_here(*arguments.measure)
        return
    if arguments.gpu:
        gpu()
        return
    for size in arguments.sizes:
        if arguments.stages:
            stages(size)
            continue
        compare(size, arguments.rounds, arguments.leopard_python)


def compare(size: int, rounds: int, leopard: str | None) -> None:
    import tempfile

    programs = [("cryodask", crop, sys.executable) for crop in ("valid", "same")]
    programs += [("leopard", variant, leopard) for variant in LEOPARD] if leopard else []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "work.npz"
        prepared(size, path)
        found: dict = {}
        for _ in range(rounds):
            for program, variant, python in programs:
                found.setdefault((program, variant), []).append(measured(python, program, variant, path))
    for (program, variant), results in found.items():
        failed = [r["error"] for r in results if "error" in r]
        if failed:
            print(f"{size} {program} {variant}: {failed[0]}")
            continue
        ms = statistics.median(r["ms"] for r in results)
        memory = max(r["MiB"] for r in results)
        print(f"{size} {program:9s} {variant:16s} {ms:7.3f} ms {1e3 / ms:7.0f} corr/s {memory:6.0f} MiB")


if __name__ == "__main__":
    main()
