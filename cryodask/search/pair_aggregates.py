"""Aggregates for hypotheses that belong to groups: the best of each group, and rows kept as they are."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from cryodask.search.aggregates import State

NO_POSE = np.uint64(0xFFFFFFFFFFFFFFFF)


@dataclass(frozen=True)
class LargestOfGroup:
    """The largest float64 value of each of some groups and its 64-bit id; ties go to the lowest id."""

    groups: int

    def empty(self, shape: tuple[int, ...], xp: ModuleType = np) -> State:
        """Return -inf and no id everywhere: arrays (group, ...)."""
        full = (self.groups, *shape)
        return {"value": xp.full(full, -np.inf), "id": xp.full(full, NO_POSE, xp.uint64)}

    def update(self, state: State, scores: Any, ids: Any) -> State:
        """Fold in values (group, ...) with their ids (group, ...)."""
        return self.merge(state, {"value": scores, "id": ids})

    def merge(self, first: State, second: State) -> State:
        """Keep the larger value, at equal values the lower id."""
        higher = second["value"] > first["value"]
        take = higher | ((second["value"] == first["value"]) & (second["id"] < first["id"]))
        return {key: np.where(take, second[key], first[key]) for key in ("value", "id")}

    def finalize(self, state: State) -> dict[str, Any]:
        """Return `value` and `id`."""
        return dict(state)


@dataclass(frozen=True)
class Rows:
    """Arrays kept as they are, by the first of their hypotheses; sums over them are made at the end, in
    order.

    That makes float sums independent of how the hypotheses were split over tasks.
    """

    def empty(self, shape: tuple[int, ...], xp: ModuleType = np) -> State:
        """Return no rows."""
        return {}

    def update(self, state: State, scores: Any, ids: Any) -> State:
        """Add rows (hypothesis, ...) whose first hypothesis is `ids`."""
        return state | {f"{int(ids):012d}": scores}

    def merge(self, first: State, second: State) -> State:
        """Return the rows of both."""
        return first | second

    def finalize(self, state: State) -> dict[str, Any]:
        """Return `rows` of all hypotheses, in order."""
        return {"rows": np.concatenate([state[key] for key in sorted(state)])}


def ordered_rows(states: Mapping[str, State], name: str) -> np.ndarray:
    """Return the rows of all hypotheses of a named `Rows`."""
    rows: np.ndarray = Rows().finalize(states[name])["rows"]
    return rows
