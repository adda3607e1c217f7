"""False discovery rates from decoys in the noise map."""

import json

import numpy as np
import pytest
import xarray as xr
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


def test_each_class_is_held_against_its_own_decoys_in_its_own_scale(make_noisy):
    """The second template scores half as high; its particles would drown in the first one's decoys."""
    first = make_noisy(11)
    half = np.concatenate([first.score_raw.values, 0.5 * make_noisy(12).score_raw.values])
    rng = np.random.default_rng(13)
    decoy = rng.normal(0, 0.08, half.shape).astype(np.float32) * np.array([1, 0.5])[:, None, None, None]
    decoy[0, ::6, ::11, ::12] = 0.6  # of the first template alone, above all particles of the second
    index = np.zeros(first.score.shape[1:], np.int16)
    index[SHAPE[0] // 2 :] = 1  # half of the places are of each class
    maps = first.orientation.dims
    both = xr.Dataset(
        {
            "score": (maps, half),
            "score_raw": (maps, half),
            "decoy": (maps, decoy.astype(np.float32)),
            "orientation": (maps, np.concatenate([first.orientation.values] * 2)),
            "class_id": (maps[1:], index),
            "valid": first.valid,
            "euler": (("template", "row", "axis"), np.concatenate([first.euler.values] * 2)),
            "sigma": ("template", [0.08, 0.04]),
        },
        attrs=first.attrs | {"template_names": ["whole", "half"]},
    )
    table = pick(both, fdr=0.1)
    assert (table.loc[table["class"] == 2, "score_raw"] > 0.4).sum() == 12
    low, high = table.attrs["thresholds"][1], table.attrs["thresholds"][0]
    assert low < 0.5 < 0.6 < high
