"""The tile planner: the cheapest grid of tiles whose working set fits the memory of a worker."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cryodask.arrays.lengths import fast_even_length
from cryodask.errors import InputError, ResourceError
from cryodask.search.tiles import Tile, TilePlan, grid_tiles

CHUNK = 64  # largest inner chunk of a stored result: a viewer reads a slice without reading a whole tile


@dataclass(frozen=True)
class _AxisChoice:
    count: int
    core: int
    chunk: int
    length: int


def plan_tiles(
    shape: Sequence[int],
    halo: Sequence[int],
    *,
    working_set: Callable[[tuple[int, ...], tuple[int, ...]], float],
    memory: float,
    periodic: bool = False,
    tile_count: int | None = None,
    block: Sequence[int] | None = None,
    is_wanted: Callable[[Tile], bool] | None = None,
) -> TilePlan:
    """Choose the grid of tiles of least Fourier cost that fits the memory.

    Parameters
    ----------
    shape
        Number of positions on each axis.
    halo
        How many positions of each axis of a block are not exact (box - 1 for a box kernel).
    working_set
        Bytes that a task needs, given block shape and tile shape.
    memory
        Bytes that a task may use.
    periodic
        The data wrap around: an axis in one piece, of a fast length, needs no halo.
    tile_count
        Exactly so many tiles.
    block
        The Fourier lengths of a tile, instead of those that the planner would choose.
    is_wanted
        Says whether a tile has any position to search.

    Returns
    -------
    TilePlan

    Raises
    ------
    InputError
        Where `tile_count` or `block` cannot be had.
    ResourceError
        Where no tile fits.
    """
    shape, halo = tuple(shape), tuple(halo)
    if block is not None:
        axes = [_given_axis(*item) for item in zip(shape, halo, block, strict=True)]
        choice = _least_cost(axes, working_set, memory)
    else:
        axes = [_axis_choices(size, margin, periodic) for size, margin in zip(shape, halo, strict=True)]
        axes = axes if tile_count else [_without_waste(choices) for choices in axes]
        choice = _least_cost(axes, working_set, memory, tile_count)
    core, chunk, lengths, counts = (
        tuple(getattr(axis, name) for axis in choice) for name in ("core", "chunk", "length", "count")
    )
    tiles = [t for t in grid_tiles(shape, core, lengths) if is_wanted is None or is_wanted(t)]
    return TilePlan(shape, core, chunk, lengths, counts, tuple(tiles))


def _axis_choices(size: int, margin: int, periodic: bool) -> list[_AxisChoice]:
    """List the ways to cut an axis; tiles much smaller than the halo are never worth their overlap."""
    found: dict[int, _AxisChoice] = {}
    for pieces in range(1, max(1, math.ceil(size / max(1, margin // 2))) + 1):
        core, chunk = _chunked(math.ceil(size / pieces))
        count = math.ceil(size / core)
        whole = periodic and count == 1 and fast_even_length(size) == size
        length = size if whole else fast_even_length(min(core, size) + margin)
        best = found.get(count)
        if best is None or length < best.length:
            found[count] = _AxisChoice(count, core, chunk, length)
    return list(found.values())


def _without_waste(choices: list[_AxisChoice]) -> list[_AxisChoice]:
    """Drop the choices that need more tiles of the same length than another."""
    best: dict[int, _AxisChoice] = {}
    for choice in choices:
        if choice.length not in best or choice.count < best[choice.length].count:
            best[choice.length] = choice
    return list(best.values())


def _given_axis(size: int, margin: int, length: int) -> list[_AxisChoice]:
    if length <= margin or length % 2:
        raise InputError(f"tile shape {length}: expected an even length above {margin} (box - 1)")
    exact = min(length - margin, size)
    pieces = math.ceil(exact / CHUNK)
    chunk = exact // pieces
    return [_AxisChoice(math.ceil(size / (chunk * pieces)), chunk * pieces, chunk, length)]


def _chunked(core: int) -> tuple[int, int]:
    """Return the core rounded up to equal inner chunks, and that chunk."""
    pieces = math.ceil(core / CHUNK)
    chunk = math.ceil(core / pieces)
    return chunk * pieces, chunk


def _least_cost(
    axes: list[list[_AxisChoice]],
    working_set: Callable[[tuple[int, ...], tuple[int, ...]], float],
    memory: float,
    tile_count: int | None = None,
) -> tuple[_AxisChoice, ...]:
    choices = [c for c in itertools.product(*axes) if tile_count in (None, math.prod(a.count for a in c))]
    if not choices:
        raise InputError(f"ntiles = {tile_count}: no grid of tiles has exactly that many; leave it unset")
    needs = [working_set(tuple(a.length for a in c), tuple(a.core for a in c)) for c in choices]
    fitting = [c for c, need in zip(choices, needs, strict=True) if need <= memory]
    if not fitting:
        raise ResourceError(
            f"smallest tile needs {min(needs) / 2**30:.3g} GiB, "
            f"a worker has {memory / 2**30:.3g} GiB; raise --memory"
        )
    return min(fitting, key=_fourier_cost)


def _fourier_cost(choice: tuple[_AxisChoice, ...]) -> tuple[float, int]:
    lengths = np.array([axis.length for axis in choice], dtype=np.float64)
    tiles = math.prod(axis.count for axis in choice)
    return tiles * float(lengths.prod() * np.log2(lengths).sum()), tiles


def split_hypotheses(
    count: int, *, tiles: int, slots: int, seconds_each: float, batch: int | None = None, grain: int = 8
) -> int:
    """Choose how many hypotheses one task takes, a multiple of `grain` unless `batch` is given.

    Tiles alone are enough tasks where there are four or more a slot and none outlasts a minute; else the
    hypotheses are split too, into tasks of at least about a second.
    """
    if batch is not None:
        return min(batch, count)
    longest = max(60.0 / max(seconds_each, 1e-12), 1.0)
    wanted = count if tiles >= 4 * slots else math.ceil(count * tiles / (4 * slots))
    least = min(math.ceil(1.0 / max(seconds_each, 1e-12)), longest)
    size = max(min(wanted, longest), least, 1)
    return min(count, grain * math.ceil(size / grain))
