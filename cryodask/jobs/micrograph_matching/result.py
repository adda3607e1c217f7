"""What makes a result of the maps: coordinates, angles, statistics, provenance; maps for other programs."""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from scipy.ndimage import map_coordinates

import cryodask
from cryodask.jobs.consolidation import consolidate
from cryodask.jobs.input_files import describe_files
from cryodask.jobs.micrograph_matching import constants
from cryodask.jobs.micrograph_matching.coarse_model import full_moments
from cryodask.jobs.micrograph_matching.inputs import MatchInputs, position_mask
from cryodask.jobs.micrograph_matching.planning import count_positions, input_files, run_threshold
from cryodask.jobs.micrograph_matching.problem import MicrographProblem
from cryodask.kernels.image_correlation import HISTOGRAM_BINS, HISTOGRAM_HIGH, HISTOGRAM_LOW
from cryodask.kernels.local_zscore import local_zscore
from cryodask.results.leopard_em import MAP_FILES
from cryodask.search.problem import Summary
from cryodask.search.tiles import TilePlan

LOCAL = "scaled_mip_local"
# Of a binned search: at every full-size position, in units of full-size scores, for a refinement
FULL_MEAN, FULL_STD = "full_score_mean", "full_score_std"
RESCORED = "rescored"  # where a search in two stages is exact


def coordinates(inputs: MatchInputs) -> dict[str, Any]:
    """Return the coordinates of the maps: particle centres in angstrom, and top-left pixels at full size."""
    pixel = inputs.config.optics_group.pixel_size
    found: dict[str, Any] = {}
    for axis, count in zip("yx", inputs.positions_shape, strict=True):
        centres = inputs.binning.centres(np.arange(count))
        found[axis] = (axis, centres * pixel, {"units": "angstrom", "long_name": "particle centre"})
        corner = np.rint(centres).astype(np.int64) - inputs.box // 2
        found[f"{axis}_index"] = (axis, corner, {"long_name": "top-left pixel of the template"})
    return found


def table_variables(inputs: MatchInputs) -> dict[str, Any]:
    """Return the lists that maps refer to."""
    return {
        "euler": (("row", "angle"), inputs.angles, {"units": "degree", "columns": "phi, theta, psi (ZYZ)"}),
        "defoci": ("defocus_number", inputs.defoci, {"units": "angstrom"}),
        "pixel_offsets": ("pixel_size_number", inputs.pixel_offsets, {"units": "angstrom"}),
    }


def attributes(inputs: MatchInputs, problem: MicrographProblem, plan: TilePlan) -> dict[str, Any]:
    """Return the attributes of a result: where it comes from and what a reader needs."""
    config = inputs.config
    files = input_files(inputs)
    return {
        "cryodask_version": cryodask.__version__,
        "job": "match-micrograph",
        "parameters": config.model_dump_json(),
        "inputs": json.dumps(describe_files(files)),
        "micrograph_path": files["micrograph_path"],
        "template_path": files["template_volume_path"],
        "micrograph_name": config.micrograph_name,
        "template_name": config.template_name,
        "pixel_size": config.optics_group.pixel_size,
        "template_pixel_size": inputs.voxel_size,
        "template_box": inputs.box,
        "image_shape": list(inputs.image_shape),
        "crop": config.cryodask.crop,
        "searched_pixel_size": config.optics_group.pixel_size / inputs.binning.ratio,
        "searched_box": problem.box,
        "binned_share": inputs.share,
        "optics": config.optics_group.model_dump_json(),
        "total_projections": inputs.hypotheses,
        "total_orientations": len(inputs.angles),
        "total_defocus": len(inputs.defoci),
        "total_pixel_sizes": len(inputs.pixel_offsets),
        "positions": count_positions(inputs),
        "threshold": run_threshold(inputs),
        "plan": json.dumps({"grid": plan.grid, "tile": plan.core, "block": plan.block}),
        "map_files": json.dumps(map_files(inputs)),
    }


