"""The update of an image search's state on a GPU: a stack of scores in one pass, in registers."""

from functools import cache
from typing import Any

import numpy as np

THREADS = 256
CODE = r"""
extern "C" __global__ void fold(const float* scores, const unsigned int* ids, int count, long long positions,
                                int width, long long row_step, long long step, float* value,
                                unsigned int* id, float* first, float* second) {
    long long at = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (at >= positions) return;
    long long place = (at / width) * row_step + at % width;
    float best = value[at], total = first[at], square = second[at];
    unsigned int row = id[at];
    for (int r = 0; r < count; ++r) {
        float score = scores[r * step + place];
        if (score > best || (score == best && ids[r] < row)) { best = score; row = ids[r]; }
        total = __fadd_rn(total, score);
        square = __fadd_rn(square, __fmul_rn(score, score));
    }
    value[at] = best;
    id[at] = row;
    first[at] = total;
    second[at] = square;
}
"""


def update_image(scores: Any, ids: np.ndarray, value: Any, best: Any, block: Any) -> None:
    """Fold a stack of scores into the state, in order.

    Parameters
    ----------
    scores
        (b, vy, vx) float32, a view into whole inverse transforms (b, Ty, Tx).
    ids
        (b,) uint32.
    value, best, block
        (vy, vx) float32 and uint32, (2, vy, vx) float32; changed in place.
    """
    import cupy

    step, row_step = (stride // 4 for stride in scores.strides[:2])
    arguments = (
        scores,
        cupy.asarray(ids),
        np.int32(len(ids)),
        np.int64(value.size),
        np.int32(value.shape[1]),
        np.int64(row_step),
        np.int64(step),
        value,
        best,
        block[0],
        block[1],
    )
    _kernel()((-(-value.size // THREADS),), (THREADS,), arguments)


@cache
def _kernel() -> Any:
    import cupy

    return cupy.RawKernel(CODE, "fold")
