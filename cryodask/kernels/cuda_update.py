"""What a GPU does its own way: rotations in stacks, and the update of a tile's state in one pass."""

from functools import cache
from typing import Any

from cryodask.kernels.tile_state import State

# Bytes a voxel for one rotation: spectrum, library workspace, scores. Half of the free memory is left alone.
ROTATION_BYTES = 16
LARGEST_STACK = 32

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


def rotations_per_call(voxels: int) -> int:
    """Return how many rotations one FFT call may hold, 1 to 32, by the memory free on the device.

    Parameters
    ----------
    voxels
        Of a tile's block.
    """
    import cupy

    free = cupy.cuda.runtime.memGetInfo()[0] + cupy.get_default_memory_pool().free_bytes()
    return max(1, min(LARGEST_STACK, free // (2 * ROTATION_BYTES * voxels)))


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
