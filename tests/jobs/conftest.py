"""Small jobs on disk."""

import numpy as np
import pytest

from cryodask.io.volume import write_volume
from cryodask.jobs.tomogram_matching.parameters import MatchParameters

VOXEL = 10.0


def blob(box, squeeze=(1.0, 2.0, 1.5), offset=(2, 0, -1), width=3.0):
    """Return a lopsided Gaussian about the centre of a box."""
    axes = np.ogrid[tuple(slice(-(n // 2), n - n // 2) for n in box)]
    square = sum(s * (axis - o) ** 2 for axis, s, o in zip(axes, squeeze, offset, strict=True))
    return np.exp(-square / (2 * width**2)).astype(np.float32)


def ball(box, radius):
    """Return a sphere about the centre of a box with an edge of one voxel."""
    axes = np.ogrid[tuple(slice(-(n // 2), n - n // 2) for n in box)]
    return np.clip(radius + 0.5 - np.sqrt(sum(axis**2 for axis in axes)), 0, 1).astype(np.float32)


@pytest.fixture
def job(tmp_path):
    """Return a function that makes native parameters, right where they are not given.

    Arrays are written as volumes; `origin` (z, y, x) is that of the tomogram.
    """

    def make(origin=(0.0, 0.0, 0.0), header_voxel_size=VOXEL, **native):
        noise = np.random.default_rng(8).standard_normal((20, 24, 22)).astype(np.float32)
        given = {
            "tomogram": noise,
            "template": blob((12,) * 3),
            "mask": ball((12,) * 3, 4),
            "angles": {"step": 60},
            "root": str(tmp_path),
            **native,
        }
        for name in ("tomogram", "template", "mask", "tomogram_mask"):
            if isinstance(given.get(name), np.ndarray):
                volume, given[name] = given[name], f"{name}.mrc"
                place = origin if name == "tomogram" else (0.0, 0.0, 0.0)
                size = header_voxel_size if name == "tomogram" else None
                path = tmp_path / f"{name}.mrc"
                write_volume(path, volume, voxel_size=size, origin=place, overwrite=True)
        return MatchParameters.from_native(given)

    return make
