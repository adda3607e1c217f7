"""What makes a result of the maps: coordinates, rotations, statistics, provenance, other formats."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
import zarr

import cryodask
from cryodask.errors import InputError
from cryodask.io.angles import write_angle_list
from cryodask.io.volume import write_volume
from cryodask.jobs.consolidation import consolidate
from cryodask.jobs.input_files import describe_files
from cryodask.jobs.tomogram_matching import constants, weighting
from cryodask.jobs.tomogram_matching.inputs import MatchInputs
from cryodask.jobs.tomogram_matching.many_templates import ManyTemplates, MatchProblem
from cryodask.jobs.tomogram_matching.planning import input_files
from cryodask.jobs.tomogram_matching.pyramids import FOLDER, add_pyramids
from cryodask.search.aggregates import NO_ID
from cryodask.search.problem import Summary
from cryodask.search.tiles import TilePlan

LARGEST_FLOAT_ID = 2**24


def result_name(inputs: MatchInputs) -> str:
    """Return the name of the result store."""
    parameters = inputs.parameters
    if parameters.source.dialect == "star":
        return f"{map_name(inputs, parameters.names.score)}.zarr"
    return f"{parameters.display_name}.zarr"


def map_name(inputs: MatchInputs, root: str) -> str:
    """Return the name of a map without suffix: root, row, tomogram."""
    parameters = inputs.parameters
    tomogram = parameters.tomo_num if parameters.tomo_num is not None else parameters.display_name
    return f"{root}_{parameters.source.row}_{tomogram}"


class MapKey(NamedTuple):
    """A map beside the store: its variable, its template (None for maps of all), its suffix."""

    variable: str
    template: int | None
    suffix: str


def map_files(inputs: MatchInputs, folder: Path) -> dict[MapKey, Path]:
    """Return the map files beside the Zarr store, and the rotation list of each template."""
    parameters = inputs.parameters
    names = parameters.names
    roots = {"score": names.score, "orientation": names.angles}
    if parameters.write_raw:
        roots["score_raw"] = f"raw_{names.score}"
        if parameters.noise_correction != "none":
            roots["noise"] = names.noise
    suffixes = [suffix for suffix in parameters.formats if suffix != "zarr"]
    files = {}
    for number, each in enumerate(inputs.every if suffixes else ()):
        end = f"_{each.name}" if inputs.others else ""
        for suffix in suffixes:
            for variable, root in roots.items():
                files[MapKey(variable, number, suffix)] = folder / f"{map_name(inputs, root)}{end}.{suffix}"
        files[MapKey("angles", number, "csv")] = folder / f"{map_name(inputs, names.angles)}{end}.csv"
    if inputs.others:
        for suffix in suffixes:
            files[MapKey("class_id", None, suffix)] = folder / f"{map_name(inputs, 'class')}.{suffix}"
            files[MapKey("margin", None, suffix)] = folder / f"{map_name(inputs, 'margin')}.{suffix}"
    return files


def coordinates(inputs: MatchInputs) -> dict[str, Any]:
    """Return the coordinates of the maps: angstrom, and the template's name."""
    found: dict[str, Any] = {"template": np.array([each.name for each in inputs.every], dtype=object)}
    for axis, size, origin in zip("zyx", inputs.shape, inputs.origin, strict=True):
        values = origin + inputs.voxel_size * np.arange(size, dtype=np.float64)
        found[axis] = (axis, values, {"units": "angstrom"})
    return found


def attributes(inputs: MatchInputs, problem: MatchProblem, plan: TilePlan) -> dict[str, Any]:
    """Return the attributes of a result: where it comes from and what a reader needs."""
    parameters = inputs.parameters
    found = {
        "cryodask_version": cryodask.__version__,
        "job": "match-tomogram",
        "parameters": parameters.model_dump_json(),
        "dialect": parameters.source.dialect,
        "inputs": json.dumps(describe_files(input_files(inputs))),
        "voxel_size": inputs.voxel_size,
        "origin": list(inputs.origin),
        "tomo_name": parameters.display_name,
        "tomo_num": parameters.tomo_num if parameters.tomo_num is not None else 0,
        "template_names": [each.name for each in inputs.every],
        "symmetry": parameters.symmetry,
        "seed": parameters.seed,
        "normalization": parameters.normalization,
        "particle_diameter": inputs.particle_diameter,
        "binning": parameters.binning,
        "search_factor": 1.0,
        "mask_kind": problem.parts[0].mask_kind,
        "statistics_grid": problem.parts[0].statistics_fraction,
        "filters": json.dumps(weighting.describe(inputs, problem.parts[0].cells)),
        "plan": json.dumps({"grid": plan.grid, "tile": plan.core, "block": plan.block}),
    }
    if inputs.seeds is not None:
        found["n_seeds"] = len(inputs.seeds)
    if isinstance(problem, ManyTemplates):
        found["class_by"] = problem.class_by
        found["symmetries"] = [each.parameters.symmetry for each in inputs.every]
        found["mask_kinds"] = [part.mask_kind for part in problem.parts]
    if inputs.tilts is not None:
        found |= {
            "tilt_range": [float(angle) for angle in inputs.tilts.angle_range],
            "voltage": inputs.tilts.voltage,
            "cs": inputs.tilts.cs,
            "amplitude_contrast": inputs.tilts.amplitude_contrast,
        }
    return found


