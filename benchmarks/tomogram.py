"""Tomogram matching on workload W: CPU time of cryodask beside pyTME 0.3.6, in alternation on one machine.

    python benchmarks/tomogram.py --workload W --pytme-python /path/to/venv/bin/python

W is written by `make_workload.py --out W`: a 128 x 256 x 256 tomogram, a template of 40 voxels, 200
rotations and 30 planted particles. Each program runs in a process of its own. A round gives each the same
rotations, one after the other; a rotation's time is the difference between a long and a short run, so that
neither compilation nor set-up counts. Times are user and system seconds of the process and its children.
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

VOXELS = 128 * 256 * 256
SHORT = 4
VOXEL_SIZE, LOWPASS = 10.0, 40.0  # angstrom
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def cpu_seconds() -> float:
    own = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in own)


class Workload:
    def __init__(self, folder: Path, mask: str) -> None:
        self.tomogram = np.load(folder / "tomo.npy")
        self.template = np.load(folder / "template.npy")
        self.mask = np.load(folder / {"spherical": "mask_sphere.npy", "general": "mask_tight.npy"}[mask])
        self.rotations = np.load(folder / "rotations.npy")
        self.planted = np.loadtxt(folder / "planted.csv", delimiter=",", dtype=int)
        self.mask_kind = mask


def low_passed(volume: np.ndarray, box: int) -> np.ndarray:
    """Return a volume without what lies beyond 40 angstrom, by the band of the match."""
    lengths = [np.fft.fftfreq(n) for n in volume.shape[:2]] + [np.fft.rfftfreq(volume.shape[2])]
    k = np.meshgrid(*lengths, indexing="ij")
    r = np.sqrt(sum(part**2 for part in k)) * box
    fall = np.exp(-((np.maximum(r - box * VOXEL_SIZE / LOWPASS, 0) / 3.0) ** 2))
    spectrum = np.fft.rfftn(volume) * np.where(fall < np.exp(-2.0), 0, fall) * (r > 0)
    return np.fft.irfftn(spectrum, volume.shape, axes=(0, 1, 2)).astype(np.float32)


class Cryodask:
    """The kernels, called as a worker calls them."""

    def __init__(self, work: Workload, variant: str) -> None:
        from cryodask.kernels import rotation, statistics_grid, template, volume_correlation

        self.rotation, self.template, self.kernel = rotation, template, volume_correlation
        self.work, self.moments = work, "moments" in variant
        self.interpolation = "cubic" if "cubic" in variant else "linear"
        choice = "coarse" if "coarse" in variant else "exact"
        self.grid = statistics_grid.choose_statistics_grid(work.mask, choice).fraction
        volume = work.tomogram - work.tomogram.mean()
        volume /= volume.std()
        self.box = work.template.shape[0]
        block = np.roll(volume, self.box // 2, axis=(0, 1, 2))
        del volume
        self.spectra = self.kernel.tile_spectra(block, box=self.box, valid=block.shape, squares=True)
        self.shape = block.shape
        if work.mask_kind == "spherical":
            self.norm = self.kernel.local_statistics(self.spectra, work.mask, work.mask.sum())
            self.spectra.drop_squares()
        self.coefficients = rotation.rotation_coefficients(work.template, self.interpolation)
        self.mask_coefficients = rotation.rotation_coefficients(work.mask, "linear")
        self.matrices = work.rotations.astype(np.float64)[:, ::-1, ::-1]
        self.state = self.kernel.empty_state(self.shape, moments=self.moments)

    def run(self, rows: range) -> None:
        for start in range(rows.start, rows.stop, 8):
            self._batch(range(start, min(start + 8, rows.stop)))

    def prepare(self, row: int) -> tuple:
        matrix, mask = self.matrices[row], self.work.mask
        if self.work.mask_kind == "general":
            mask = self.rotation.rotate_mask(self.mask_coefficients, matrix)
        u, count = self.template.prepare_rotation(
            self.coefficients, mask, matrix, interpolation=self.interpolation
        )
        return u, mask, count

    def _batch(self, rows: range) -> None:
        u, masks, counts = zip(*(self.prepare(row) for row in rows), strict=True)
        if self.work.mask_kind == "spherical":
            self.kernel.correlate_spherical(self.spectra, np.stack(u), rows, self.state)
        else:
            self.kernel.correlate_general(
                self.spectra, u, masks, counts, rows, self.state, statistics_grid=self.grid
            )

    def maps(self) -> tuple[np.ndarray, np.ndarray]:
        state = self.kernel.empty_state(self.shape, moments=self.moments)
        self.state = state
        self.run(range(len(self.matrices)))
        if self.work.mask_kind == "spherical":
            self.kernel.finish_spherical(state, self.norm)
        return state["value"], state["id"]

    def stages(self) -> dict[str, list[float]]:
        """Milliseconds of each stage, and of moving its bytes at the speed of a copy."""
        from cryodask.kernels import fused, fused_fold, fused_forward
        from cryodask.kernels.memory import GROUP, MOMENTS_GROUP

        tile = self.spectra
        group = MOMENTS_GROUP if self.moments else GROUP
        scratch, halves = tile._planes(group), tile._buffer("num", group, tile.layout)
        u = fused.flat(self.prepare(1)[0])
        state, ids = fused.fold_state(self.state), np.arange(group, dtype=np.uint32)
        buffer = np.ones(1 << 26, np.uint8)
        other = np.empty_like(buffer)
        second = best(lambda: np.copyto(other, buffer)) / (2 * buffer.size)
        state_bytes = (4 + 32 * self.moments) / group
        tables = {
            "rotate and normalise": (lambda: self.prepare(1), 1, 0),
            "forward, product, inverse z": (
                lambda: fused_forward.half_transform(tile.layout, scratch, u, *tile.signal, halves[0]),
                1,
                8,
            ),
            "inverse y and x, update": (
                lambda: fused_fold.fold(tile.layout, scratch, halves, ids, state),
                group,
                4 + state_bytes,
            ),
        }
        return {
            name: [1e3 * best(call) / count, 1e3 * second * size * VOXELS]
            for name, (call, count, size) in tables.items()
        }


class Pytme:
    """pyTME's exhaustive matching with a fixed list of rotations."""

    def __init__(self, work: Workload, variant: str) -> None:
        from tme.backends import backend

        backend.change_backend(variant)
        self.work = work
        # pyTME takes the rotation of the grid, the inverse of the template's.
        self.matrices = np.ascontiguousarray(work.rotations.transpose(0, 2, 1))

    def run(self, rows: range) -> tuple:
        from tme.analyzer import MaxScoreOverRotations
        from tme.matching_data import MatchingData
        from tme.matching_exhaustive import MATCHING_EXHAUSTIVE_REGISTER, match_exhaustive

        work = self.work
        data = MatchingData(
            target=work.tomogram.copy(),
            template=work.template.copy(),
            template_mask=work.mask.copy(),
            rotations=self.matrices[rows.start : rows.stop],
        )
        name = "FLCSphericalMask" if work.mask_kind == "spherical" else "FLC"
        setup, score = MATCHING_EXHAUSTIVE_REGISTER[name]
        return match_exhaustive(
            matching_data=data,
            matching_score=score,
            matching_setup=setup,
            callback_class=MaxScoreOverRotations,
            callback_class_args={},
            interpolation_order=1,
        )

    def maps(self) -> tuple[np.ndarray, np.ndarray]:
        score, _, index, table = self.run(range(len(self.work.rotations)))[:4]
        rows = np.full(len(self.work.rotations) + 1, -1)
        for key, value in table.items():
            # A table of matrices by index, or of indices by the bytes of a matrix.
            matrix, number = (
                (np.frombuffer(key, np.float32), value) if isinstance(key, bytes) else (value, key)
            )
            distance = np.abs(self.matrices.reshape(-1, 9) - np.asarray(matrix).reshape(9)).sum(axis=1)
            rows[int(number)] = int(np.argmin(distance))
        return np.asarray(score), rows[np.asarray(index).astype(int)]


