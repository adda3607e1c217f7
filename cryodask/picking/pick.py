"""From the maps of a search to a table of particles."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from cryodask.errors import InputError
from cryodask.io.angles import Order
from cryodask.picking.candidates import PeakSearch, Selection
from cryodask.picking.exclusion import greedy_peaks
from cryodask.picking.maps import open_maps
from cryodask.picking.options import PickOptions
from cryodask.picking.regions import shape_of
from cryodask.picking.selection_mask import open_mask
from cryodask.picking.table import particle_table, randomized, table_attributes, voxel_size_of
from cryodask.picking.thresholds import Threshold, choose_threshold, source_name

logger = logging.getLogger(__name__)

Source = str | Path | xr.Dataset
BARE_SIGMA = 6.0


def pick(
    result: Source | Sequence[Source],
    *,
    threshold: float | None = None,
    sigma: float | None = None,
    false_positives: float | None = None,
    triangle: bool = False,
    fdr: float | None = None,
    score: str = "score",
    min_distance: float | None = None,
    particle_diameter: float | None = None,
    max_particles: int | None = None,
    cluster_size: int | tuple[int, int] | None = None,
    class_id: int | None = None,
    mask: str | Path | xr.DataArray | None = None,
    edge: str | float = "valid",
    refine: str = "position",
    symmetry: str | None = None,
    randomize_symmetry: bool = False,
    independent: str = "all",
    top_hat: int | None = None,
    angles: str | Path | Sequence[str | Path] | None = None,
    angle_list: str | Path | None = None,
    order: Order = "zxz",
    angle_base: int = 0,
    voxel_size: float | None = None,
    tomo_num: int | None = None,
    tomo_name: str | None = None,
) -> pd.DataFrame:
    """Choose the particles of one or several search results.

    Maps are read region by region; a lazy result that was never stored is computed once, in memory.
    Without a rule the threshold is one expected false positive, or sigma 6 for bare maps.

    Parameters
    ----------
    result
        Result store, its dataset, a bare score map, or a list of these, which gives one table.
    **options
        As the attributes of `cryodask.picking.options.PickOptions`, lengths in angstrom.

    Returns
    -------
    pandas.DataFrame
        One row a particle (columns: `cryodask.io.particle_table.COLUMNS`), by falling score within a
        tomogram; `attrs` say how it was made.

    Raises
    ------
    InputError
        Options that exclude each other, are not in this release or do not fit the result.
    """
    options = PickOptions(**{name: value for name, value in locals().items() if name != "result"})
    sources: list[Source] = [result] if isinstance(result, str | Path | xr.Dataset) else list(result)
    maps = _one_each(options.angles, sources)
    return _joined([_pick_one(s, a, options) for s, a in zip(sources, maps, strict=True)])


def _one_each(angles: Any, sources: Sequence[Source]) -> list[Any]:
    """Return one angle map, or None, for each result."""
    if angles is None:
        return [None] * len(sources)
    maps = [angles] if isinstance(angles, str | Path) else list(angles)
    if len(maps) != len(sources):
        raise InputError(f"--angles: {len(maps)} angle maps for {len(sources)} score maps")
    return maps


def _pick_one(source: Source, angles: str | Path | None, options: PickOptions) -> pd.DataFrame:
    """Return the table of one result."""
    dataset = open_maps(
        source,
        angles=angles,
        angle_list=options.angle_list,
        order=options.order,
        angle_base=options.angle_base,
        voxel_size=options.voxel_size,
    )
    if dataset.attrs.get("bare") and options.edge == "valid":
        note = "%s: a bare map does not say where the mask fits, --edge valid keeps every searched voxel"
        logger.info(note, source_name(dataset))
    if options.score not in dataset:
        raise InputError(f"{source_name(dataset)}: --score {options.score}: no such map in the result")
    diameter = options.particle_diameter or _stored_diameter(dataset)
    distance = (options.min_distance or diameter or _no_distance(dataset)) / voxel_size_of(dataset)
    rules = options.rules
    if dataset.attrs.get("bare") and not options.has_rule:
        rules["sigma"] = BARE_SIGMA
    threshold = choose_threshold(dataset, score=options.score, **rules)
    candidates = _candidates(dataset, threshold, distance, options)
    peaks = _chosen(candidates, distance, options)
    symmetry = options.symmetry or str(dataset.attrs.get("symmetry", "C1"))
    table = particle_table(dataset, peaks, tomo_name=options.tomo_name, tomo_num=options.tomo_num)
    if options.randomize_symmetry:
        table = randomized(table, symmetry, seed=int(dataset.attrs.get("seed", 0)))
    made = table_attributes(dataset, threshold, score=options.score, symmetry=symmetry, diameter=diameter)
    name = options.tomo_name or str(dataset.attrs.get("tomo_name", "tomogram"))
    table.attrs.update(made, shapes={name: shape_of(dataset)})
    return table


def _candidates(
    dataset: xr.Dataset, threshold: Threshold, distance: float, options: PickOptions
) -> pd.DataFrame:
    """Return the candidates of all templates; distances in voxels."""
    selection = Selection(
        mask=None if options.mask is None else open_mask(options.mask, dataset),
        edge=options.edge_voxels(voxel_size_of(dataset)),
        cluster_size=options.cluster_range,
        cluster_radius=distance / 2,
    )
    templates = range(dataset.sizes["template"])
    searches = [PeakSearch(dataset, t, threshold, options.score, selection) for t in templates]
    return pd.concat([search.candidates() for search in searches], ignore_index=True)


def _chosen(candidates: pd.DataFrame, distance: float, options: PickOptions) -> pd.DataFrame:
    """Return the candidates that keep their distance, of the wanted class, at most so many."""
    kept = greedy_peaks(
        candidates[["z", "y", "x"]].to_numpy(float), candidates[options.score].to_numpy(float), distance
    )
    peaks = candidates.iloc[kept]
    if options.class_id is not None:
        peaks = peaks[peaks["template"] == options.class_id - 1]
    if options.refine == "none":
        peaks = peaks.assign(dz=0.0, dy=0.0, dx=0.0)
    return peaks.iloc[: options.max_particles]


def _stored_diameter(dataset: xr.Dataset) -> float | None:
    """Return the particle diameter a result stores in angstrom, if any."""
    stored = dataset.attrs.get("particle_diameter")
    return float(stored) if stored else None


def _no_distance(dataset: xr.Dataset) -> float:
    raise InputError(
        f"{source_name(dataset)}: --particle-diameter or --min-distance is required "
        "(the result stores no particle diameter)"
    )


def _joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Return one table; its attributes are those that all results agree on."""
    if not tables:
        raise InputError("no result given to pick from")
    if len(tables) == 1:
        return tables[0]
    first = tables[0].attrs
    common = {str(k): v for k, v in first.items() if all(t.attrs.get(k) == v for t in tables)}
    common["shapes"] = {name: size for table in tables for name, size in table.attrs["shapes"].items()}
    filled = [table for table in tables if len(table)]
    for table in tables:
        table.attrs = {}
    joined = pd.concat(filled, ignore_index=True) if filled else tables[0]
    joined.attrs.update(common)
    return joined
