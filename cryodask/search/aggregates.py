"""Aggregates: commutative monoids that fold the scores of many hypotheses.

A state is a dictionary of arrays. `update` takes scores of shape (hypothesis, ...) and their ids
(hypothesis,); `merge` joins the states of disjoint sets of hypotheses. Neither changes its arguments.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from cryodask.arrays.module import array_module

State = dict[str, Any]
States = dict[str, State]
NO_ID = np.uint32(0xFFFFFFFF)


class Aggregate(Protocol):
    """What the engine asks of an aggregate."""

    def empty(self, shape: tuple[int, ...], xp: ModuleType = np) -> State:
        """Return the state of no hypothesis."""
        ...

    def update(self, state: State, scores: Any, ids: Any) -> State:
        """Return the state with the scores of more hypotheses folded in."""
        ...

    def merge(self, first: State, second: State) -> State:
        """Return the state of the union of two disjoint sets of hypotheses."""
        ...

    def finalize(self, state: State) -> dict[str, Any]:
        """Return the named results of a state."""
        ...


@dataclass(frozen=True)
class Maximum:
    """The largest score and the id that reached it; ties go to the lowest id, NaN never wins."""

    def empty(self, shape: tuple[int, ...], xp: ModuleType = np) -> State:
        """Return value -inf and no id everywhere."""
        return {"value": xp.full(shape, -np.inf, xp.float32), "id": xp.full(shape, NO_ID, xp.uint32)}

    def update(self, state: State, scores: Any, ids: Any) -> State:
        """Fold in scores (hypothesis, ...) with ids (hypothesis,)."""
        xp = array_module(scores)
        order = xp.argsort(xp.asarray(ids))
        scores, ids = scores[order], xp.asarray(ids)[order]
        scores = xp.where(xp.isnan(scores), -np.inf, scores).astype(xp.float32)
        first = xp.argmax(scores, axis=0)
        value = xp.take_along_axis(scores, first[None], axis=0)[0]
        found = xp.where(value == -np.inf, NO_ID, ids[first]).astype(xp.uint32)
        return self.merge(state, {"value": value, "id": found})

    def merge(self, first: State, second: State) -> State:
        """Keep the larger value, at equal values the lower id, with all that goes with it."""
        xp = array_module(first["value"])
        higher = second["value"] > first["value"]
        tie = (second["value"] == first["value"]) & (second["id"] < first["id"])
        take = higher | tie
        return {key: xp.where(take, second[key], first[key]) for key in first}

    def finalize(self, state: State) -> dict[str, Any]:
        """Return `value` and `id`."""
        return dict(state)


@dataclass(frozen=True)
class CarryingMaximum(Maximum):
    """The largest score and its id, and what its hypothesis found besides, each a float32 array.

    Parameters
    ----------
    carried
        Names of the arrays that go with the winner; a kernel that folds scores itself fills them.
    """

    carried: tuple[str, ...] = ()

    def empty(self, shape: tuple[int, ...], xp: ModuleType = np) -> State:
        """Return value -inf, no id and NaN everywhere."""
        besides = {name: xp.full(shape, np.nan, xp.float32) for name in self.carried}
        return super().empty(shape, xp) | besides

    def update(self, state: State, scores: Any, ids: Any) -> State:
        """Refuse plain scores, which carry nothing."""
        raise NotImplementedError("scores alone carry nothing; merge a state that the kernel has folded")


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation over hypotheses, from float64 sums."""

    def empty(self, shape: tuple[int, ...], xp: ModuleType = np) -> State:
        """Return sums of zero."""
        return {
            "sum": xp.zeros(shape, xp.float64),
            "square_sum": xp.zeros(shape, xp.float64),
            "count": xp.zeros((), xp.int64),
        }

    def update(self, state: State, scores: Any, ids: Any) -> State:
        """Fold in scores (hypothesis, ...)."""
        xp = array_module(scores)
        scores = scores.astype(xp.float64)
        count = xp.asarray(len(scores), dtype=xp.int64)
        return self.merge(
            state, {"sum": scores.sum(axis=0), "square_sum": (scores**2).sum(axis=0), "count": count}
        )

    def merge(self, first: State, second: State) -> State:
        """Add the sums."""
        return {key: first[key] + second[key] for key in ("sum", "square_sum", "count")}

    def finalize(self, state: State) -> dict[str, Any]:
        """Return `mean` and `std`."""
        xp = array_module(state["sum"])
        count = xp.maximum(state["count"], 1)
        mean = state["sum"] / count
        variance = xp.maximum(state["square_sum"] / count - mean**2, 0.0)
        return {"mean": mean, "std": xp.sqrt(variance)}


