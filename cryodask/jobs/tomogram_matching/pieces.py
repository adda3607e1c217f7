"""Tiles cut where the template filter changes, and their states joined again.

Cells are fixed by tomogram and optics, tiles by memory: cutting the one by the other leaves the results
independent of the tiling.
"""

from collections.abc import Sequence

import numpy as np

from cryodask.arrays.lengths import fast_even_length
from cryodask.optics.defocus_gradient import DefocusCells
from cryodask.search.aggregates import States
from cryodask.search.tiles import Tile


def cut_tile(tile: Tile, cells: DefocusCells, halo: int) -> list[tuple[int, Tile]]:
    """Return the pieces of a tile that lie in one cell each, with the number of the cell.

    Parameters
    ----------
    halo
        Box - 1: voxels that a block needs beyond its positions.
    """
    found = []
    for cell, start, stop in cells.pieces(tile.start, tile.stop):
        # an axis that is not cut keeps its block, which may wrap around
        block = tuple(
            length if (a, b) == whole else fast_even_length(b - a + halo)
            for a, b, whole, length in zip(
                start, stop, zip(tile.start, tile.stop, strict=True), tile.block, strict=True
            )
        )
        found.append((cell, Tile(tile.index, start, stop, block)))
    return found


def join_pieces(tile: Tile, pieces: Sequence[Tile], states: Sequence[States]) -> States:
    """Put the states of all pieces of a tile into their places; what is no map is the same in all."""
    if len(pieces) == 1:
        return states[0]
    whole: States = {
        name: {
            key: np.empty(tile.shape, values.dtype) if values.ndim else values
            for key, values in state.items()
        }
        for name, state in states[0].items()
    }
    for piece, found in zip(pieces, states, strict=True):
        place = tuple(
            slice(a - first, b - first)
            for a, b, first in zip(piece.start, piece.stop, tile.start, strict=True)
        )
        for name, state in found.items():
            for key, values in state.items():
                if values.ndim:
                    whole[name][key][place] = values
    return whole
