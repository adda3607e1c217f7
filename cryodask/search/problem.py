"""What a job hands to the engine: hypotheses, data and a kernel behind three functions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from cryodask.search.aggregates import Aggregate, States
from cryodask.search.tiles import Batch, Tile

Summary = dict[str, float]


@dataclass(frozen=True)
class Variable:
    """One array of a result over all positions.

    Parameters
    ----------
    name
        Its name in the result.
    dtype, fill
        Its type, and its value where nothing was searched.
    leading
        Axes before the positions: (name, length) of each.
    attributes
        Metadata of the variable.
    leading_chunk
        Length of a stored chunk along each of the leading axes; 1 where not given.
    """

    name: str
    dtype: str
    fill: float | int
    leading: tuple[tuple[str, int], ...] = ()
    attributes: tuple[tuple[str, str], ...] = ()
    leading_chunk: tuple[int, ...] = ()


class Problem(Protocol):
    """A search that the engine can run; it must be picklable and small, heavy constants go by path."""

    @property
    def aggregates(self) -> Mapping[str, Aggregate]:
        """The named aggregates of a tile."""
        ...

    @property
    def hypotheses(self) -> int:
        """How many hypotheses there are."""
        ...

    @property
    def variables(self) -> tuple[Variable, ...]:
        """The arrays of the result."""
        ...

    def prepare(self) -> None:
        """Write the constants that tasks read; calling it again does nothing."""
        ...

    def fold(self, tile: Tile, batch: Batch) -> States:
        """Score a batch on a tile: the aggregates' states over the positions of the tile."""
        ...

    def finish(self, tile: Tile, states: States) -> tuple[dict[str, np.ndarray], Summary]:
        """Turn the states of all hypotheses into the variables on the tile, and sums for the whole."""
        ...


@dataclass(frozen=True)
class TaskReport:
    """What a finished task tells the driver: small, since it travels through the scheduler."""

    kind: str
    run: int
    tile: int = -1
    part: Any = None
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    hypotheses: int = 0
    is_final: bool = False
