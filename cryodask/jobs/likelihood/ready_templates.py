"""Templates that were made before: a Zarr store of `cryodask make-templates`, or a folder of CryoLike."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from cryodask.errors import InputError
from cryodask.geometry.polar import PolarGrid
from cryodask.geometry.views import Views, ring_views
from cryodask.io.cryolike import (
    TEMPLATE_LIST,
    is_template_folder,
    read_template_list,
    template_parameters,
)
from cryodask.io.torch_files import read_pt

KIND = "cryodask templates"


@dataclass(frozen=True)
class ReadyTemplates:
    """Templates of one structure, in a file.

    Parameters
    ----------
    path, number
        A Zarr store and the structure's place in it, or CryoLike's file and None.
    views, grid, pixel_size
        What they were made for; angstrom.
    axes
        relion or cryolike.
    is_map
        Whether they were made of a map, which decides the angles in CryoLike's axes.
    place
        In the store or list, from 0.
    """

    path: str
    number: int | None
    views: Views
    grid: PolarGrid
    pixel_size: float
    axes: str
    is_map: bool
    place: int

    def read(self, dtype: np.dtype) -> np.ndarray:
        """Return the templates (S, n, W/2), of norm 1 on the whole circle."""
        if self.number is not None:
            store = xr.open_zarr(self.path, consolidated=False)
            return store["templates"][self.number, : len(self.views)].values.astype(dtype)
        found = read_pt(self.path)[..., : self.grid.rotations // 2]
        weights = 2 * self.grid.weights[:, None]
        norm = np.sqrt((np.abs(found.astype(np.complex128)) ** 2 * weights).sum(axis=(1, 2)))
        if not (norm > 0).all():
            raise InputError(f"{Path(self.path).name}: template {int(np.argmin(norm))} is zero")
        return (found / norm[:, None, None]).astype(dtype)

    def check_fits(self, grid: PolarGrid, pixel_size: float, axes: str) -> None:
        """Refuse templates that were made for other images or grids.

        Raises
        ------
        InputError
            "box 128 x 1.06 A, templates 64 x 2.12 A"; another resolution, other rotations or axes.
        """
        own, name = self.grid, Path(self.path).name
        if own.box != grid.box or abs(self.pixel_size / pixel_size - 1) > 0.005:
            raise InputError(
                f"{name}: box {grid.box} x {pixel_size:g} A, templates {own.box} x {self.pixel_size:g} A"
            )
        if abs(own.resolution_factor - grid.resolution_factor) > 1e-9 or own.rotations != grid.rotations:
            raise InputError(
                f"{name}: resolution_factor {grid.resolution_factor:g}, n_inplanes {grid.rotations}, "
                f"templates {own.resolution_factor:g}, {own.rotations}; leave both out of the configuration"
            )
        if self.axes != axes:
            mend = "compat: cryolike" if self.axes == "cryolike" else "likelihood.axes: relion"
            raise InputError(f"{name}: templates in axes {self.axes}, likelihood.axes = {axes}; use {mend}")


def is_ready(path: Path) -> bool:
    """Say whether a path holds ready templates."""
    return is_template_folder(path) or (path.suffix == ".zarr" and _attributes(path).get("kind") == KIND)


def read_ready(
    path: Path, chosen: tuple[int, ...] | None, *, is_map: bool
) -> Iterator[tuple[str, ReadyTemplates]]:
    """Yield name and templates of each structure of a store or folder.

    Parameters
    ----------
    path
        The store, or CryoLike's folder.
    chosen
        Places in it, from 0; None for all.
    is_map
        Of a CryoLike folder, which does not say it.

    Raises
    ------
    InputError
        "i_template = 2: list has 2"; a damaged store or folder.
    """
    if not path.is_dir():
        raise InputError(
            f"{path.name}: no templates, expected a store of make-templates or a folder of CryoLike"
        )
    if path.suffix == ".zarr" and _attributes(path).get("kind") != KIND:
        raise InputError(f"{path.name}: not a store of cryodask make-templates")
    known = list(_of_store(path) if path.suffix == ".zarr" else _of_cryolike(path, is_map))
    for number in chosen if chosen is not None else range(len(known)):
        if not 0 <= number < len(known):
            raise InputError(f"i_template = {number}: list has {len(known)}")
        yield known[number]


def _attributes(path: Path) -> dict[str, Any]:
    import zarr

    try:
        return dict(zarr.open(path, mode="r").attrs)
    except (FileNotFoundError, ValueError, KeyError):
        return {}


def _of_store(path: Path) -> Iterator[tuple[str, ReadyTemplates]]:
    store = xr.open_zarr(path, consolidated=False).drop_vars("templates").load()
    marks = store.attrs
    grid = PolarGrid(int(marks["box"]), float(marks["resolution_factor"]), int(marks["n_inplanes"]))
    for number, name in enumerate(store.structure.values):
        one = store.isel(structure=number)
        kept = np.isfinite(one["weight"].values)
        azimuth, polar, weight = (one[key].values[kept] for key in ("azimuth", "polar", "weight"))
        yield (
            str(name),
            ReadyTemplates(
                str(path.absolute()),
                number,
                Views(azimuth, polar, weight),
                grid,
                float(marks["pixel_size"]),
                str(marks["axes"]),
                bool(one["is_map"].item()),
                number,
            ),
        )


def _of_cryolike(path: Path, is_map: bool) -> Iterator[tuple[str, ReadyTemplates]]:
    files = read_template_list(path)
    made = template_parameters(path)
    if made.viewing_distance is None:
        raise InputError(f"{path.name}: parameters.npz has no viewing_distance, from which the views follow")
    if made.rotations % 2:
        raise InputError(f"{path.name}: n_inplanes = {made.rotations}: expected an even number")
    grid = PolarGrid(made.box, made.resolution_factor, made.rotations)
    views = ring_views(made.viewing_distance)
    for number, file in enumerate(files):
        shape = read_pt(file).shape
        expected = (len(views), *grid.shape)
        if shape != expected:
            raise InputError(
                f"{file.name}: shape {shape}, expected {expected} by parameters.npz beside {TEMPLATE_LIST}"
            )
        name = file.stem.removeprefix("templates_fourier_")
        yield (
            name,
            ReadyTemplates(
                str(file.absolute()), None, views, grid, made.pixel_size, "cryolike", is_map, number
            ),
        )
