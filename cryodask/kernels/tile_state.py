"""What is kept per position of a tile while rotations pass."""

from typing import Any, NamedTuple

import numpy as np

from cryodask.arrays.module import array_module

NO_ROW = 4294967295

# Of N², for a tomogram of unit variance: below it a score has no meaning.
LEAST_VARIANCE = 1e-6

Shape = tuple[int, int, int]
State = dict[str, Any]


class Restriction(NamedTuple):
    """Which rotations score which positions.

    Parameters
    ----------
    label
        (Tz, Ty, Tx) int32: what kind each position is.
    allowed
        (b, kinds) bool: whether each rotation of a call scores each kind.
    """

    label: Any
    allowed: Any


def slice_of(restriction: Restriction, rotations: slice) -> Restriction:
    """Return a restriction of some of the rotations."""
    return restriction._replace(allowed=restriction.allowed[rotations])


def empty_state(valid: Shape, *, moments: bool, xp: Any = np) -> State:
    """Return the state before any rotation: value -inf, id 4294967295, sums 0.

    Parameters
    ----------
    valid
        (Tz, Ty, Tx) positions.
    moments
        Keep the sum and the sum of squares of all scores too.
    xp
        Array module.

    Returns
    -------
    ``value`` float32, ``id`` uint32 and, with moments, ``sum`` and ``square_sum`` float64, each (Tz, Ty, Tx).
    """
    state = {
        "value": xp.full(valid, -xp.inf, dtype=xp.float32),
        "id": xp.full(valid, NO_ROW, dtype=xp.uint32),
    }
    if moments:
        state["sum"] = xp.zeros(valid, dtype=xp.float64)
        state["square_sum"] = xp.zeros(valid, dtype=xp.float64)
    return state


def finish_spherical(state: State, inverse_norm: Any) -> None:
    """Turn a state of num into scores, in place.

    Parameters
    ----------
    state
        From ``correlate_spherical``.
    inverse_norm
        (Tz, Ty, Tx) from ``local_statistics``; where it is 0 the score is 0 and no row is kept.
    """
    xp = array_module(inverse_norm)
    searched = inverse_norm > 0
    if "sum" in state:
        state["sum"] *= inverse_norm
        state["square_sum"] *= inverse_norm
        state["square_sum"] *= inverse_norm
    state["id"][~searched] = NO_ROW
    state["value"][~searched] = 0.0
    xp.multiply(state["value"], inverse_norm, out=state["value"])
    finish_general(state)


def finish_general(state: State) -> None:
    """Set the score to 0 where no rotation was scored, in place."""
    state["value"][state["id"] == NO_ROW] = 0.0
