"""The voxels of all tomograms of a job, checked before any of them is searched."""

from collections.abc import Iterable

import numpy as np

from cryodask.io.files import is_url
from cryodask.io.volume import read_header, read_region
from cryodask.jobs.tomogram_matching.filtering import inspect
from cryodask.jobs.tomogram_matching.preparation import TomogramFilter


def check_voxels(tomograms: Iterable[TomogramFilter]) -> None:
    """Refuse tomograms with voxels that are not finite, slab by slab in bounded memory.

    A run checks its own tomogram when it is filtered; of many the last would be found bad when all others are
    done. Integers are always finite, and what lies at an address is read once alone, when it is filtered.

    Raises
    ------
    InputError
        The first such tomogram, with the count of such voxels and the place of the first.
    """
    seen = set()
    for tomogram in tomograms:
        if is_url(tomogram.path) or (tomogram.path, tomogram.level) in seen:
            continue
        seen.add((tomogram.path, tomogram.level))
        if read_header(tomogram.path, tomogram.level).dtype.kind != "f":
            continue

        def read(region: tuple[slice, ...], tomogram: TomogramFilter = tomogram) -> np.ndarray:
            return read_region(tomogram.path, region, level=tomogram.level)

        inspect(read, tomogram.shape, tomogram.memory, tomogram.label)
