"""Matching a micrograph from Python: a lazy dataset, and what stores it."""

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import dask
import dask.array as da
import numpy as np
import xarray as xr

from cryodask.errors import InputError
from cryodask.geometry.zyz_grids import OrientationGrid
from cryodask.io.files import require_folder
from cryodask.io.image import write_image
from cryodask.io.volume import write_volume
from cryodask.jobs.disk import scratch_folder
from cryodask.jobs.micrograph_matching.config import MatchConfig
from cryodask.jobs.micrograph_matching.filter_block import PreprocessingFilters
from cryodask.jobs.micrograph_matching.inputs import Explicit, MatchInputs, load_inputs, position_mask
from cryodask.jobs.micrograph_matching.planning import (
    Resources,
    make_plan,
    make_problem,
    rough_seconds,
    write_constants,
)
from cryodask.jobs.micrograph_matching.preparation import check_image
from cryodask.jobs.micrograph_matching.problem import MicrographProblem
from cryodask.jobs.micrograph_matching.result import LOCAL, attributes, coordinates, table_variables
from cryodask.jobs.micrograph_matching.runs import execute, open_runs
from cryodask.kernels.local_zscore import local_zscore
from cryodask.results.accessor import PLAN
from cryodask.results.orientation_maps import with_best_angles
from cryodask.search.lazy import lazy_variables

log = logging.getLogger("cryodask")
LONG_TILE = 600.0  # seconds


class DefocusRange(NamedTuple):
    """Defoci relative to the mean of u and v, angstrom."""

    low: float = -1000.0
    high: float = 1000.0
    step: float = 200.0


def match_micrograph(
    image: Any,
    template: Any = None,
    *,
    optics: Any = None,
    orientations: Any = None,
    defocus: Any = None,
    pixel_sizes: Any = None,
    filters: Any = None,
    statistics: str = "moments",
    padding: int = 1,
    gridding: str = "none",
    bin_to: float | None = None,
    mask: Any = None,
    crop: str = "valid",
    compat: str | None = None,
    memory: str | int = "2GiB",
    device: str = "auto",
    **options: Any,
) -> xr.Dataset:
    """Match a micrograph with a template (2DTM); nothing is searched until values are asked for.

    The score is the cross-correlation with noise variance 1 of the whitened image and unit-energy projections
    (Rickgauer, Grigorieff and Denk 2017; Lucas et al. 2021; Leopard-EM).

    Parameters
    ----------
    image
        A path (MRC), an array (y, x) of NumPy, Dask or xarray, or one `MatchConfig`, in which case nothing
        but `memory` and `device` may be given.
    template
        A path (MRC, PDB or mmCIF) or an array (z, y, x), positive where dense.
    optics
        Mapping of the keys of Leopard-EM's `optics_group`, or an `OpticsGroup`: pixel_size (A), voltage (kV),
        defocus_u, defocus_v (A), astigmatism_angle (degrees), ...
    orientations
        `OrientationGrid`, a mapping of `orientation_search_config`, or an array (row, 3) of phi, theta, psi,
        degrees; steps of 1.5 and 2.5 degrees by default.
    defocus
        `DefocusRange`, an array, or a mapping of `defocus_search_config`; angstrom, relative.
    pixel_sizes
        An array, or a mapping of `pixel_size_search_config`; angstrom, relative. None for the image's alone.
    filters
        `Filters`, or a mapping of `preprocessing_filters`.
    statistics
        ``moments``, or ``local`` to add `scaled_mip_local`.
    padding, gridding
        Of the template before slices are cut: 1 or 2; ``none`` or ``sinc2``.
    bin_to
        Search at this resolution, angstrom.
    mask
        Where a particle's centre may lie (> 0.5): a path, or an array (y, x).
    crop
        ``valid`` or ``same`` (the image is taken as periodic).
    compat
        ``leopard-em-1.2`` for that program's conventions.
    memory
        What one task may use.
    device
        ``auto``, ``cpu`` or ``cuda``.
    **options
        Further keys of the `cryodask` block: `template_pixel_size`, `clip_sigma`, `seed`, `tile`,
        `template_model`, `assume_symmetry`, ...

    Returns
    -------
    xarray.Dataset
        `mip`, `scaled_mip`, `score_mean`, `score_std`, `orientation`, `defocus`, `pixel_size`, `best_phi`,
        `best_theta`, `best_psi`, ... over (y, x), lazy. ``ds.cryo.store(path)`` computes and stores it,
        resumably.

    Raises
    ------
    InputError
        A wrong value or file, with the text of the command line.
    ResourceError
        No tile fits the memory.
    """
    from cryodask.cluster import parse_memory

    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"device = {device}: expected auto, cpu or cuda")
    resources = Resources(float(parse_memory(memory)), device=device)
    if isinstance(image, MatchConfig):
        if template is not None or optics is not None or options:
            raise InputError("given beside a configuration that says it already; change the configuration")
        return lazy_match(image, Explicit(), resources)
    own = {"statistics": statistics, "padding": padding, "gridding": gridding, "bin_to": bin_to}
    own |= {"crop": crop, "compat": compat, **options}
    mapping, explicit = _mapping(optics, orientations, defocus, pixel_sizes, filters, own)
    pixel_size = float((mapping.get("optics_group") or {}).get("pixel_size") or 1.0)
    scratch = _Scratch(pixel_size)
    mapping["micrograph_path"] = scratch.path("micrograph", image)
    mapping["template_volume_path"] = scratch.path("template", template)
    if mask is not None:
        mapping["cryodask"]["mask_path"] = scratch.path("mask", mask)
    return lazy_match(MatchConfig.from_mapping(mapping), explicit, resources)


