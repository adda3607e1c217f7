"""What can compute on this machine."""

import os
from typing import Any

from cryodask.arrays.module import count_cuda_devices


def describe_devices() -> list[dict[str, Any]]:
    """Return the processor and every CUDA device that CuPy can use.

    Returns
    -------
    list of dict
        device (as `--device` takes it), name, memory_bytes, free_bytes; of the processor also cores.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found: list[dict[str, Any]] = [{"device": "cpu", "name": f"{cores} cores", "cores": cores, **_memory()}]
    for number in range(count_cuda_devices()):
        import cupy

        properties = cupy.cuda.runtime.getDeviceProperties(number)
        free, total = cupy.cuda.Device(number).mem_info
        name = properties["name"].decode()
        found.append(
            {"device": f"cuda:{number}", "name": name, "memory_bytes": int(total), "free_bytes": int(free)}
        )
    return found


def _memory() -> dict[str, int]:
    page = os.sysconf("SC_PAGE_SIZE")
    return {
        "memory_bytes": page * os.sysconf("SC_PHYS_PAGES"),
        "free_bytes": page * os.sysconf("SC_AVPHYS_PAGES"),
    }
