"""Refinement, constrained search and template optimisation from Python: tables in, tables out."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from cryodask.errors import InputError
from cryodask.geometry.local_grid import LocalGrid
from cryodask.io.image import write_image
from cryodask.io.leopard_em import read_leopard_em, write_leopard_em
from cryodask.io.volume import read_header, write_volume
from cryodask.jobs.execution import execute
from cryodask.jobs.micrograph_matching.constrained import open_constrained
from cryodask.jobs.micrograph_matching.constrained_config import ConstrainedConfig
from cryodask.jobs.micrograph_matching.match import DefocusRange
from cryodask.jobs.micrograph_matching.optimize import open_optimization, optimize
from cryodask.jobs.micrograph_matching.optimize_config import OptimizeConfig
from cryodask.jobs.micrograph_matching.picks import pick_micrographs
from cryodask.jobs.micrograph_matching.pose_problem import Strategy
from cryodask.jobs.micrograph_matching.refine import open_refinement
from cryodask.jobs.micrograph_matching.refine_config import RefineConfig
from cryodask.jobs.micrograph_matching.voxel_optimum import Choice, Optimum

Table = str | Path | pd.DataFrame | xr.Dataset
Volume = str | Path | np.ndarray
NEAR_FOCUS = DefocusRange(-100.0, 100.0, 20.0)


def refine_particles(
    table: Table,
    template: Volume,
    *,
    box: int,
    orientations: LocalGrid | Mapping[str, Any] | None = None,
    defocus: Any = NEAR_FOCUS,
    pixel_sizes: Mapping[str, Any] | None = None,
    filters: Any = None,
    filter_from: str = "micrograph",
    strategy: Strategy = "exhaustive",
    compat: str | None = None,
    memory: str | int = "2GiB",
    device: str = "cpu",
    client: Any = None,
    **options: Any,
) -> pd.DataFrame:
    """Refine orientation, defocus, pixel size and position of known particles (Leopard-EM's refine_template).

    Parameters
    ----------
    table
        Particles: a table of Leopard-EM or cryodask, its path, or a result of match_micrograph, which is
        picked first: a dataset (a lazy one is computed, once) or the path of its store.
    template
        (n, n, n), positive where dense, its voxels as large as the pixels; or its path.
    box
        Edge of the box around each particle, pixels, even and above n.
    orientations
        `LocalGrid` or a mapping of `orientation_refinement_config`; 2.5 and 1.5 degrees each way if None.
    defocus
        `DefocusRange` or a mapping of `defocus_refinement_config`; angstrom, relative to each particle's own.
    pixel_sizes
        Mapping of `pixel_size_refinement_config`; None for the particle's own.
    filters
        `Filters`, or a mapping of `preprocessing_filters`.
    filter_from
        ``micrograph``: whiten it, then cut; ``box``: cut, then whiten.
    strategy
        ``exhaustive`` or ``coarse_to_fine``.
    compat
        ``leopard-em-1.2`` for that program's arithmetic.
    memory, device, client
        What one task may use; ``cpu`` or ``cuda``; Dask client, the active one by default.
    **options
        Further keys of the `cryodask` block: `padding`, `gridding`, `template_pixel_size`, ...

    Returns
    -------
    pandas.DataFrame
        The rows of `table` in their order with refined_ columns; see docs/particle-refinement.md.

    Raises
    ------
    InputError
        A wrong value or file, with the text of the command line.
    """
    from cryodask.cluster import parse_memory

    mapping: dict[str, Any] = {"apply_global_filtering": filter_from == "micrograph"}
    mapping["orientation_refinement_config"] = _local_block(orientations)
    mapping["defocus_refinement_config"] = _range_block(defocus)
    if pixel_sizes is not None:
        mapping["pixel_size_refinement_config"] = {"enabled": True, **pixel_sizes}
    with tempfile.TemporaryDirectory(prefix="cryodask-") as name:
        folder = Path(name)
        mapping["template_volume_path"] = _volume_path(folder, template)
        edge = read_header(mapping["template_volume_path"]).shape[0]
        mapping["particle_stack"] = _stack(_table_path(folder, "particles", table), box, edge)
        config = RefineConfig.from_mapping(mapping | _common(filters, compat, options))
        output = folder / "refined.csv"
        limit = float(parse_memory(memory))
        run = open_refinement(config, output, strategy=strategy, device=device, memory=limit)
        execute([run], client=client, batch=run.batch)
        return read_leopard_em(output, required=())


def constrained_search(
    reference: Table,
    constrained: Table,
    template: Volume,
    *,
    box: int,
    center_vector: Sequence[float] = (0.0, 0.0, 0.0),
    orientations: Mapping[str, Any] | None = None,
    defocus: Any = None,
    filters: Any = None,
    false_positives: float = 0.005,
    compat: str | None = None,
    memory: str | int = "2GiB",
    device: str = "cpu",
    client: Any = None,
    **options: Any,
) -> pd.DataFrame:
    """Search for a second particle (B) at a known place beside each first one (A), as Leopard-EM does.

    Parameters
    ----------
    reference, constrained
        Particles of A; and any particles of B from the same micrographs, for the maps of B's match.
    template
        Of B: (n, n, n) or its path.
    box
        Edge of the box, pixels.
    center_vector
        From A's centre to B's in the frame of A, (x, y, z) angstrom.
    orientations
        Mapping of `orientation_refinement_config`: ranges of B's turns.
    defocus
        `DefocusRange` or a mapping, relative to where A says B is; None for that alone.
    filters, compat, memory, device, client, **options
        As in `refine_particles`; also `template_frame` and `defocus_hand`.
    false_positives
        Expected for each particle of A.

    Returns
    -------
    pandas.DataFrame
        The rows of A with refined_ columns and original_offset_phi, _theta, _psi; `attrs["threshold"]` is the
        z-score above which B counts as found.

    Raises
    ------
    InputError
        A wrong value or file, with the text of the command line.
    """
    from cryodask.cluster import parse_memory

    with tempfile.TemporaryDirectory(prefix="cryodask-") as name:
        folder = Path(name)
        volume = _volume_path(folder, template)
        edge = read_header(volume).shape[0]
        stacks = {
            f"particle_stack_{key}": _stack(_table_path(folder, key, table), box, edge)
            for key, table in (("reference", reference), ("constrained", constrained))
        }
        mapping = {
            **stacks,
            "template_volume_path": volume,
            "center_vector": list(center_vector),
            "orientation_refinement_config": dict(orientations or {}),
            "defocus_refinement_config": _range_block(defocus),
            **_common(filters, compat, options),
        }
        output = folder / "found.csv"
        runs = open_constrained(
            ConstrainedConfig.from_mapping(mapping),
            output,
            false_positives=false_positives,
            device=device,
            memory=float(parse_memory(memory)),
        )
        execute(runs, client=client, batch=runs[0].batch)
        table = read_leopard_em(output, required=())
        parameters = pd.read_csv(folder / "found_parameters.csv", index_col="parameter")["value"]
    table.attrs["threshold"] = float(parameters["false_positive_threshold"])
    return table


def optimize_template(
    table: Table,
    template: Volume,
    *,
    box: int,
    coarse: Mapping[str, Any] | None = None,
    fine: Mapping[str, Any] | None = None,
    min_snr: float = 8.0,
    best_n: int | None = None,
    filters: Any = None,
    memory: str | int = "2GiB",
    device: str = "cpu",
    client: Any = None,
    **options: Any,
) -> Optimum:
    """Find the voxel size at which a template fits known particles best (Leopard-EM's optimize_template).

    Parameters
    ----------
    table, template, box, filters, memory, device, client, **options
        As in `refine_particles`.
    coarse, fine
        Mappings of `pixel_size_coarse_search` and `pixel_size_fine_search`, angstrom.
    min_snr, best_n
        Which particles count: those of at least this z, or so many of the best.

    Returns
    -------
    Optimum

    Raises
    ------
    InputError
        A wrong value or file; no particle reaches `min_snr`.
    """
    from cryodask.cluster import parse_memory

    with tempfile.TemporaryDirectory(prefix="cryodask-") as name:
        folder = Path(name)
        volume = _volume_path(folder, template)
        edge = read_header(volume).shape[0]
        mapping: dict[str, Any] = {
            "template_volume_path": volume,
            "particle_stack": _stack(_table_path(folder, "particles", table), box, edge),
            "pixel_size_coarse_search": dict(coarse or {}),
            "pixel_size_fine_search": dict(fine or {}),
            **_common(filters, None, options),
        }
        config = OptimizeConfig.from_mapping(mapping)
        work = open_optimization(config, device=device, memory=float(parse_memory(memory)))
        return optimize(work, choice=Choice(min_snr, best_n), client=client)


def _common(filters: Any, compat: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    block = {**options, **({"compat": compat} if compat else {})}
    found: dict[str, Any] = {"cryodask": block} if block else {}
    if filters is not None:
        dump = getattr(filters, "model_dump", None)
        found["preprocessing_filters"] = dump() if dump else dict(filters)
    return found


def _stack(path: str, box: int, edge: int) -> dict[str, Any]:
    return {"df_path": path, "extracted_box_size": [box, box], "original_template_size": [edge, edge]}


def _table_path(folder: Path, name: str, table: Table) -> str:
    if isinstance(table, xr.Dataset):
        table = _picked(folder, name, table)
    if not isinstance(table, pd.DataFrame):
        return str(table)
    path = folder / f"{name}.csv"
    write_leopard_em(path, table)
    return str(path)


def _picked(folder: Path, name: str, dataset: xr.Dataset) -> pd.DataFrame:
    """Pick from a result, lazy or stored, and write the maps that its particles are compared with.

    Raises
    ------
    InputError
        No result of match-micrograph; no particle above the threshold.
    """
    if "scaled_mip" not in dataset:
        raise InputError("table: expected a result of match_micrograph, this dataset has no scaled_mip")
    known = dataset.compute()
    table = pick_micrographs([known])
    if table.empty:
        raise InputError("table: no particle is above the threshold; pick with a lower cutoff")
    columns = {"correlation_average_path": "score_mean", "correlation_variance_path": "score_std"}
    for column, variable in columns.items():
        path = folder / f"{name}-{variable}.mrc"
        write_image(path, known[variable].values, pixel_size=float(known.attrs["searched_pixel_size"]))
        table[column] = str(path)
    return table


def _volume_path(folder: Path, volume: Volume) -> str:
    if isinstance(volume, str | Path):
        return str(volume)
    path = folder / "template.mrc"
    write_volume(path, np.asarray(volume, np.float32), voxel_size=None)
    return str(path)


def _local_block(orientations: LocalGrid | Mapping[str, Any] | None) -> dict[str, Any]:
    if isinstance(orientations, LocalGrid):
        return {
            "theta_step_coarse": orientations.theta_range,
            "theta_step_fine": orientations.theta_step,
            "psi_step_coarse": orientations.psi_range,
            "psi_step_fine": orientations.psi_step,
        }
    return dict(orientations or {})


def _range_block(defocus: Any) -> dict[str, Any]:
    if defocus is None:
        return {"enabled": False}
    if isinstance(defocus, Mapping):
        return dict(defocus)
    low, high, step = defocus
    return {"defocus_min": low, "defocus_max": high, "defocus_step": step}
