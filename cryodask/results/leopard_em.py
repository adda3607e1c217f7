"""Results of micrograph matching under the names and in the files of Leopard-EM."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from cryodask.errors import InputError
from cryodask.io.image import write_image
from cryodask.results.orientation_maps import with_best_angles

# Variables of a result by the keys under which Leopard-EM's configuration names their files.
MAP_FILES = {
    "mip_path": "mip",
    "scaled_mip_path": "scaled_mip",
    "correlation_average_path": "score_mean",
    "correlation_variance_path": "score_std",
    "orientation_psi_path": "best_psi",
    "orientation_theta_path": "best_theta",
    "orientation_phi_path": "best_phi",
    "relative_defocus_path": "defocus",
}
LABELS = {
    "mip": "maximum intensity projection",
    "scaled_mip": "z-score",
    "score_mean": "mean of all correlations",
    "score_std": "standard deviation",
    "best_psi": "psi, degrees",
    "best_theta": "theta, degrees",
    "best_phi": "phi, degrees",
    "defocus": "relative defocus, angstrom",
}
# Variables by the keys of the dictionary that Leopard-EM's core function returns.
CORE_KEYS = {
    "mip": "mip",
    "scaled_mip": "scaled_mip",
    "best_phi": "best_phi",
    "best_theta": "best_theta",
    "best_psi": "best_psi",
    "best_defocus": "defocus",
    "best_pixel_size": "pixel_size",
    "best_global_index": "hypothesis",
    "correlation_sum": "correlation_sum",
    "correlation_squared_sum": "correlation_squared_sum",
    "correlation_mean": "score_mean",
    "correlation_variance": "score_std",
}
COUNTS = ("total_projections", "total_orientations", "total_defocus")


def leopard_em_maps(dataset: xr.Dataset) -> dict[str, Any]:
    """Return the maps of a result as Leopard-EM's core function names them, computed in one pass.

    Raises
    ------
    InputError
        Not a result of micrograph matching.
    """
    found = with_best_angles(dataset)
    missing = [name for name in CORE_KEYS.values() if name not in found]
    if missing:
        raise InputError(f"not a result of match-micrograph: no {missing[0]}")
    maps = found[sorted(set(CORE_KEYS.values()))].compute()
    counts = {name: int(dataset.attrs[name]) for name in COUNTS}
    return {key: maps[name].values for key, name in CORE_KEYS.items()} | counts


def write_maps(dataset: xr.Dataset, paths: Mapping[str, str | Path]) -> None:
    """Write maps for other programs, MRC mode 2, with pixel size and origin; existing ones are replaced.

    Parameters
    ----------
    dataset
        A result of micrograph matching.
    paths
        Files by the keys of Leopard-EM's configuration (`mip_path`, ...).

    Raises
    ------
    InputError
        An unknown key.
    """
    unknown = sorted(set(paths) - set(MAP_FILES))
    if unknown:
        raise InputError(f"{unknown[0]}: expected one of {', '.join(MAP_FILES)}")
    names = sorted({MAP_FILES[key] for key in paths})
    maps = with_best_angles(dataset)[names].compute()
    origin = (float(dataset["y"].values[0]), float(dataset["x"].values[0]))
    for key, target in paths.items():
        name = MAP_FILES[key]
        write_image(
            target,
            maps[name].values,
            pixel_size=float(dataset.attrs["searched_pixel_size"]),
            origin=origin,
            label=LABELS[name],
            overwrite=True,
        )
