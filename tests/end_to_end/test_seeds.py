"""A search near the seeds of a table, from a parameter file to particles."""

import json

import numpy as np
import pandas as pd
import pytest

import cryodask as cd
from cryodask.io.particles import write_particles
from cryodask.jobs.tomogram_matching.independence import independent_scores

from .conftest import STEP, VOXEL


@pytest.fixture(scope="module")
def seeds(project):
    """A STOPGAP motive list of the particles, a few voxels and degrees off."""
    rng = np.random.default_rng(1)
    places = np.array([at[:3] for at in project.planted], float)[:, ::-1] + rng.uniform(-2, 2, (18, 3))
    angles = project.angles[[at[3] for at in project.planted]] + rng.uniform(-8, 8, (18, 3))
    columns = ("x", "y", "z", "phi", "theta", "psi")
    table = pd.DataFrame(np.hstack([places, angles]), columns=columns).assign(tomo_num=7)
    write_particles(table, project.folder / "seeds.star", "stopgap", voxel_size=VOXEL)
    return {"near": "seeds.star", "cone": STEP, "inplane_range": STEP, "reach": 50.0}


def test_particles_near_seeds_are_found_with_less_work(project, seeds, matched, run_cli):
    params = project.yaml("near.yaml", orientations=seeds, output="near")
    status, output, _ = run_cli("match-tomogram", params, "--workers", "2", "--angle-batch", "64", "--json")
    assert status == 0
    work = json.loads(output)["core_seconds"]
    assert work > 0
    near, free = (cd.open_result(path).load() for path in (project.folder / "near/tomogram.zarr", matched))
    for z, y, x, row in project.planted:
        assert int(near.orientation[0, z, y, x]) == row
        assert float(near.score_raw[0, z, y, x]) == pytest.approx(float(free.score_raw[0, z, y, x]), abs=2e-4)
    searched = near.orientation.values != 0xFFFFFFFF
    assert searched.sum() == int(near.n_voxels[0]) < 0.3 * int(free.n_voxels[0])
    assert (near.score_raw.values <= free.score_raw.values + 2e-4)[searched].all()
    assert int(near.n_scores[0]) < 0.05 * int(free.n_voxels[0]) * int(free.n_rotations[0])
    table = cd.pick(
        project.folder / "near" / "tomogram.zarr", threshold=0.3, refine="none", min_distance=100.0
    )
    apart = table[["z", "y", "x"]].to_numpy()[:, None] - np.array([at[:3] for at in project.planted])
    assert len(table) == 18
    assert (np.abs(apart).max(axis=2).min(axis=0) <= 1).all()


def test_refinement_and_independent_scores_know_the_seeds(project):
    path = project.folder / "near" / "tomogram.zarr"
    options = {"threshold": 0.3, "min_distance": 100.0, "max_particles": 3}
    refined = cd.pick(path, refine="both", **options)
    assert (refined["score_raw"] >= refined["score_grid"] - 1e-6).all()
    near = cd.open_result(path).load()
    independent = independent_scores(near)[0]
    assert 10 < independent < float(near.n_scores[0]) / 10


def test_a_threshold_that_no_score_can_reach_is_told(project, run_cli):
    result = project.folder / "near" / "tomogram.zarr"
    status, _, error = run_cli("pick", result, "-o", project.folder / "none.csv")
    assert status == 0
    assert "above every possible score" in error
    assert "0 particles" in error


def test_tiles_workers_and_an_interruption_change_nothing(project, seeds, run_cli, monkeypatch):
    params = project.yaml("again.yaml", orientations=seeds, output="again")
    words = ("match-tomogram", params, "--cluster", "threads", "--tile-shape", "50,54,60")
    from cryodask.search import store as module

    write, count = module.RunStore.write_tile, []

    def stop(self, *arguments):
        count.append(1)
        if len(count) > 3:
            raise OSError("stopped by the test")
        return write(self, *arguments)

    monkeypatch.setattr(module.RunStore, "write_tile", stop)
    status, _, error = run_cli(*words)
    assert (status, "--resume" in error) == (1, True)
    monkeypatch.undo()
    status, _, error = run_cli(*words, "--resume", "--angle-batch", "40")
    assert status == 0
    assert "resumed" in error
    again = cd.open_result(project.folder / "again" / "tomogram.zarr").load()
    near = cd.open_result(project.folder / "near" / "tomogram.zarr").load()
    np.testing.assert_allclose(again.score_raw, near.score_raw, atol=2e-5)
    np.testing.assert_array_equal(again.orientation == 0xFFFFFFFF, near.orientation == 0xFFFFFFFF)
    assert int(again.n_scores[0]) == int(near.n_scores[0])
    assert float(again.sigma[0]) == pytest.approx(float(near.sigma[0]), rel=1e-5)


def test_changed_seeds_are_not_resumed(project, seeds, run_cli):
    params = project.yaml("again.yaml", orientations=seeds | {"cone": 2 * STEP}, output="again")
    status, _, error = run_cli("match-tomogram", params, "--resume")
    assert status == 2
    assert "differs from" in error
    assert "orientations" in error


def test_config_counts_the_reduced_search(project, seeds, run_cli):
    params = project.yaml("counted.yaml", orientations=seeds)
    status, output, _ = run_cli("config", "show", params, "--json")
    counts = json.loads(output)[0]
    assert status == 0
    near = cd.open_result(project.folder / "near" / "tomogram.zarr")
    assert counts["orientations"]["near"] == "seeds.star"
    assert (counts["n_seeds"], counts["n_voxels"]) == (18, int(near.n_voxels[0]))
    assert counts["n_scores"] == pytest.approx(int(near.n_scores[0]), rel=0.1)
    status, output, _ = run_cli("config", "check", params)
    assert "near 18 seeds" in output
