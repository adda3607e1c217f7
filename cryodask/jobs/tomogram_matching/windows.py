"""Windows of positions to be scored exactly, and the rows of the rotation list that each asks for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cryodask.jobs.tomogram_matching.rotated import RotatedTemplates
from cryodask.kernels.local_scores import WindowBlock
from cryodask.optics.masks import MaskKind
from cryodask.search.aggregates import State


@dataclass(frozen=True)
class Requests:
    """Which rows are wanted in which windows of a tile.

    Parameters
    ----------
    rows
        (request,) rows of the rotation list.
    windows
        (request,) number of the window that each is wanted in.
    starts, stops
        (window, 3) first and one past the last position, (z, y, x), from the tile's start.
    """

    rows: np.ndarray
    windows: np.ndarray
    starts: np.ndarray
    stops: np.ndarray

    def clipped(self, first: Sequence[int], last: Sequence[int]) -> "Requests":
        """Return what lies in a box of positions."""
        starts, stops = np.maximum(self.starts, first), np.minimum(self.stops, last)
        kept = (stops > starts).all(axis=1)
        number = np.cumsum(kept) - 1
        wanted = kept[self.windows]
        return Requests(self.rows[wanted], number[self.windows[wanted]], starts[kept], stops[kept])

    def by_row(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield each row, rising, with the windows that want it."""
        order = np.lexsort((self.windows, self.rows))
        rows, firsts = np.unique(self.rows[order], return_index=True)
        for row, windows in zip(rows, np.split(self.windows[order], firsts[1:]), strict=True):
            yield int(row), np.unique(windows)


class WindowScorer:
    """Scores windows of one block with rotated templates, each rotated once for all windows that want it.

    Parameters
    ----------
    block
        (z, y, x) filtered tomogram, its positions beginning at `first` of the tile.
    first
        (z, y, x).
    rotated
        The templates, with the filter that belongs to the block.
    mask_kind
        What the mask saves.
    """

    def __init__(
        self, block: np.ndarray, first: Sequence[int], rotated: RotatedTemplates, mask_kind: MaskKind
    ) -> None:
        self.block, self.first, self.rotated = WindowBlock(block), np.asarray(first), rotated
        self.mask = rotated.fixed_mask() if mask_kind == "spherical" else None
        self.mask_kind = mask_kind

    def score(self, copy: int, requests: Requests, state: State, *, mirrored: bool = False) -> np.ndarray:
        """Fold the scores of a template (copy 0) or one beside it into a state, as the search would.

        Returns
        -------
        numpy.ndarray
            (request,) the largest score of each, -inf where nothing was scored.
        """
        best: list[float] = []
        starts, extents = requests.starts - self.first, requests.stops - requests.starts
        norms = self._fixed_norms(starts, extents) if self.mask is not None else None
        for row, windows in requests.by_row():
            mask = self.mask if self.mask is not None else self._mask(row, mirrored)
            templates, counts = self.rotated.templates(copy, np.array([row]), [mask])
            some = starts[windows], extents[windows]
            scores = self.block.sums(templates[0], *some)
            if norms is None:
                norm = self.block.inverse_norm(mask, float(counts[0]), *some)
            else:
                norm = np.concatenate([norms[window] for window in windows])
            allowed = self._allowed(row)
            scores = np.where(norm > 0, scores * norm, -np.inf)
            best += self._fold(scores, row, requests, windows, state, allowed)
        found = np.empty(len(requests.rows), np.float32)
        found[np.lexsort((requests.windows, requests.rows))] = best
        return found

    def _mask(self, row: int, mirrored: bool) -> np.ndarray:
        if self.mask_kind == "axial":
            return np.asarray(self.rotated.direction_mask(row))
        return np.asarray(self.rotated.mask(row, mirrored=mirrored))

    def _fixed_norms(self, starts: np.ndarray, extents: np.ndarray) -> list[np.ndarray]:
        """Return 1/√(N·A - B²) of every window, flat; 0 where a position cannot be scored."""
        assert self.mask is not None
        count = float(self.mask.sum(dtype=np.float64))
        flat = self.block.inverse_norm(self.mask, count, starts, extents)
        return np.split(flat, np.cumsum(np.prod(extents, axis=1))[:-1])

    def _allowed(self, row: int) -> np.ndarray | None:
        """Return which positions of the block a row scores; None for all."""
        restriction = self.rotated.restriction(np.array([row]))
        return None if restriction is None else np.asarray(restriction.allowed[0][restriction.label])

    def _fold(
        self,
        scores: np.ndarray,
        row: int,
        requests: Requests,
        windows: np.ndarray,
        state: State,
        allowed: np.ndarray | None,
    ) -> list[float]:
        """Fold the scores of one row into the windows that want it; return the largest in each."""
        at, best = 0, []
        for start, stop in zip(requests.starts[windows], requests.stops[windows], strict=True):
            shape = tuple(stop - start)
            found = scores[at : at + int(np.prod(shape))].reshape(shape)
            at += found.size
            place = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
            if allowed is not None:
                near = zip(start - self.first, stop - self.first, strict=True)
                found = np.where(allowed[tuple(slice(a, b) for a, b in near)], found, -np.inf)
            value, ids = state["value"][place], state["id"][place]
            better = (found > value) | ((found == value) & (ids > row) & (found > -np.inf))
            value[better] = found[better]
            ids[better] = row
            best.append(float(found.max()))
        return best
