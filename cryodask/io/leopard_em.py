"""The particle table of Leopard-EM: CSV of 39 columns, 51 once refined, 54 from a constrained search."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import yaml

from cryodask.errors import InputError
from cryodask.io.files import require_exists, written_whole

PathLike = str | os.PathLike[str]
Meaning = Literal["std", "variance"]

_SCORES = ("particle_index", "mip", "scaled_mip")
_MOMENTS = ("correlation_mean", "correlation_variance", "total_correlations")
POSITIONS = ("pos_x", "pos_y", "pos_x_img", "pos_y_img", "pos_x_img_angstrom", "pos_y_img_angstrom")
POSE = ("phi", "theta", "psi")
OPTICS = (
    *("defocus_u", "defocus_v", "astigmatism_angle", "pixel_size", "refined_pixel_size", "voltage"),
    *("spherical_aberration", "amplitude_contrast_ratio", "phase_shift", "ctf_B_factor"),
    *("even_zernikes", "odd_zernikes", "mag_matrix"),
)
PATHS = (
    *("micrograph_path", "template_path", "mip_path", "scaled_mip_path", "psi_path", "theta_path"),
    *("phi_path", "defocus_path", "correlation_average_path", "correlation_variance_path"),
)
ORIGINAL_OFFSETS = ("original_offset_phi", "original_offset_theta", "original_offset_psi")
OWN_COLUMNS = (
    *("correlation_std", "hypothesis", "score", "score_name", "micrograph_name", "template_name"),
    *("subpixel_x", "subpixel_y"),
)


def _refined(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"refined_{name}" for name in names)


MATCH_COLUMNS = (*_SCORES, *_MOMENTS, *POSITIONS, *POSE, "relative_defocus", *OPTICS, *PATHS)


def _columns_with(offsets: Sequence[str]) -> tuple[str, ...]:
    return (
        *(*_SCORES, *_refined(("mip", "scaled_mip")), *_MOMENTS, *POSITIONS, *_refined(POSITIONS)),
        *(*POSE, *_refined(POSE), *offsets, "relative_defocus", *_refined(("relative_defocus",))),
        *(*OPTICS, *PATHS),
    )


REFINED_COLUMNS = _columns_with(())
CONSTRAINED_COLUMNS = _columns_with(ORIGINAL_OFFSETS)
# What the pose and the microscope of a particle are read from.
REQUIRED = (
    *("pos_x", "pos_y", *POSE, "relative_defocus", "defocus_u", "defocus_v", "astigmatism_angle"),
    *("pixel_size", "voltage", "spherical_aberration", "amplitude_contrast_ratio", "phase_shift"),
    *("micrograph_path", "correlation_average_path", "correlation_variance_path"),
)
_TEXT = ("even_zernikes", "odd_zernikes", "mag_matrix", *PATHS, "micrograph_name", "template_name")
_MOST_LISTED = 5
_SAME = 1e-3


def write_leopard_em(path: PathLike, table: pd.DataFrame, *, overwrite: bool = False) -> None:
    """Write a particle table: Leopard-EM's columns in its order, then cryodask's own.

    Parameters
    ----------
    path
        CSV, with a first column of row numbers as pandas writes it.
    table
        One row a particle. The columns present decide between the table of a match, of a refinement and of a
        constrained search; Leopard-EM's columns that are missing are left empty.
    overwrite
        Replace an existing file.
    """
    with written_whole(path, overwrite=overwrite) as temporary:
        ordered_table(table).to_csv(temporary, float_format="%.9g")


def ordered_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with the columns and their order of Leopard-EM, cryodask's own at the end."""
    names: tuple[str, ...] = MATCH_COLUMNS
    if "refined_scaled_mip" in table:
        names = CONSTRAINED_COLUMNS if ORIGINAL_OFFSETS[0] in table else REFINED_COLUMNS
    own = [name for name in OWN_COLUMNS if name in table]
    foreign = [name for name in table.columns if name not in (*CONSTRAINED_COLUMNS, *OWN_COLUMNS)]
    return table.reindex(columns=[*names, *own, *foreign])


def read_leopard_em(path: PathLike, required: Sequence[str] = REQUIRED) -> pd.DataFrame:
    """Read a particle table of Leopard-EM or of cryodask.

    Parameters
    ----------
    path
        CSV; a first column without a name is dropped.
    required
        Columns that must be there; numbers among them must be finite.

    Returns
    -------
    pandas.DataFrame
        One row a particle; paths and settings as text, empty where there is none.

    Raises
    ------
    InputError
        No such file, no table, missing columns, or rows without a pose (the first five are named).
    """
    path = require_exists(path)
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(_TEXT, "object"))
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path.name}: expected a CSV table of particles, {str(error).splitlines()[0]}"
        ) from None
    table = table.loc[:, [not str(name).startswith("Unnamed") for name in table.columns]]
    missing = [name for name in required if name not in table]
    if missing:
        raise InputError(f"{path.name}: missing columns {', '.join(missing)}")
    for name in _TEXT:
        if name in table:
            table[name] = table[name].where(table[name].notna(), "")
    _check_numbers(path, table, [name for name in required if name not in _TEXT])
    return table


def _check_numbers(path: Path, table: pd.DataFrame, names: Sequence[str]) -> None:
    """Refuse rows whose pose or microscope is no number."""
    for name in names:
        values = pd.to_numeric(table[name], errors="coerce").to_numpy(float)
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            rows = ", ".join(str(row) for row in bad[:_MOST_LISTED])
            more = f" and {len(bad) - _MOST_LISTED} more" if len(bad) > _MOST_LISTED else ""
            raise InputError(f"{path.name} row {rows}{more}: {name}: expected a number in every row")
        table[name] = values


def variance_meaning(table: pd.DataFrame, source: str) -> Meaning:
    """Tell what the column correlation_variance holds: Leopard-EM writes the standard deviation there.

    Parameters
    ----------
    table
        With mip, scaled_mip, correlation_mean and correlation_variance.
    source
        The file, for the message.

    Raises
    ------
    InputError
        Neither meaning gives the z-scores of the table.
    """
    z, mip, mean, spread = (
        pd.to_numeric(table[name], errors="coerce").to_numpy(float)
        for name in ("scaled_mip", "mip", "correlation_mean", "correlation_variance")
    )
    known = np.isfinite(z) & np.isfinite(mip) & np.isfinite(mean) & (spread > 0)
    if not known.any():
        return "std"
    z, centred, spread = z[known], (mip - mean)[known], spread[known]
    as_std = float(np.median(np.abs(z - centred / spread)))
    as_variance = float(np.median(np.abs(z - centred / np.sqrt(spread))))
    if as_std < _SAME:
        return "std"
    if as_variance < _SAME:
        return "variance"
    raise InputError(
        f"{source}: correlation_variance fits neither meaning: (mip - mean)/v misses scaled_mip by "
        f"{as_std:.3g} (median) as a standard deviation, by {as_variance:.3g} as a variance; "
        "say --correlation-variance-is std or variance"
    )


def parse_setting(text: Any) -> Any:
    """Return what a cell such as even_zernikes holds, JSON or Python's writing; None where it is empty."""
    if text is None or (isinstance(text, float) and np.isnan(text)) or text in ("", "None", "null"):
        return None
    return yaml.safe_load(text) if isinstance(text, str) else text
