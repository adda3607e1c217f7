"""Mean and spread of a search's scores at the pixels of a micrograph, from maps of any binning."""

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import zarr
from scipy import ndimage

from cryodask.errors import InputError
from cryodask.io.image import read_image_header
from cryodask.io.map_files import read_map
from cryodask.jobs.micrograph_matching.binning import LARGEST_DENOMINATOR, Binning

SAME = 1e-3  # of two ratios


def check_map(
    path: str, found: tuple[int, int], image: tuple[int, int], edge: int, pixel_size: float
) -> None:
    """Refuse a map that is not one over a micrograph.

    Parameters
    ----------
    path, found
        The map and its shape.
    image
        Shape of the micrograph, pixels.
    edge
        Of the template, pixels.
    pixel_size
        Of the micrograph, angstrom.

    Raises
    ------
    InputError
        Naming both shapes.
    """
    valid = image[0] - edge + 1, image[1] - edge + 1
    if found not in (valid, image) and map_binning(path, found, image, edge, pixel_size) is None:
        raise InputError(
            f"{path}: {found[0]} x {found[1]}, expected {valid[0]} x {valid[1]} (a micrograph of "
            f"{image[0]} x {image[1]} less a template of {edge} px, plus 1)"
        )


def map_binning(
    path: str, found: tuple[int, int], image: tuple[int, int], edge: int, pixel_size: float
) -> Binning | None:
    """Return the binning of the search that made a map (`bin_to`), None where it fits none.

    The ratio follows from the pixel size that the map says it has; parameters as of `check_map`.
    """
    searched = _pixel_size(path)
    if searched is None or searched <= pixel_size * (1 + SAME):
        return None
    ratio = Fraction(pixel_size / searched).limit_denominator(LARGEST_DENOMINATOR)
    binning = Binning(ratio.numerator, ratio.denominator, edge, image)
    expected = tuple(int(length * binning.ratio) - binning.searched_box + 1 for length in image)
    fits = abs(binning.ratio * searched - pixel_size) < SAME * pixel_size
    return binning if fits and found == expected else None


def map_region(
    path: str, rows: slice, columns: slice, found: tuple[int, int], binning: Binning | None
) -> np.ndarray:
    """Return a region of a map at the pixels of its micrograph, (y, x) float32.

    Parameters
    ----------
    path, found
        The map and its shape.
    rows, columns
        First pixels of the template in the micrograph.
    binning
        From `map_binning`; between the positions of a binned search values are interpolated linearly, beyond
        them repeated.
    """
    if binning is None:
        return read_map(path, rows, columns)
    places = [
        np.clip(
            (np.arange(part.start, part.stop) + binning.box // 2) * binning.ratio - binning.searched_box // 2,
            0,
            count - 1,
        )
        for part, count in zip((rows, columns), found, strict=True)
    ]
    starts = [math.floor(place.min()) for place in places]
    stops = [math.floor(place.max()) + 2 for place in places]
    values = read_map(path, *(slice(a, min(b, n)) for a, b, n in zip(starts, stops, found, strict=True)))
    at = np.meshgrid(*(place - start for place, start in zip(places, starts, strict=True)), indexing="ij")
    return ndimage.map_coordinates(values, at, order=1, mode="nearest").astype(np.float32)


def _pixel_size(path: str) -> float | None:
    """Return the pixel size of a map, angstrom: of its header, or of the result that it is part of."""
    if not Path(path).is_dir():
        return read_image_header(path).voxel_size
    size = dict(zarr.open_group(Path(path).parent, mode="r").attrs).get("searched_pixel_size")
    return float(size) if isinstance(size, int | float) else None
