"""NumPy's files read by many threads at once."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from cryodask.arrays.npy import load_npy, load_npz


def test_many_threads_read_the_same_arrays(tmp_path: Path) -> None:
    array = np.arange(12.0).reshape(3, 4)
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "b.npz", array=array)
    with ThreadPoolExecutor(8) as pool:
        plain = list(pool.map(load_npy, [tmp_path / "a.npy"] * 400))
        packed = list(pool.map(load_npz, [tmp_path / "b.npz"] * 100))
    assert all((each == array).all() for each in plain)
    assert all((each["array"] == array).all() for each in packed)
    mapped = load_npy(tmp_path / "a.npy", mmap_mode="r")
    assert isinstance(mapped, np.memmap) and mapped[2, 3] == 11
