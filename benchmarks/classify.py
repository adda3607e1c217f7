"""Classification of simulated stacks, beside RELION's Class2D where it is installed.

    python benchmarks/classify.py B:1 C:1 A:1              # cryodask alone, one thread
    python benchmarks/classify.py B:1 --relion             # and RELION, 25 iterations, tau 2
    python benchmarks/classify.py --growth 10000           # images of 64 pixels in 50 classes, 2 workers

Works: A 2000 images of orientations all over the sphere (20 classes), B 600 images of 12 views, C 600 of 10
views with a fifth of noise (12 classes each); 64 pixels of 5 A, SNR 0.1, CTF, shifts of 2 pixels. N is noise
alone. CPU seconds are user and system of the whole process, the start of Python included.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mrcfile
import numpy as np
import starfile

from benchmarks.average_truth import compare
from benchmarks.metrics import Truth, summary
from cryodask.results.accessor import open_result
from cryodask.simulate.class_works import ClassWork, WorkSettings, simulate_work, write_work

WORKS = {
    "A": {"images": 2000},
    "B": {"images": 600, "views": 12},
    "C": {"images": 600, "views": 10, "junk": 0.2},
    "N": {"images": 600, "junk": 1.0},
}
CLASSES = {"A": 20, "B": 12, "C": 12, "N": 12}
OPTIONS = ["--radius", "28", "--target_radius", "28", "--target_nx", "64", "--skip_prealignment"]
START = "import sys; from cryodask.cli.main import main; main(sys.argv[1:])"


def timed(words: list[str], folder: Path) -> tuple[float, float, float]:
    """Run a command and return CPU seconds, wall seconds and the largest memory of a process, MiB."""
    begun = time.monotonic()
    with tempfile.TemporaryFile("w+") as talk:
        process = subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL, stderr=talk)
        _, status, used = os.wait4(process.pid, 0)
        if status:
            talk.seek(0)
            sys.exit(f"{' '.join(words[:4])}: {talk.read()[-2000:]}")
    return used.ru_utime + used.ru_stime, time.monotonic() - begun, used.ru_maxrss / 1024


def figures(work: ClassWork, label: np.ndarray) -> str:
    """Return the figures of a labelling in one line."""
    if work.noise.all():
        return f"classes {len(set(label[label >= 0]))}, accounted {(label >= 0).mean():.3f}"
    found = summary(Truth(work.rotations[:, 2], work.view, work.noise), label)
    return ", ".join(f"{key} {value:.3f}" for key, value in found.items())


def run_cryodask(star: Path, work: ClassWork, kind: str, volume: np.ndarray, more: list[str]) -> None:
    output = star.parent / f"{star.stem}_classes"
    command = [sys.executable, "-c", START, "classify", star.name, output.name, *OPTIONS]
    command += [
        "--classes",
        str(CLASSES[kind]),
        "--cluster",
        "threads",
        "--workers",
        "1",
        *more,
    ]
    cpu, wall, memory = timed(command, star.parent)
    ds = open_result(output)
    line = figures(work, ds["class_id"].values)
    if kind == "A":
        correlation, resolution = compare(ds["class_average"].values, volume, 5.0)
        line += f", NCC {np.median(correlation):.3f}, FRC {np.median(resolution):.1f} A"
    print(f"{star.stem} cryodask: {cpu:.1f} CPU s, {wall:.1f} s, {memory:.0f} MiB; {line}", flush=True)


def run_relion(star: Path, work: ClassWork, kind: str) -> None:
    output = star.parent / f"{star.stem}_relion"
    output.mkdir()
    words = f"relion_refine --o {output.name}/run --i {star.name} --ctf --iter 25 --tau2_fudge 2"
    words += f" --particle_diameter 280 --K {CLASSES[kind]} --flatten_solvent --zero_mask --oversampling 1"
    words += " --psi_step 12 --offset_range 5 --offset_step 2 --norm --scale --j 1 --pool 30 --random_seed 1"
    cpu, wall, memory = timed(words.split(), star.parent)
    table = starfile.read(output / "run_it025_data.star", always_dict=True)["particles"]
    number = table["rlnImageName"].str.split("@").str[0].astype(int).to_numpy() - 1
    label = np.full(len(work.images), -1)
    label[number] = table["rlnClassNumber"].to_numpy() - 1
    print(f"{star.stem} RELION: {cpu:.1f} CPU s, {wall:.1f} s, {memory:.0f} MiB; {figures(work, label)}")


def run_growth(count: int, volume: np.ndarray, folder: Path) -> None:
    """Classify many images on 2 worker processes."""
    work = simulate_work(volume, 64, WorkSettings(count, seed=1))
    star = write_work(folder, f"growth{count}", work)
    command = [sys.executable, "-c", START, "classify", star.name, f"classes{count}", *OPTIONS]
    command += ["--classes", "50", "--workers", "2", "--generations", "1", "--averages", "working"]
    cpu, wall, memory = timed(command, folder)
    label = open_result(folder / f"classes{count}")["class_id"].values
    print(
        f"{count} images: {cpu:.0f} CPU s, {wall:.0f} s, {memory:.0f} MiB; {figures(work, label)}", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("works", nargs="*", help="such as A:1, B:3: work and seed")
    parser.add_argument("--volume", type=Path, default="clean70SRibosome_vol_65p.mrc")
    parser.add_argument("--relion", action="store_true")
    parser.add_argument("--growth", type=int, action="append", default=[])
    parser.add_argument("--options", default="", help="further words for cryodask classify")
    options = parser.parse_args()
    volume = mrcfile.read(options.volume)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for word in options.works:
            kind, _, seed = word.partition(":")
            work = simulate_work(volume, 64, WorkSettings(**WORKS[kind], seed=int(seed or 1)))
            star = write_work(folder, f"{kind}{seed}", work)
            run_cryodask(star, work, kind, volume, options.options.split())
            if options.relion and shutil.which("relion_refine"):
                run_relion(star, work, kind)
        for count in options.growth:
            run_growth(count, volume, folder)


if __name__ == "__main__":
    main()
