"""Searches on the coarse grid: the picks and scores of the full one, whatever else is switched on."""

import json

import mrcfile
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import cryodask as cd
from cryodask.io.particles import write_particles
from cryodask.io.volume import write_volume
from cryodask.jobs.tomogram_matching import two_stages
from cryodask.jobs.tomogram_matching.parameters import read_parameters
from cryodask.search import driver
from cryodask.search.aggregates import NO_ID

from .conftest import STEP

BAND = {"lowpass": 50.0, "lowpass_sigma": 0.003}  # ends at 5.8 of the 12 Fourier pixels: grid 3/4
GRID = {**BAND, "search_grid": 0.75}


@pytest.fixture(scope="module")
def stored(project, tmp_path_factory):
    """Return a function that matches the project and opens the result."""
    folder = tmp_path_factory.mktemp("stored")
    made = {}

    def match(**changes) -> xr.Dataset:
        key = json.dumps(changes, default=str, sort_keys=True)
        if key not in made:
            options = {name: changes.pop(name) for name in ("ntiles", "memory") if name in changes}
            path = project.yaml("grid.yaml", **changes)
            dataset = cd.match_tomogram(read_parameters(path)[0], device="cpu", **options)
            made[key] = cd.open_result(dataset.cryo.store(folder / f"{len(made)}.zarr")).load()
        return made[key]

    return match


def picks(result: xr.Dataset):
    found = cd.pick(result, false_positives=1, min_distance=150.0, refine="none")
    return found.sort_values(["template", "z", "y", "x"]).reset_index(drop=True)


def assert_same_picks(found: xr.Dataset, full: xr.Dataset, tolerance: float = 1e-4, least: int = 12) -> None:
    ours, expected = picks(found), picks(full)
    shared = ours.merge(expected, on=["template", "z", "y", "x", "angle_row"], suffixes=("", "_full"))
    strong = expected[expected["score_raw"] > 1.05 * expected.attrs["thresholds"][0]]
    assert len(shared) >= max(len(strong), least)
    assert np.abs(shared["score_raw"] - shared["score_raw_full"]).max() < tolerance


CASES = {
    "ratio": {},
    "subtract": {"noise_correction": "subtract", "noise_copies": 2},
    "no noise": {"noise_correction": "none"},
    "general": {"mask_kind": "general", "statistics_grid": "exact"},
    "axial": {"mask_kind": "axial"},
    "wrap": {"boundary": "wrap"},
    "whiten": {"whiten": True},
    "decoy": {"decoy": "mirror", "noise_correction": "none"},
    "half": {"search_grid": 0.5},
    "product": {"normalization": "product", "noise_correction": "none"},
}


@pytest.mark.parametrize("name", CASES)
def test_picks_of_the_full_grid(stored, name):
    settings = GRID | CASES[name]
    found, full = stored(**settings), stored(**(settings | {"search_grid": "full"}))
    assert found.attrs["search_factor"] == settings["search_grid"]
    assert_same_picks(found, full)
    exact = found.rescored.values.astype(bool)
    assert 0 < exact.mean() < 0.2
    # a score made again is that of one of the rows, so never above the best of all
    raw = found.score_raw.values[0], full.score_raw.values[0]
    assert (raw[0] - raw[1])[exact].max() < 1e-4
    same = exact & (found.orientation.values[0] == full.orientation.values[0])
    assert same.sum() > 0.4 * exact.sum()
    assert np.abs(raw[0] - raw[1])[same].max() < 1e-4
    if "noise" in found:
        assert np.abs(found.noise - full.noise).mean() < 0.02
        alike = same & (np.abs(found.noise.values[0] - full.noise.values[0]) < 1e-5)
        assert alike.sum() > 0.2 * exact.sum()
    if "decoy" in found:
        # the strongest decoys are scored again at their own places
        strongest = np.argsort(full.decoy.values, axis=None)[-20:]
        made = found.decoy.values.ravel()[strongest]
        np.testing.assert_allclose(made, full.decoy.values.ravel()[strongest], atol=1e-4)
    if "sigma" in found:
        assert float(found.sigma[0]) == pytest.approx(float(full.sigma[0]), rel=0.03)


