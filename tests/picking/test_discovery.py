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
def make_noisy(make_result):
    """Return a maker of results: strong particles, and noise alike in scores and noise map."""
    result = make_result(PEAKS, shape=SHAPE, sigma=1e-6)

    def make(seed):
        shape = result.score.shape
        noise, other = np.random.default_rng(seed).normal(0, 0.08, (2, *shape)).astype(np.float32)
        raw = np.maximum(result.score_raw.values, other)
        maps = {"score_raw": raw, "noise": noise, "score": np.maximum(0, raw - noise)}
        return result.assign({name: (result.orientation.dims, values) for name, values in maps.items()})

    return make


@pytest.fixture
def noisy(make_noisy):
    """Return one such result, no noise above the particles."""
    return make_noisy(11)


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


def test_the_share_of_noise_is_on_average_within_the_rate(make_noisy):
    places, shares = {peak[:3] for peak in PEAKS}, []
    for seed in range(12):
        table = pick(make_noisy(seed), fdr=0.2, min_distance=60)
        true = [tuple(row) in places for row in table[["z", "y", "x"]].round().to_numpy().tolist()]
        assert sum(true) == len(PEAKS)
        shares.append(1 - np.mean(true))
    assert 0.05 < np.mean(shares) <= 0.2


def test_noise_on_the_flank_of_a_particle_is_no_decoy(make_noisy):
    result = make_noisy(1)
    z, y, x = PEAKS[0][:3]
    result.score_raw[0, z, y, x], result.noise[0, z, y, x + 4] = 2.0, 0.95
    assert len(pick(result, fdr=0.05, min_distance=60)) == len(PEAKS)
    assert len(pick(result, fdr=0.05, min_distance=20)) == 0


def test_noise_of_several_copies_is_no_decoy(noisy):
    noisy.attrs["parameters"] = json.dumps({"noise_copies": 4})
    with pytest.raises(InputError, match="needs the noise of one copy, the result has the mean of 4"):
        pick(noisy, fdr=0.05)
