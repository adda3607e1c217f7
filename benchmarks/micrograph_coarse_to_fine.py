"""Micrograph matching coarse to fine beside searching everything: CPU time, picks, and what is missed.

    python benchmarks/micrograph_coarse_to_fine.py [--size 512] [--step 6] [--signal 20]

Particles of 70 small Gaussians in a sphere of 44 angstrom lie in white noise, at orientations of the list and
three defoci, pixels of 2 angstrom. CPU time is that of all threads of this process, without compilation.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import scipy.fft
from scipy.spatial.transform import Rotation

import cryodask as cd
from cryodask.geometry.zyz import zyz_rotations
from cryodask.io.image import write_image
from cryodask.io.volume import write_volume
from cryodask.jobs.micrograph_matching.planning import Resources
from cryodask.jobs.micrograph_matching.runs import execute, open_runs
from cryodask.optics.ctf_image import ImageCtf, ctf_image
from cryodask.simulate.structure import GaussianStructure

BOX, PIXEL, DEFOCI, APART = 32, 2.0, (-400.0, 0.0, 400.0), 80
OPTICS = {"pixel_size": PIXEL, "voltage": 300.0, "defocus_u": 8200.0, "defocus_v": 7800.0}


def structure() -> GaussianStructure:
    rng = np.random.default_rng(2)
    centres = rng.standard_normal((70, 3))
    centres *= 22 * rng.random((70, 1)) ** (1 / 3) / np.linalg.norm(centres, axis=1, keepdims=True)
    return GaussianStructure(centres, np.full(70, 1.5), np.ones(70))


def micrograph(size: int, signal: float, angles: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int]]]:
    rng = np.random.default_rng(5)
    image, places = rng.standard_normal((size, size)), []
    for y in range(8, size - BOX - 8, APART):
        for x in range(8, size - BOX - 8, APART):
            rotation = zyz_rotations(angles[rng.integers(len(angles))][None])[0]
            clean = structure().projection((BOX, BOX), PIXEL, rotation, np.full(2, BOX // 2))
            offset = float(rng.choice(DEFOCI))
            optics = ImageCtf(PIXEL, 8200.0 + offset, 7800.0 + offset, 30.0)
            seen = scipy.fft.irfft2(scipy.fft.rfft2(clean - clean.mean()) * ctf_image((BOX, BOX), optics))
            image[y : y + BOX, x : x + BOX] -= signal * seen / np.linalg.norm(seen)
            places.append((y, x))
    return image.astype(np.float32), places


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--step", type=float, default=6.0)
    parser.add_argument("--signal", type=float, default=20.0)
    arguments = parser.parse_args()
    angles = cd.OrientationGrid(arguments.step, arguments.step).angles()
    image, places = micrograph(arguments.size, arguments.signal, angles)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_image(folder / "m.mrc", image, pixel_size=PIXEL)
        template = structure().density((BOX,) * 3, PIXEL, Rotation.identity(), np.full(3, BOX // 2))
        write_volume(folder / "t.mrc", template, voxel_size=PIXEL)
        mapping = {
            "micrograph_path": str(folder / "m.mrc"),
            "template_volume_path": str(folder / "t.mrc"),
            "optics_group": {"label": "one", "astigmatism_angle": 30.0, **OPTICS},
            "defocus_search_config": {"defocus_min": -400, "defocus_max": 400, "defocus_step": 400},
            "orientation_search_config": {"psi_step": arguments.step, "theta_step": arguments.step},
        }
        tables = {}
        for strategy in ("exhaustive", "coarse_to_fine"):
            own = {"padding": 2, "gridding": "sinc2", "strategy": strategy}
            few = {"orientation_search_config": {"psi_step": 90, "theta_step": 90}}
            own_few = mapping | few | {"cryodask": own | {"strategy": "exhaustive"}}
            cd.MatchConfig.from_mapping(own_few).run(folder / "compiled.zarr", overwrite=True)
            config = cd.MatchConfig.from_mapping(mapping | {"cryodask": own})
            start = time.process_time()
            resources = Resources(device="cpu")
            runs = open_runs([config], resources, output=folder / f"{strategy}.zarr")
            planned = time.process_time() - start
            execute(runs, resources=resources)
            seconds = time.process_time() - start
            found = cd.open_result(folder / f"{strategy}.zarr")
            tables[strategy] = cd.pick(found)
            print(f"{strategy}: {seconds:.1f} CPU s, {planned:.1f} of them planning")
            if "coarse_to_fine" in found.attrs:
                print(json.loads(found.attrs["coarse_to_fine"])["text"])
        compare(tables, places)


def compare(tables: dict, places: list[tuple[int, int]]) -> None:
    whole, two = tables.values()
    sets = [set(zip(t.pos_y, t.pos_x, t.hypothesis, strict=True)) for t in (whole, two)]
    near = [sum(any(abs(y - a) < 3 and abs(x - b) < 3 for a, b, _ in s) for y, x in places) for s in sets]
    print(f"{len(places)} planted; found {near[0]} and {near[1]}; picks {len(whole)} and {len(two)}")
    both = len(sets[0] & sets[1])
    print(f"same pixel and hypothesis: {both} of {len(sets[0])}")


if __name__ == "__main__":
    main()
