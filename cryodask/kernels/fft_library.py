"""The library of float32 FFTs that belongs to an array module."""

from types import ModuleType

import numpy as np
import scipy.fft


def fft_library(xp: ModuleType) -> ModuleType:
    """Return ``scipy.fft``, or ``cupyx.scipy.fft`` for CuPy."""
    if xp is np:
        return scipy.fft
    import cupyx.scipy.fft

    return cupyx.scipy.fft
