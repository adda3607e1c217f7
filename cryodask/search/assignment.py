"""Assignment of positions to hypotheses of limited capacity, by prices (Bertsekas 1988, "The auction
algorithm"): every over-full hypothesis becomes dearer by what its least attached positions lose elsewhere.
"""

from dataclasses import dataclass

import numba
import numpy as np

INCREMENT = 0.01  # of a price beyond the regret that empties a place
TOLERATED = 0.004  # of the positions: overflow that is left to the last repair
MOST_ROUNDS = 300
NOWHERE = -1e30
MOST_REGRET = 1e29  # beyond it a position has nowhere else to go, at any price


@dataclass(frozen=True)
class Assignment:
    """Who goes where.

    Parameters
    ----------
    choice : (n,) int64
        Column of the shortlist that was taken, or -1 where all of them were full.
    label : (n,) int64
        The hypothesis.
    prices : (K,) float64
        What the last place of each hypothesis costs, in units of the score; 0 where there is room.
    rounds : int
    """

    choice: np.ndarray
    label: np.ndarray
    prices: np.ndarray
    rounds: int


def assign(scores: np.ndarray, ids: np.ndarray, count: int, *, capacity: int) -> Assignment:
    """Assign every position to one hypothesis, none above capacity, for a large sum of scores.

    Parameters
    ----------
    scores : (n, q) float32
        Of the shortlisted hypotheses of each position.
    ids : (n, q) int32
        Which they are, in rising order; ties go to the lowest.
    count : int
        Number of hypotheses K.
    capacity : int
        Most positions of one hypothesis; count * capacity >= n.

    Returns
    -------
    Assignment
    """
    if count * capacity < len(scores):
        raise ValueError(f"{len(scores)} positions do not fit {count} hypotheses of {capacity}")
    prices = np.zeros(count)
    scores, ids = np.ascontiguousarray(scores, np.float32), np.ascontiguousarray(ids, np.int32)
    rounds = _raise_prices(scores, ids, prices, capacity)
    best, second, _ = _bids(scores, ids, prices)
    order = np.argsort(-(best - second), kind="stable")
    choice, label = _repair(scores, ids, prices, capacity, order)
    return Assignment(choice, label, prices, rounds)


def assign_by_rank(scores: np.ndarray, ids: np.ndarray, count: int) -> Assignment:
    """Assign positions by falling score, each hypothesis closed once it has n // count of them.

    What is left over goes to the last hypothesis. Ties go to the lowest hypothesis, then position. Otherwise
    as `assign`, without prices.
    """
    n, width = scores.shape
    places = np.lexsort((np.repeat(np.arange(n), width), ids.ravel(), -scores.ravel()))
    choice = np.full(n, -1)
    label = np.full(n, count - 1, np.int64)
    _take_in_order(places, np.ascontiguousarray(ids, np.int32), n // count, count, choice, label)
    for i in np.flatnonzero(choice < 0):
        own = np.flatnonzero(ids[i] == count - 1)
        choice[i] = own[0] if len(own) else -1
    return Assignment(choice, label, np.zeros(count), 0)


@numba.njit(nogil=True, cache=True)
def _take_in_order(
    places: np.ndarray, ids: np.ndarray, capacity: int, count: int, choice: np.ndarray, label: np.ndarray
) -> None:
    sizes = np.zeros(count, np.int64)
    width = ids.shape[1]
    for place in places:
        i, j = place // width, place % width
        k = ids[i, j]
        if choice[i] < 0 and sizes[k] < capacity:
            choice[i], label[i] = j, k
            sizes[k] += 1


@numba.njit(nogil=True, cache=True)
def _bids(
    scores: np.ndarray, ids: np.ndarray, prices: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the best and second best value of score less price, and the hypothesis of the best."""
    n = scores.shape[0]
    best, second = np.full(n, NOWHERE), np.full(n, NOWHERE)
    label = np.zeros(n, np.int64)
    for i in range(n):
        for j in range(scores.shape[1]):
            value = scores[i, j] - prices[ids[i, j]]
            if value > best[i]:
                second[i], best[i], label[i] = best[i], value, ids[i, j]
            elif value > second[i]:
                second[i] = value
    return best, second, label


@numba.njit(nogil=True, cache=True)
def _raise_prices(scores: np.ndarray, ids: np.ndarray, prices: np.ndarray, capacity: int) -> int:
    """Raise prices until hardly any hypothesis is over-full; return the rounds it took."""
    n = scores.shape[0]
    for rounds in range(MOST_ROUNDS):
        best, second, label = _bids(scores, ids, prices)
        sizes = np.bincount(label, minlength=prices.size)
        overflow = 0
        for k in range(prices.size):
            overflow += max(0, sizes[k] - capacity)
        if overflow <= TOLERATED * n:
            return rounds
        regret, raised = best - second, False
        for k in range(prices.size):
            if sizes[k] > capacity:
                step = np.sort(regret[label == k])[sizes[k] - capacity - 1]
                if step < MOST_REGRET:
                    prices[k] += step + INCREMENT
                    raised = True
        if not raised:
            return rounds
    return MOST_ROUNDS


@numba.njit(nogil=True, cache=True)
def _repair(
    scores: np.ndarray, ids: np.ndarray, prices: np.ndarray, capacity: int, order: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Let positions take, in the given order, their best hypothesis that has room."""
    n = scores.shape[0]
    choice, label = np.full(n, -1), np.zeros(n, np.int64)
    sizes = np.zeros(prices.size, np.int64)
    for i in order:
        best = NOWHERE
        for j in range(scores.shape[1]):
            k = ids[i, j]
            value = scores[i, j] - prices[k]
            if sizes[k] < capacity and value > best:
                best, choice[i] = value, j
        if choice[i] >= 0:
            label[i] = ids[i, choice[i]]
        else:
            label[i] = np.argmin(sizes)
        sizes[label[i]] += 1
    return choice, label
