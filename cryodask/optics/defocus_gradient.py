"""The defocus across a tomogram: in which cells it may be taken as constant, and what it is there."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cryodask.errors import InputError
from cryodask.optics.ctf import electron_wavelength
from cryodask.optics.tilts import TiltSeries

# of the phase of the contrast transfer at the band's edge, within a cell: a quarter of pi
_TOLERANCE = 0.25


@dataclass(frozen=True)
class DefocusCells:
    """A tomogram cut along z and x into equal cells; along y, the tilt axis, defocus does not change.

    Parameters
    ----------
    shape
        (z, y, x) voxels of the tomogram.
    counts
        Cells along z and x; cells are numbered with x fastest.
    """

    shape: tuple[int, int, int]
    counts: tuple[int, int] = (1, 1)

    def __len__(self) -> int:
        return math.prod(self.counts)

    def centre(self, number: int) -> tuple[float, float]:
        """Return (z, x) of a cell's centre from the tomogram's, voxels."""
        places = divmod(number, self.counts[1])
        sizes = (self.shape[0], self.shape[2])
        z, x = (
            0.5 * (edges[place] + edges[place + 1] - 1) - size // 2
            for edges, place, size in zip(self._edges(), places, sizes, strict=True)
        )
        return z, x

    def pieces(
        self, start: Sequence[int], stop: Sequence[int]
    ) -> Iterator[tuple[int, tuple[int, int, int], tuple[int, int, int]]]:
        """Yield the parts of a box of voxels that lie in one cell each: number of the cell, start, stop."""
        along_z, along_x = (
            [
                (place, max(low, start[axis]), min(high, stop[axis]))
                for place, (low, high) in enumerate(itertools.pairwise(edges))
                if low < stop[axis] and high > start[axis]
            ]
            for axis, edges in zip((0, 2), self._edges(), strict=True)
        )
        for (row, z0, z1), (column, x0, x1) in itertools.product(along_z, along_x):
            yield row * self.counts[1] + column, (z0, start[1], x0), (z1, stop[1], x1)

    def _edges(self) -> tuple[list[int], list[int]]:
        z, x = (
            [place * size // count for place in range(count + 1)]
            for size, count in zip((self.shape[0], self.shape[2]), self.counts, strict=True)
        )
        return z, x


def defocus_cells(
    shape: tuple[int, int, int], voxel_size: float, tilts: TiltSeries, frequency: float
) -> DefocusCells:
    """Return the fewest cells within which no tilt's defocus varies by more than 1/(4 lambda f^2).

    Parameters
    ----------
    shape
        (z, y, x) voxels of the tomogram.
    voxel_size
        Angstrom.
    tilts
        The series, with every tilt's angle.
    frequency
        The highest of the search, f, 1/angstrom.
    """
    limit = _TOLERANCE / (electron_wavelength(tilts.voltage) * frequency**2)
    theta = np.radians(tilts.angles)
    cosines, sines = np.abs(np.cos(theta)), np.maximum(np.abs(np.sin(theta)), 1e-12)
    choices = []
    for rows in range(1, shape[0] + 1):
        # of the outermost voxels of the tallest cell
        height = (math.ceil(shape[0] / rows) - 1) * voxel_size
        width = float(((limit - height * cosines) / (voxel_size * sines)).min())
        if width >= 0:
            columns = math.ceil(shape[2] / (math.floor(min(width, shape[2])) + 1))
            choices.append((rows, columns))
    return DefocusCells(shape, min(choices, key=math.prod))


def tilts_at(tilts: TiltSeries, hand: int, z: float, x: float) -> TiltSeries:
    """Return the series with the defocus that it has away from the centre of the tomogram.

    Parameters
    ----------
    tilts
        The series, with its defocus at the centre.
    hand
        1 or -1: the sense in which z raises the defocus.
    z, x
        Angstrom from the tomogram's centre.

    Raises
    ------
    InputError
        The series has no defocus.
    """
    if tilts.defocus is None:
        raise InputError("defocus gradient: the tilts have no defocus")
    theta = np.radians(tilts.angles)
    return replace(tilts, defocus=tilts.defocus + hand * (z * np.cos(theta) - x * np.sin(theta)))