def table_variables(inputs: MatchInputs) -> dict[str, Any]:
    """Return the variables that are not maps and do not depend on the scores."""
    longest = max(len(each.angles) for each in inputs.every)
    euler = np.full((len(inputs.every), longest, 3), np.nan)
    for number, each in enumerate(inputs.every):
        euler[number, : len(each.angles)] = each.angles
    columns = {"units": "degree", "columns": "phi, theta, psi (zxz)"}
    counts = np.array([len(each.angles) for each in inputs.every], np.int64)
    return {"euler": (("template", "row", "angle"), euler, columns), "n_rotations": ("template", counts)}


def finish_store(
    path: str,
    inputs: MatchInputs,
    problem: MatchProblem,
    plan: TilePlan,
    summaries: Iterable[Summary],
    names: Sequence[str],
    extra: Mapping[str, Any],
) -> None:
    """Complete the store of a run whose tiles are all there.

    Parameters
    ----------
    path
        The store.
    inputs, problem, plan
        The match on the full grid, and the tiles of the maps.
    summaries
        Of all tiles.
    names
        Of the maps.
    extra
        Further attributes; they win.
    """
    totals = _totals(summaries)
    voxels = _of_each(problem, totals, "voxels")
    if problem.noise_correction == "subtract":
        means = _of_each(problem, totals, "noise_sum") / np.maximum(voxels, 1)
        _add_mean_noise(path, plan, means.astype(np.float32))
    tables = table_variables(inputs) | {"n_voxels": ("template", voxels.astype(np.int64))}
    scores = voxels * np.array([part.hypotheses for part in problem.parts])
    if inputs.seeds is not None:
        scores = _of_each(problem, totals, "scores")
        tables["n_scores"] = ("template", scores.astype(np.int64))
    if problem.moments:
        squares = _of_each(problem, totals, "square_sum")
        tables["sigma"] = ("template", np.sqrt(squares / np.maximum(scores, 1)))
    dataset = xr.Dataset(tables, coords=coordinates(inputs))
    dataset.attrs = attributes(inputs, problem, plan) | dict(extra)
    if problem.tomogram_filter.whiten:
        dataset.attrs["whitening"] = json.dumps(constants.read_prepared(problem.folder)["whitening"])
    dataset.attrs["ome"] = add_pyramids(path, names, inputs.voxel_size, inputs.origin)
    dataset.to_zarr(path, mode="a", zarr_format=3, consolidated=False)
    consolidate(path, (f"{FOLDER}/*", f"{FOLDER}/*/*"))


def _totals(summaries: Iterable[Summary]) -> Summary:
    totals: Summary = {}
    for summary in summaries:
        for name, value in summary.items():
            totals[name] = totals.get(name, 0.0) + value
    return totals


def _of_each(problem: MatchProblem, totals: Summary, name: str) -> np.ndarray:
    """Return the total of each template."""
    if not isinstance(problem, ManyTemplates):
        return np.array([totals[name]])
    return np.array([totals[f"{part.number}:{name}"] for part in problem.parts])


def _add_mean_noise(path: str, plan: TilePlan, means: np.ndarray) -> None:
    """Make `score` of `score_raw` and `noise` afresh, so that doing it twice changes nothing."""
    group = zarr.open_group(path, mode="r+")
    score, raw, noise, orientation = (group[name] for name in ("score", "score_raw", "noise", "orientation"))
    for tile in plan.tiles:
        region = (slice(None), *tile.slices)
        values = np.asarray(raw[region]) - np.asarray(noise[region]) + means[:, None, None, None]  # type: ignore[index]
        searched = np.asarray(orientation[region]) != NO_ID  # type: ignore[index]
        score[region] = np.where(searched, values, np.float32(0))  # type: ignore[index]


def write_maps(path: str, inputs: MatchInputs, files: Mapping[MapKey, Path]) -> None:
    """Write maps for other programs from a complete store, slab by slab; existing ones are replaced."""
    group = zarr.open_group(path, mode="r")
    for key, target in files.items():
        if key.suffix == "csv":
            angles = inputs.every[key.template or 0].angles
            write_angle_list(target, angles, order=inputs.parameters.angles.order, overwrite=True)
            continue
        array = group[key.variable]
        base = inputs.parameters.angle_base

        def slab(
            start: int, stop: int, array: Any = array, base: int = base, template: int | None = key.template
        ) -> np.ndarray:
            values = np.asarray(array[start:stop] if template is None else array[template, start:stop])
            if values.dtype != np.uint32:
                return values.astype(np.float32)
            return np.where(values == NO_ID, -1, values.astype(np.int64) + base).astype(np.float32)

        write_volume(
            target,
            slab,
            shape=inputs.shape,
            voxel_size=inputs.voxel_size,
            origin=inputs.origin,
            overwrite=True,
        )


def check_rows_fit(inputs: MatchInputs, files: Mapping[MapKey, Path]) -> None:
    """Refuse angle maps whose float32 voxels could not tell the rows apart."""
    rows = max(len(each.angles) for each in inputs.every) + inputs.parameters.angle_base
    if files and rows > LARGEST_FLOAT_ID:
        name = files[MapKey("angles", 0, "csv")].stem
        raise InputError(f"{rows} rotations do not fit the float32 voxels of {name} maps; write zarr alone")
