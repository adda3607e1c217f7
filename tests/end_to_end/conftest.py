"""A small project with known truth: a tomogram with a missing wedge and planted particles."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
import yaml
from scipy.ndimage import affine_transform

from cryodask.geometry.euler import rotation_from_euler
from cryodask.geometry.grids import rotation_grid
from cryodask.io.volume import write_volume
from cryodask.optics.frequency import half_frequencies
from cryodask.optics.wedge import filled_wedge

BOX, VOXEL, STEP = 24, 10.0, 45.0
SHAPE = (60, 96, 90)
TILTS = (-54.0, 60.0)
BLOBS = [
    (0, 0, 0, 3.0, 1.0),
    (5, 0, 0, 2.0, 1.0),
    (-4, 3, 0, 1.8, 0.9),
    (0, -5, 2, 2.0, 1.1),
    (2, 3, 6, 1.6, 1.2),
]


@dataclass(frozen=True)
class Project:
    """Files of a small project, and where the particles are: (z, y, x, row of the rotation list)."""

    folder: Path
    planted: list[tuple[int, int, int, int]]
    angles: np.ndarray

    def yaml(self, name: str = "params.yaml", **changes: object) -> Path:
        """Write native parameters and return their path."""
        given = {
            "tomogram": "tomogram.mrc",
            "tomo_num": 7,
            "tilts": list(TILTS),
            "template": "template.mrc",
            "mask": "mask.mrc",
            "lowpass": 25.0,
            "angles": {"step": STEP, "method": "rings"},
            "interpolation": "linear",
            "noise_correction": "ratio",
            "output": "out",
        }
        path = self.folder / name
        path.write_text(yaml.safe_dump({k: v for k, v in (given | changes).items() if v is not None}))
        return path


def rotated(volume: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    inverse = matrix.T[::-1, ::-1]
    centre = np.full(3, BOX // 2)
    return affine_transform(volume, inverse, offset=centre - inverse @ centre, order=1)


def particle() -> tuple[np.ndarray, np.ndarray]:
    z, y, x = np.indices((BOX,) * 3) - BOX // 2
    template = sum(
        w * np.exp(-((z - bz) ** 2 + (y - by) ** 2 + (x - bx) ** 2) / (2 * s * s))
        for bz, by, bx, s, w in BLOBS
    )
    mask = np.clip(10.5 - np.sqrt(z**2 + y**2 + x**2), 0, 1)
    return np.asarray(template, np.float32), mask.astype(np.float32)


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A tomogram of noise and 18 particles under a missing wedge, with its template, mask and truth."""
    folder = tmp_path_factory.mktemp("project")
    template, mask = particle()
    angles = rotation_grid(STEP, method="rings")
    matrices = rotation_from_euler(angles).as_matrix()
    rng = np.random.default_rng(5)
    volume = np.zeros(SHAPE)
    spots = [(z, y, x) for z in (16, 43) for y in (15, 47, 79) for x in (15, 44, 73)]
    planted = []
    for z, y, x in spots:
        row = int(rng.integers(len(angles)))
        at = tuple(slice(c - BOX // 2, c + BOX // 2) for c in (z, y, x))
        volume[at] += rotated(template * mask, matrices[row])
        planted.append((z, y, x, row))
    signal = (template * mask)[mask > 0.5].var()
    volume += rng.standard_normal(SHAPE) * np.sqrt(signal / 0.25)
    kz, ky, kx = half_frequencies(SHAPE, VOXEL)
    spectrum = scipy.fft.rfftn(volume) * filled_wedge(kz, ky, kx, TILTS, BOX, VOXEL)
    tomogram = scipy.fft.irfftn(spectrum, SHAPE).astype(np.float32)
    for name, array in (("tomogram", tomogram), ("template", template), ("mask", mask)):
        write_volume(folder / f"{name}.mrc", array, voxel_size=VOXEL)
    return Project(folder, planted, angles)


@pytest.fixture(scope="session")
def matched(project: Project) -> Path:
    """The project matched once, by the command line on two worker processes."""
    from cryodask.cli.main import run

    params = project.yaml("matched.yaml", output="matched", formats=["zarr", "mrc", "em"], write_raw=True)
    assert run(["match-tomogram", str(params), "--workers", "2", "--angle-batch", "64"]) == 0
    return project.folder / "matched" / "tomogram.zarr"


@pytest.fixture
def run_cli(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command line in this process: (status, standard output, standard error)."""
    from cryodask.cli.main import run

    def call(*words: object) -> tuple[int, str, str]:
        status = run([str(word) for word in words])
        captured = capfd.readouterr()
        return status, captured.out, captured.err

    return call
