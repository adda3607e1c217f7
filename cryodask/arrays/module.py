"""The array module that an array belongs to, and the way back to the host."""

from types import ModuleType
from typing import Any

import numpy as np


def array_module(array: Any) -> ModuleType:
    """Return ``cupy`` for a CuPy array and ``numpy`` for anything else."""
    if type(array).__module__.partition(".")[0] == "cupy":
        import cupy

        return cupy
    return np


def to_numpy(array: Any) -> np.ndarray:
    """Return the array on the host, without a copy where it is there already."""
    return array.get() if array_module(array) is not np else np.asarray(array)


def cuda_is_available() -> bool:
    """Say whether this process sees a CUDA device that CuPy can use."""
    try:
        import cupy
    except ImportError:
        return False
    return bool(cupy.cuda.is_available())


def count_cuda_devices() -> int:
    """Return how many CUDA devices this process sees and CuPy can use."""
    if not cuda_is_available():
        return 0
    import cupy

    return int(cupy.cuda.runtime.getDeviceCount())
