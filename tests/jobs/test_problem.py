"""The maps of a tile from the states of all rotations."""

from dataclasses import replace

import numpy as np
import pytest

from cryodask.jobs.tomogram_matching import constants
from cryodask.jobs.tomogram_matching.inputs import load_inputs
from cryodask.jobs.tomogram_matching.planning import Resources, make_problem
from cryodask.search.aggregates import NO_ID
from cryodask.search.tiles import Tile

TILE = Tile(0, (0, 5, 3), (9, 16, 14), (24, 24, 24))
ROTATIONS = 60


@pytest.fixture
def problem(job, tmp_path):
    inputs = load_inputs(job(noise_correction="ratio", noise_copies=2))
    return replace(make_problem(inputs, tmp_path / "run", Resources()), hypotheses=ROTATIONS)


@pytest.fixture
def scores():
    """Scores of every rotation: template, then two noise templates."""
    generator = np.random.default_rng(6)
    found = np.clip(generator.normal(0, 0.15, (3, ROTATIONS, *TILE.shape)), -1, 1).astype(np.float32)
    found[0, :, 2, 3, 4] = 0.25
    return found


def states_of(scores):
    states = {}
    for name, values in zip(("score", "noise_0", "noise_1"), scores, strict=True):
        states[name] = {"value": values.max(axis=0), "id": values.argmax(axis=0).astype(np.uint32)}
    wide = scores[0].astype(np.float64)
    states["moments"] = {
        "sum": wide.sum(axis=0),
        "square_sum": (wide**2).sum(axis=0),
        "count": np.asarray(ROTATIONS),
    }
    return states


def unsearched(states, place):
    for name in ("score", "noise_0", "noise_1"):
        states[name]["value"][place], states[name]["id"][place] = -np.inf, NO_ID
    return states


def slow_maps(scores, searched, correction):
    """One voxel after another in float64."""
    names = ("score", "score_raw", "noise", "score_mean", "score_std", "zscore")
    maps = {name: np.zeros(TILE.shape) for name in names}
    maps["orientation"] = np.full(TILE.shape, int(NO_ID))
    for at in np.argwhere(searched):
        place = tuple(at)
        template, first, second = (
            [float(score) for score in column] for column in scores[(slice(None), slice(None), *place)]
        )
        raw, noise = max(template), (max(first) + max(second)) / 2
        mean = sum(template) / ROTATIONS
        std = np.sqrt(max(sum(score**2 for score in template) / ROTATIONS - mean**2, 0))
        maps["score_raw"][place], maps["noise"][place] = raw, noise
        maps["orientation"][place] = template.index(raw)
        maps["score"][place] = {
            "ratio": max(0, (raw - noise) / (1 - noise)),
            "subtract": raw - noise,
        }[correction]
        maps["score_mean"][place], maps["score_std"][place] = mean, std
        maps["zscore"][place] = (raw - mean) / std if std >= 1e-6 else 0
    return maps


@pytest.mark.parametrize("correction", ["ratio", "subtract"])
def test_maps_are_those_of_a_loop_over_voxels(problem, scores, correction):
    problem = replace(problem, noise_correction=correction)
    place = (4, 5, 6)
    found, summary = problem.finish(TILE, unsearched(states_of(scores), place))
    searched = np.ones(TILE.shape, bool)
    searched[place] = False
    expected = slow_maps(scores, searched, correction)
    for name, values in expected.items():
        assert found[name].shape == (1, *TILE.shape)
        np.testing.assert_allclose(found[name][0], values, atol=2e-6, err_msg=name)
    assert found["orientation"].dtype == np.uint32
    assert found["zscore"][0, 2, 3, 4] == 0
    assert {v.name for v in problem.variables} == {*found}
    for variable in problem.variables:
        assert found[variable.name].dtype == variable.dtype
    assert summary["noise_sum"] == pytest.approx(expected["noise"].sum(), rel=1e-6)
    squares = (scores[0].astype(np.float64) ** 2).sum(axis=0)
    assert summary["square_sum"] == pytest.approx(squares[searched].sum(), rel=1e-12)


def test_outside_the_search_mask_maps_hold_their_fill_values(problem, scores, tmp_path):
    mask = np.random.default_rng(2).random(problem.shape) > 0.4
    stored = constants.create_array(constants.mask_path(tmp_path / "run"), mask.shape, "uint8")
    stored[...] = mask.astype(np.uint8)
    found, summary = problem.finish(TILE, states_of(scores))
    searched = mask[TILE.slices]
    for variable in problem.variables:
        if variable.name != "valid":
            assert (found[variable.name][0][~searched] == variable.fill).all()
    np.testing.assert_allclose(found["score"][0], slow_maps(scores, searched, "ratio")["score"], atol=2e-6)
    assert summary["voxels"] == searched.sum()


def test_valid_positions_keep_the_support_of_the_mask_inside_the_tomogram(problem, scores):
    found, _ = problem.finish(TILE, states_of(scores))
    assert 4 < problem.support < 5
    expected = np.zeros(problem.shape, np.uint8)
    expected[5:-5, 5:-5, 5:-5] = 1
    np.testing.assert_array_equal(found["valid"], expected[TILE.slices])
    wrapped, _ = replace(problem, wrap=True).finish(TILE, states_of(scores))
    assert wrapped["valid"].all()
    exact, _ = replace(problem, support=4.0).finish(TILE, states_of(scores))
    expected[4:-4, 4:-4, 4:-4] = 1
    np.testing.assert_array_equal(exact["valid"], expected[TILE.slices])


def test_few_rotations_have_no_zscore_and_no_moments_no_statistics(problem, scores):
    few = replace(problem, hypotheses=49)
    assert "zscore" not in {v.name for v in few.variables}
    assert "zscore" not in few.finish(TILE, states_of(scores))[0]
    bare = replace(problem, moments=False, noise_copies=0, noise_correction="none")
    states = {"score": states_of(scores)["score"]}
    found, summary = bare.finish(TILE, states)
    assert {*found} == {"score", "score_raw", "orientation", "valid"} == {v.name for v in bare.variables}
    np.testing.assert_array_equal(found["score"], found["score_raw"])
    assert {*summary} == {"voxels"}