def map_files(inputs: MatchInputs) -> dict[str, str]:
    """Return the map files that the configuration asks for: absolute paths by Leopard-EM's key."""
    result = inputs.config.match_template_result
    if result is None:
        return {}
    return {key: str(Path(result.paths[key]).expanduser().absolute()) for key in MAP_FILES}


def finish_store(
    path: str,
    inputs: MatchInputs,
    problem: MicrographProblem,
    plan: TilePlan,
    summaries: Iterable[Summary],
    extra: Mapping[str, Any],
) -> list[str]:
    """Complete the store of a run whose tiles are all there; return what should be told."""
    totals = _totals(summaries)
    dataset = xr.Dataset(table_variables(inputs), coords=coordinates(inputs))
    dataset.attrs = attributes(inputs, problem, plan) | dict(extra)
    dataset.attrs |= {"score_total": totals["sum"], "score_square_total": totals["square_sum"]}
    dataset.attrs["whitening"] = json.dumps(constants.read_prepared(Path(problem.folder))["whitening"])
    if problem.histogram:
        dataset = dataset.assign(histogram_variables(totals, inputs.hypotheses))
    if inputs.config.cryodask.statistics == "local":
        dataset[LOCAL] = (("y", "x"), _local_map(path, inputs, problem))
    if inputs.binning.is_on:
        dataset = dataset.assign(full_size_moments(path, inputs))
    dataset.to_zarr(path, mode="a", zarr_format=3, consolidated=False)
    consolidate(path)
    flat = int(totals["flat"])
    return [f"{flat} positions have equal scores for every hypothesis; their z-score is 0"] if flat else []


def full_size_moments(path: str, inputs: MatchInputs) -> dict[str, Any]:
    """Return mean and standard deviation of scores at full size, as a binned search lets expect them."""
    group = zarr.open_group(path, mode="r")
    shape = [length - inputs.box + 1 for length in inputs.image_shape]
    lines = [inputs.binning.places(np.arange(count)) for count in shape]
    places = np.meshgrid(*lines, indexing="ij")
    mean, std = (
        map_coordinates(np.asarray(group[name], np.float64), places, order=3, mode="nearest")
        for name in ("score_mean", "score_std")
    )
    found = full_moments(mean, std, inputs.share)
    axes = ("y_full", "x_full")
    return {name: (axes, v.astype(np.float32)) for name, v in zip((FULL_MEAN, FULL_STD), found, strict=True)}


def histogram_variables(totals: Summary, hypotheses: int) -> dict[str, Any]:
    """Return the counts of all scores, and how many normal noise would leave at or above each bin's edge."""
    from scipy.special import erfc

    counts = np.array([totals.get(f"count_{place}", 0.0) for place in range(HISTOGRAM_BINS)]).astype(np.int64)
    edges = np.linspace(HISTOGRAM_LOW, HISTOGRAM_HIGH, HISTOGRAM_BINS + 1)
    expected = totals["positions"] * hypotheses * 0.5 * erfc(edges[:-1] / math.sqrt(2.0))
    return {
        "histogram": ("bin", counts, {"long_name": "scores in each bin"}),
        "histogram_edge": ("bin", edges[:-1], {"long_name": "lower edge of the bin"}),
        "survival": ("bin", np.cumsum(counts[::-1])[::-1], {"long_name": "scores at or above the edge"}),
        "survival_expected": ("bin", expected, {"long_name": "the same of normal noise"}),
    }


def _totals(summaries: Iterable[Summary]) -> Summary:
    totals: Summary = {}
    for summary in summaries:
        for name, value in summary.items():
            totals[name] = totals.get(name, 0.0) + value
    return totals


def _local_map(path: str, inputs: MatchInputs, problem: MicrographProblem) -> np.ndarray:
    group = zarr.open_group(path, mode="r")
    mip, mean, std = (np.asarray(group[name]) for name in ("mip", "score_mean", "score_std"))
    return local_zscore(mip, mean, std, problem.box, position_mask(inputs))
