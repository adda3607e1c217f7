"""Matching a tomogram from Python: a lazy dataset, and what stores it."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from cryodask.errors import InputError
from cryodask.io.files import require_folder
from cryodask.io.volume import write_volume
from cryodask.jobs.disk import scratch_folder
from cryodask.jobs.tomogram_matching.area import SearchArea, search_area
from cryodask.jobs.tomogram_matching.checks import check_supported
from cryodask.jobs.tomogram_matching.inputs import MatchInputs, load_inputs
from cryodask.jobs.tomogram_matching.many_templates import MatchProblem
from cryodask.jobs.tomogram_matching.parameters import MatchParameters
from cryodask.jobs.tomogram_matching.planning import (
    Resources,
    make_plan,
    make_problem,
    rough_seconds,
    write_constants,
)
from cryodask.jobs.tomogram_matching.problem import LEAST_FOR_ZSCORE
from cryodask.jobs.tomogram_matching.result import attributes, coordinates, table_variables
from cryodask.jobs.tomogram_matching.runs import execute, open_runs
from cryodask.jobs.tomogram_matching.seeding import scored_rows
from cryodask.jobs.tomogram_matching.two_stages import COARSE, make_first_stage, second_plan
from cryodask.results.accessor import PLAN
from cryodask.search.aggregates import NO_ID
from cryodask.search.lazy import StoredStage, lazy_variables
from cryodask.search.task import Run

log = logging.getLogger("cryodask")
LONG_TILE = 600.0  # seconds


def match_tomogram(
    tomogram: Any,
    template: Any = None,
    *,
    mask: Any = None,
    angles: Any = None,
    tilts: Any = None,
    voxel_size: float | None = None,
    memory: str | int = "2GiB",
    ntiles: int | None = None,
    tile_shape: Sequence[int] | None = None,
    device: str = "auto",
    **settings: Any,
) -> xr.Dataset:
    """Match a tomogram with a template; nothing is searched until values are asked for.

    Local, mask-normalised correlation (Roseman 2003) over a list of rotations, as in GAPSTOP, STOPGAP and
    pytom-match-pick.

    Parameters
    ----------
    tomogram
        A path (MRC, EM, HDF5, OME-Zarr), an array (z, y, x) of NumPy, Dask or xarray, or one
        `MatchParameters`, in which case nothing but `memory`, tiling and `device` may be given.
    template
        A path or an array (z, y, x), contrast as in the tomogram.
    mask
        A path, an array of the template's shape with values 0 to 1, or ``{"sphere": radius, "edge": width}``
        in angstrom.
    angles
        A path of a rotation list, an array (row, 3) of phi, theta, psi in degrees (zxz), or a mapping such as
        ``{"step": 7}``, ``{"step": 7, "method": "golden"}``, ``{"diameter": 300, "resolution": 20}``.
    tilts
        ``[min, max]`` in degrees or a path of a tilt file; with a wedge list of several tomograms `tomo_num`
        too.
    voxel_size
        Angstrom; required with arrays.
    memory
        What one task may use.
    ntiles, tile_shape
        Exactly so many tiles, or the lengths (z, y, x) of a tile's Fourier transforms.
    device
        ``auto``, ``cpu`` or ``cuda``.
    **settings
        Any further key of a native parameter file: `lowpass`, `highpass`, `symmetry`, `noise_correction`,
        `tomogram_mask`, `seed`, ...

    Returns
    -------
    xarray.Dataset
        `score`, `score_raw`, `orientation`, `score_mean`, `score_std`, ... over (template, z, y, x), lazy.
        ``ds.cryo.store(path)`` computes and stores it, resumably.

    Raises
    ------
    InputError
        A wrong value or file, with the text of the command line.
    ResourceError
        No tile fits the memory.
    """
    resources = _resources(memory, ntiles, tile_shape, device)
    given = {"mask": mask, "angles": angles, "tilts": tilts, "voxel_size": voxel_size, **settings}
    if not isinstance(tomogram, MatchParameters):
        return _lazy_match(_parameters(tomogram, template, given), resources)
    extra = [name for name, value in {"template": template, **given}.items() if value is not None]
    if extra:
        raise InputError(f"{extra[0]}: given beside parameters that say it already; change the parameters")
    return _lazy_match(tomogram, resources)


def _lazy_match(parameters: MatchParameters, resources: Resources) -> xr.Dataset:
    check_supported([parameters])
    inputs = load_inputs(parameters)
    area = search_area(inputs)
    scratch = scratch_folder()
    problem = make_problem(inputs, scratch / "constants", resources)
    first = make_first_stage(inputs, problem, area, resources, scratch / COARSE)
    plan = (
        make_plan(inputs, problem, area, resources) if first is None else second_plan(area, len(inputs.every))
    )
    write_constants(inputs, problem, area)
    if problem.moments and not all(part.has_zscore for part in problem.parts):
        log.warning("fewer than %d rotations of a template, no zscore", LEAST_FOR_ZSCORE)
    if first is None:
        _warn_if_long(problem, plan.block)
        arrays = lazy_variables(problem, plan)
    else:
        _warn_if_long(first.problem.search, first.plan.block)
        first.begin(inputs)
        stage = StoredStage(Run(0, first.problem, first.store), first.plan)
        arrays = lazy_variables(first.second, plan, stage)
    variables = {name: (_dimensions(array.ndim), array) for name, array in arrays.items()}
    dataset = xr.Dataset(variables, coords=coordinates(inputs))
    dataset = dataset.assign(_statistics(dataset, inputs, problem, area))
    dataset.attrs = attributes(inputs, problem, plan) | (first.attributes if first is not None else {})
    dataset.encoding[PLAN] = LazyMatch(parameters, resources)
    return dataset


@dataclass(frozen=True)
class LazyMatch:
    """What a lazy dataset carries, so that it can be stored by driving its plan instead of its graph."""

    parameters: MatchParameters
    resources: Resources

    def store(
        self,
        dataset: xr.Dataset,
        path: str | Path,
        *,
        resume: bool = False,
        overwrite: bool = False,
        **options: Any,
    ) -> Path:
        """Compute the dataset into a Zarr store, resumably and in bounded memory; see `ds.cryo.store`."""
        require_folder(path)
        target = Path(path).expanduser().absolute()
        if target.suffix != ".zarr":
            raise InputError(f"{path}: expected a name that ends in .zarr")
        runs = open_runs([self.parameters], self.resources, final=target, resume=resume, overwrite=overwrite)
        if runs[0].inputs.shape != tuple(dataset.sizes.get(axis, 0) for axis in "zyx"):
            raise InputError("the dataset was cut after match_tomogram; use to_zarr for a part")
        return execute(runs, resources=self.resources, **options)[0]


def _resources(
    memory: str | int, ntiles: int | None, tile_shape: Sequence[int] | None, device: str
) -> Resources:
    from cryodask.cluster import parse_memory

    shape = None
    if tile_shape is not None:
        if len(tile_shape) != 3:
            raise InputError(f"tile shape {list(tile_shape)}: expected three lengths, z y x")
        shape = (int(tile_shape[0]), int(tile_shape[1]), int(tile_shape[2]))
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"device = {device}: expected auto, cpu or cuda")
    return Resources(float(parse_memory(memory)), ntiles, shape, None, device)


def _parameters(tomogram: Any, template: Any, given: Mapping[str, Any]) -> MatchParameters:
    """Validate a Python call; arrays are written to scratch files, so that tasks read everything by path."""
    scratch: list[Path] = []

    def as_path(name: str, value: Any) -> Any:
        if value is None or isinstance(value, str | Path | Mapping):
            return str(Path(value).expanduser().absolute()) if isinstance(value, Path) else value
        attributes = getattr(tomogram, "attrs", {}) | getattr(value, "attrs", {})
        voxel_size = given["voxel_size"] or attributes.get("voxel_size")
        if not voxel_size:
            raise InputError(f"{name}: an array has no voxel size, set voxel_size")
        if not scratch:
            scratch.append(scratch_folder())
        path = scratch[0] / f"{name}.mrc"
        write_volume(path, value, voxel_size=float(voxel_size))
        return str(path)

    mapping = {key: value for key, value in given.items() if value is not None}
    mapping["tomogram"] = as_path("tomogram", tomogram)
    mapping["template"] = as_path("template", template)
    for name in ("mask", "tomogram_mask"):
        if name in mapping:
            mapping[name] = as_path(name, mapping[name])
    if hasattr(mapping.get("angles"), "__array__"):
        scratch = scratch or [scratch_folder()]
        mapping["angles"] = {"file": str(_write_angles(scratch[0], mapping["angles"])), "units": "degree"}
    if isinstance(mapping.get("tilts"), Sequence | np.ndarray) and not isinstance(mapping["tilts"], str):
        mapping["tilts"] = [float(angle) for angle in mapping["tilts"]]
    return MatchParameters.from_native({key: value for key, value in mapping.items() if value is not None})


def _write_angles(folder: Path, angles: Any) -> Path:
    """Write rotations with all their digits: a list rounded to print would change scores."""
    values = np.asarray(angles, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != 3:
        raise InputError(f"angles: shape {values.shape}, expected (row, 3): phi, theta, psi")
    path = folder / "angles.csv"
    np.savetxt(path, values, delimiter=",", fmt="%.17g")
    return path


def _warn_if_long(problem: MatchProblem, block: tuple[int, ...]) -> None:
    seconds = rough_seconds(problem, block) * problem.hypotheses
    if seconds > LONG_TILE:
        log.warning(
            "a tile takes about %.0f minutes; ds.cryo.store(path) shows progress and can be resumed",
            seconds / 60,
        )


def _dimensions(count: int) -> tuple[str, ...]:
    return ("template", "z", "y", "x") if count == 4 else ("z", "y", "x")


def _statistics(
    dataset: xr.Dataset, inputs: MatchInputs, problem: MatchProblem, area: SearchArea
) -> dict[str, Any]:
    """Return the tables of a result, and what follows from all tiles together, lazily."""
    tables = table_variables(inputs) | {
        "n_voxels": ("template", np.full(len(inputs.every), area.count, np.int64))
    }
    positions = ("z", "y", "x")
    if problem.moments:
        square = dataset.score_std.astype("f8") ** 2 + dataset.score_mean.astype("f8") ** 2
        tables["sigma"] = np.sqrt(square.sum(positions) / area.count)
    if inputs.seeds is not None:
        tables |= _seeded_statistics(dataset, inputs, problem, positions)
    if problem.noise_correction == "subtract":
        mean = dataset.noise.sum(positions, dtype="f8") / area.count
        searched = dataset.orientation != NO_ID
        tables["score"] = (dataset.score + mean).where(searched, 0).astype("f4")
    return tables


def _seeded_statistics(
    dataset: xr.Dataset, inputs: MatchInputs, problem: MatchProblem, positions: tuple[str, str, str]
) -> dict[str, Any]:
    """Return the number of scores made, and their standard deviation, where voxels differ in rotations."""
    maps = [scored_rows(problem.folder, each.seed_rows, dataset.orientation) for each in inputs.every]
    rows = xr.DataArray(da.stack(maps), dims=("template", *positions))
    found: dict[str, Any] = {"n_scores": rows.sum(positions)}
    if problem.moments:
        square = dataset.score_std.astype("f8") ** 2 + dataset.score_mean.astype("f8") ** 2
        found["sigma"] = np.sqrt((rows * square).sum(positions) / found["n_scores"])
    return found
