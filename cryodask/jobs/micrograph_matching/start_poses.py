"""Where refinement begins: the poses, microscopes and maps of a particle table, checked."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from pydantic import ValidationError

from cryodask.arrays.npy import load_npz
from cryodask.errors import InputError
from cryodask.io.leopard_em import (
    POSE,
    Meaning,
    parse_setting,
    read_leopard_em,
    variance_meaning,
)
from cryodask.io.map_files import map_shape
from cryodask.jobs.micrograph_matching.map_statistics import check_map
from cryodask.jobs.micrograph_matching.optics_block import Compat, EvenZernikes, OddZernikes
from cryodask.jobs.micrograph_matching.picks import ImagePickOptions, joined_table, pick_images
from cryodask.optics.ctf_image import EVEN_TERMS, ODD_TERMS, ImageCtf
from cryodask.search.store import replacing

# Numbers of the microscope, in the order they are kept.
MICROSCOPE = (
    *("pixel_size", "defocus_u", "defocus_v", "astigmatism_angle", "voltage", "spherical_aberration"),
    *("amplitude_contrast_ratio", "phase_shift", "ctf_B_factor"),
)
_SETTINGS = ("even_zernikes", "odd_zernikes", "mag_matrix")
_REFINED = (*POSE, "relative_defocus", "pos_x", "pos_y")


@dataclass(frozen=True, eq=False)
class StartPoses:
    """The particles of a table, P rows in its order.

    Parameters
    ----------
    angles
        (P, 3) ZYZ degrees.
    defocus
        (P,) relative to the mean of u and v, angstrom.
    positions
        (P, 2) int, top-left pixel (y, x) of the template.
    pixel_sizes
        (P,) angstrom.
    microscopes
        (P, 9), columns `MICROSCOPE`.
    aberrations
        Aberrations and magnification as JSON: what differs among particles, each once.
    aberration, micrograph, mean_map, std_map
        (P,) numbers into `aberrations` and the lists of files.
    micrographs, mean_maps, std_maps
        Files.
    voxel_sizes
        (P,) of the template, angstrom.
    meaning
        What the spread map holds.
    """

    angles: np.ndarray
    defocus: np.ndarray
    positions: np.ndarray
    pixel_sizes: np.ndarray
    microscopes: np.ndarray
    aberrations: tuple[str, ...]
    aberration: np.ndarray
    micrographs: tuple[str, ...]
    micrograph: np.ndarray
    mean_maps: tuple[str, ...]
    mean_map: np.ndarray
    std_maps: tuple[str, ...]
    std_map: np.ndarray
    voxel_sizes: np.ndarray
    meaning: Meaning = "std"

    def __len__(self) -> int:
        return len(self.angles)

    def optics(self, row: int, *, zernike_radius: Any = "corner", compat: Compat | None = None) -> ImageCtf:
        """Return what decides the CTF of a particle; see `OpticsGroup.ctf`."""
        values = dict(zip(MICROSCOPE, self.microscopes[row].tolist(), strict=True))
        u, v = values["defocus_u"], values["defocus_v"]
        settings = json.loads(self.aberrations[self.aberration[row]])
        return ImageCtf(
            pixel_size=values["pixel_size"],
            defocus_u=max(u, v) if compat else u,
            defocus_v=min(u, v) if compat else v,
            astigmatism_angle=values["astigmatism_angle"],
            voltage=values["voltage"],
            spherical_aberration=values["spherical_aberration"],
            amplitude_contrast=values["amplitude_contrast_ratio"],
            phase_shift=values["phase_shift"],
            b_factor=values["ctf_B_factor"],
            zernikes=tuple((name, settings["zernikes"][name]) for name in settings["zernikes"]),
            zernike_radius=zernike_radius,
            magnification=tuple(settings["magnification"]) if settings["magnification"] else None,
        )

    def taken(self, rows: np.ndarray) -> "StartPoses":
        """Return the poses of some rows."""
        names = ("angles", "defocus", "positions", "pixel_sizes", "microscopes", "aberration", "micrograph")
        picked = {name: getattr(self, name)[rows] for name in (*names, "mean_map", "std_map", "voxel_sizes")}
        return replace(self, **picked)

    def save(self, path: Path) -> None:
        """Write an archive that `load` reads: the constants of a run."""
        with replacing(path) as temporary, temporary.open("wb") as stream:
            arrays: dict[str, Any] = {name: np.asarray(value) for name, value in vars(self).items()}
            np.savez(stream, **arrays)

    @classmethod
    def load(cls, path: Path) -> "StartPoses":
        """Read what `save` wrote."""
        values = load_npz(path)
        for name in ("aberrations", "micrographs", "mean_maps", "std_maps"):
            values[name] = tuple(values[name].tolist())
        values["meaning"] = str(values["meaning"])
        return cls(**values)


def read_start_poses(
    path: str, *, variance_is: Meaning | None = None, tell: Callable[[str], None] = lambda notice: None
) -> tuple[pd.DataFrame, StartPoses]:
    """Read a particle table and where its particles are.

    Refined values are taken where every row has them, else those of the match.

    Parameters
    ----------
    path
        CSV of Leopard-EM or cryodask, or a result of match-micrograph to pick from.
    variance_is
        The meaning of correlation_variance; found from the z-scores by default.
    tell
        Called with what a user should know.

    Raises
    ------
    InputError
        No such file; missing columns or poses; no rows; aberrations that are not understood.
    """
    if not Path(path).exists():
        raise InputError(f"{path}: no such file")
    if Path(path).is_dir():
        table = joined_table(pick_images([path], ImagePickOptions()))
        tell(f"{path}: {len(table)} particles picked with one expected false positive a micrograph")
    else:
        table = read_leopard_em(path)
    if table.empty:
        raise InputError(f"{path}: no particles")
    return table, start_poses(table, source=path, variance_is=variance_is, tell=tell)


def start_poses(
    table: pd.DataFrame,
    *,
    source: str,
    variance_is: Meaning | None = None,
    tell: Callable[[str], None] = lambda notice: None,
) -> StartPoses:
    """Return the start poses of a table that `read_leopard_em` checked; see `read_start_poses`."""
    prefix = _prefix(table, source, tell)
    values = {name: table[f"{prefix}{name}"].to_numpy(float) for name in _REFINED}
    has_z = {"mip", "scaled_mip", "correlation_mean"} <= set(table)
    meaning = variance_is or (variance_meaning(table, source) if has_z else "std")
    settings = [_settings(source, row) for row in _setting_rows(table)]
    aberrations, aberration = np.unique(settings, return_inverse=True)
    files = {name: np.unique(table[name].astype(str), return_inverse=True) for name in _FILES}
    return StartPoses(
        angles=np.stack([values[name] for name in POSE], axis=1),
        defocus=values["relative_defocus"],
        positions=np.stack([values["pos_y"], values["pos_x"]], axis=1).round().astype(np.int64),
        pixel_sizes=_pixel_sizes(table),
        microscopes=np.stack([_number(table, name) for name in MICROSCOPE], axis=1),
        aberrations=tuple(str(item) for item in aberrations),
        aberration=aberration,
        **_file_fields(files),
        voxel_sizes=table["pixel_size"].to_numpy(float),
        meaning=meaning,
    )


_FILES = {
    "micrograph_path": ("micrographs", "micrograph"),
    "correlation_average_path": ("mean_maps", "mean_map"),
    "correlation_variance_path": ("std_maps", "std_map"),
}


def _file_fields(files: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for column, (names, numbers) in _FILES.items():
        found, index = files[column]
        fields |= {names: tuple(str(name) for name in found), numbers: index}
    return fields


def check_files(start: StartPoses, source: str, edge: int) -> None:
    """Refuse micrographs and maps that are absent or of the wrong shape.

    Parameters
    ----------
    start
        The particles.
    source
        The table, for messages.
    edge
        Of the template, pixels.

    Raises
    ------
    InputError
        Naming column and path, and both shapes.
    """
    shapes = [map_shape(path, f"{source}: micrograph_path") for path in start.micrographs]
    for path, (height, width) in zip(start.micrographs, shapes, strict=True):
        if min(height, width) < edge:
            raise InputError(f"{path}: {height} x {width}, smaller than the template of {edge} px")
    for column, (names, numbers) in list(_FILES.items())[1:]:
        found = [map_shape(path, f"{source}: {column}") for path in getattr(start, names)]
        numbered, sizes = getattr(start, numbers), start.microscopes[:, MICROSCOPE.index("pixel_size")]
        for row in np.unique(np.stack([numbered, start.micrograph]), axis=1, return_index=True)[1]:
            at = numbered[row]
            image = shapes[start.micrograph[row]]
            check_map(getattr(start, names)[at], found[at], image, edge, float(sizes[row]))


def _prefix(table: pd.DataFrame, source: str, tell: Callable[[str], None]) -> str:
    """Return `refined_` where every row has a refined pose."""
    present = [f"refined_{name}" for name in _REFINED if f"refined_{name}" in table]
    if not present:
        return ""
    values = table.reindex(columns=[f"refined_{name}" for name in _REFINED])
    numbers = values.apply(pd.to_numeric, errors="coerce").to_numpy(float)
    if np.isfinite(numbers).all():
        return "refined_"
    rows = int((~np.isfinite(numbers)).any(axis=1).sum())
    tell(f"{source}: {rows} of {len(table)} rows have no refined pose, starting from the match's for all")
    return ""


def _pixel_sizes(table: pd.DataFrame) -> np.ndarray:
    """Return the refined pixel sizes where every row has one, else the plain ones."""
    if "refined_pixel_size" in table:
        refined = pd.to_numeric(table["refined_pixel_size"], errors="coerce").to_numpy(float)
        if np.isfinite(refined).all() and (refined > 0).all():
            return refined
    return table["pixel_size"].to_numpy(float)


def _number(table: pd.DataFrame, name: str) -> np.ndarray:
    """Return a column of the microscope; one that is absent is 0 everywhere."""
    if name not in table:
        return np.zeros(len(table))
    return pd.to_numeric(table[name], errors="coerce").fillna(0.0).to_numpy(float)


def _setting_rows(table: pd.DataFrame) -> list[tuple[Any, ...]]:
    columns = [table[name] if name in table else pd.Series([""] * len(table)) for name in _SETTINGS]
    return list(zip(*columns, strict=True))


def _settings(source: str, row: tuple[Any, ...]) -> str:
    """Return aberrations and magnification of one row as JSON."""
    zernikes: dict[str, float] = {}
    try:
        even, odd, matrix = (parse_setting(cell) for cell in row)
        for model, found in ((EvenZernikes, even), (OddZernikes, odd)):
            zernikes |= model.model_validate(found or {}).model_dump()
        magnification = None if matrix is None else [float(v) for v in np.ravel(matrix)]
    except (ValidationError, yaml.YAMLError, TypeError, ValueError):
        names = ", ".join(_SETTINGS)
        raise InputError(f"{source}: {names} = {row}: expected JSON, as Leopard-EM writes it") from None
    if magnification is not None and len(magnification) != 4:
        raise InputError(f"{source}: mag_matrix = {row[2]}: expected 4 numbers")
    kept = {name: zernikes[name] for name in (*EVEN_TERMS, *ODD_TERMS) if zernikes.get(name)}
    return json.dumps({"zernikes": kept, "magnification": magnification})
