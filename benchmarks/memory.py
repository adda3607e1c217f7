"""How much memory matching a large tomogram takes: the peak of every process, and the largest of all.

    python benchmarks/memory.py --out LARGE                      # the command's own worker processes
    python benchmarks/memory.py --out LARGE --limited-worker     # a Dask worker limited to --limit

Writes a tomogram of noise with a few planted particles once, matches it with a short rotation list by the
command line, and follows /proc while it runs. RssAnon is what a process has allocated; RssFile, pages of
files that it maps, is the system's to take back. VmHWM is the kernel's own record of the peak of both.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import mrcfile
import numpy as np
import yaml
from workload import VOXEL_SIZE, make_workload

from cryodask.geometry.euler import euler_from_rotation

COMMAND = [sys.executable, "-m", "cryodask", "match-tomogram"]
FIELDS = ("VmHWM", "RssAnon", "RssFile")
START_WORKER = """
import sys
from distributed import LocalCluster
if __name__ == "__main__":
    limits = {"n_workers": 1, "threads_per_worker": 1, "memory_limit": sys.argv[1]}
    with LocalCluster(**limits, dashboard_address=":0") as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""


def main() -> None:
    options = read_options()
    folder = Path(options.out)
    parameters = write_inputs(folder, options)
    words = [*COMMAND, str(parameters), "--memory", options.memory, "--overwrite"]
    start = time.perf_counter()
    if options.limited_worker:
        peaks, status = beside_worker(words, folder, options.limit)
    else:
        peaks, status = followed([*words, "--workers", str(options.workers)])
    wall = time.perf_counter() - start
    for name, peak in sorted(peaks.items()):
        sizes = "  ".join(f"{field} {peak[field] / 2**20:.2f} GiB" for field in FIELDS)
        print(f"{name:24} {sizes}  most at {peak['at']} s")
    print(json.dumps({"status": status, "wall_seconds": round(wall), "peaks_kib": peaks}))
    sys.exit(status)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", required=True, help="folder of inputs and results")
    parser.add_argument("--shape", type=int, nargs=3, default=(500, 1000, 1000), metavar=("Z", "Y", "X"))
    parser.add_argument("--memory", default="2GiB", help="that a worker may plan with")
    parser.add_argument("--limit", default="4GB", help="of the limited worker")
    parser.add_argument("--limited-worker", action="store_true")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rotations", type=int, default=8)
    parser.add_argument("--mask", choices=["sphere", "tight"], default="sphere")
    parser.add_argument("--tomogram-mask", action="store_true")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    return parser.parse_args()


def write_inputs(folder: Path, options: argparse.Namespace) -> Path:
    """Write tomogram (once), template, masks, rotations and parameters; return the parameters' path."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = tuple(options.shape)
    small = make_workload((64, 96, 96), n_rotations=options.rotations, n_planted=1, snr=np.inf)
    write_volume(folder / "template.mrc", small.template)
    write_volume(folder / "mask.mrc", small.sphere if options.mask == "sphere" else small.tight)
    angles = euler_from_rotation(small.rotations)
    np.savetxt(folder / "angles.csv", angles, delimiter=",", fmt="%.5f")
    tomogram = folder / f"tomogram_{'x'.join(map(str, shape))}.mrc"
    if not tomogram.exists():
        write_noise(tomogram, shape, small.tomogram)
    given = {
        "tomogram": tomogram.name,
        "tomo_num": 1,
        "tilts": [-60, 60],
        "template": "template.mrc",
        "mask": "mask.mrc",
        "angles": "angles.csv",
        "lowpass": 30,
        "noise_correction": "ratio",
        "interpolation": "linear",
        "output": "out",
        "formats": ["zarr", "mrc"],
        "write_raw": True,
    }
    if options.tomogram_mask:
        selected = np.ones(shape, np.int8)
        selected[: shape[0] // 4] = 0
        write_volume(folder / "area.mrc", selected)
        given["tomogram_mask"] = "area.mrc"
    given |= {key: yaml.safe_load(value) for key, _, value in (s.partition("=") for s in options.settings)}
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(given))
    return path


def write_volume(path: Path, volume: np.ndarray) -> None:
    with mrcfile.new(path, volume, overwrite=True) as file:
        file.voxel_size = VOXEL_SIZE


def write_noise(path: Path, shape: tuple[int, ...], particle: np.ndarray) -> None:
    rng = np.random.default_rng(3)
    part = path.with_suffix(".part")
    with mrcfile.new_mmap(part, shape, mrc_mode=2, overwrite=True) as file:
        for z in range(shape[0]):
            file.data[z] = rng.standard_normal(shape[1:], dtype=np.float32)
        depth, height, width = particle.shape
        for y in range(0, shape[1] - height + 1, 4 * height):
            for x in range(0, shape[2] - width + 1, 4 * width):
                file.data[100 : 100 + depth, y : y + height, x : x + width] += 3 * particle
        file.voxel_size = VOXEL_SIZE
    part.rename(path)


def beside_worker(words: list[str], folder: Path, limit: str) -> tuple[dict[str, dict[str, int]], int]:
    start = folder / "start_worker.py"
    start.write_text(START_WORKER)
    cluster = subprocess.Popen(
        [sys.executable, str(start), limit], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert cluster.stdin and cluster.stdout
    try:
        address = cluster.stdout.readline().strip()
        return followed([*words, "--cluster", address], also={"cluster": cluster.pid})
    finally:
        cluster.stdin.close()
        cluster.wait()


def followed(words: list[str], also: dict[str, int] | None = None) -> tuple[dict[str, dict[str, int]], int]:
    """Run a command; return the peak of each process, KiB, and the exit status."""
    command, start = subprocess.Popen(words), time.perf_counter()
    peaks: dict[str, dict[str, int]] = {}
    roots = {"command": command.pid, **(also or {})}
    while command.poll() is None:
        for root, top in roots.items():
            for pid in descendants(top):
                name = "client" if pid == command.pid else f"{root} {role(pid)} {pid}"
                note(peaks, name, pid, round(time.perf_counter() - start))
        time.sleep(0.05)
    return peaks, command.returncode


def note(peaks: dict[str, dict[str, int]], name: str, pid: int, second: int) -> None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return
    values = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(FIELDS)}
    peak = peaks.setdefault(name, dict.fromkeys((*FIELDS, "at"), 0))
    if values.get("RssAnon", 0) > peak["RssAnon"]:
        peak["at"] = second
    peak.update({field: max(peak[field], values.get(field, 0)) for field in FIELDS})


def role(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode()
    except OSError:
        return "gone"
    return "worker" if "spawn_main" in words else "tracker" if "tracker" in words else "other"


def descendants(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from descendants(int(child))


if __name__ == "__main__":
    main()
