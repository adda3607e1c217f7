"""Central slices on a GPU: the same arithmetic as the CPU's, one thread a frequency."""

from functools import cache
from typing import Any

import numpy as np

THREADS = 256
CODE = r"""
extern "C" __global__ void cut(const float2* spectrum, const double* axes, const double* ky, const double* kx,
                               double limit2, long long total, int box, int width, int m, float2* out) {
    long long at = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (at >= total) return;
    int x = at % width, y = (at / width) % box;
    const double* a = axes + 6 * (at / ((long long)width * box));
    double u = kx[x], v = ky[y];
    float2 value = make_float2(0.0f, 0.0f);
    if (u * u + v * v <= limit2 && (x > 0 || y > 0)) {
        double qx = a[0] * u + a[1] * v, qy = a[2] * u + a[3] * v, qz = a[4] * u + a[5] * v;
        bool mate = qx < -1e-8;
        if (mate) { qx = -qx; qy = -qy; qz = -qz; }
        int half = m / 2;
        double px = fmax(qx * m, 0.0), py = qy * m + half, pz = qz * m + half;
        if (px <= half && py >= 0.0 && py <= m - 1 && pz >= 0.0 && pz <= m - 1) {
            int x0 = (int)px, y0 = (int)py, z0 = (int)pz;
            int x1 = min(x0 + 1, half), y1 = min(y0 + 1, m - 1), z1 = min(z0 + 1, m - 1);
            float fx = (float)(px - x0), fy = (float)(py - y0), fz = (float)(pz - z0);
            for (int corner = 0; corner < 8; ++corner) {
                int z = corner & 4 ? z1 : z0, r = corner & 2 ? y1 : y0, c = corner & 1 ? x1 : x0;
                float w = (corner & 4 ? fz : 1.0f - fz) * (corner & 2 ? fy : 1.0f - fy)
                        * (corner & 1 ? fx : 1.0f - fx);
                float2 s = spectrum[((long long)z * m + r) * (half + 1) + c];
                value.x += w * s.x;
                value.y += w * s.y;
            }
            if (mate) value.y = -value.y;
        }
    }
    out[at] = value;
}
"""


def cuda_slices(spectrum: Any, axes: np.ndarray, ky: np.ndarray, kx: np.ndarray, limit: float) -> Any:
    """Cut central slices out of a template's spectrum on its device.

    Parameters
    ----------
    spectrum
        (m, m, m//2 + 1) complex64, CuPy.
    axes
        (N, 3, 2) float64.
    ky, kx
        (n,) and (n//2 + 1,) cycles per pixel.
    limit
        Longest frequency cut, cycles per pixel.

    Returns
    -------
    (N, n, n//2 + 1) complex64, CuPy.
    """
    import cupy

    out = cupy.empty((len(axes), ky.size, kx.size), cupy.complex64)
    arguments = (
        cupy.ascontiguousarray(spectrum),
        cupy.asarray(axes, dtype=cupy.float64),
        cupy.asarray(ky, dtype=cupy.float64),
        cupy.asarray(kx, dtype=cupy.float64),
        np.float64(limit * limit),
        np.int64(out.size),
        np.int32(ky.size),
        np.int32(kx.size),
        np.int32(spectrum.shape[0]),
        out,
    )
    _kernel()((-(-out.size // THREADS),), (THREADS,), arguments)
    return out


@cache
def _kernel() -> Any:
    import cupy

    return cupy.RawKernel(CODE, "cut")