@dataclass(frozen=True)
class ExactMoments:
    """Mean and standard deviation from integer sums, which any order of merges leaves the same bits.

    A kernel adds the scores; `update` is for tests and for kernels that have none of their own.

    Parameters
    ----------
    scale, square_scale
        A score s counts as round(s · scale), its square as round(s² · square_scale).
    """

    scale: float = 2.0**24
    square_scale: float = 2.0**20

    def empty(self, shape: tuple[int, ...], xp: ModuleType = np) -> State:
        """Return sums of zero."""
        return {
            "sum": xp.zeros(shape, xp.int64),
            "square_sum": xp.zeros(shape, xp.int64),
            "count": xp.zeros((), xp.int64),
        }

    def update(self, state: State, scores: Any, ids: Any) -> State:
        """Fold in scores (hypothesis, ...)."""
        xp = array_module(scores)
        scores = scores.astype(xp.float64)
        new = {
            "sum": xp.rint(scores * self.scale).astype(xp.int64).sum(axis=0),
            "square_sum": xp.rint(scores**2 * self.square_scale).astype(xp.int64).sum(axis=0),
            "count": xp.asarray(len(scores), dtype=xp.int64),
        }
        return self.merge(state, new)

    def merge(self, first: State, second: State) -> State:
        """Add the sums."""
        return {key: first[key] + second[key] for key in ("sum", "square_sum", "count")}

    def finalize(self, state: State) -> dict[str, Any]:
        """Return `sum` and `square_sum` of the scores, their `mean` and `std`, float64."""
        xp = array_module(state["sum"])
        total = state["sum"].astype(xp.float64) / self.scale
        square = state["square_sum"].astype(xp.float64) / self.square_scale
        count = xp.maximum(state["count"], 1)
        mean = total / count
        std = xp.sqrt(xp.maximum(square / count - mean**2, 0.0))
        return {"sum": total, "square_sum": square, "mean": mean, "std": std}


@dataclass(frozen=True)
class Histogram:
    """How often each range of scores occurred over all positions and hypotheses of a tile.

    Scores beyond `low` or `high` count in the first or last bin; NaN does not count.
    """

    low: float
    high: float
    bins: int

    def empty(self, shape: tuple[int, ...], xp: ModuleType = np) -> State:
        """Return counts of zero; the shape of the positions does not matter."""
        return {"counts": xp.zeros(self.bins, xp.int64)}

    def update(self, state: State, scores: Any, ids: Any) -> State:
        """Count scores (hypothesis, ...)."""
        xp = array_module(scores)
        flat = scores.ravel().astype(xp.float64)
        flat = flat[~xp.isnan(flat)]
        place = xp.floor((flat - self.low) * (self.bins / (self.high - self.low)))
        place = xp.clip(place, 0, self.bins - 1).astype(xp.int64)
        return {"counts": state["counts"] + xp.bincount(place, minlength=self.bins)}

    def merge(self, first: State, second: State) -> State:
        """Add the counts."""
        return {"counts": first["counts"] + second["counts"]}

    def finalize(self, state: State) -> dict[str, Any]:
        """Return `counts` and the `edges` of the bins."""
        return {"counts": state["counts"], "edges": np.linspace(self.low, self.high, self.bins + 1)}


def empty_states(aggregates: Mapping[str, Aggregate], shape: tuple[int, ...], xp: ModuleType = np) -> States:
    """Return the empty state of each named aggregate."""
    return {name: aggregate.empty(shape, xp) for name, aggregate in aggregates.items()}


def update_states(aggregates: Mapping[str, Aggregate], states: States, scores: Any, ids: Any) -> States:
    """Fold the same scores into every named aggregate: one pass over the hypotheses serves all."""
    return {name: aggregate.update(states[name], scores, ids) for name, aggregate in aggregates.items()}


def merge_states(aggregates: Mapping[str, Aggregate], first: States, second: States) -> States:
    """Merge two sets of named states; one that only one side has is taken as it is."""
    merged = first | second
    for name in first.keys() & second.keys():
        merged[name] = aggregates[name].merge(first[name], second[name])
    return merged