def test_near_seeds_the_picks_are_those_of_the_full_grid(project, stored):
    places = np.array([spot[:3] for spot in project.planted], float)[:, ::-1]
    angles = project.angles[[spot[3] for spot in project.planted]] + 5.0
    table = pd.DataFrame(np.hstack([places + 1.0, angles]), columns=["x", "y", "z", "phi", "theta", "psi"])
    path = project.folder / "grid_seeds.star"
    write_particles(table.assign(tomo_num=7), path, "stopgap", voxel_size=10.0, overwrite=True)
    near = {"near": path.name, "cone": 2 * STEP, "inplane_range": 2 * STEP, "reach": 60.0}
    settings = GRID | {"orientations": near, "noise_correction": "none", "moments": True}
    found, full = stored(**settings), stored(**(settings | {"search_grid": "full"}))
    np.testing.assert_array_equal(found.orientation == NO_ID, full.orientation == NO_ID)
    assert 0 < float((found.orientation != NO_ID).mean()) < 0.5
    chosen = [cd.pick(each, threshold=0.3, min_distance=150.0, refine="none") for each in (found, full)]
    both = chosen[0].merge(chosen[1], on=["z", "y", "x", "angle_row"], suffixes=("", "_full"))
    assert len(both) == len(chosen[1]) >= 12
    assert np.abs(both["score_raw"] - both["score_raw_full"]).max() < 1e-4


def test_any_tiling_gives_the_same_maps(stored):
    one, seven = stored(**GRID, ntiles=1), stored(**GRID, ntiles=8)
    for name in ("score", "score_raw", "noise", "score_mean", "zscore"):
        np.testing.assert_allclose(one[name], seven[name], atol=2e-4 if name == "zscore" else 2e-5)
    assert (one.rescored != seven.rescored).mean() < 1e-4
    assert (one.orientation != seven.orientation).mean() < 1e-4


@pytest.mark.parametrize("changes", [{}, {"boundary": "wrap", "noise_correction": "subtract"}])
def test_tiles_of_the_second_stage_are_cut_anywhere_without_a_trace(project, tmp_path, monkeypatch, changes):
    results = []
    for edge in (128, 32, 20):
        monkeypatch.setattr(two_stages, "SHARD", edge)
        monkeypatch.setattr(two_stages, "LEAST_SHARD", edge)
        row = read_parameters(project.yaml("shards.yaml", **(GRID | changes)))[0]
        path = cd.match_tomogram(row, device="cpu").cryo.store(tmp_path / f"{edge}.zarr")
        results.append(cd.open_result(path).load())
    for other in results[1:]:
        for name in ("orientation", "rescored", "valid"):
            np.testing.assert_array_equal(results[0][name], other[name], err_msg=name)
        for name in ("score", "score_raw", "noise", "zscore"):
            np.testing.assert_allclose(results[0][name], other[name], atol=2e-6, err_msg=name)


def test_workers_batches_and_a_resumed_run_give_the_same_bits(project, run_cli, monkeypatch):
    outputs = []
    for name, options in (("a", ["--workers", "1"]), ("b", ["--workers", "2", "--angle-batch", "40"])):
        params = project.yaml(f"{name}.yaml", output=f"grid_{name}", ntiles=None, **GRID)
        assert run_cli("match-tomogram", params, "--cluster", "local", "-n", "4", *options)[0] == 0
        outputs.append(project.folder / f"grid_{name}" / "tomogram.zarr")
    # killed in the coarse search, then in the second stage, then resumed
    params = project.yaml("c.yaml", output="grid_c", **GRID)
    take, stages = driver._Driver._take, [0, 1]

    def interrupted(self, future):
        task = self.futures[future]
        if task.tile >= 0 and task.number in stages:  # once in each stage
            stages.remove(task.number)
            raise KeyboardInterrupt
        take(self, future)

    monkeypatch.setattr(driver._Driver, "_take", interrupted)
    words = ["match-tomogram", params, "--workers", "1", "-n", "4"]
    assert run_cli(*words)[0] == 130
    assert run_cli(*words, "--resume")[0] == 130
    assert (
        project.folder / "grid_c" / "tomogram.partial.zarr" / "run" / "coarse" / "run" / "plan.json"
    ).exists()
    assert run_cli(*words, "--resume")[0] == 0
    outputs.append(project.folder / "grid_c" / "tomogram.zarr")
    results = [cd.open_result(path).load() for path in outputs]
    assert not (outputs[2] / "run").exists()
    for other in results[1:]:
        for name in ("score", "score_raw", "noise", "orientation", "rescored"):
            np.testing.assert_array_equal(results[0][name], other[name], err_msg=name)
        np.testing.assert_allclose(results[0].score_std, other.score_std, atol=1e-6)


