"""Small search results with known peaks."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import xarray as xr

MakeResult = Callable[..., xr.Dataset]


def blob(shape: Sequence[int], centre: Sequence[float], width: float) -> np.ndarray:
    """A Gaussian of height 1 at a place between voxels."""
    grid = np.indices(shape)
    squared = sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True))
    return np.exp(-squared / (2 * width**2))


@pytest.fixture
def make_result() -> MakeResult:
    """Return a maker of results: peaks (z, y, x, height, row) on noise of standard deviation `sigma`."""

    def make(
        peaks: Sequence[tuple[float, float, float, float, int]] = (),
        *,
        shape: tuple[int, int, int] = (24, 28, 32),
        sigma: float = 0.02,
        width: float = 1.5,
        rotations: int = 50,
        **attrs,
    ) -> xr.Dataset:
        rng = np.random.default_rng(3)
        score = rng.normal(0.0, sigma, shape).clip(-3 * sigma, 3 * sigma)
        rows = rng.integers(0, rotations, shape).astype(np.uint32)
        for z, y, x, height, row in peaks:
            score = np.maximum(score, height * blob(shape, (z, y, x), width))
            rows[round(z), round(y), round(x)] = row
        euler = np.random.default_rng(4).uniform(0, 180, (1, rotations, 3))
        maps = ("template", "z", "y", "x")
        data = {
            "score": (maps, score[None].astype(np.float32)),
            "score_raw": (maps, score[None].astype(np.float32)),
            "orientation": (maps, rows[None]),
            "valid": (maps[1:], np.ones(shape, np.uint8)),
            "euler": (("template", "row", "axis"), euler),
            "sigma": (("template",), np.array([sigma])),
            "n_rotations": (("template",), np.array([rotations])),
            "n_voxels": (("template",), np.array([int(np.prod(shape))])),
        }
        known = {
            "voxel_size": 10.0,
            "origin": (0.0, 0.0, 0.0),
            "tomo_name": "TS_001",
            "tomo_num": 1,
            "template_names": ["ribosome"],
            "symmetry": "C1",
            "seed": 0,
            "particle_diameter": 60.0,
        }
        return xr.Dataset(data, attrs=known | attrs)

    return make