def lazy_match(config: MatchConfig, explicit: Explicit, resources: Resources) -> xr.Dataset:
    """Return the lazy result of a configuration."""
    if config.cryodask.strategy == "coarse_to_fine":
        raise InputError(
            "strategy = coarse_to_fine: a search in two stages is stored as it runs; use "
            "cryodask.MatchConfig.from_mapping({...}).run('result.zarr')"
        )
    inputs = load_inputs(config, explicit=explicit)
    for notice in inputs.notices:
        log.info("%s", notice)
    problem = make_problem(inputs, scratch_folder() / "constants", resources)
    plan = make_plan(inputs, problem, resources)
    write_constants(inputs, problem)
    seconds = rough_seconds(problem, plan.block) * problem.hypotheses
    if seconds > LONG_TILE:
        log.warning(
            "a tile takes about %.0f minutes; ds.cryo.store(path) shows progress and can be resumed",
            seconds / 60,
        )
    variables = {name: (("y", "x"), array) for name, array in lazy_variables(problem, plan).items()}
    dataset = xr.Dataset(variables, coords=coordinates(inputs)).assign(table_variables(inputs))
    if config.cryodask.statistics == "local":
        dataset[LOCAL] = (("y", "x"), _local_variable(dataset, inputs, problem))
    dataset = with_best_angles(dataset)
    dataset.attrs = attributes(inputs, problem, plan)
    dataset.encoding[PLAN] = LazyMatch(config, explicit, resources)
    return dataset


@dataclass(frozen=True, eq=False)
class LazyMatch:
    """What a lazy dataset carries, so that it can be stored by driving its plan instead of its graph."""

    config: MatchConfig
    explicit: Explicit
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
        runs = open_runs(
            [self.config],
            self.resources,
            output=target,
            explicit=self.explicit,
            resume=resume,
            overwrite=overwrite,
        )
        if runs[0].problem.shape != tuple(dataset.sizes.get(axis, 0) for axis in "yx"):
            raise InputError("the dataset was cut after match_micrograph; use to_zarr for a part")
        return execute(runs, resources=self.resources, **options)[0]


class _Scratch:
    """Writes arrays to files, so that tasks read everything by path."""

    def __init__(self, pixel_size: float) -> None:
        self.pixel_size = pixel_size
        self.folder: Path | None = None

    def path(self, name: str, value: Any) -> str:
        if value is None:
            raise InputError(f"{name}: expected a path or an array")
        if isinstance(value, str | Path):
            return str(Path(value).expanduser().absolute())
        array = np.asarray(value, np.float32)
        expected = 3 if name == "template" else 2
        if array.ndim != expected:
            raise InputError(f"{name}: shape {array.shape}, expected {expected}-D")
        self.folder = self.folder or scratch_folder()
        file = self.folder / f"{name}.mrc"
        if expected == 3:
            write_volume(file, array, voxel_size=None)
        else:
            if name == "micrograph":
                check_image(array, name)
            write_image(file, array, pixel_size=self.pixel_size)
        return str(file)


def _mapping(
    optics: Any, orientations: Any, defocus: Any, pixel_sizes: Any, filters: Any, own: dict[str, Any]
) -> tuple[dict[str, Any], Explicit]:
    """Return the configuration that keywords of `match_micrograph` stand for, and lists given as arrays."""
    lists: dict[str, np.ndarray] = {}
    own = {key: value for key, value in own.items() if value is not None}
    mapping: dict[str, Any] = {"optics_group": _plain(optics), "cryodask": own}
    if isinstance(mapping["optics_group"], dict):
        mapping["optics_group"].setdefault("label", "optics")
    if isinstance(orientations, OrientationGrid):
        mapping["orientation_search_config"] = _grid_block(orientations)
    elif isinstance(orientations, Mapping):
        mapping["orientation_search_config"] = dict(orientations)
    elif orientations is not None:
        lists["angles"] = np.asarray(orientations, np.float64)
    if isinstance(defocus, DefocusRange):
        keys = ("defocus_min", "defocus_max", "defocus_step")
        mapping["defocus_search_config"] = dict(zip(keys, defocus, strict=True))
    elif isinstance(defocus, Mapping):
        mapping["defocus_search_config"] = dict(defocus)
    elif defocus is not None:
        lists["defoci"] = np.atleast_1d(np.asarray(defocus, np.float64))
    if isinstance(pixel_sizes, Mapping):
        own["pixel_size_search_config"] = {"enabled": True, **pixel_sizes}
    elif pixel_sizes is not None:
        lists["pixel_sizes"] = np.atleast_1d(np.asarray(pixel_sizes, np.float64))
    if filters is not None:
        mapping["preprocessing_filters"] = _plain(filters)
    return mapping, Explicit(**lists)


def _plain(value: Any) -> Any:
    return value.model_dump() if hasattr(value, "model_dump") else dict(value) if value is not None else None


def _grid_block(grid: OrientationGrid) -> dict[str, Any]:
    values = dataclasses.asdict(grid)
    block = {"psi_step": grid.psi_step, "theta_step": grid.theta_step, "base_grid_method": grid.base}
    if grid.symmetry is not None:
        return block | {"symmetry": grid.symmetry}
    for name in ("phi", "theta", "psi"):
        block[f"{name}_min"], block[f"{name}_max"] = values[name]
    return block | {"symmetry": None}


def _local_variable(dataset: xr.Dataset, inputs: MatchInputs, problem: MicrographProblem) -> da.Array:
    maps = [dataset[name].data for name in ("mip", "score_mean", "score_std")]
    whole = dask.delayed(local_zscore)(*maps, problem.box, position_mask(inputs))
    return da.from_delayed(whole, problem.shape, np.float32, meta=np.empty((0, 0), np.float32))


Filters = PreprocessingFilters
