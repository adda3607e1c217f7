"""Templates made once for reuse: a Zarr store that `cryodask likelihood` reads, and CryoLike's files."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import cryodask
from cryodask.errors import InputError
from cryodask.geometry.polar import PolarGrid
from cryodask.geometry.views import Views
from cryodask.io.cryolike import TEMPLATE_LIST, Descriptor, descriptor_arrays
from cryodask.io.files import require_new, written_whole
from cryodask.io.torch_files import require_torch, write_pt
from cryodask.jobs.likelihood.images import load_images
from cryodask.jobs.likelihood.inputs import nested_settings
from cryodask.jobs.likelihood.parameters import BioemEuler, Healpix, LikelihoodParameters, Listed, Step
from cryodask.jobs.likelihood.planning import grid_of, padded
from cryodask.jobs.likelihood.ready_templates import KIND, ReadyTemplates
from cryodask.jobs.likelihood.structures import FunctionModel, MapModel, Structure, load_structures
from cryodask.jobs.likelihood.templates import TemplateMaker, structure_views
from cryodask.kernels.polar_transform import whole_circle

CHUNK = 64  # templates of a chunk


@dataclass(frozen=True)
class TemplateWork:
    """Structures with their views on one grid, checked; nothing is computed."""

    parameters: LikelihoodParameters
    structures: tuple[Structure, ...]
    views: tuple[Views, ...]
    maker: TemplateMaker
    pixel_size: float
    notices: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """Bytes of the templates of all structures."""
        shells, rotations = self.maker.grid.shape
        return sum(map(len, self.views)) * shells * rotations // 2 * np.dtype(self.maker.dtype).itemsize


def make_templates(
    structures: Any,
    *,
    box: int,
    pixel_size: float,
    voxel_size: float | None = None,
    symmetry: str = "C1",
    output: str | Path | None = None,
    overwrite: bool = False,
    compat: str | None = None,
    **settings: Any,
) -> xr.Dataset:
    """Make the templates of structures: their central slices at views over the sphere, of norm 1.

    Parameters
    ----------
    structures
        A path (map, PDB, mmCIF, text model), an array (z, y, x) with `voxel_size`, a callable that returns
        the structure's transform at frequencies (..., 3) x y z in 1/angstrom, a mapping of name to any of
        these, or a list as in the configuration.
    box, pixel_size
        Of the images, pixels and angstrom.
    voxel_size
        Angstrom, of arrays and of maps whose header lacks it.
    symmetry
        Cn, Dn, T, O or I; only with one structure or the same of all.
    output
        A store ending in ``.zarr`` to write.
    overwrite
        Replace it.
    compat
        "cryolike".
    **settings
        Keys of `grid`, `atoms` and `likelihood` of the configuration, e.g. ``resolution_factor=0.5``.

    Returns
    -------
    xarray.Dataset
        `templates` (structure, template, shell, angle) complex on the first half of the angles, `azimuth`,
        `polar`, `weight` (structure, template); padded with 0 and NaN to the largest structure.

    Raises
    ------
    InputError
        A wrong value or file.
    """
    work = work_of_python(
        structures,
        box=box,
        pixel_size=pixel_size,
        voxel_size=voxel_size,
        symmetry=symmetry,
        compat=compat,
        settings=settings,
    )
    if output is None:
        return template_dataset(work)
    write_templates(work, output, overwrite=overwrite)
    return xr.open_zarr(output, consolidated=False)


def work_of_python(
    structures: Any,
    *,
    box: int,
    pixel_size: float,
    voxel_size: float | None,
    symmetry: str,
    compat: str | None,
    settings: Mapping[str, Any],
) -> TemplateWork:
    """Return the work of `make_templates`."""
    if not isinstance(structures, Mapping | list | tuple):
        name = Path(structures).name.split(".")[0] if isinstance(structures, str | Path) else "structure"
        structures = {name: structures}
    entries = structures
    if isinstance(structures, Mapping):
        entries = [{"name": str(name), "path": value} for name, value in structures.items()]
    listed: list[dict[str, Any]] = []
    made: list[Structure] = []
    for entry in entries:
        each = {"symmetry": symmetry} | dict(entry)
        value = each["path"]
        if isinstance(value, str | Path):
            extra = {} if voxel_size is None else {"voxel_size": voxel_size}
            listed.append(extra | each | {"path": str(value)})
        else:
            made.append(
                Structure(
                    each.get("name", "structure"), _model(value, voxel_size), each["symmetry"], 1.0, "array"
                )
            )
    content: dict[str, Any] = nested_settings(settings) | {"images": "none"}
    content["structures"] = listed or [{"path": "none"}]
    parameters = LikelihoodParameters.from_mapping(content, compat=compat)
    found, notices = load_structures(parameters) if listed else ([], [])
    return make_work(parameters, [*found, *made], box, pixel_size, notices)


def _model(value: Any, voxel_size: float | None) -> MapModel | FunctionModel:
    if callable(value):
        return FunctionModel(value)
    volume = np.asarray(value, np.float64)
    if volume.ndim != 3 or len(set(volume.shape)) != 1:
        raise InputError(f"structure of shape {volume.shape}: expected a cube (z, y, x)")
    if voxel_size is None:
        raise InputError("voxel_size is required with an array")
    if not np.isfinite(volume).all():
        raise InputError(f"structure: {np.sum(~np.isfinite(volume))} non-finite voxels")
    return MapModel(volume, float(voxel_size))


def work_of_configuration(
    parameters: LikelihoodParameters, box: int | None, pixel_size: float | None
) -> TemplateWork:
    """Return the work of a configuration, whose images give box and pixel size where these are None."""
    if box is None or pixel_size is None:
        stack, _ = load_images(parameters)
        smaller = parameters.image_options.downsample
        assert stack.pixel_size is not None
        box = box or stack.box // smaller
        pixel_size = pixel_size or stack.pixel_size * smaller
    structures, notices = load_structures(parameters)
    return make_work(parameters, structures, box, pixel_size, notices)


def make_work(
    parameters: LikelihoodParameters,
    structures: list[Structure],
    box: int,
    pixel_size: float,
    notices: list[str],
) -> TemplateWork:
    """Check structures against the grid of images of a box and pixel size.

    Raises
    ------
    InputError
        What does not fit; ready templates.
    """
    for each in structures:
        if isinstance(each.model, ReadyTemplates):
            raise InputError(f"{each.name}: ready templates already; give the structure they were made of")
    grid = grid_of(parameters, box, pixel_size, structures)
    dtype = "complex64" if parameters.grid.precision == "single" else "complex128"
    maker = TemplateMaker(grid, box * pixel_size, parameters.atoms, parameters.likelihood.axes, dtype)
    if isinstance(parameters.grid.viewing_distance, Listed | BioemEuler):
        raise InputError(
            "make-templates: expected views by distance, step or healpix, not listed orientations"
        )
    views = tuple(structure_views(maker, each, parameters.grid, pixel_size) for each in structures)
    return TemplateWork(parameters, tuple(structures), views, maker, pixel_size, tuple(notices))


def template_dataset(work: TemplateWork) -> xr.Dataset:
    """Compute the templates of a work."""
    dataset = _frame(work)
    dims = ("structure", "template", "shell", "angle")
    values = np.zeros([dataset.sizes[name] for name in dims], work.maker.dtype)
    for i, (structure, views) in enumerate(zip(work.structures, work.views, strict=True)):
        values[i, : len(views)] = work.maker.templates(structure, views)
    return dataset.assign(templates=(dims, values))


def write_templates(
    work: TemplateWork,
    path: str | Path,
    *,
    overwrite: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> None:
    """Compute templates and write them, one structure in memory at a time.

    Parameters
    ----------
    work
        From `make_work`.
    path
        The store, ending in ``.zarr``; it has its name only when it is complete.
    overwrite
        Replace an existing store.
    tell
        Called with a line after each structure.
    """
    import zarr

    if Path(path).suffix != ".zarr":
        raise InputError(f"{path}: expected a name that ends in .zarr")
    frame = _frame(work)
    shells, rotations = work.maker.grid.shape
    most = max(map(len, work.views))
    with written_whole(path, overwrite=overwrite) as temporary:
        frame.to_zarr(temporary, zarr_format=3, consolidated=False)
        array = zarr.open_group(temporary, mode="r+").create_array(
            "templates",
            shape=(len(work.structures), most, shells, rotations // 2),
            chunks=(1, min(CHUNK, most), shells, rotations // 2),
            dtype=work.maker.dtype,
            dimension_names=("structure", "template", "shell", "angle"),
            fill_value=0,
        )
        for i, (structure, views) in enumerate(zip(work.structures, work.views, strict=True)):
            array[i, : len(views)] = work.maker.templates(structure, views)
            tell(f"{structure.name}: {len(views)} templates")


def write_cryolike_templates(
    work: TemplateWork, folder: str | Path, *, overwrite: bool = False
) -> list[Path]:
    """Write the files of CryoLike's make_templates: parameters.npz, the templates and their list.

    Raises
    ------
    InputError
        Without torch; views that are not given by a distance, or of a symmetry, which CryoLike cannot
        express; templates in other axes than CryoLike's.
    """
    require_torch("--files cryolike")
    grid, chosen = work.maker.grid, work.parameters.grid.viewing_distance
    if isinstance(chosen, Healpix) or any(each.symmetry.upper() != "C1" for each in work.structures):
        raise InputError("--files cryolike: expected views by distance and symmetry C1, as CryoLike has them")
    if work.maker.axes != "cryolike":
        raise InputError("--files cryolike: expected axes of CryoLike; add --compat cryolike")
    distance = np.radians(chosen.step) if isinstance(chosen, Step) else chosen
    if not isinstance(distance, float):
        distance = min(1.0, max(0.02, 1 / (4 * np.pi * grid.resolution_factor)))
    atoms = work.parameters.atoms
    described = Descriptor(
        grid.box,
        work.pixel_size,
        grid.radius,
        grid.rotations,
        float(distance),
        work.parameters.grid.precision,
    )
    parameters = descriptor_arrays(described) | {
        "atom_radii": None if isinstance(atoms.radius, str | dict) else float(atoms.radius),
        "atom_selection": atoms.selection,
        "use_protein_residue_model": atoms.model.startswith("residue"),
        "atom_shape": "hard-sphere" if atoms.model.endswith("sphere") else "gaussian",
    }
    folder = Path(folder)
    names = [f"templates_fourier_{each.name}.pt" for each in work.structures]
    targets = [folder / name for name in ("parameters.npz", TEMPLATE_LIST, *names)]
    for target in targets:
        require_new(target, overwrite=overwrite)
    for target, structure, views in zip(targets[2:], work.structures, work.views, strict=True):
        with written_whole(target, overwrite=overwrite) as temporary:
            write_pt(temporary, whole_circle(work.maker.templates(structure, views)))
    with written_whole(targets[0], overwrite=overwrite) as temporary:
        np.savez(temporary, **parameters)
    with written_whole(targets[1], overwrite=overwrite) as temporary:
        np.save(temporary, np.array(names))
    return targets


def _frame(work: TemplateWork) -> xr.Dataset:
    """Return all of a template dataset but the templates."""
    grid: PolarGrid = work.maker.grid
    found = {
        name: (("structure", "template"), padded([getattr(v, name) for v in work.views], np.nan))
        for name in ("azimuth", "polar", "weight")
    }
    return xr.Dataset(
        found,
        coords={
            "structure": np.array([each.name for each in work.structures], dtype=object),
            "radius": ("shell", grid.radii, {"units": "cycles per half box"}),
            "theta": ("angle", np.degrees(grid.angles[: grid.rotations // 2]), {"units": "degrees"}),
            "is_map": ("structure", np.array([each.model.is_map for each in work.structures])),
            "symmetry": ("structure", np.array([each.symmetry for each in work.structures], dtype=object)),
        },
        attrs={
            "kind": KIND,
            "cryodask_version": cryodask.__version__,
            "box": grid.box,
            "pixel_size": work.pixel_size,
            "resolution_factor": grid.resolution_factor,
            "n_inplanes": grid.rotations,
            "precision": work.parameters.grid.precision,
            "axes": work.maker.axes,
            "atoms": json.dumps(work.parameters.atoms.model_dump(mode="json")),
            "paths": [each.path for each in work.structures],
        },
    )
