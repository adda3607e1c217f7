"""NumPy's files, read one at a time.

CPython 3.11 parses literals, and with them these files' headers, wrongly now and then when threads do so at
once (python/cpython issue 106905).
"""

import threading
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

_READING = threading.Lock()


def load_npy(file: str | Path | IO[bytes], mmap_mode: Literal["r"] | None = None) -> np.ndarray:
    """Return the array of a .npy file or stream, mapped with `mmap_mode` r."""
    with _READING:
        return np.load(file, mmap_mode=mmap_mode, allow_pickle=False)


def load_npz(file: str | Path) -> dict[str, Any]:
    """Return the arrays of an .npz file by name."""
    with _READING, np.load(file, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}
