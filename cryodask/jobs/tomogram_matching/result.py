"""What makes a result of the maps: coordinates, rotations, statistics, provenance, other formats."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

import cryodask
from cryodask.errors import InputError
from cryodask.io.angles import write_angle_list
from cryodask.io.volume import write_volume
from cryodask.jobs.tomogram_matching.inputs import MatchInputs
from cryodask.jobs.tomogram_matching.planning import file_identity, input_files
from cryodask.jobs.tomogram_matching.problem import TomogramProblem
from cryodask.jobs.tomogram_matching.pyramids import add_pyramids, consolidate
from cryodask.search.aggregates import NO_ID
from cryodask.search.problem import Summary
from cryodask.search.tiles import TilePlan

LARGEST_HASHED = 2**26  # bytes: larger inputs (tomograms) are identified by size and time
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


def map_files(inputs: MatchInputs, folder: Path) -> dict[str, Path]:
    """Return the map files beside the Zarr store, by variable and suffix, and the angle list."""
    parameters = inputs.parameters
    names = parameters.names
    roots = {"score": names.score, "orientation": names.angles}
    if parameters.write_raw:
        roots["score_raw"] = f"raw_{names.score}"
        if parameters.noise_correction != "none":
            roots["noise"] = names.noise
    files = {
        f"{variable}.{suffix}": folder / f"{map_name(inputs, root)}.{suffix}"
        for suffix in parameters.formats
        if suffix != "zarr"
        for variable, root in roots.items()
    }
    if files:
        files["angles.csv"] = folder / f"{map_name(inputs, names.angles)}.csv"
    return files


def coordinates(inputs: MatchInputs) -> dict[str, Any]:
    """Return the coordinates of the maps: angstrom, and the template's name."""
    found: dict[str, Any] = {"template": np.array([template_name(inputs)], dtype=object)}
    for axis, size, origin in zip("zyx", inputs.shape, inputs.origin, strict=True):
        values = origin + inputs.voxel_size * np.arange(size, dtype=np.float64)
        found[axis] = (axis, values, {"units": "angstrom"})
    return found


def template_name(inputs: MatchInputs) -> str:
    """Return the template's name: the stem of its file."""
    return Path(inputs.parameters.template).name.split(".")[0]


def attributes(inputs: MatchInputs, problem: TomogramProblem, plan: TilePlan) -> dict[str, Any]:
    """Return the attributes of a result: where it comes from and what a reader needs."""
    parameters = inputs.parameters
    found = {
        "cryodask_version": cryodask.__version__,
        "job": "match-tomogram",
        "parameters": parameters.model_dump_json(),
        "inputs": json.dumps(_identities(inputs)),
        "voxel_size": inputs.voxel_size,
        "origin": list(inputs.origin),
        "tomo_name": parameters.display_name,
        "tomo_num": parameters.tomo_num if parameters.tomo_num is not None else 0,
        "template_names": [template_name(inputs)],
        "symmetry": parameters.symmetry,
        "seed": parameters.seed,
        "normalization": parameters.normalization,
        "particle_diameter": inputs.particle_diameter,
        "binning": parameters.binning,
        "search_factor": 1.0,
        "mask_kind": problem.mask_kind,
        "statistics_grid": problem.statistics_fraction,
        "plan": json.dumps({"grid": plan.grid, "tile": plan.core, "block": plan.block}),
    }
    if inputs.tilts is not None:
        found |= {
            "tilt_range": [float(angle) for angle in inputs.tilts.angle_range],
            "voltage": inputs.tilts.voltage,
            "cs": inputs.tilts.cs,
            "amplitude_contrast": inputs.tilts.amplitude_contrast,
        }
    return found


def _identities(inputs: MatchInputs) -> dict[str, dict[str, Any]]:
    found = {}
    for key, path in input_files(inputs).items():
        entry: dict[str, Any] = {"path": path, "state": file_identity(path)}
        if "://" not in path and Path(path).is_file() and Path(path).stat().st_size <= LARGEST_HASHED:
            entry["sha256"] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        found[key] = entry
    return found


