"""What travels in a plan: a tile of positions and a batch of hypotheses."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Tile:
    """A box of positions and the block of data that a kernel reads to score them.

    Parameters
    ----------
    index
        Number of the tile in its plan.
    start, stop
        First and one past the last position on each axis.
    block
        Shape of the data block, the lengths of its Fourier transforms; where an axis is `periodic`
        the block is the whole axis and every one of its positions is exact.
    """

    index: int
    start: tuple[int, ...]
    stop: tuple[int, ...]
    block: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of positions on each axis."""
        return tuple(b - a for a, b in zip(self.start, self.stop, strict=True))

    @property
    def slices(self) -> tuple[slice, ...]:
        """Where the tile lies among all positions."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))


@dataclass(frozen=True)
class Batch:
    """The hypotheses `start` to `stop` - 1 of a list."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class TilePlan:
    """A regular grid of tiles over all positions; tiles without a wanted position are left out.

    Parameters
    ----------
    shape
        Number of positions on each axis.
    core
        Positions of a full tile, which is also the shard of the stored result.
    chunk
        Divisor of `core`: the inner chunk of the stored result.
    block
        Shape of the data block of every tile.
    grid
        Number of tiles on each axis, those left out included.
    tiles
        The tiles to compute, in C order.
    """

    shape: tuple[int, ...]
    core: tuple[int, ...]
    chunk: tuple[int, ...]
    block: tuple[int, ...]
    grid: tuple[int, ...]
    tiles: tuple[Tile, ...]

    def describe(self) -> dict[str, Any]:
        """Return the plan as plain numbers, from which `from_description` makes it again."""
        keep = {name: list(getattr(self, name)) for name in ("shape", "core", "chunk", "block", "grid")}
        return keep | {"tiles": [tile.index for tile in self.tiles]}

    @classmethod
    def from_description(cls, description: dict[str, Any]) -> "TilePlan":
        """Make a plan again from what `describe` returned."""
        shapes = {name: tuple(description[name]) for name in ("shape", "core", "chunk", "block", "grid")}
        wanted = set(description["tiles"])
        tiles = grid_tiles(shapes["shape"], shapes["core"], shapes["block"])
        return cls(**shapes, tiles=tuple(tile for tile in tiles if tile.index in wanted))


def grid_tiles(shape: tuple[int, ...], core: tuple[int, ...], block: tuple[int, ...]) -> list[Tile]:
    """Return the tiles of a regular grid in C order; the last one on an axis may be smaller."""
    starts: list[tuple[int, ...]] = [()]
    for size, step in zip(shape, core, strict=True):
        starts = [(*head, first) for head in starts for first in range(0, size, step)]
    return [
        Tile(
            index=index,
            start=start,
            stop=tuple(min(a + c, s) for a, c, s in zip(start, core, shape, strict=True)),
            block=block,
        )
        for index, start in enumerate(starts)
    ]
