"""Helical segments: shifts across alone, angles near those given, poses in the images as they were."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import cryodask
from cryodask.cli.main import run
from cryodask.io.image_stacks import write_stack
from cryodask.io.star import write_star

COUNT, BOX, WIDTH = 120, 64, 22


@dataclass(frozen=True)
class Segments:
    """Segments of two kinds on disk, with what is true of them."""

    star: Path
    kind: np.ndarray
    axis: np.ndarray
    angle: np.ndarray
    across: np.ndarray


def picture(kind: int, angle: float, centre: np.ndarray) -> np.ndarray:
    """A bar with marks, its axis at an angle (radians, from x to y)."""
    axis = np.arange(BOX) - BOX // 2
    x, y = axis - centre[0], (axis - centre[1])[:, None]
    c, s = np.cos(angle), np.sin(angle)
    along, across = c * x + s * y, c * y - s * x
    value = np.where(np.abs(across) < WIDTH / 2 - 2, 1.0, 0.0)
    for a, b in ((-14, 4), (2, -3), (13, 5)) if kind else ((-6, -5), (8, 1), (18, -5)):
        value = value + 2 * np.exp(-((along - a) ** 2 + (across - b) ** 2) / 12)
    return value


@pytest.fixture(scope="module")
def segments(tmp_path_factory: pytest.TempPathFactory) -> Segments:
    folder, rng = tmp_path_factory.mktemp("segments"), np.random.default_rng(3)
    kind = rng.integers(0, 2, COUNT)
    psi = rng.uniform(-180, 180, COUNT)
    axis = -np.radians(psi)
    angle = axis + np.radians(rng.uniform(-6, 6, COUNT)) + np.pi * rng.integers(0, 2, COUNT)
    across = rng.integers(-2, 3, COUNT).astype(float)
    normal = np.stack([-np.sin(axis), np.cos(axis)], axis=1)
    clean = [picture(*each) for each in zip(kind, angle, across[:, None] * normal, strict=True)]
    images = np.array(clean) + rng.standard_normal((COUNT, BOX, BOX))
    write_stack(folder / "s.mrcs", images, pixel_size=2.0)
    table = pd.DataFrame(
        {
            "rlnImageName": [f"{i + 1:06d}@s.mrcs" for i in range(COUNT)],
            "rlnAnglePsiPrior": psi,
            "rlnHelicalTubeID": np.arange(COUNT) // 6,
            "rlnMicrographName": "m.mrc",
        }
    )
    write_star(folder / "s.star", {"particles": table})
    return Segments(folder / "s.star", kind, axis, angle, across)


OPTIONS = {"radius": 26, "target_radius": 26, "target_nx": 64, "img_per_grp": 60, "runs": 2, "passes": 6}
FLAGS = ["--splits", "0", *(word for key, value in OPTIONS.items() for word in (f"--{key}", str(value)))]


@pytest.mark.parametrize("more", [["--skip_prealignment"], ["--filament_mask_ignore"]])
def test_segments_lie_along_their_filament(segments: Segments, tmp_path: Path, more: list[str]) -> None:
    words = ["classify", str(segments.star), str(tmp_path / "out"), *FLAGS, *more, "--cluster", "threads"]
    assert run([*words, "--filament_width", str(WIDTH)]) == 0
    ds = cryodask.open_result(tmp_path / "out")
    found = ds["class_id"].values >= 0
    assert found.mean() > 0.9 and ds.sizes["class"] == 2
    label, kind = ds["class_id"].values[found], segments.kind[found]
    assert max((label == kind).mean(), (label != kind).mean()) > 0.98
    axis, angle = segments.axis[found], np.radians(ds["angle"].values[found])
    mirror, shift = ds["mirror"].values[found], ds["shift"].values[found] / 2.0
    # a mirrored average turned by -angle lies as one turned by angle does
    off = np.where(mirror, -angle, angle) - axis
    assert (np.abs(np.sin(off)) < np.sin(np.radians(10.0))).all()
    along = np.cos(axis) * shift[:, 0] + np.sin(axis) * shift[:, 1]
    across = np.cos(axis) * shift[:, 1] - np.sin(axis) * shift[:, 0]
    assert np.abs(along).max() < 1e-4
    assert np.corrcoef(across, segments.across[found])[0, 1] > 0.8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--filament_width", "60"], "filament_width = 60: expected 2..52 (2 radius, radius = 26)"),
        (["--filament_mask_ignore"], "filament_mask_ignore needs --filament_width"),
    ],
)
def test_bad_filaments(
    segments: Segments, tmp_path: Path, capsys: Any, words: list[str], message: str
) -> None:
    assert run(["classify", str(segments.star), str(tmp_path / "out"), *FLAGS, *words]) == 2
    assert message in capsys.readouterr().err


def test_filaments_need_angles(segments: Segments, tmp_path: Path, capsys: Any) -> None:
    words = ["classify", str(segments.star.with_suffix(".mrcs")), str(tmp_path / "out"), *FLAGS]
    assert run([*words, "--filament_width", "20"]) == 2
    assert "expected rlnAnglePsiPrior or rlnAnglePsi" in capsys.readouterr().err