def table_variables(inputs: MatchInputs) -> dict[str, Any]:
    """Return the variables that are not maps and do not depend on the scores."""
    return {
        "euler": (
            ("template", "row", "angle"),
            inputs.angles[None],
            {"units": "degree", "columns": "phi, theta, psi (zxz)"},
        ),
        "n_rotations": ("template", np.array([len(inputs.angles)], np.int64)),
    }


def finish_store(
    path: str,
    inputs: MatchInputs,
    problem: TomogramProblem,
    plan: TilePlan,
    summaries: Iterable[Summary],
    extra: Mapping[str, Any],
) -> None:
    """Complete the store of a run whose tiles are all there."""
    summaries = list(summaries)
    voxels = sum(summary["voxels"] for summary in summaries)
    if problem.noise_correction == "subtract":
        mean = sum(summary["noise_sum"] for summary in summaries) / max(voxels, 1)
        _add_mean_noise(path, plan, mean)
    tables = table_variables(inputs) | {"n_voxels": ("template", np.array([voxels], np.int64))}
    if problem.moments:
        squares = sum(summary["square_sum"] for summary in summaries)
        sigma = np.sqrt(squares / max(voxels * problem.hypotheses, 1))
        tables["sigma"] = ("template", np.array([sigma]))
    dataset = xr.Dataset(tables, coords=coordinates(inputs))
    dataset.attrs = attributes(inputs, problem, plan) | dict(extra)
    names = [variable.name for variable in problem.variables]
    dataset.attrs["ome"] = add_pyramids(path, names, inputs.voxel_size, inputs.origin)
    dataset.to_zarr(path, mode="a", zarr_format=3, consolidated=False)
    consolidate(path)


def _add_mean_noise(path: str, plan: TilePlan, mean: float) -> None:
    """Make `score` of `score_raw` and `noise` afresh, so that doing it twice changes nothing."""
    group = zarr.open_group(path, mode="r+")
    score, raw, noise, orientation = (group[name] for name in ("score", "score_raw", "noise", "orientation"))
    for tile in plan.tiles:
        region = (slice(None), *tile.slices)
        values = np.asarray(raw[region]) - np.asarray(noise[region]) + np.float32(mean)  # type: ignore[index]
        searched = np.asarray(orientation[region]) != NO_ID  # type: ignore[index]
        score[region] = np.where(searched, values, np.float32(0))  # type: ignore[index]


def write_maps(path: str, inputs: MatchInputs, files: Mapping[str, Path]) -> None:
    """Write maps for other programs from a complete store, slab by slab; existing ones are replaced."""
    group = zarr.open_group(path, mode="r")
    for key, target in files.items():
        variable, _, suffix = key.rpartition(".")
        if suffix == "csv":
            write_angle_list(target, inputs.angles, order=inputs.parameters.angles.order, overwrite=True)
            continue
        array = group[variable]
        base = inputs.parameters.angle_base

        def slab(start: int, stop: int, array: Any = array, base: int = base) -> np.ndarray:
            values = np.asarray(array[0, start:stop])
            if values.dtype != np.uint32:
                return values
            return np.where(values == NO_ID, -1, values.astype(np.int64) + base).astype(np.float32)

        write_volume(
            target,
            slab,
            shape=inputs.shape,
            voxel_size=inputs.voxel_size,
            origin=inputs.origin,
            overwrite=True,
        )


def check_rows_fit(inputs: MatchInputs, files: Mapping[str, Path]) -> None:
    """Refuse angle maps whose float32 voxels could not tell the rows apart."""
    rows = len(inputs.angles) + inputs.parameters.angle_base
    if files and rows > LARGEST_FLOAT_ID:
        raise InputError(
            f"{rows} rotations do not fit the float32 voxels of {files['angles.csv'].stem} maps; "
            "write zarr alone"
        )