def test_a_tomogram_mask_a_region_and_maps_for_other_programs(project, stored, run_cli):
    inside = np.zeros((60, 96, 90), np.float32)
    inside[8:30, 6:60, 10:80] = 1
    write_volume(project.folder / "area.mrc", inside, voxel_size=10.0, overwrite=True)
    params = project.yaml(
        "area.yaml",
        tomogram_mask="area.mrc",
        region={"x": [100, 700]},
        output="area",
        formats=["zarr", "mrc"],
        **GRID,
    )
    assert run_cli("match-tomogram", params, "-n", "4", "--workers", "1")[0] == 0
    found = cd.open_result(project.folder / "area" / "tomogram.zarr").load()
    searched = found.orientation.values[0] != NO_ID
    expected = inside.astype(bool)
    expected[:, :, 71:] = False
    np.testing.assert_array_equal(searched, expected)
    assert int(found.n_voxels[0]) == expected.sum()
    whole = stored(**GRID)
    both = searched & (found.rescored.values > 0) & (whole.rescored.values > 0)
    assert both.sum() > 500
    scale = np.median(found.score_raw.values[0][both] / whole.score_raw.values[0][both])
    assert scale == pytest.approx(1, abs=1e-4)
    assert not found.rescored.values[~searched].any()
    assert "pyramid" in {path.name for path in (project.folder / "area" / "tomogram.zarr").iterdir()}
    with mrcfile.open(project.folder / "area" / "scores_0_7.mrc") as mrc:
        np.testing.assert_array_equal(mrc.data, found.score.values[0])
        assert float(mrc.voxel_size.x) == 10.0


def test_several_templates_share_the_windows(project, stored):
    templates = [
        {"name": "blobs", "template": "template.mrc", "mask": "mask.mrc"},
        {"name": "turned", "template": "turned.mrc", "mask": "mask.mrc"},
    ]
    with mrcfile.open(project.folder / "template.mrc") as mrc:
        write_volume(project.folder / "turned.mrc", mrc.data[::-1].copy(), voxel_size=10.0, overwrite=True)
    settings = {"template": None, "mask": None, "templates": templates, **GRID}
    found, full = stored(**settings), stored(**(settings | {"search_grid": "full"}))
    exact = found.rescored.values.astype(bool)
    for template in range(2):
        raw = [result.score_raw.values[template] for result in (found, full)]
        assert (raw[0] - raw[1])[exact].max() < 1e-4
        assert np.abs(raw[0] - raw[1])[exact].mean() < 0.01
    places = tuple(np.array([spot[:3] for spot in project.planted]).T)
    at = exact[places]
    assert at.sum() >= 10
    np.testing.assert_array_equal(found.class_id.values[places][at], full.class_id.values[places][at])


def test_the_lazy_dataset_holds_what_is_stored(project, stored):
    path = project.yaml("lazy.yaml", **GRID)
    lazy = cd.match_tomogram(read_parameters(path)[0], ntiles=2, device="cpu")
    assert lazy.attrs["search_factor"] == 0.75
    kept = stored(**GRID, ntiles=2)
    part = {"z": slice(0, 30), "y": slice(20, 60)}
    found = lazy[["score", "orientation", "rescored"]].isel(part).compute(scheduler="threads")
    for name in ("score", "orientation", "rescored"):
        np.testing.assert_array_equal(found[name], kept[name].isel(part))


def test_refinement_reads_the_full_grid(stored):
    found, full = stored(**GRID), stored(**(GRID | {"search_grid": "full"}))
    few = [cd.pick(r, max_particles=3, refine="orientation", min_distance=150.0) for r in (found, full)]
    columns = ["z", "y", "x", "phi", "theta", "psi", "score_raw"]
    np.testing.assert_allclose(few[0][columns], few[1][columns], atol=1e-3)


def test_dry_run_and_info_name_the_grid(project, run_cli):
    params = project.yaml("dry.yaml", output="dry", **BAND)
    status, out, _ = run_cli("match-tomogram", params, "--dry-run")
    assert status == 0
    assert "search grid 3/4 (46 x 73 x 68 voxels, box 18)" in out
    plan = json.loads(run_cli("match-tomogram", params, "--dry-run", "--json")[1])[0]
    full = json.loads(
        run_cli("match-tomogram", params, "--dry-run", "--json", "--set", "search_grid=full")[1]
    )[0]
    assert (plan["search_factor"], full["search_factor"]) == (0.75, 1.0)
    assert not (project.folder / "dry").exists()
    assert "search_grid" in run_cli("config", "show", params)[1]
