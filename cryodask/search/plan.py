"""The tile planner: the cheapest grid of tiles whose working set fits the memory of a worker."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cryodask.arrays.lengths import fast_even_length
from cryodask.errors import InputError, ResourceError
from cryodask.search.tiles import Tile, TilePlan

CHUNK = 64  # largest inner chunk of a stored result: a viewer reads a slice without reading a whole tile
LEAST_CORE = 16  # positions on an axis of a tile below which no plan is looked for
TASK_SECONDS = 60.0  # no task should outlast this
LEAST_TASK_SECONDS = 1.0


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
        axes = [_given_axis(*item, periodic) for item in zip(shape, halo, block, strict=True)]
        choice = _least_cost(axes, working_set, memory, None, "; raise --memory or give a smaller tile shape")
    else:
        least = 1 if tile_count else LEAST_CORE
        axes = [_axis_choices(*item, periodic, least) for item in zip(shape, halo, strict=True)]
        axes = axes if tile_count else [_without_waste(choices) for choices in axes]
        hint = "; raise --memory or ntiles" if tile_count else "; raise --memory"
        choice = _least_cost(axes, working_set, memory, tile_count, hint)
    core, chunk, lengths, counts = (
        tuple(getattr(axis, name) for axis in choice) for name in ("core", "chunk", "length", "count")
    )
    plan = TilePlan(shape, core, chunk, lengths, counts, range(math.prod(counts)))
    return _only_wanted(plan, is_wanted)


def plan_shards(
    shape: Sequence[int], most: int, *, is_wanted: Callable[[Tile], bool] | None = None
) -> TilePlan:
    """Cut positions into equal tiles of a bounded size, for a search that transforms none of them.

    Parameters
    ----------
    shape
        Number of positions on each axis.
    most
        Positions of a tile on an axis, about.
    is_wanted
        Says whether a tile has any position to search.
    """
    axes = [_chunked(math.ceil(size / math.ceil(size / most))) for size in shape]
    core, chunk = tuple(axis[0] for axis in axes), tuple(axis[1] for axis in axes)
    counts = tuple(math.ceil(size / length) for size, length in zip(shape, core, strict=True))
    plan = TilePlan(tuple(shape), core, chunk, core, counts, range(math.prod(counts)))
    return _only_wanted(plan, is_wanted)


def _only_wanted(plan: TilePlan, is_wanted: Callable[[Tile], bool] | None) -> TilePlan:
    if is_wanted is None:
        return plan
    return replace(plan, wanted=tuple(tile.index for tile in plan.tiles if is_wanted(tile)))


def _axis_choices(size: int, margin: int, periodic: bool, least: int) -> list[_AxisChoice]:
    """List the ways to cut an axis; tiles much smaller than the halo are never worth their overlap."""
    found: dict[int, _AxisChoice] = {}
    for pieces in range(1, math.ceil(size / max(least, margin // 2)) + 1):
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


def _given_axis(size: int, margin: int, length: int, periodic: bool) -> list[_AxisChoice]:
    if length <= margin or length % 2:
        raise InputError(f"tile shape {length}: expected an even length above {margin} (box - 1)")
    exact = size if periodic and length == size else min(length - margin, size)
    if exact == size:
        return [_AxisChoice(1, *_chunked(size), length)]
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
    tile_count: int | None,
    hint: str,
) -> tuple[_AxisChoice, ...]:
    choices = [c for c in itertools.product(*axes) if tile_count in (None, math.prod(a.count for a in c))]
    if not choices:
        raise InputError(f"ntiles = {tile_count}: no grid of tiles has exactly that many; leave it unset")
    least = math.inf
    for choice in sorted(choices, key=_fourier_cost):
        need = working_set(tuple(a.length for a in choice), tuple(a.core for a in choice))
        if need <= memory:
            return choice
        least = min(least, need)
    raise ResourceError(
        f"smallest tile needs {least / 2**30:.3g} GiB, a worker has {memory / 2**30:.3g} GiB{hint}"
    )


def _fourier_cost(choice: tuple[_AxisChoice, ...]) -> tuple[float, int]:
    voxels = math.prod(axis.length for axis in choice)
    tiles = math.prod(axis.count for axis in choice)
    return tiles * voxels * math.log2(voxels), tiles


def split_hypotheses(
    count: int, *, tiles: int, slots: int, seconds_each: float, batch: int | None = None, grain: int = 8
) -> int:
    """Choose how many hypotheses one task takes, a multiple of `grain` unless `batch` is given.

    Tiles alone are enough tasks where there are four or more a slot and none outlasts a minute; else the
    hypotheses are split too, into tasks of at least about a second and, `grain` permitting, at most a minute.
    """
    if batch is not None:
        return min(batch, count)
    seconds_each = max(seconds_each, 1e-12)
    longest = max(TASK_SECONDS / seconds_each, 1.0)
    wanted = count if tiles >= 4 * slots else math.ceil(count * tiles / (4 * slots))
    size = min(max(wanted, LEAST_TASK_SECONDS / seconds_each), longest)
    grains = math.ceil(size / grain)
    if grains * grain > longest:
        grains = max(1, math.floor(longest / grain))
    return min(count, grain * grains)
