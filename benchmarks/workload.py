"""The benchmark workload W: blobs planted in white noise, with a rotation list and the truth.

Run as ``python benchmarks/workload.py --out W``; benchmarks and tests call `make_workload`.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.spatial.transform import Rotation

from cryodask.geometry.euler import euler_from_rotation

VOXEL_SIZE = 10.0
MASK_RADIUS = 16
# x, y, z to z, y, x
SWAP = np.eye(3)[::-1]
# Offset z, y, x from the centre; width; height.
BLOBS = [
    (0, 0, 0, 4.5, 1.0),
    (8, 0, 0, 3.0, 1.0),
    (-7, 5, 0, 2.5, 0.9),
    (0, -9, 3, 3.0, 1.1),
    (3, 4, 9, 2.2, 1.2),
    (-4, -4, -9, 2.6, 0.8),
    (10, 6, -3, 2.0, 1.0),
    (-9, -6, 4, 2.0, 0.9),
    (2, 10, -5, 2.4, 1.0),
]


@dataclass(frozen=True)
class Workload:
    """Everything a run needs; arrays (z, y, x) float32, rotations active in (x, y, z)."""

    tomogram: np.ndarray
    template: np.ndarray
    sphere: np.ndarray
    tight: np.ndarray
    rotations: Rotation
    planted: pd.DataFrame


def make_workload(
    shape: tuple[int, int, int] = (128, 256, 256),
    *,
    box: int = 40,
    n_rotations: int = 200,
    n_planted: int = 30,
    snr: float = 0.1,
    seed: int = 1,
) -> Workload:
    """Plant rotated copies of a template in noise: `snr` is particle over noise variance inside the mask."""
    rng = np.random.default_rng(seed)
    offsets = np.indices((box,) * 3) - box // 2
    template, sphere, tight = _template(offsets), _sphere(offsets), _ellipsoid(offsets)
    drawn = Rotation.random(n_rotations, random_state=np.random.RandomState(seed))
    rotations = Rotation.concatenate([Rotation.identity(), drawn[: n_rotations - 1]])
    particle = template * sphere
    planted = _places(shape, box, n_rotations, n_planted, rng)
    clean = np.zeros(shape, np.float32)
    for *centre, row in planted:
        window = tuple(slice(c - box // 2, c - box // 2 + box) for c in centre)
        clean[window] += _rotate(particle, rotations[row])
    sigma = np.sqrt(particle[sphere > 0.5].var() / snr)
    noise = rng.standard_normal(shape).astype(np.float32) * sigma
    arrays = (np.ascontiguousarray(a, np.float32) for a in (clean + noise, template, sphere, tight))
    return Workload(*arrays, rotations, pd.DataFrame(planted, columns=["z", "y", "x", "rot"]))


def _template(offsets: np.ndarray) -> np.ndarray:
    total = np.zeros(offsets.shape[1:])
    for *centre, width, height in BLOBS:
        square = sum((axis - c) ** 2 for axis, c in zip(offsets, centre, strict=True))
        total += height * np.exp(-square / (2 * width * width))
    return total


def _sphere(offsets: np.ndarray) -> np.ndarray:
    radius = np.sqrt(sum(axis**2 for axis in offsets))
    mask = np.where(radius <= MASK_RADIUS, 1.0, np.exp(-((radius - MASK_RADIUS) ** 2) / (2 * 1.5**2)))
    return np.where(mask < np.exp(-2) * 0.1, 0, mask)


def _ellipsoid(offsets: np.ndarray) -> np.ndarray:
    radius = np.sqrt(sum((axis / half) ** 2 for axis, half in zip(offsets, (16, 15, 13), strict=True)))
    mask = np.where(radius <= 1, 1.0, np.exp(-(((radius - 1) * 14) ** 2) / (2 * 1.5**2)))
    return np.where(mask < 0.0135, 0, mask)


def _places(
    shape: tuple[int, ...], box: int, n_rotations: int, n_planted: int, rng: np.random.Generator
) -> list[tuple[int, ...]]:
    """Draw centres that leave each box whole and 1.05 boxes apart, and a rotation row for each."""
    placed: list[tuple[int, ...]] = []
    half = box // 2
    for _ in range(20_000):
        if len(placed) == n_planted:
            break
        centre = [int(rng.integers(half + 1, n - half - 1)) for n in shape]
        if all(np.linalg.norm(np.subtract(centre, other[:3])) > 1.05 * box for other in placed):
            placed.append((*centre, int(rng.integers(0, n_rotations))))
    return placed


def _rotate(volume: np.ndarray, rotation: Rotation) -> np.ndarray:
    """Turn a volume about voxel n//2, trilinear."""
    inverse = (SWAP @ rotation.as_matrix() @ SWAP).T
    centre = np.full(3, volume.shape[0] // 2)
    return ndimage.affine_transform(volume, inverse, centre - inverse @ centre, order=1, mode="constant")


def write_workload(workload: Workload, folder: Path) -> None:
    """Write the arrays as .npy and .mrc, the rotations and the truth as .csv."""
    import mrcfile

    folder.mkdir(parents=True, exist_ok=True)
    names = {"tomo": "tomogram", "template": "template", "mask_sphere": "sphere", "mask_tight": "tight"}
    for name, field in names.items():
        array = getattr(workload, field)
        np.save(folder / f"{name}.npy", array)
        with mrcfile.new(folder / f"{name}.mrc", overwrite=True) as mrc:
            mrc.set_data(array)
            mrc.voxel_size = VOXEL_SIZE
    matrices = SWAP @ workload.rotations.as_matrix() @ SWAP
    np.save(folder / "rotations.npy", matrices.astype(np.float32))
    angles = euler_from_rotation(workload.rotations)
    np.savetxt(folder / "angles_zxz_deg.csv", angles, delimiter=",", fmt="%.5f")
    header = "z,y,x,rot"
    np.savetxt(folder / "planted.csv", workload.planted, delimiter=",", fmt="%d", header=header)


def main() -> None:
    """Write W from the command line."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("W"))
    parser.add_argument("--shape", default="128,256,256")
    parser.add_argument("--box", type=int, default=40)
    parser.add_argument("--nrot", type=int, default=200)
    parser.add_argument("--nplant", type=int, default=30)
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    nz, ny, nx = map(int, given.shape.split(","))
    workload = make_workload(
        (nz, ny, nx),
        box=given.box,
        n_rotations=given.nrot,
        n_planted=given.nplant,
        snr=given.snr,
        seed=given.seed,
    )
    write_workload(workload, given.out)
    settings = {**vars(given), "out": str(given.out), "placed": len(workload.planted)}
    (given.out / "meta.json").write_text(json.dumps(settings))
    print("tomogram", workload.tomogram.shape, "placed", len(workload.planted), "rotations", given.nrot)


if __name__ == "__main__":
    main()
