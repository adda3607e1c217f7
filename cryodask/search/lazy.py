"""The lazy layer: one Dask task a tile, from which every variable of the result takes its block."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph

from cryodask.search.problem import Problem, Variable
from cryodask.search.task import Run, compute_tile, score_batch
from cryodask.search.tiles import Batch, Tile, TilePlan


@dataclass(frozen=True)
class StoredStage:
    """A run, created, whose whole stored result another problem reads."""

    run: Run
    plan: TilePlan


def lazy_variables(problem: Problem, plan: TilePlan, after: StoredStage | None = None) -> dict[str, da.Array]:
    """Return the result's variables as Dask arrays over (*leading, *positions).

    Variables computed together share one kernel run a tile; only the tiles that are asked for are computed,
    though the whole of a stage that comes before.

    Parameters
    ----------
    problem, plan
        What is searched, and its tiles.
    after
        What must be stored before; tiles that are stored already are not computed again.
    """
    token = tokenize(problem, plan.describe())
    wanted = set(plan.wanted)
    prepare, tile_key = f"prepare-{token}", f"tile-{token}"
    stage = {} if after is None else _stage_graph(after, f"stage-{token}")
    layer: dict[Any, Any] = {**stage, prepare: (_prepare, problem, list(stage))}
    for tile in plan.tiles:
        layer[tile_key, tile.index] = (_tile_arrays, prepare, tile)
    arrays = {}
    for variable in problem.variables:
        name = f"{variable.name}-{token}"
        graph = _variable_graph(name, variable, wanted, tile_key, plan)
        layers = HighLevelGraph({tile_key: layer, name: graph}, {tile_key: set(), name: {tile_key}})
        arrays[variable.name] = _as_array(name, variable, plan, layers)
    return arrays


def _stage_graph(stage: StoredStage, name: str) -> dict[Any, Any]:
    prepare = f"{name}-prepare"
    graph: dict[Any, Any] = {prepare: (_prepare, stage.run.problem, [])}
    for tile in stage.plan.tiles:
        graph[name, tile.index] = (_store_tile, prepare, stage.run, tile)
    return graph


def _prepare(problem: Problem, before: list[Any]) -> Problem:
    problem.prepare()
    return problem


def _store_tile(problem: Problem, run: Run, tile: Tile) -> int:
    if not run.store.has_tile(tile.index):
        score_batch(run, tile, Batch(0, problem.hypotheses))
    return tile.index


def _tile_arrays(problem: Problem, tile: Tile) -> Mapping[str, np.ndarray]:
    return compute_tile(problem, tile)[0]


def _variable_graph(
    name: str, variable: Variable, wanted: set[int], tile_key: str, plan: TilePlan
) -> dict[Any, Any]:
    lengths = tuple(length for _, length in variable.leading)
    graph: dict[Any, Any] = {}
    for index, place in enumerate(itertools.product(*map(range, plan.grid))):
        key = (name, *(0 for _ in lengths), *place)
        if index in wanted:
            graph[key] = (_pick, (tile_key, index), variable)
        else:
            graph[key] = (_unsearched, variable, plan.tile(index))
    return graph


def _unsearched(variable: Variable, tile: Tile) -> np.ndarray:
    lengths = (length for _, length in variable.leading)
    return np.full((*lengths, *tile.shape), variable.fill, variable.dtype)


def _pick(arrays: Mapping[str, np.ndarray], variable: Variable) -> np.ndarray:
    return arrays[variable.name].astype(variable.dtype, copy=False)  # as the store would hold it


def _as_array(name: str, variable: Variable, plan: TilePlan, layers: HighLevelGraph) -> da.Array:
    leading = tuple((length,) for _, length in variable.leading)
    chunks = tuple(
        tuple(min(core, size - first) for first in range(0, size, core))
        for size, core in zip(plan.shape, plan.core, strict=True)
    )
    meta = np.empty((0,) * (len(leading) + len(plan.shape)), dtype=variable.dtype)
    return da.Array(layers, name, (*leading, *chunks), meta=meta)
