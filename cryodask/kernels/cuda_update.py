"""The update of a tile's state on a GPU: one pass over the positions."""

from functools import cache
from typing import Any

from cryodask.kernels.tile_state import State

MAXIMUM = """
    float s = score * norm;
    bool scored = norm > 0.0f && isfinite(s);
    if (scored && (s > value || (s == value && row < id))) {
        value = s;
        id = row;
    }
"""
MOMENTS = """
    if (scored) {
        total += (double)s;
        square += (double)s * (double)s;
    }
"""


@cache
def _kernel(moments: bool) -> Any:
    import cupy

    inputs = "float32 score, float32 norm, uint32 row"
    maximum = "float32 value, uint32 id"
    if moments:
        sums = f"{maximum}, float64 total, float64 square"
        return cupy.ElementwiseKernel(inputs, sums, MAXIMUM + MOMENTS, "cryodask_maximum_moments")
    return cupy.ElementwiseKernel(inputs, maximum, MAXIMUM, "cryodask_maximum")


def cuda_update(state: State, score: Any, row: int, inverse_norm: Any = None) -> None:
    """Fold one rotation's scores into a tile's state; ties go to the lowest row, NaN never wins.

    Parameters
    ----------
    state
        CuPy arrays ``value``, ``id`` and perhaps ``sum``, ``square_sum``, each (Tz, Ty, Tx).
    score
        (Tz, Ty, Tx) float32.
    row
        The rotation's row.
    inverse_norm
        (Tz, Ty, Tx) factor; positions where it is 0 keep their state.
    """
    import cupy

    norm = cupy.float32(1.0) if inverse_norm is None else inverse_norm
    sums = (state["sum"], state["square_sum"]) if "sum" in state else ()
    _kernel(bool(sums))(score, norm, cupy.uint32(row), state["value"], state["id"], *sums)
