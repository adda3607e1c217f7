"""The benchmark workload W: scores, threshold, picks and noise as the specification gives them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.spatial import cKDTree

import cryodask as cd
from benchmarks.workload import Workload, make_workload
from cryodask.geometry.euler import euler_from_rotation

VOXEL = 10.0


@dataclass(frozen=True)
class Case:
    """A size of W and what may be asked of it."""

    workload: Workload
    folder: Path

    def match(self, mask: str = "spherical", **settings: object) -> xr.Dataset:
        """Match W and return the stored result."""
        w = self.workload
        dataset = cd.match_tomogram(
            w.tomogram,
            w.template,
            mask=w.sphere if mask == "spherical" else w.tight,
            angles=euler_from_rotation(w.rotations, "zxz"),
            voxel_size=VOXEL,
            boundary="wrap",
            interpolation="linear",
            memory="4GiB",
            device="cpu",
            **settings,
        )
        name = "_".join([mask, *map(str, settings.values())])
        return cd.open_result(dataset.cryo.store(self.folder / f"{name}.zarr", overwrite=True)).load()


def small(folder: Path) -> Case:
    return Case(make_workload((96, 128, 128), n_rotations=60, n_planted=6, seed=2), folder)


def large(folder: Path) -> Case:
    return Case(make_workload(), folder)


@pytest.fixture(
    scope="module",
    params=[pytest.param(small, id="small"), pytest.param(large, id="W", marks=pytest.mark.acceptance)],
)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return request.param(tmp_path_factory.mktemp("W"))


def assert_all_found(case: Case, result: xr.Dataset) -> pd.DataFrame:
    truth = case.workload.planted
    picks = cd.pick(result, false_positives=1, min_distance=20 * VOXEL, edge="none")
    assert len(picks) == len(truth)
    near, which = cKDTree(truth[["z", "y", "x"]]).query(np.round(picks[["z", "y", "x"]].to_numpy()))
    assert near.max() <= 1.0
    assert sorted(which) == list(range(len(truth)))
    np.testing.assert_array_equal(picks["angle_row"], truth["rot"].to_numpy()[which])
    return picks


def test_spherical_mask_finds_exactly_the_planted(case: Case) -> None:
    result = case.match()
    assert result.attrs["mask_kind"] == "spherical"
    assert float(result.sigma[0]) == pytest.approx(0.0179, rel=0.03)
    picks = assert_all_found(case, result)
    assert picks["score_raw"].min() > 0.287 * 0.97 and picks["score_raw"].max() < 0.309 * 1.03
    if case.workload.tomogram.shape == (128, 256, 256):
        assert picks.attrs["thresholds"][0] == pytest.approx(0.1089, rel=0.03)


def test_general_mask_finds_exactly_the_planted(case: Case) -> None:
    result = case.match("general", moments=True)
    assert result.attrs["mask_kind"] == "general"
    assert_all_found(case, result)


def test_noise_ratio_leaves_particles_and_nothing_else(case: Case) -> None:
    score = case.match(noise_correction="ratio", seed=0).score[0].values
    places = case.workload.planted[["z", "y", "x"]].to_numpy()
    assert score[tuple(places.T)].min() > 0.25
    high = np.argwhere(score >= 0.06)
    distance, _ = cKDTree(places).query(high)
    assert distance.max() <= 20
