"""False discovery rates from decoys in the noise map."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryodask.errors import InputError
from cryodask.picking.discovery import q_values
from cryodask.picking.pick import pick

PEAKS = [(6 + 12 * i, 8 + 14 * j, 8 + 14 * k, 0.9, 3) for i in range(2) for j in range(3) for k in range(4)]
SHAPE = (24, 44, 60)
SCORES = st.lists(st.integers(0, 30), max_size=40)


@pytest.fixture
def noisy(make_result):
    """Twenty-four strong particles and noise of the same spread in scores and noise map."""
    result = make_result(PEAKS, shape=SHAPE, sigma=1e-6)
    shape = result.score.shape
    noise, other = np.random.default_rng(11).normal(0, 0.08, (2, *shape)).astype(np.float32)
    raw = np.maximum(result.score_raw.values, other)
    maps = {"score_raw": raw, "noise": noise, "score": np.maximum(0, raw - noise)}
    for name, values in maps.items():
        result[name] = (result.orientation.dims, values)
    return result


@settings(max_examples=60, deadline=None, derandomize=True)
@given(SCORES, SCORES)
def test_q_values_are_the_least_rate_of_decoys_at_any_lower_score(targets, decoys):
    targets, decoys = np.array(targets, float), np.array(decoys, float)
    rates = {s: (1 + (decoys >= s).sum()) / max(1, (targets >= s).sum()) for s in set(targets)}
    expected = [min(1.0, *(rate for lower, rate in rates.items() if lower <= s), 1.0) for s in targets]
    np.testing.assert_allclose(q_values(targets, decoys), expected)


def test_particles_above_every_decoy_are_kept_with_their_q_value(noisy):
    table = pick(noisy, fdr=0.05)
    assert len(table) == len(PEAKS)
    np.testing.assert_allclose(table.qvalue, 1 / len(PEAKS))
    assert table.score_raw.is_monotonic_decreasing
    assert table.attrs["rule"] == "fdr = 0.05"
    assert table.attrs["thresholds"][0] == pytest.approx(table.score_raw.min())
    assert len(pick(noisy, fdr=0.03)) == 0


def test_a_looser_rate_keeps_more_and_about_that_share_is_noise(noisy):
    places = {peak[:3] for peak in PEAKS}
    table = pick(noisy, fdr=0.4, min_distance=40)
    true = [tuple(row) in places for row in table[["z", "y", "x"]].round().to_numpy().tolist()]
    assert sum(true) == len(PEAKS) < len(table)
    assert np.mean(np.logical_not(true)) < 0.5


def test_noise_of_several_copies_is_no_decoy(noisy):
    noisy.attrs["parameters"] = json.dumps({"noise_copies": 4})
    with pytest.raises(InputError, match="needs the noise of one copy, the result has the mean of 4"):
        pick(noisy, fdr=0.05)
