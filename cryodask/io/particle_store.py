"""Particle stacks written as one Zarr store (images and table) or as CryoLike's folders."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import xarray as xr

from cryodask.errors import InputError
from cryodask.geometry.polar import PolarGrid
from cryodask.io.cryolike import FOURIER, Descriptor, descriptor_arrays, lens_arrays, physical_stack
from cryodask.io.files import require_new, written_whole
from cryodask.io.particle_stack import ParticleStack
from cryodask.io.torch_files import require_torch, write_pt

Batches = Callable[[], Iterator[np.ndarray]]


def write_particle_store(
    path: str | Path,
    stack: ParticleStack,
    batches: Batches,
    box: int,
    pixel_size: float,
    *,
    overwrite: bool = False,
) -> None:
    """Write images and table of a stack as a Zarr group, which `open_particles` reads.

    Parameters
    ----------
    path
        The store, ending in ``.zarr``; it has its name only when it is complete.
    stack
        The particles.
    batches
        Gives the images (m, box, box) in order.
    box, pixel_size
        Of the images that are written, pixels and angstrom.
    overwrite
        Replace an existing store.
    """
    import zarr

    if Path(path).suffix != ".zarr":
        raise InputError(f"{path}: expected a name that ends in .zarr")
    with written_whole(path, overwrite=overwrite) as temporary:
        kept = [column for column in stack.table if column not in ("file", "image_number", "pixel_size")]
        columns = {str(column): ("particle", stack.table[column].to_numpy()) for column in kept}
        xr.Dataset(columns, attrs={"pixel_size": pixel_size}).to_zarr(
            temporary, zarr_format=3, consolidated=False
        )
        group = zarr.open_group(temporary, mode="r+")
        length = max(1, min(len(stack), (4 << 20) // (4 * box * box)))
        images = group.create_array(
            "images",
            shape=(len(stack), box, box),
            chunks=(length, box, box),
            dtype="float32",
            dimension_names=("particle", "y", "x"),
        )
        images.attrs["pixel_size"] = pixel_size
        start = 0
        for batch in batches():
            images[start : start + len(batch)] = batch
            start += len(batch)


def write_cryolike_particles(
    folder: str | Path,
    stack: ParticleStack,
    batches: Batches,
    polar: Callable[[np.ndarray], np.ndarray],
    grid: PolarGrid,
    pixel_size: float,
    *,
    overwrite: bool = False,
) -> list[Path]:
    """Write a stack as CryoLike's convert_particle_stacks does: phys/ and fft/ with their descriptors.

    Parameters
    ----------
    folder
        Where to.
    stack, batches, pixel_size
        As of `write_particle_store`; each batch becomes a stack.
    polar
        Gives the transforms (m, n, W) of images, of norm 1, angles from array axis 0.
    grid
        Of the transforms.

    Raises
    ------
    InputError
        Without torch; existing files.
    """
    require_torch("--files cryolike")
    folder = Path(folder)
    precision = "double" if polar(np.eye(grid.box)[None]).dtype == np.complex128 else "single"
    described = Descriptor(
        grid.box,
        pixel_size,
        grid.radius,
        grid.rotations,
        min(1.0, max(0.02, 1 / (4 * np.pi * grid.resolution_factor))),
        precision,
    )
    fixed = descriptor_arrays(described) | {
        "atom_radii": None,
        "atom_selection": "name CA",
        "use_protein_residue_model": True,
        "atom_shape": "gaussian",
        "files": None,
        "idxs": None,
        "ref_pixel_size": np.full(2, pixel_size),
        "ctfScalefactor": None,
    }
    written: list[Path] = []
    start = 0
    for number, images in enumerate(batches()):
        stop = start + len(images)
        values = fixed | lens_arrays(stack.table.iloc[start:stop])
        values |= {"n_images": len(images), "stack_start": start, "stack_end": stop}
        name = folder / FOURIER.format(number)
        targets = [physical_stack(folder, number), name.with_suffix(".pt"), name.with_suffix(".npz")]
        for target in targets:
            require_new(target, overwrite=overwrite)
        with written_whole(targets[0], overwrite=overwrite) as temporary:
            write_pt(temporary, images.astype(np.float32))
        with written_whole(targets[1], overwrite=overwrite) as temporary:
            write_pt(temporary, polar(images))
        with written_whole(targets[2], overwrite=overwrite) as temporary:
            np.savez(temporary, **values)
        written += targets
        start = stop
    return written