def best(call, repeats: int = 7) -> float:
    call()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


def recall(score: np.ndarray, rows: np.ndarray, planted: np.ndarray, distance: float = 20.0) -> int:
    """Count the planted particles found within 1 voxel, with the right row, among as many best peaks."""
    score = np.array(score, dtype=np.float32)
    z, y, x = np.ogrid[tuple(slice(0, s) for s in score.shape)]
    found = 0
    for _ in planted:
        peak = np.array(np.unravel_index(np.argmax(score), score.shape))
        near = np.abs(planted[:, :3] - peak).max(axis=1) <= 1
        found += bool(near.any() and planted[near][0, 3] == rows[tuple(peak)])
        score[(z - peak[0]) ** 2 + (y - peak[1]) ** 2 + (x - peak[2]) ** 2 < distance**2] = -np.inf
    return found


def serve(program: str, variant: str, folder: Path, mask: str) -> None:
    """Answer each line of standard input (`first last`, `recall` or `stages`) with one line of JSON."""
    work = Workload(folder, mask)
    if program == "pytme-band":  # what the match does to tomogram and template
        work.tomogram, work.template = (
            low_passed(v, len(work.template)) for v in (work.tomogram, work.template)
        )
    if program == "job":
        from whole_match import Job

        searcher: Job | Cryodask | Pytme = Job(work, variant, LOWPASS)
    else:
        searcher = (Cryodask if program == "cryodask" else Pytme)(work, variant)
    for line in sys.stdin:
        answer: dict = {}
        if line.strip() == "recall":
            answer["recall"] = recall(*searcher.maps(), work.planted)
        elif line.strip() == "stages":
            answer["stages"] = searcher.stages()
        else:
            first, last = map(int, line.split())
            start = cpu_seconds()
            searcher.run(range(first, last))
            answer["cpu"] = cpu_seconds() - start
        answer["mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print("@" + json.dumps(answer), flush=True)


class Worker:
    """One program with one setting, in a process of its own."""

    def __init__(self, python: str, program: str, variant: str, folder: Path, mask: str) -> None:
        self.program, self.name = program, f"{program} {variant}"
        command = [python, __file__, "--serve", program, variant, mask, "--workload", str(folder)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | ONE_THREAD
        )
        self.times: list[float] = []
        self.mib = 0.0

    def ask(self, question: str) -> dict:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(question + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("@"):
                answer = json.loads(line[1:])
                self.mib = max(self.mib, answer["mib"])
                return answer
        raise RuntimeError(f"{self.name} ended with status {self.process.wait()}")

    def round(self, rotations: int) -> None:
        short = self.ask(f"0 {SHORT}")["cpu"]
        long = self.ask(f"0 {SHORT + rotations}")["cpu"]
        self.times.append((long - short) / rotations)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def compare(mask: str, options: argparse.Namespace) -> None:
    variants = ["plain", "moments", "cubic"] + (["coarse"] if mask == "general" else [])
    workers = [Worker(sys.executable, "cryodask", v, options.workload, mask) for v in variants]
    if options.pytme_python:
        workers += [
            Worker(options.pytme_python, "pytme", v, options.workload, mask) for v in options.pytme_backends
        ]
    for worker in workers:
        first = worker.ask(f"0 {SHORT}")["cpu"]
        print(f"  {worker.name}: first {SHORT} rotations {first:.1f} CPU s", flush=True)
    for _ in range(options.rounds):
        for worker in workers:
            worker.round(-(-options.rotations // options.rounds))
    peers = [statistics.median(w.times) for w in workers if w.program == "pytme"]
    print(f"\n{mask} mask: CPU s a rotation (median, least), million voxel-rotations a core second, peak MiB")
    for worker in workers:
        middle = statistics.median(worker.times)
        mib = worker.mib
        found = worker.ask("recall")["recall"] if options.recall else -1
        line = (
            f"{worker.name:18} {middle:.4f} {min(worker.times):.4f} {VOXELS / middle / 1e6:8.1f} {mib:6.0f}"
        )
        line += f"  recall {found}/30" if found >= 0 else ""
        line += (
            f"  {min(peers) / middle:.2f} x the best pyTME" if peers and worker.program == "cryodask" else ""
        )
        print(line, flush=True)
    if mask == "spherical":
        for worker in workers[:2]:
            print(f"{worker.name}: stage, ms, ms to move its bytes")
            for name, (spent, floor) in worker.ask("stages")["stages"].items():
                print(f"  {name:30} {spent:7.2f} {floor:7.2f}")
    for worker in workers:
        worker.close()


def compare_grids(mask: str, options: argparse.Namespace) -> None:
    """Compare the whole match on the full grid and on 3/4 of it, low-passed to 40 angstrom, with pyTME."""
    workers = [Worker(sys.executable, "job", grid, options.workload, mask) for grid in ("full", "0.75")]
    if options.pytme_python:
        name = options.pytme_backends[0]
        workers.append(Worker(options.pytme_python, "pytme-band", name, options.workload, mask))
    counts = {
        worker: options.rotations * 4 if worker.program == "job" else options.rotations // 2
        for worker in workers
    }
    fixed: dict[Worker, list[float]] = {worker: [] for worker in workers}
    for worker in workers:
        worker.ask(f"0 {SHORT}")
    for _ in range(options.rounds):
        for worker, count in counts.items():
            few = worker.ask(f"0 {count}")["cpu"]
            worker.times.append((worker.ask(f"0 {2 * count}")["cpu"] - few) / count)
            fixed[worker].append(few - count * worker.times[-1])
    print(f"\n{mask} mask, 40 angstrom: CPU s a rotation, CPU s besides, recall, x pyTME a rotation")
    peer = statistics.median(workers[-1].times)
    for worker in workers:
        each, rest = statistics.median(worker.times), statistics.median(fixed[worker])
        counted = worker.program == "job" or options.recall
        found = f"{worker.ask('recall')['recall']}/30" if counted else "-"
        print(f"{worker.name:22} {each:.4f} {rest:8.1f} {found:>6} {peer / each:6.2f}", flush=True)
        worker.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workload", type=Path, required=True, help="folder of W")
    parser.add_argument("--make-workload", type=Path, help="make_workload.py, run if the folder is missing")
    parser.add_argument("--pytme-python", help="interpreter with pytme==0.3.6; none: cryodask alone")
    parser.add_argument("--pytme-backends", nargs="+", default=["numpyfftw", "jax"])
    parser.add_argument("--masks", nargs="+", default=["spherical", "general"])
    parser.add_argument("--rotations", type=int, default=60, help="timed rotations of each program")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--recall", action="store_true", help="search all 200 rotations and count the planted"
    )
    parser.add_argument(
        "--grids", action="store_true", help="the whole match on full and coarse grid instead"
    )
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve[0], options.serve[1], options.workload, options.serve[2])
        return
    if not options.workload.exists() and options.make_workload:
        command = [sys.executable, str(options.make_workload), "--out", str(options.workload)]
        subprocess.run(command, check=True)
    for mask in options.masks:
        (compare_grids if options.grids else compare)(mask, options)


if __name__ == "__main__":
    main()
