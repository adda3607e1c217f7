"""What travels in a plan: a tile of positions and a batch of hypotheses."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

_SHAPES = ("shape", "core", "chunk", "block", "grid")


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
    wanted
        Numbers of the tiles to compute, rising; tiles are numbered in C order.
    """

    shape: tuple[int, ...]
    core: tuple[int, ...]
    chunk: tuple[int, ...]
    block: tuple[int, ...]
    grid: tuple[int, ...]
    wanted: Sequence[int]

    @property
    def tiles(self) -> "Tiles":
        """The tiles to compute."""
        return Tiles(self)

    @property
    def grid_size(self) -> int:
        """Number of tiles, those left out included."""
        return math.prod(self.grid)

    def tile(self, index: int) -> Tile:
        """Return the tile of a number; the last one on an axis may be smaller."""
        place: tuple[int, ...] = ()
        rest = index
        for count in reversed(self.grid):
            rest, here = divmod(rest, count)
            place = (here, *place)
        start = tuple(p * c for p, c in zip(place, self.core, strict=True))
        stop = tuple(min(a + c, s) for a, c, s in zip(start, self.core, self.shape, strict=True))
        return Tile(index, start, stop, self.block)

    def describe(self) -> dict[str, Any]:
        """Return the plan as plain numbers, from which `from_description` makes it again."""
        return {name: list(getattr(self, name)) for name in _SHAPES} | {"tiles": list(self.wanted)}

    @classmethod
    def from_description(cls, description: dict[str, Any]) -> "TilePlan":
        """Make a plan again from what `describe` returned."""
        shapes = {name: tuple(description[name]) for name in _SHAPES}
        wanted = description["tiles"]
        everything = range(math.prod(shapes["grid"]))
        return cls(**shapes, wanted=everything if len(wanted) == len(everything) else tuple(wanted))


class Tiles(Sequence[Tile]):
    """The tiles of a plan, each made when it is asked for: a plan of millions takes no memory."""

    def __init__(self, plan: TilePlan) -> None:
        self._plan = plan

    def __len__(self) -> int:
        return len(self._plan.wanted)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return tuple(self._plan.tile(index) for index in self._plan.wanted[number])
        return self._plan.tile(self._plan.wanted[number])

    def __iter__(self) -> Iterator[Tile]:
        return map(self._plan.tile, self._plan.wanted)
