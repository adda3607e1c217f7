import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryodask.search.aggregates import (
    NO_ID,
    ExactMoments,
    Histogram,
    Maximum,
    Moments,
    empty_states,
    update_states,
)
from cryodask.search.aggregates import merge_states as merge

AGGREGATES = {"score": Maximum(), "moments": Moments(), "histogram": Histogram(-1.0, 1.0, 7)}
SHAPE = (2, 3)
few = settings(max_examples=60, deadline=None, derandomize=True)


@st.composite
def scored(draw):
    """Scores (hypothesis, z, y) with many ties, whose sums float64 holds exactly, under shuffled ids."""
    count = draw(st.integers(1, 12))
    grid = st.integers(-40, 40).map(lambda n: n / 32)
    values = draw(st.lists(grid, min_size=6 * count, max_size=6 * count))
    ids = draw(st.permutations(range(100, 100 + count)))
    return np.array(values, np.float32).reshape(count, *SHAPE), np.array(ids, np.uint32)


def fold(scores, ids):
    return update_states(AGGREGATES, empty_states(AGGREGATES, SHAPE), scores, ids)


def assert_same_bits(first, second):
    for name, state in first.items():
        for key, values in state.items():
            other = second[name][key]
            assert (values.dtype, values.shape) == (other.dtype, other.shape), f"{name}/{key}"
            assert values.tobytes() == other.tobytes(), f"{name}/{key}"


@few
@given(scored(), st.data())
def test_same_bits_for_any_batching_and_order(scored, data):
    scores, ids = scored
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(ids) - 1)), max_size=4)) - {len(ids)})
    batches = data.draw(st.permutations(list(zip(np.split(scores, cuts), np.split(ids, cuts), strict=True))))
    states = [fold(*batch) for batch in batches]
    while len(states) > 1:  # merged as any tree, with either one first
        at = data.draw(st.integers(0, len(states) - 2))
        pair = states[at : at + 2] if data.draw(st.booleans()) else states[at : at + 2][::-1]
        states[at : at + 2] = [merge(AGGREGATES, *pair)]
    assert_same_bits(states[0], fold(scores, ids))


@few
@given(scored())
def test_empty_state_is_the_identity(scored):
    state, empty = fold(*scored), empty_states(AGGREGATES, SHAPE)
    assert_same_bits(merge(AGGREGATES, state, empty), state)
    assert_same_bits(merge(AGGREGATES, empty, state), state)


@few
@given(scored())
def test_update_equals_a_slow_reference(scored):
    scores, ids = scored
    state = fold(scores, ids)
    mean_and_std = Moments().finalize(state["moments"])
    counts = np.zeros(7, int)
    for place in np.ndindex(SHAPE):
        values = [float(score[place]) for score in scores]
        best = max(values)
        assert state["score"]["value"][place] == best
        assert state["score"]["id"][place] == min(i for i, v in zip(ids, values, strict=True) if v == best)
        mean = sum(values) / len(values)
        variance = sum((value - mean) ** 2 for value in values) / len(values)
        assert mean_and_std["mean"][place] == pytest.approx(mean, abs=1e-12)
        assert mean_and_std["std"][place] == pytest.approx(variance**0.5, abs=1e-7)
        for value in values:
            counts[min(max(int((value + 1) * 3.5 // 1), 0), 6)] += 1
    np.testing.assert_array_equal(state["histogram"]["counts"], counts)


def test_order_of_sums_changes_moments_by_less_than_float32_shows():
    scores = np.random.default_rng(0).normal(0, 0.1, (1000, *SHAPE)).astype(np.float32)
    moments, ids = Moments(), np.arange(1000)
    whole = moments.update(moments.empty(SHAPE), scores, ids)
    parts = moments.empty(SHAPE)
    for first in range(990, -1, -10):
        some = slice(first, first + 10)
        parts = moments.merge(parts, moments.update(moments.empty(SHAPE), scores[some], ids[some]))
    for key in ("mean", "std"):
        np.testing.assert_allclose(moments.finalize(parts)[key], moments.finalize(whole)[key], rtol=1e-12)


def test_nan_and_minus_infinity_never_win():
    scores = np.array([[np.nan, np.nan, -np.inf, 3.0], [np.nan, -2.0, -np.inf, np.nan]], np.float32)
    state = Maximum().update(Maximum().empty((4,)), scores, [7, 5])
    np.testing.assert_array_equal(state["value"], np.array([-np.inf, -2, -np.inf, 3], np.float32))
    np.testing.assert_array_equal(state["id"], [NO_ID, 5, NO_ID, 7])


def test_histogram_counts_scores_beyond_its_ends_in_the_end_bins_and_no_nan():
    histogram = Histogram(0.0, 1.0, 4)
    scores = np.array([[-np.inf, -3, 0, 0.25, 0.999, 1, 7, np.inf, np.nan]], np.float32)
    result = histogram.finalize(histogram.update(histogram.empty((9,)), scores, [0]))
    np.testing.assert_array_equal(result["counts"], [3, 1, 0, 4])
    np.testing.assert_array_equal(result["edges"], [0, 0.25, 0.5, 0.75, 1])


def test_update_and_merge_leave_their_arguments_alone():
    scores, ids = np.ones((3, *SHAPE), np.float32), np.arange(3)
    first, second = fold(scores, ids), fold(2 * scores, ids + 3)
    before = fold(scores, ids)
    merge(AGGREGATES, first, second)
    update_states(AGGREGATES, first, 3 * scores, ids + 6)
    assert_same_bits(first, before)


def test_exact_moments_hold_over_twenty_million_additions():
    """Blocks of 24 scores, 0.3 with unit noise: plain float32 sums would be 2 % off."""
    rng = np.random.default_rng(0)
    moments = ExactMoments()
    blocks, positions, times = 4096, 8, 204
    sums = np.zeros((2, positions), np.int64)
    total, square, count = np.zeros(positions), np.zeros(positions), 0
    scores = (0.3 + rng.standard_normal((blocks, 24, positions))).astype(np.float32)
    first = scores.sum(axis=1, dtype=np.float32).astype(np.float64)
    second = np.square(scores).sum(axis=1, dtype=np.float32).astype(np.float64)
    exact = scores.astype(np.float64)
    for _ in range(times):
        sums[0] += np.rint(first * moments.scale).astype(np.int64).sum(axis=0)
        sums[1] += np.rint(second * moments.square_scale).astype(np.int64).sum(axis=0)
        total += exact.sum(axis=(0, 1))
        square += (exact**2).sum(axis=(0, 1))
        count += blocks * 24
    assert count > 20_000_000
    found = moments.finalize({"sum": sums[0], "square_sum": sums[1], "count": np.asarray(count)})
    np.testing.assert_allclose(found["std"], np.sqrt(square / count - (total / count) ** 2), rtol=1e-6)
    np.testing.assert_allclose(found["mean"], total / count, rtol=1e-6)


def test_exact_moments_do_not_depend_on_the_order_of_merges():
    rng = np.random.default_rng(1)
    moments = ExactMoments()
    states = [
        moments.update(moments.empty((5,)), rng.standard_normal((n, 5)).astype(np.float32), np.arange(n))
        for n in (3, 8, 1, 13)
    ]
    forward = backward = moments.empty((5,))
    for state in states:
        forward = moments.merge(forward, state)
    for state in reversed(states):
        backward = moments.merge(state, backward)
    for name in ("sum", "square_sum", "count"):
        np.testing.assert_array_equal(forward[name], backward[name])
