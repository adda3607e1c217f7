"""Peaks and thresholds of micrographs against Leopard-EM's and the greedy rule spelled out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtri

from cryodask.errors import InputError
from cryodask.picking.image_peaks import image_peaks
from cryodask.picking.image_thresholds import global_score, image_threshold, negative_log_pvalue


def greedy(score, cutoff, radius):
    """Take the best, drop what is nearer than the radius, repeat."""
    left = [(-score[y, x], y, x) for y, x in np.argwhere(score > cutoff)]
    found = []
    while left:
        _, y, x = min(left)
        found.append((y, x))
        left = [item for item in left if np.hypot(item[1] - y, item[2] - x) >= max(radius, 0.5)]
    return np.array(found, int).reshape(-1, 2)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1.0, 2.5, 3.0, 5.0]), st.booleans())
def test_peaks_follow_the_greedy_rule(seed, radius, ties):
    score = np.random.default_rng(seed).normal(size=(17, 23))
    score = np.round(score) if ties else score
    np.testing.assert_array_equal(image_peaks(score, 0.3, mask_radius=radius), greedy(score, 0.3, radius))


@pytest.fixture(scope="module")
def reference(shared_data):
    folder = shared_data / "micrograph_matching"
    return np.load(folder / "peaks.npz"), np.load(folder / "search_512" / "reference_maps.npz")


def test_peaks_of_the_reference_by_z_and_by_p(reference):
    peaks, maps = reference
    z = maps["scaled_mip"]
    found = image_peaks(z, 4.5)
    np.testing.assert_array_equal(found, np.stack([peaks["z_y"], peaks["z_x"]], axis=1))
    np.testing.assert_array_equal(z[tuple(found.T)], peaks["z_v"])
    found = image_peaks(negative_log_pvalue(z, maps["mip"]), 8.0)
    np.testing.assert_array_equal(found, np.stack([peaks["p_y"], peaks["p_x"]], axis=1))


def test_thresholds_of_the_specification(reference):
    for count, expected, value in reference[0]["cutoffs"]:
        found = image_threshold("zscore", int(count), 1, false_positives=expected)
        assert found.value == pytest.approx(value, abs=1e-5)
    assert image_threshold("global", 385**2, 720).value == pytest.approx(5.62325, abs=1e-5)
    assert image_threshold("pvalue", 1000, 720).value == 8.0
    assert image_threshold("pvalue", 1000, 720, false_positives=1.0).value == pytest.approx(np.log(1000))
    assert image_threshold("zscore", 1000, 720, cutoff=4.0).value == 4.0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_pvalue_is_that_of_the_moment_matrix(seed):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=400)
    mip = 0.6 * z + rng.normal(size=400)
    first, second = (ndtri((np.argsort(np.argsort(v)) + 0.5) / 400) for v in (z, mip))
    matrix = np.cov(np.stack([first, second]), bias=True)
    matrix /= matrix[0, 0]
    point = np.stack([first, second])
    squares = np.einsum("in,ij,jn->n", point, np.linalg.inv(matrix), point)
    rho = matrix[0, 1]
    quadrant = 0.25 + np.arcsin(rho) / (2 * np.pi)
    wanted = np.where((first > 0) & (second > 0), 0.5 * squares - np.log(quadrant), 0.0)
    np.testing.assert_allclose(negative_log_pvalue(z, mip), wanted, rtol=1e-9, atol=1e-9)


def test_global_score_uses_one_mean_and_deviation():
    mip = np.array([[1.0, 3.0]])
    np.testing.assert_allclose(global_score(mip, 20.0, 80.0, 10.0), (mip - 2.0) / 2.0)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"false_positives": 0.0}, "--false-positives 0: expected a number above 0"),
        ({"false_positives": 1e9}, "--false-positives 1e\\+09: expected a number above 0 and below"),
        ({"false_positives": 1.0, "cutoff": 3.0}, "choose one of --cutoff and --false-positives"),
    ],
)
def test_impossible_thresholds_are_refused(options, text):
    with pytest.raises(InputError, match=text):
        image_threshold("zscore", 100, 10, **options)
