"""From the maps of a search to a table of particles."""

import logging
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from cryodask.errors import InputError
from cryodask.io.angles import Order
from cryodask.picking.candidates import Selection
from cryodask.picking.discovery import (
    class_q_values,
    decoy_name,
    decoy_scales,
    discovery_threshold,
    floor_threshold,
)
from cryodask.picking.exclusion import greedy_peaks
from cryodask.picking.finder import PeakFinder
from cryodask.picking.maps import MapSource
from cryodask.picking.options import PickOptions
from cryodask.picking.regions import shape_of
from cryodask.picking.search_job import SearchJob
from cryodask.picking.sharpness import sharpness_threshold
from cryodask.picking.table import particle_table, randomized, table_attributes, voxel_size_of
from cryodask.picking.thresholds import Threshold, choose_threshold, raw_name, source_name

logger = logging.getLogger(__name__)

Source = str | Path | xr.Dataset
BARE_SIGMA = 6.0
BESIDE_OPTIONS = ("result", "job", "executor")


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
    job: SearchJob | None = None,
    executor: Executor | None = None,
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
    job
        What made the result, which independent="effective" and refine="orientation" or "both" ask again;
        `cryodask.pick` and the command line set it.
    executor
        Workers that search regions of stored results; None: this process.

    Returns
    -------
    pandas.DataFrame
        One row a particle (columns: `cryodask.io.particle_table.COLUMNS`), by falling score within a
        tomogram; `attrs` say how it was made.

    Raises
    ------
    InputError
        Options that exclude each other or do not fit the result.
    """
    given = {name: value for name, value in locals().items() if name not in BESIDE_OPTIONS}
    options = PickOptions(**given)
    if job is None and (options.refines_orientation or options.independent == "effective"):
        word = (
            "--independent effective" if options.independent == "effective" else f"--refine {options.refine}"
        )
        raise InputError(f"{word}: needs the job that made the result; use cryodask.pick or `cryodask pick`")
    results: list[Source] = [result] if isinstance(result, str | Path | xr.Dataset) else list(result)
    maps = _one_each(options.angles, results)
    sources = [_source(r, a, options) for r, a in zip(results, maps, strict=True)]
    return _joined([_pick_one(source, options, job, executor) for source in sources])


def _source(result: Source, angles: str | Path | None, options: PickOptions) -> MapSource:
    """Return what the maps of one result are opened from."""
    return MapSource(
        result=result,
        angles=angles,
        angle_list=options.angle_list,
        order=options.order,
        angle_base=options.angle_base,
        voxel_size=options.voxel_size,
    )


def _one_each(angles: Any, sources: Sequence[Source]) -> list[Any]:
    """Return one angle map, or None, for each result."""
    if angles is None:
        return [None] * len(sources)
    maps = [angles] if isinstance(angles, str | Path) else list(angles)
    if len(maps) != len(sources):
        raise InputError(f"--angles: {len(maps)} angle maps for {len(sources)} score maps")
    return maps


def _pick_one(
    source: MapSource, options: PickOptions, job: SearchJob | None, executor: Executor | None
) -> pd.DataFrame:
    """Return the table of one result."""
    dataset = source.open()
    if dataset.attrs.get("bare") and options.edge == "valid":
        note = "%s: a bare map does not say where the mask fits, --edge valid keeps every searched voxel"
        logger.info(note, source_name(dataset))
    if options.score not in dataset:
        raise InputError(f"{source_name(dataset)}: --score {options.score}: no such map in the result")
    diameter = options.particle_diameter or _stored_diameter(dataset)
    distance = (options.min_distance or diameter or _no_distance(dataset)) / voxel_size_of(dataset)
    finder = PeakFinder(dataset, source, _selection(dataset, distance, options), options.mask, executor)
    if options.fdr is None:
        threshold = _threshold(dataset, options, job)
        peaks = _accepted(finder.candidates(threshold, options.score), distance, options.score)
    else:
        threshold, peaks = _discovered(finder, distance, options.fdr)
    ranked_by = options.score if options.fdr is None else threshold.name
    peaks = _limited(peaks, options)
    if job is not None and options.refines_orientation:
        refined = job.refine(dataset, peaks, position=options.refine == "both", executor=executor)
        peaks = refined.sort_values(ranked_by, ascending=False, kind="stable")
    symmetry = options.symmetry or str(dataset.attrs.get("symmetry", "C1"))
    table = particle_table(dataset, peaks, tomo_name=options.tomo_name, tomo_num=options.tomo_num)
    if options.randomize_symmetry:
        table = randomized(table, symmetry, seed=int(dataset.attrs.get("seed", 0)))
    made = table_attributes(dataset, threshold, score=ranked_by, symmetry=symmetry, diameter=diameter)
    name = options.tomo_name or str(dataset.attrs.get("tomo_name", "tomogram"))
    table.attrs.update(made, shapes={name: shape_of(dataset)})
    return table


def _selection(dataset: xr.Dataset, distance: float, options: PickOptions) -> Selection:
    """Return the conditions on a peak, without the mask; the distance in voxels."""
    selection = Selection(
        edge=options.edge_voxels(voxel_size_of(dataset)),
        cluster_size=options.cluster_range,
        cluster_radius=distance / 2,
    )
    if options.top_hat is None:
        return selection
    name, expected = raw_name(dataset, options.score), options.false_positives or 1.0
    templates = range(dataset.sizes["template"])
    sharpness = (
        sharpness_threshold(dataset, name, t, bins=options.top_hat, false_positives=expected)
        for t in templates
    )
    return replace(selection, sharpness=tuple(sharpness))


def _threshold(dataset: xr.Dataset, options: PickOptions, job: SearchJob | None) -> Threshold:
    """Return the threshold by the chosen rule, or the default one."""
    rules = {name: value for name, value in options.rules.items() if name != "fdr"}
    if dataset.attrs.get("bare") and not options.has_rule:
        rules["sigma"] = BARE_SIGMA
    if job is not None and options.independent == "effective":
        rules["independent"] = job.independent_scores(dataset)
    return choose_threshold(dataset, score=options.score, **rules)


def _accepted(candidates: pd.DataFrame, distance: float, score: str) -> pd.DataFrame:
    """Return the candidates that keep their distance in voxels, by falling score."""
    places = candidates[["z", "y", "x"]].to_numpy(float)
    return candidates.iloc[greedy_peaks(places, candidates[score].to_numpy(float), distance)]


def _discovered(finder: PeakFinder, distance: float, rate: float) -> tuple[Threshold, pd.DataFrame]:
    """Return the peaks within a false discovery rate, and their least score.

    Scores and decoys compete, at a voxel and within the distance: the flank of a particle makes neither a
    false peak nor a decoy. Several templates compete in their own sigma, and each has its own decoys.
    """
    decoy, scales = decoy_name(finder.dataset), decoy_scales(finder.dataset)
    floor = floor_threshold(finder.dataset)
    both = (finder.candidates(floor, floor.name, decoys=d).assign(is_decoy=d) for d in (False, True))
    candidates = pd.concat(both, ignore_index=True)
    winners = candidates[candidates["score_raw"] > candidates[decoy]]
    strength = winners["score_raw"] / scales[winners["template"].to_numpy(int)]
    accepted = _accepted(winners.assign(strength=strength), distance, "strength")
    peaks, decoys = accepted[~accepted["is_decoy"]], accepted[accepted["is_decoy"]]
    q = class_q_values(peaks, decoys)
    threshold = discovery_threshold(peaks, q, rate, finder.dataset.sizes["template"])
    kept = peaks.drop(columns=["is_decoy", "strength"]).assign(qvalue=q)[np.asarray(q <= rate)]
    return threshold, kept.sort_values("score_raw", ascending=False, kind="stable")


def _limited(peaks: pd.DataFrame, options: PickOptions) -> pd.DataFrame:
    """Return the peaks of the wanted class, at most so many, with their places as far as asked for."""
    if options.class_id is not None:
        peaks = peaks[peaks["template"] == options.class_id - 1]
    if options.refine in ("none", "orientation"):
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
