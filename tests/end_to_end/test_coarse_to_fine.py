"""Coarse to fine: the picks of an exhaustive search at a fraction of its work."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import scipy.fft
import xarray as xr

import cryodask as cd
from benchmarks.planted import Planted, Search, make_planted, write_job
from cryodask.jobs.tomogram_matching import coarse_choice
from cryodask.jobs.tomogram_matching.menu import Offer, Rates, Work
from cryodask.jobs.tomogram_matching.parameters import MatchParameters
from cryodask.picking.thresholds import false_positive_threshold

STEP, SHAPE = 18.0, (74, 74, 74)
AROUND = 8  # voxels


@pytest.fixture(scope="module")
def search() -> Search:
    """A lumpy particle of 180 angstrom."""
    generator = np.random.default_rng(3)
    box = 32
    distance = np.sqrt(np.square(np.indices((box,) * 3) - box // 2).sum(axis=0))
    lumps = np.abs(scipy.fft.fftn(np.exp(-np.square(np.indices((box,) * 3) - box // 2).sum(axis=0) / 4.0)))
    volume = scipy.fft.ifftn(scipy.fft.fftn(generator.standard_normal((box,) * 3)) * lumps).real
    template = (np.where(distance < 9, volume, 0) / volume.std()).astype(np.float32)
    return Search(template, voxel_size=10.0, lowpass=32.0, radius=90.0, edge=30.0)


@pytest.fixture(scope="module")
def planted(search: Search) -> Planted:
    theta = false_positive_threshold(search.sigma(), np.prod(SHAPE) * 2744.0)
    return make_planted(search, (2, 2, 2), np.linspace(1.1, 1.8, 8) * theta, seed=1)


@pytest.fixture(scope="module")
def job(search: Search, planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> dict:
    assert planted.tomogram.shape == SHAPE
    return write_job(search, planted, tmp_path_factory.mktemp("coarse"), STEP)


def stored(job: dict, name: str, **settings: object) -> xr.Dataset:
    options = {key: settings.pop(key) for key in ("ntiles",) if key in settings}
    parameters = MatchParameters.from_native({**job, **settings})
    path = Path(job["output"]) / f"{name}.zarr"
    cd.match_tomogram(parameters, **options).cryo.store(path)
    return cd.open_result(path)


@pytest.fixture(scope="module")
def exhaustive(job: dict) -> xr.Dataset:
    return stored(job, "exhaustive")


@pytest.fixture(scope="module")
def cheapest() -> Iterator[None]:
    """Take the stage with fewest candidates, where so small a tomogram would be searched exhaustively."""

    def choose(
        menu: Sequence[tuple[Offer, ...]], works: Sequence[Work], rates: Sequence[Rates], measure: object
    ) -> tuple[Offer, ...]:
        return min(menu, key=lambda own: (own[0].choice.step, sum(each.candidates for each in own)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coarse_choice, "choose_offers", choose)
        yield


@pytest.fixture(scope="module")
def coarse(job: dict, cheapest: None) -> xr.Dataset:
    return stored(job, "coarse", strategy="coarse_to_fine")


def test_it_picks_what_an_exhaustive_search_picks(
    exhaustive: xr.Dataset, coarse: xr.Dataset, planted: Planted
) -> None:
    chosen = json.loads(coarse.attrs["coarse_to_fine"])
    assert chosen["miss"] <= 0.01
    all_picks, picks = cd.pick(exhaustive, refine="none"), cd.pick(coarse, refine="none")
    assert len(all_picks) >= 6
    key = ["z", "y", "x", "angle_row"]
    merged = all_picks.merge(picks, on=key, how="left", suffixes=("", "_coarse"))
    assert merged["score_coarse"].notna().all()
    np.testing.assert_allclose(merged["score_coarse"], merged["score"], rtol=2e-5)
    assert len(picks) <= len(all_picks) + 1
    np.testing.assert_allclose(coarse["sigma"], exhaustive["sigma"], rtol=0.05)
    assert 0 < float(coarse["rescored"].mean()) < 0.5


def test_tiles_and_workers_change_nothing(job: dict, coarse: xr.Dataset) -> None:
    cut = stored(job, "cut", strategy="coarse_to_fine", ntiles=4)
    for name in ("rescored", "orientation"):
        differ = cut[name].values != coarse[name].values
        assert differ.mean() < 2e-4, name
    np.testing.assert_allclose(cut["score_raw"], coarse["score_raw"], atol=2e-5)


def test_a_particle_never_scores_more_than_in_an_exhaustive_search(
    exhaustive: xr.Dataset, coarse: xr.Dataset
) -> None:
    inside = coarse["rescored"].values == 1
    more = coarse["score_raw"].values[0][inside] - exhaustive["score_raw"].values[0][inside]
    assert more.max() < 2e-5
    # most of what is rescored has its very best row
    assert np.mean(more > -2e-5) > 0.4


@pytest.fixture(scope="module")
def rivals(job: dict, search: Search, planted: Planted, cheapest: None) -> dict[str, xr.Dataset]:
    """Both ways around the strongest three, with a second template, handed otherwise, and decoys of both."""
    wanted = np.zeros(SHAPE, np.float32)
    for place in np.round(planted.places[-3:]).astype(int):
        wanted[tuple(slice(at - AROUND, at + AROUND + 1) for at in place)] = 1
    area = Path(job["output"]) / "area.mrc"
    mrcfile.write(area, wanted, voxel_size=search.voxel_size)
    other = Path(job["output"]) / "other.mrc"
    turned = np.ascontiguousarray(search.template[::-1, :, ::-1].transpose(1, 0, 2))
    mrcfile.write(other, turned, voxel_size=search.voxel_size)
    templates = [{"template": job["template"]}, {"template": str(other), "angles": {"step": 1.2 * STEP}}]
    templates = [{"mask": job["mask"], **each} for each in templates]
    both = {key: value for key, value in job.items() if key not in ("template", "mask")}
    both |= {"templates": templates, "decoy": "mirror", "tomogram_mask": str(area)}
    settings: dict[str, dict] = {"exhaustive": {}, "coarse_to_fine": {"miss_rate": 0.1}}
    return {name: stored(both, f"{name}_both", strategy=name, **own) for name, own in settings.items()}


def test_several_templates_and_decoys_go_through_both_stages(rivals: dict[str, xr.Dataset]) -> None:
    exhaustive, coarse = rivals["exhaustive"], rivals["coarse_to_fine"]
    chosen = json.loads(coarse.attrs["coarse_to_fine"])
    first, second = (each["step"] for each in chosen["templates"])
    assert second == pytest.approx(1.2 * first)
    picks = [cd.pick(each, refine="none") for each in (exhaustive, coarse)]
    key = ["z", "y", "x", "angle_row", "template"]
    assert len(picks[0]) == 3
    merged = picks[0].merge(picks[1], on=key, how="left", suffixes=("", "_coarse"))
    assert merged["score_coarse"].notna().all()
    np.testing.assert_allclose(merged["score_coarse"], merged["score"], rtol=2e-5)
    inside = coarse["rescored"].values == 1
    for name in ("score_raw", "decoy"):
        more = (coarse[name].values - exhaustive[name].values)[:, inside]
        assert more.max() < 2e-5, name
        assert np.mean(more > -2e-5) > 0.3, name
    # the decoys compete with the particles at places of their own
    best = coarse["decoy"].values[:, inside].max()
    assert best == pytest.approx(exhaustive["decoy"].values.max(), rel=0.05)
