"""What tasks on particles read by path: the template's spectrum, the start poses, filtered micrographs."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from cryodask.arrays.npy import load_npy
from cryodask.io.map_files import read_map
from cryodask.jobs.micrograph_matching.filter_block import PreprocessingFilters
from cryodask.jobs.micrograph_matching.image_filtering import FilteredImage, filter_image
from cryodask.jobs.micrograph_matching.preparation import check_image
from cryodask.jobs.micrograph_matching.start_poses import StartPoses
from cryodask.optics.image_filters import Curve
from cryodask.search.store import replacing

SPECTRUM, POSES, MATRICES = "spectrum.npy", "poses.npz", "matrices.npy"
T = TypeVar("T")


def write_array(path: Path, array: np.ndarray) -> None:
    """Write an array whole or not at all."""
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, array, allow_pickle=False)


def read_array(path: Path) -> np.ndarray:
    """Read an array; kept per process."""
    return _kept(_read_array, path)


def read_poses(folder: str) -> StartPoses:
    """Read the start poses; kept per process."""
    return _kept(StartPoses.load, Path(folder) / POSES)


def filtered_micrograph(folder: str, number: int, path: str, filters: PreprocessingFilters) -> FilteredImage:
    """Return a micrograph filtered, made by the first task that needs it.

    Several tasks may make it at once; each writes the same bytes.

    Raises
    ------
    InputError
        Pixels that are no numbers, or all the same.
    """
    image, curve = Path(folder) / f"image-{number}.npy", Path(folder) / f"curve-{number}.npy"
    if not (image.exists() and curve.exists()):
        made = filter_image(checked_image(path), filters)
        whitening = made.curves[0] if filters.whitening_filter.enabled else None
        points = (whitening.frequencies, whitening.values) if isinstance(whitening, Curve) else ((), ())
        write_array(curve, np.array(points, np.float64))
        write_array(image, made.image)
    stored = read_array(curve)
    whitened = (Curve(stored[0], stored[1]),) if stored.size else ()
    return FilteredImage(load_npy(image, "r"), (*whitened, *filters.fixed_curves))


def checked_image(path: str, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
    """Read a micrograph or a region of it, (y, x) float32.

    Raises
    ------
    InputError
        Pixels that are no numbers, or all the same.
    """
    image = read_map(path, rows, columns)
    check_image(image, path)
    return image


def _kept(read: Callable[[Path], T], path: Path) -> T:
    result: T = _read(read, path, path.stat().st_mtime_ns)
    return result


@functools.lru_cache(maxsize=8)
def _read(read: Callable[[Path], Any], path: Path, changed: int) -> Any:
    return read(path)


def _read_array(path: Path) -> np.ndarray:
    return load_npy(path)
