"""The top-hat criterion."""

import numpy as np
import pytest
from scipy.ndimage import generate_binary_structure, grey_dilation, grey_erosion
from scipy.special import erfcinv

from cryodask.errors import InputError
from cryodask.picking import regions as regions_module
from cryodask.picking.pick import pick
from cryodask.picking.regions import Block
from cryodask.picking.sharpness import sharpness_threshold, top_hat

SHAPE = (40, 48, 48)
SHARP, BLUNT = (12, 14, 10, 0.4, 3), (28, 30, 34, 0.4, 5)


@pytest.fixture
def result(make_result):
    """A sharp peak and a blunt one of the same height."""
    made = make_result([SHARP], shape=SHAPE, width=1.0)
    blunt = make_result([BLUNT], shape=SHAPE, width=7.0)
    for name in ("score", "score_raw"):
        made[name] = np.maximum(made[name], blunt[name])
    return made


def test_top_hat_is_the_height_above_the_opening_by_the_cross(result):
    scores = result.score.values[0]
    cross = generate_binary_structure(3, 1)
    opened = grey_dilation(grey_erosion(scores, footprint=cross), footprint=cross)
    block = Block(result, 0, tuple(slice(0, n) for n in SHAPE))
    np.testing.assert_allclose(top_hat(block, "score"), scores - opened, atol=1e-7)


def test_a_blunt_peak_is_dropped_and_a_sharp_one_stays(result):
    places = [(row.z, row.y, row.x) for row in pick(result, threshold=0.3, min_distance=150).itertuples()]
    assert len(places) == 2
    kept = pick(result, threshold=0.3, min_distance=150, top_hat=50)
    np.testing.assert_allclose(kept[["z", "y", "x"]].to_numpy(float), [SHARP[:3]], atol=0.1)


@pytest.mark.parametrize("edge", [9, 17])
def test_regions_do_not_change_the_sharpness(result, monkeypatch, edge):
    whole = sharpness_threshold(result, "score_raw", 0)
    table = pick(result, threshold=0.05, min_distance=30, top_hat=30)
    monkeypatch.setattr(regions_module.regions, "__defaults__", (edge,))
    assert sharpness_threshold(result, "score_raw", 0) == whole
    assert pick(result, threshold=0.05, min_distance=30, top_hat=30).equals(table)


def test_the_threshold_is_that_of_the_gaussian_in_the_histogram(make_result):
    """Peaks of one voxel with half-normal heights: the top-hat of each is its height."""
    shape, spread, bins = (90, 90, 90), 0.1, 14
    result = make_result(shape=shape)
    scores = np.zeros(shape, np.float32)
    inner = scores[1:-1:3, 1:-1:3, 1:-1:3]
    inner[:] = np.abs(np.random.default_rng(5).normal(0, spread, inner.shape))
    result["score_raw"] = (result.score.dims, scores[None])
    root = np.sqrt(2 * np.pi)
    amplitude = 2 * inner.size * scores.max() / bins / (spread * root)
    expected = np.sqrt(2) * spread * erfcinv(2 * spread * root / amplitude)
    assert sharpness_threshold(result, "score_raw", 0, bins=bins) == pytest.approx(expected, rel=0.05)


def test_a_failed_fit_is_an_error(make_result):
    result = make_result()
    result["score_raw"] = result.score_raw * 0 + 0.1
    with pytest.raises(InputError, match="--top-hat 50: no Gaussian fits the noise in the histogram"):
        pick(result, top_hat=50)
