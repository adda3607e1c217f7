"""Particle stacks made ready once: downsampled, with their optics, in one store."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from cryodask.errors import InputError
from cryodask.geometry.polar import PolarGrid
from cryodask.io.particle_lists import open_particle_list, select_rows
from cryodask.io.particle_stack import ParticleStack
from cryodask.io.particle_store import write_cryolike_particles, write_particle_store
from cryodask.jobs.disk import check_disk, nearest_folder
from cryodask.jobs.likelihood.images import downsampled
from cryodask.kernels.polar_transform import polar_from_images


def open_sources(
    sources: Sequence[str | Path],
    *,
    root: str | Path | None = None,
    pixel_size: float | None = None,
    select: str = "all",
    n_stacks: int | None = None,
) -> ParticleStack:
    """Open particle stacks as one.

    A STAR file followed by an MRC stack is one source, the stack's images in the order of the rows.

    Raises
    ------
    InputError
        A wrong file; no pixel size.
    """
    stack = open_particle_list(
        [_of_job(Path(s)) for s in sources], root=root, pixel_size=pixel_size, n_stacks=n_stacks
    )
    stack = stack.take(select_rows(stack, select)) if select != "all" else stack
    if stack.pixel_size is None:
        raise InputError(f"{Path(stack.source).name}: no pixel size, give --pixel-size")
    return stack


def _of_job(path: Path) -> Path:
    """Return the particles of a cryoSPARC job's folder, else the path."""
    if not path.is_dir() or path.suffix == ".zarr":
        return path
    found = sorted(path.glob("*particles*.cs"), key=lambda each: ("passthrough" in each.name, each.name))
    return found[0] if found else path


def image_batches(stack: ParticleStack, size: int, factor: int, method: str) -> Iterator[np.ndarray]:
    """Yield the images (m, n, n) of a stack in order, downsampled.

    Raises
    ------
    InputError
        "000017@a.mrcs: 4 non-finite pixels, first at (y,x) = (3,9)".
    """
    for start in range(0, len(stack), size):
        images = stack.images[start : start + size].values
        bad = np.argwhere(~np.isfinite(images))
        if len(bad):
            i, y, x = bad[0]
            count = int((bad[:, 0] == i).sum())
            name = stack.table["name"].iloc[start + i]
            raise InputError(f"{name}: {count} non-finite pixels, first at (y,x) = ({y},{x})")
        yield downsampled(images.astype(np.float64), factor, method).astype(np.float32)


def convert_particles(
    stack: ParticleStack,
    output: str | Path,
    *,
    downsample: int = 1,
    method: str = "crop",
    batch_size: int = 1024,
    overwrite: bool = False,
) -> None:
    """Write a stack as one Zarr store that `cryodask likelihood` reads.

    Raises
    ------
    InputError
        A factor that does not divide half of the box; non-finite pixels.
    ResourceError
        No room on the disk.
    """
    box, pixel_size = smaller_box(stack, downsample)
    check_disk(nearest_folder(Path(output).absolute().parent), 4.0 * len(stack) * box * box)
    write_particle_store(
        output,
        stack,
        lambda: image_batches(stack, batch_size, downsample, method),
        box,
        pixel_size,
        overwrite=overwrite,
    )


def convert_to_cryolike(
    stack: ParticleStack,
    folder: str | Path,
    *,
    downsample: int = 1,
    method: str = "mean",
    batch_size: int = 1024,
    resolution_factor: float = 1.0,
    precision: str = "single",
    overwrite: bool = False,
) -> list[Path]:
    """Write a stack as CryoLike's folders; angles of its transforms run from array axis 0."""
    box, pixel_size = smaller_box(stack, downsample)
    grid = PolarGrid(box, resolution_factor, 2 * box)
    dtype = np.dtype("complex64" if precision == "single" else "complex128")

    def polar(images: np.ndarray) -> np.ndarray:
        # CryoLike's x runs along array axis 0
        values = images.astype(np.float64).transpose(0, 2, 1)
        values = values - values.mean(axis=(1, 2), keepdims=True)
        values /= np.maximum(np.abs(values).max(axis=(1, 2), keepdims=True), 1e-30)
        result = polar_from_images(values, grid.kx, grid.ky, dtype)
        power = (np.abs(result).astype(float) ** 2 * grid.weights[:, None]).sum(axis=(1, 2))
        return (result / np.sqrt(power)[:, None, None]).astype(dtype)

    return write_cryolike_particles(
        folder,
        stack,
        lambda: image_batches(stack, batch_size, downsample, method),
        polar,
        grid,
        pixel_size,
        overwrite=overwrite,
    )


def smaller_box(stack: ParticleStack, factor: int) -> tuple[int, float]:
    """Return box and pixel size (angstrom) after downsampling."""
    assert stack.pixel_size is not None
    if factor > 1 and (factor % 2 or stack.box % (2 * factor)):
        raise InputError(f"downsample = {factor}: expected an even divisor of half of {stack.box}")
    return stack.box // factor, stack.pixel_size * factor
