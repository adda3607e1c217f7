"""A search near seeds gives every voxel the rotations of its nearest seed, and no others."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.transform import Rotation

import cryodask as cd
from cryodask.errors import InputError
from cryodask.geometry.euler import euler_from_rotation, rotation_from_euler
from cryodask.io.volume import write_volume
from cryodask.jobs.tomogram_matching.area import search_area
from cryodask.jobs.tomogram_matching.inputs import load_inputs
from cryodask.jobs.tomogram_matching.parameters import MatchParameters
from cryodask.jobs.tomogram_matching.planning import Resources, make_problem, write_constants
from cryodask.picking.thresholds import choose_threshold, false_positive_threshold
from cryodask.search.aggregates import NO_ID
from cryodask.search.tiles import Batch, Tile

from .conftest import VOXEL, ball, blob

SHAPE = (20, 24, 22)
CONE, RANGE, REACH = 70.0, 80.0, 75.0
PRIOR = {"near": "seeds.csv", "cone": CONE, "inplane_range": RANGE, "reach": REACH}


@pytest.fixture
def seeds(tmp_path):
    """Five seeds, of which two are as near to some voxels as each other nearly is."""
    rng = np.random.default_rng(2)
    places = rng.uniform(3, np.array(SHAPE) - 4, (5, 3))
    angles = euler_from_rotation(Rotation.random(5, rng=3))
    frame = pd.DataFrame(np.hstack([places[:, ::-1], angles]), columns=["x", "y", "z", "phi", "theta", "psi"])
    frame.to_csv(tmp_path / "seeds.csv", index=False)
    return places, rotation_from_euler(angles)


def slow_maps(parameters, places, rotations, folder):
    """Scores of every row at every voxel, then one voxel after another, its seed by distance."""
    free = load_inputs(parameters.model_copy(update={"orientations": None}))
    near = load_inputs(parameters)
    problem = make_problem(free, folder, Resources())
    write_constants(near, make_problem(near, folder, Resources()), search_area(near))
    problem.prepare()
    tile = Tile(0, (0, 0, 0), SHAPE, (32, 36, 36))
    rows = range(problem.hypotheses)
    states = [problem.fold(tile, Batch(row, row + 1))["score"] for row in rows]
    scores = np.stack([np.where(s["id"] == NO_ID, np.nan, s["value"]) for s in states])
    voxels = np.argwhere(np.ones(SHAPE, bool))
    apart = np.linalg.norm(voxels[:, None] - places[None], axis=2)
    nearest, distance = apart.argmin(axis=1), apart.min(axis=1)
    listed = rotation_from_euler(free.angles)
    allowed = np.zeros((len(places), len(rows)), bool)
    for number, seed in enumerate(rotations):
        x, y, z, w = (seed.inv() * listed).as_quat().T
        swing = np.degrees(2 * np.arcsin(np.clip(np.hypot(x, y), 0, 1)))
        twist = (np.degrees(2 * np.arctan2(z, w)) + 180) % 360 - 180
        allowed[number] = (swing <= CONE + 1e-6) & (np.abs(twist) <= RANGE + 1e-6)
    reached = distance <= REACH / VOXEL
    flat = scores.reshape(len(rows), -1).T.astype(np.float64)
    kept = np.where(allowed[nearest] & reached[:, None], flat, np.nan)
    return kept, allowed[nearest].sum(axis=1), reached


@pytest.mark.parametrize("kind", ["spherical", "axial", "general"])
def test_each_voxel_is_scored_with_the_rows_near_its_seed(job, seeds, tmp_path, kind):
    parameters = job(
        angles={"step": 60, "method": "rings"}, orientations=PRIOR, mask_kind=kind, statistics_grid="exact"
    )
    kept, counts, reached = slow_maps(parameters, *seeds, tmp_path / "slow")
    found = cd.match_tomogram(parameters, tile_shape=(24, 28, 26)).compute().isel(template=0)
    assert 0.05 < reached.mean() < 0.9
    searched = (found.orientation.values != NO_ID).ravel()
    np.testing.assert_array_equal(searched, reached)
    best = np.nanmax(kept[reached], axis=1)
    np.testing.assert_allclose(found.score_raw.values.ravel()[reached], best, atol=2e-5)
    at_row = kept[reached, found.orientation.values.ravel()[reached]]
    np.testing.assert_allclose(at_row, best, atol=2e-5)
    means = np.nansum(kept[reached], axis=1) / counts[reached]
    np.testing.assert_allclose(found.score_mean.values.ravel()[reached], means, atol=2e-6)
    assert int(found.n_voxels) == reached.sum()
    assert int(found.n_scores) == counts[reached].sum()
    expected = np.sqrt(np.nansum(kept[reached] ** 2) / counts[reached].sum())
    assert float(found.sigma) == pytest.approx(expected, rel=1e-4)


def test_stored_and_lazy_agree_for_any_tiles_workers_and_interruption(job, seeds, tmp_path):
    parameters = job(
        angles={"step": 45, "method": "rings"}, orientations=PRIOR, noise_correction="ratio", moments=True
    )
    lazy = cd.match_tomogram(parameters, memory="1GiB").compute()
    stored = cd.match_tomogram(parameters, tile_shape=(24, 24, 24))
    path = stored.cryo.store(tmp_path / "out.zarr")
    result = cd.open_result(path).load()
    for name in ("score_raw", "score", "noise", "score_mean"):
        np.testing.assert_allclose(result[name], lazy[name], atol=2e-5, err_msg=name)
    assert float((result.orientation != lazy.orientation).mean()) < 1e-3
    for name in ("n_voxels", "n_scores"):
        assert int(result[name][0]) == int(lazy[name][0])
    assert float(result.sigma[0]) == pytest.approx(float(lazy.sigma[0]), rel=1e-4)
    assert result.attrs["n_seeds"] == 5
    threshold = choose_threshold(result, false_positives=1).values[0]
    made = float(result.n_scores[0])
    assert threshold == pytest.approx(false_positive_threshold(float(result.sigma[0]), made))
    assert made < 0.5 * float(result.n_voxels[0]) * float(result.n_rotations[0])


def test_rotations_that_no_seed_of_a_tile_needs_are_not_made(job, seeds, monkeypatch):
    from cryodask.jobs.tomogram_matching import rotated as module

    made = []
    prepare = module.prepare_rotation
    monkeypatch.setattr(module, "prepare_rotation", lambda *a, **k: made.append(1) or prepare(*a, **k))
    narrow = {"near": "seeds.csv", "cone": 40.0, "inplane_range": 40.0, "reach": 40.0}
    dataset = cd.match_tomogram(job(angles={"step": 40, "method": "rings"}, orientations=narrow))
    dataset.score_raw.compute()
    seed_rows = load_inputs(MatchParameters.model_validate_json(dataset.attrs["parameters"])).seed_rows
    assert 0 < len(made) <= seed_rows.sum() < 0.2 * int(dataset.n_rotations[0])


def test_symmetric_templates_and_several_of_them_share_the_seeds(job, seeds, tmp_path):
    sphere = {"sphere": 40.0, "edge": 10.0}
    round_ = ball((12,) * 3, 3)
    write_volume(tmp_path / "round.mrc", round_, voxel_size=VOXEL)
    write_volume(tmp_path / "lopsided.mrc", blob((12,) * 3), voxel_size=VOXEL)
    common = {"angles": {"step": 60, "method": "rings"}, "orientations": PRIOR}
    alone = cd.match_tomogram(job(template="round.mrc", mask=sphere, symmetry="D2", **common)).compute()
    entries = [
        {"name": "lopsided", "template": "lopsided.mrc", "mask": sphere},
        {"name": "round", "template": "round.mrc", "mask": sphere, "symmetry": "D2"},
    ]
    given = {"tomogram": "tomogram.mrc", "root": str(tmp_path), "templates": entries, **common}
    both = cd.match_tomogram(MatchParameters.from_native(given)).compute()
    np.testing.assert_allclose(both.score_raw[1], alone.score_raw[0], atol=2e-5)
    assert int(both.n_scores[1]) == int(alone.n_scores[0])
    assert int(both.n_scores[0]) != int(both.n_scores[1])
    searched = (both.orientation != NO_ID).any("template")
    assert (both.class_id.values[~searched.values] == -1).all()


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ({"near": "seeds.csv"}, "orientations.near = seeds.csv: restricts nothing without cone"),
        ({"near": "none.csv", "cone": 10}, "orientations.near = none.csv: no such file"),
        (
            {"near": "seeds.csv", "cone": 3, "inplane_range": 3},
            "seeds have no rotation of the list within cone = 3, inplane_range = 3; expected at least",
        ),
        ({"near": "far.csv", "cone": 30}, "orientations.near: no seed lies inside the tomogram of 20,24,22"),
        (
            {"near": "normals.csv", "cone": 30, "inplane_range": 30},
            "orientations.inplane_range = 30: normals.csv holds normals, which leave the in-plane angle open",
        ),
        (
            {"near": "seeds.csv", "reech": 10},
            "unknown key orientations.reech (did you mean reach?)",
        ),
    ],
)
def test_what_cannot_restrict_a_search_is_refused(job, seeds, tmp_path, prior, message):
    (tmp_path / "far.csv").write_text("x,y,z,nx,ny,nz\n900,900,900,0,0,1\n")
    (tmp_path / "normals.csv").write_text("x,y,z,nx,ny,nz\n9,9,9,0,0,1\n")
    with pytest.raises(InputError) as caught:
        cd.match_tomogram(job(orientations=prior))
    assert message in str(caught.value)


def test_where_seeds_reach_no_voxel_of_the_mask_nothing_is_searched(job, tmp_path):
    (tmp_path / "normals.csv").write_text("x,y,z,nx,ny,nz\n3,3,3,0,0,1\n")
    mask = np.zeros(SHAPE, np.float32)
    mask[15:, 15:, 15:] = 1
    parameters = job(tomogram_mask=mask, orientations={"near": "normals.csv", "reach": 30})
    with pytest.raises(InputError, match=r"orientations\.reach: selects no voxel"):
        cd.match_tomogram(parameters)


def test_the_parameters_in_a_result_say_what_restricted_it(job, seeds):
    dataset = cd.match_tomogram(job(orientations=PRIOR))
    assert json.loads(dataset.attrs["parameters"])["orientations"] == PRIOR
