"""Orientations and thresholds that need template and tomogram again."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import zarr
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

import cryodask as cd
from cryodask.cli.main import run
from cryodask.errors import InputError
from cryodask.geometry.euler import euler_from_rotation, rotation_from_euler
from cryodask.geometry.grids import rotation_grid
from cryodask.jobs.tomogram_matching import independence
from cryodask.jobs.tomogram_matching.independence import independent_scores, squared_autocorrelation
from cryodask.jobs.tomogram_matching.inputs import load_inputs
from cryodask.jobs.tomogram_matching.problem import corrected
from cryodask.jobs.tomogram_matching.refinement import angular_step, refine
from cryodask.jobs.tomogram_matching.settings import AngleSettings
from cryodask.optics.masks import sphere_mask

BOX, VOXEL, STEP = 24, 10.0, 7.0
SHAPE = (32, 64, 96)
PLACES = [(16, 16, 16), (15, 16, 48), (17, 16, 80), (16, 48, 16), (16, 47, 48), (16, 48, 81)]
# Offset x, y, z from the centre, width, height.
BLOBS = [
    (0, 0, 0, 2.5, 1.0),
    (6, 1, 0, 1.6, 1.2),
    (-1, 5, 3, 1.6, 1.0),
    (1, -3, 6, 1.7, 1.1),
    (-4, -3, -4, 1.6, 0.9),
]


def particle(shape, centre, rotation):
    """Sum of Gaussians, turned and placed without interpolation."""
    grid = np.indices(shape)[::-1]
    total = np.zeros(shape)
    for *offset, width, height in BLOBS:
        at = rotation.apply(offset) + np.array(centre)[::-1]
        square = sum((axis - c) ** 2 for axis, c in zip(grid, at, strict=True))
        total += height * np.exp(-square / (2 * width**2))
    return total.astype(np.float32)


@pytest.fixture(scope="module")
def turned():
    """Rows of a 7 degree grid, and rotations 3 degrees off them."""
    rng = np.random.default_rng(3)
    grid = rotation_from_euler(rotation_grid(STEP))
    rows = grid[rng.choice(len(grid), len(PLACES), replace=False)]
    axes = rng.standard_normal((len(PLACES), 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    return rows, Rotation.from_rotvec(3 * axes, degrees=True) * rows


@pytest.fixture(scope="module", params=["spherical", "general"])
def stored(request, turned, tmp_path_factory):
    """A noise-free tomogram of the rotations that are off, searched with the rows."""
    rows, truth = turned
    clean = sum(particle(SHAPE, place, r) for place, r in zip(PLACES, truth, strict=True))
    template = particle((BOX,) * 3, (BOX // 2,) * 3, Rotation.identity())
    dataset = cd.match_tomogram(
        clean,
        template,
        mask=sphere_mask(BOX, 9.5, 1.5),
        mask_kind=request.param,
        angles=euler_from_rotation(rows, "zxz"),
        voxel_size=VOXEL,
        noise_correction="ratio",
        device="cpu",
    )
    path = dataset.cryo.store(tmp_path_factory.mktemp("refined") / "result.zarr")
    # The list is a part of a grid, so its own step says nothing.
    attributes = zarr.open_group(path, mode="r+").attrs
    attributes["parameters"] = attributes["parameters"].replace('"step":null', f'"step":{STEP}')
    return path


@pytest.fixture
def result(stored):
    return cd.open_result(stored).load()


def errors(table, truth):
    """Angles to the truth in degrees, in the order of the places."""
    found = table[["z", "y", "x"]].to_numpy(float)
    order = [int(np.argmin(np.abs(found - place).sum(axis=1))) for place in PLACES]
    angles = rotation_from_euler(table[["phi", "theta", "psi"]].to_numpy(float))[order]
    return np.degrees((truth.inv() * angles).magnitude())


def test_a_copy_3_degrees_off_a_7_degree_grid_comes_back_within_0_8(result, turned):
    options = {"threshold": 0.5, "min_distance": 150}
    grid = cd.pick(result, **options)
    refined = cd.pick(result, refine="both", **options)
    np.testing.assert_allclose(errors(grid, turned[1]), 3.0, atol=1e-3)
    assert errors(refined, turned[1]).max() < 0.8
    by_row = refined.set_index("angle_row")
    before = grid.set_index("angle_row").score_raw[by_row.index]
    np.testing.assert_allclose(by_row.score_grid, before)
    assert (by_row.score_raw > before).all()
    assert refined.score.is_monotonic_decreasing
    np.testing.assert_allclose(refined.score, corrected(refined.score_raw, refined.noise, "ratio"))
    near = cKDTree(PLACES).query(refined[["z", "y", "x"]].to_numpy())
    assert near[0].max() < 0.1 and sorted(near[1]) == list(range(len(PLACES)))


def test_orientation_alone_leaves_places_on_voxels_and_workers_refine_alike(result):
    options = {"threshold": 0.5, "min_distance": 150, "refine": "orientation"}
    alone = cd.pick(result, **options)
    assert (alone[["x", "y", "z"]] % 1 == 0).all(axis=None)
    with ThreadPoolExecutor(2) as executor:
        assert cd.pick(result, executor=executor, **options).equals(alone)


@pytest.mark.parametrize("stored", ["spherical"], indirect=True)
def test_the_command_refines_with_workers(stored, turned, tmp_path):
    words = ["--threshold", "0.5", "--min-distance", "150", "--refine", "both", "--workers", "2"]
    assert run(["pick", str(stored), "-o", str(tmp_path / "out.csv"), *words]) == 0
    table = pd.read_csv(tmp_path / "out.csv")
    assert errors(table, turned[1]).max() < 0.8
    assert (table.score_grid < table.score_raw).all()


def test_a_peak_in_the_corner_stays_inside_the_tomogram(result):
    corner = {"template": 0, "z": 0, "y": 0, "x": SHAPE[2] - 1, "angle_row": 0, "noise": 0.0}
    peak = pd.DataFrame([corner | {"score": 0.01, "score_raw": 0.01}])
    refined = refine(result, peak, position=True).iloc[0]
    assert refined.score_raw >= refined.score_grid == 0.01
    assert (refined[["z", "y", "x"]] >= 0).all() and refined.x < SHAPE[2]
    assert np.isfinite(refined[["dz", "dy", "dx"]].astype(float)).all()


def test_no_peak_needs_no_refinement(result):
    table = cd.pick(result, threshold=1.5, min_distance=150, refine="both")
    assert len(table) == 0
    assert "score_grid" in table


def test_the_step_of_a_list_is_the_angle_between_neighbours(job):
    angles = rotation_grid(15.0)
    inputs = load_inputs(job(angles={"step": 15.0, "method": "healpix"}))
    listed = replace(
        inputs, parameters=inputs.parameters.model_copy(update={"angles": AngleSettings(file="a")})
    )
    assert angular_step(inputs) == 15.0
    assert angular_step(replace(listed, angles=angles)) == pytest.approx(15.0, rel=0.1)
    with pytest.raises(InputError, match="a list of one rotation has no step"):
        angular_step(replace(listed, angles=angles[:1]))


def test_a_gaussian_of_width_s_covers_the_voxels_of_its_autocorrelation():
    width = 1.5
    template = particle((BOX,) * 3, (BOX // 2,) * 3, Rotation.identity()) * 0
    squares = sum((axis - BOX // 2) ** 2 for axis in np.indices(template.shape))
    # The autocorrelation is a Gaussian of width √2 s, its square one of width s.
    expected = (2 * np.pi * width**2) ** 1.5
    assert squared_autocorrelation(np.exp(-squares / (2 * width**2))) == pytest.approx(expected, rel=1e-3)
    lone = template.copy()
    lone[3, 4, 5] = 2.0
    assert squared_autocorrelation(lone) == pytest.approx(1.0)


def test_correlated_scores_count_less_and_lower_the_threshold(result):
    made = float(result.n_voxels[0] * result.n_rotations[0])
    effective = independent_scores(result)
    assert effective.shape == (1,) and 1 < effective[0] < made / 20
    options = {"false_positives": 1, "min_distance": 150}
    lower = cd.pick(result, independent="effective", **options).attrs
    assert lower["thresholds"][0] < cd.pick(result, **options).attrs["thresholds"][0]
    assert lower["rule"] == "false_positives = 1 of the independent scores"


def test_independent_rotations_multiply_and_equal_ones_do_not(result, monkeypatch):
    def count(first, second):
        rows = iter([first] + [first, second] * independence.PAIRS)
        monkeypatch.setattr(independence, "weights", lambda *_: next(rows))
        return independent_scores(result)[0]

    one, other = np.zeros((2, 4, 4, 4))
    one[1, 1, 1] = other[2, 2, 2] = 1
    voxels = float(result.n_voxels[0])
    assert count(one, one) == pytest.approx(voxels)
    assert count(one, other) == pytest.approx(voxels * len(PLACES))


@pytest.mark.parametrize("options", [{"refine": "both"}, {"independent": "effective"}])
def test_changed_and_missing_inputs_are_named(result, options, tmp_path):
    word = next(f"--{name} {value}" for name, value in options.items())
    inputs = json.loads(result.attrs["inputs"])
    changed = tmp_path / "template.mrc"
    changed.write_bytes(b"other")
    for path, text in (
        (changed, "template = .*: changed since the search"),
        (tmp_path / "no.mrc", "no such file"),
    ):
        inputs["template"]["path"] = str(path)
        moved = result.assign_attrs(inputs=json.dumps(inputs))
        with pytest.raises(InputError, match=f"{word}.*{text}"):
            cd.pick(moved, min_distance=150, **options)
    del result.attrs["parameters"]
    with pytest.raises(InputError, match=f"{word} needs the parameters of the search"):
        cd.pick(result, min_distance=150, **options)
