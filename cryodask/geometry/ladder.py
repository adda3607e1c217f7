"""From the best rows of a coarse rotation list to the best row of a fine one, trying few rows on the way."""

import functools
from collections.abc import Callable

import numpy as np
from scipy.spatial.transform import Rotation

from cryodask.geometry.neighbours import RowFinder, coarser_grid
from cryodask.geometry.symmetry import symmetry_group

KEPT = 3  # best rows of a level around which the next is tried
LEAST_RATIO = 1.5  # of the steps of two levels
BEST_ROWS = 3  # coarse rows of a place near which the first fine rows are tried
SAMPLED_ROWS = 32  # of a list, to count what a place costs
CLIMB = 2.0  # fine steps around the best rows that must all have been tried


class Ladder:
    """Levels of ever finer rows of one list, and which of them to try for a place.

    The first level holds rows about half a coarse step apart, the next half as far, the last all. A level is
    tried around the three best rows of the one before, as far as that one's step; then rows around the three
    best are tried until none is better. So a place costs some hundred rows however long the list is.

    Parameters
    ----------
    fine
        The fine list.
    step
        Its step, degrees.
    coarse
        The coarse list.
    coarse_step
        Its step, degrees.
    symmetry
        Point group of the template.
    """

    def __init__(
        self, fine: Rotation, step: float, coarse: Rotation, coarse_step: float, symmetry: str = "C1"
    ) -> None:
        self.fine, self.coarse = fine, coarse
        whole = RowFinder(fine, symmetry)
        self._levels: list[tuple[np.ndarray, RowFinder]] = []
        self._reaches = [coarse_step]
        between = coarse_step / 2.0
        while between >= LEAST_RATIO * step:
            # of an even grid, the nearest rows of the list
            rows = np.unique(whole.nearest(coarser_grid(whole, between))[1][:, 0])
            self._levels.append((rows, RowFinder(fine[rows], symmetry)))
            self._reaches.append(between)
            between /= 2.0
        self._levels.append((np.arange(len(fine)), whole))
        self._reaches.append(CLIMB * step)

    @functools.cached_property
    def nearest(self) -> np.ndarray:
        """The fine row nearest to each coarse one, (coarse row,) uint32."""
        return self._levels[-1][1].nearest(self.coarse)[1][:, 0].astype(np.uint32)

    def first(self, best: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what to try first.

        Parameters
        ----------
        best
            (place, k) best coarse rows of each place, -1 for none.

        Returns
        -------
        tuple of numpy.ndarray
            Fine rows and the places (pair,) at which each is to be tried, by place, then by row.
        """
        places, columns = np.nonzero(best >= 0)
        return self._near(0, self.coarse, best[places, columns], places)

    def following(
        self, level: int, rows: np.ndarray, places: np.ndarray, scores: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return what to try next, given everything that was tried; nothing for a place that is done.

        Parameters
        ----------
        level
            How often this was called before for these places.
        rows, places
            (pair,) all that were tried.
        scores
            (pair,) the largest score of each.
        """
        order = np.lexsort((rows, -scores, places))
        _, firsts, counts = np.unique(places[order], return_index=True, return_counts=True)
        rank = np.arange(len(order)) - np.repeat(firsts, counts)
        best = order[rank < KEPT]
        near = self._near(min(level + 1, len(self._levels)), self.fine, rows[best], places[best])
        fresh = ~np.isin(self._pairs(*near), self._pairs(rows, places))
        return near[0][fresh], near[1][fresh]

    def _near(
        self, level: int, centres: Rotation, rows: np.ndarray, places: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of a level around rows of centres, each once a place."""
        members, finder = self._levels[min(level, len(self._levels) - 1)]
        wanted, which = np.unique(rows, return_inverse=True)
        if not len(wanted):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        sets = finder.within(centres[wanted], self._reaches[level])
        counts = sets.counts[which]
        # the entries of each set, one set after the other
        inner = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        found = members[sets.rows[np.repeat(sets.starts[which], counts) + inner]]
        pairs = np.unique(self._pairs(found, np.repeat(places, counts)))
        return pairs % len(self.fine), pairs // len(self.fine)

    def _pairs(self, rows: np.ndarray, places: np.ndarray) -> np.ndarray:
        return places.astype(np.int64) * len(self.fine) + rows


def climb(
    ladder: Ladder, best: np.ndarray, score: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Try rows until every place has its best.

    Parameters
    ----------
    ladder
        Of the lists.
    best
        (place, k) best coarse rows of each place, -1 for none.
    score
        Takes rows and places (pair,), returns the largest score of each.

    Returns
    -------
    tuple of numpy.ndarray
        Rows, places and scores (pair,) of all that was tried.
    """
    new_rows, new_places = ladder.first(best)
    rows, places, scores = new_rows[:0], new_places[:0], np.empty(0)
    level = 0
    while len(new_rows):
        scores = np.concatenate([scores, score(new_rows, new_places)])
        rows, places = np.concatenate([rows, new_rows]), np.concatenate([places, new_places])
        new_rows, new_places = ladder.following(level, rows, places, scores)
        level += 1
    return rows, places, scores


def count_local_rows(ladder: Ladder, symmetry: str = "C1") -> float:
    """Return how many fine rows a candidate tries, on average over particles of every orientation.

    Parameters
    ----------
    ladder
        From the coarse list to the fine one.
    symmetry
        Point group of the template.
    """
    sample = np.unique(np.linspace(0, len(ladder.fine) - 1, SAMPLED_ROWS).round().astype(np.int64))
    poses = ladder.fine[sample]
    best = RowFinder(ladder.coarse, symmetry).nearest(poses, BEST_ROWS)[1]

    def likeness(rows: np.ndarray, places: np.ndarray) -> np.ndarray:
        mates = [(poses[places] * g).inv() * ladder.fine[rows] for g in symmetry_group(symmetry)]
        return -np.asarray(np.min([mate.magnitude() for mate in mates], axis=0))

    return len(climb(ladder, best, likeness)[0]) / len(sample)
