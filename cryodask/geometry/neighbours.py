"""Which rows of one rotation list lie near rotations, modulo the symmetry of the template."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from cryodask.geometry.euler import rotation_from_euler
from cryodask.geometry.grids import rotation_grid
from cryodask.geometry.symmetry import symmetry_group


@dataclass(frozen=True, eq=False)
class RowSets:
    """Rows of a list, a set for each of some rotations.

    Parameters
    ----------
    starts
        (M + 1,) int64: set i is ``rows[starts[i]:starts[i + 1]]``.
    rows
        (sum,) int64, rising within each set.
    """

    starts: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        return self.rows[self.starts[index] : self.starts[index + 1]]

    @property
    def counts(self) -> np.ndarray:
        """(M,) rows in each set."""
        return np.diff(self.starts)

    def union(self, indices: np.ndarray) -> np.ndarray:
        """Return the rows that are in any of some sets, each once, rising."""
        return np.unique(np.concatenate([self[int(i)] for i in indices] or [self.rows[:0]]))


class RowFinder:
    """Finds rows of a rotation list by angle; R and R·g are one view for every g of the template's group.

    Parameters
    ----------
    rotations
        The list: active rotations, template to data.
    symmetry
        Point group of the template, as in `symmetry_group`.
    """

    def __init__(self, rotations: Rotation, symmetry: str = "C1") -> None:
        self.symmetry = symmetry
        self._tree = KDTree(rotations.as_quat())
        self._group = symmetry_group(symmetry)

    def __len__(self) -> int:
        return int(self._tree.n)

    def nearest(self, rotations: Rotation, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows nearest to each of some rotations.

        Parameters
        ----------
        rotations
            M of them.
        k
            How many; fewer where the list is shorter.

        Returns
        -------
        tuple of numpy.ndarray
            Angles (M, k) in degrees, rising, and rows (M, k); of two at one angle the lower row is first.
        """
        k = min(k, len(self))
        # a row may be near through several symmetry mates: k of each mate hold k different rows
        found = [self._tree.query(points, k=range(1, k + 1)) for points in self._mates(rotations)]
        chords = np.concatenate([chord for chord, _ in found], axis=1)
        rows = np.concatenate([row for _, row in found], axis=1)
        angles = np.degrees(4.0 * np.arcsin(np.clip(chords / 2.0, 0.0, 1.0)))
        kept = [_least_of_each(*pair, k) for pair in zip(angles, rows, strict=True)]
        return np.array([a for a, _ in kept]), np.array([r for _, r in kept], dtype=np.int64)

    def within(self, rotations: Rotation, degrees: float) -> RowSets:
        """Return the rows within an angle of each of some rotations.

        Parameters
        ----------
        rotations
            M of them.
        degrees
            The angle; a row at it, but for rounding, counts.
        """
        # the chord between quaternions of rotations an angle apart
        reach = 2.0 * math.sin(math.radians(min(degrees, 180.0)) / 4.0) * (1.0 + 1e-9)
        lists = [
            self._tree.query_ball_point(points, reach, return_sorted=False)
            for points in self._mates(rotations)
        ]
        sets = [
            np.unique(np.concatenate([np.asarray(rows, np.int64) for rows in mates]))
            for mates in zip(*lists, strict=True)
        ]
        starts = np.concatenate([[0], np.cumsum([len(rows) for rows in sets])]).astype(np.int64)
        return RowSets(starts, np.concatenate([*sets, np.empty(0, np.int64)]))

    def _mates(self, rotations: Rotation) -> list[np.ndarray]:
        """Return the quaternions (M, 4) of the rotations' equals; q and -q are one rotation."""
        mates = [(rotations * g).as_quat() for g in self._group]
        return [sign * points for points in mates for sign in (1.0, -1.0)]


def coarser_grid(finder: RowFinder, step: float) -> Rotation:
    """Return an even grid (``healpix``) of rotations over what a list covers, be it a cone or from a file.

    Parameters
    ----------
    finder
        Of the list.
    step
        Of the grid, degrees: its rotations that lie no farther than this from a row are kept.

    Returns
    -------
    scipy.spatial.transform.Rotation
        One of each set of equal views, in the order of `rotation_grid`.
    """
    grid = rotation_from_euler(rotation_grid(step, symmetry=finder.symmetry))
    return grid[finder.nearest(grid)[0][:, 0] <= step]


def _least_of_each(angles: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k least angles of different rows."""
    # rounded so that the same distance through two mates does not depend on the last bit
    order = np.lexsort((rows, np.round(angles, 9)))
    _, first = np.unique(rows[order], return_index=True)
    chosen = order[np.sort(first)[:k]]
    return angles[chosen], rows[chosen]
