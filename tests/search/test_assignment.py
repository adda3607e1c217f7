"""Assignment under a capacity."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from cryodask.search.assignment import assign, assign_by_rank


def everyone(scores: np.ndarray) -> np.ndarray:
    return np.tile(np.arange(scores.shape[1], dtype=np.int32), (len(scores), 1))


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 60),
    st.integers(1, 7),
    st.sampled_from(["random", "constant", "crowded"]),
)
def test_no_hypothesis_is_above_capacity(seed: int, positions: int, count: int, kind: str) -> None:
    scores = np.random.default_rng(seed).normal(10, 2, (positions, count)).astype(np.float32)
    if kind == "constant":
        scores[:] = 1
    elif kind == "crowded":
        scores[:, 0] += 100
    capacity = -(-positions // count)
    found = assign(scores, everyone(scores), count, capacity=capacity)
    assert np.bincount(found.label, minlength=count).max() <= capacity
    assert (found.label == found.choice).all()


def test_the_sum_of_scores_is_nearly_the_largest() -> None:
    scores = np.random.default_rng(1).normal(10, 2, (200, 8)).astype(np.float32)
    scores += np.linspace(0, 3, 8, dtype=np.float32)
    rows, columns = linear_sum_assignment(-np.repeat(scores, 25, axis=1))
    best = scores[rows, columns // 25].sum()
    found = assign(scores, everyone(scores), 8, capacity=25)
    assert scores[np.arange(200), found.label].sum() >= 0.99 * best
    assert found.prices[7] > found.prices[0]  # the crowded one is dear


def test_a_full_shortlist_leaves_the_choice_open() -> None:
    scores = np.ones((4, 1), np.float32)
    found = assign(scores, np.zeros((4, 1), np.int32), 2, capacity=2)
    assert sorted(found.label) == [0, 0, 1, 1]
    assert (found.choice == np.where(found.label == 0, 0, -1)).all()


def test_too_little_room_is_refused() -> None:
    with pytest.raises(ValueError, match="5 positions do not fit 2 hypotheses of 2"):
        assign(np.ones((5, 2), np.float32), np.zeros((5, 2), np.int32), 2, capacity=2)


def test_by_rank_the_best_scores_are_served_first() -> None:
    rng = np.random.default_rng(8)
    scores = rng.standard_normal((50, 4)).astype(np.float32)
    ids = np.broadcast_to(np.arange(4, dtype=np.int32), scores.shape)
    found = assign_by_rank(scores, ids, 4)
    label, sizes = np.full(50, 3), np.zeros(4, int)
    taken: set[int] = set()
    for i, k in sorted(np.ndindex(50, 4), key=lambda at: (-scores[at], at[1], at[0])):
        if i not in taken and sizes[k] < 12:
            label[i] = k
            sizes[k] += 1
            taken.add(i)
    assert (found.label == label).all()
    assert np.bincount(found.label).tolist() == [12, 12, 12, 14]
    assert (found.choice == label).all()
