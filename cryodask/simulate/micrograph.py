"""Micrographs with known truth."""

from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

from cryodask.simulate.placement import Particles, place_particles, rotations_of
from cryodask.simulate.projections import ImageOptics, image_noise, particle_image
from cryodask.simulate.random import Stream, generator, white_noise
from cryodask.simulate.structure import Structure

# Blocks are fixed, so that no value depends on the chunks asked for.
BLOCK = 512


@dataclass(frozen=True)
class SimulatedMicrograph:
    """A lazy micrograph and what is in it.

    Parameters
    ----------
    image : DataArray (y, x) float32, Dask-backed
        Coordinates in angstrom; attrs pixel_size, source.
    truth : DataFrame
        micrograph_name, template, class, x, y (pixels, 0-based), x_a, y_a, defocus (angstrom), phi, theta,
        psi (zxz, degrees), qw, qx, qy, qz.
    optics : ImageOptics
    noise_sigma : float
    """

    image: xr.DataArray
    truth: pd.DataFrame
    optics: ImageOptics
    noise_sigma: float


def simulate_micrograph(
    shape: tuple[int, int],
    pixel_size: float,
    *,
    particles: Particles,
    defocus: float | None = 15_000.0,
    defocus_spread: float = 500.0,
    snr: float = 0.1,
    spacing: float = 1.1,
    chunks: Any = BLOCK,
    seed: int = 0,
    name: str = "simulated",
    **optics: float,
) -> SimulatedMicrograph:
    """Simulate a micrograph of particles at random places, orientations and heights, block by block.

    Parameters
    ----------
    shape : (y, x), pixels
    pixel_size : angstrom
    particles : {name: (structure, count)}
        The first structure is the one that `snr` refers to.
    defocus : angstrom, positive for underfocus, or None for no CTF
    defocus_spread : angstrom
        Particles lie within this range about `defocus`.
    snr : float
        Variance of the imaged first structure, unrotated, within its circle, over that of the noise.
    spacing : float, least distance of two centres in units of their mean diameter
    chunks : as for dask.array; the values do not depend on them
    seed : int >= 0
    name : micrograph_name of the truth
    **optics : float
        voltage (kV), cs (mm), amplitude_contrast of `ImageOptics`.

    Raises
    ------
    InputError
        When they do not fit the shape.
    """
    microscope = ImageOptics(pixel_size, **optics)
    structures = {key: structure for key, (structure, _) in particles.items()}
    truth = _truth(shape, pixel_size, particles, spacing, seed).assign(micrograph_name=name)
    heights = generator(seed, Stream.POSES).uniform(-0.5, 0.5, len(truth)) * defocus_spread
    truth["defocus"] = np.nan if defocus is None else defocus + heights
    sigma = image_noise(next(iter(structures.values())), microscope, defocus, snr)
    image = da.map_blocks(
        _block,
        chunks=tuple(tuple(min(BLOCK, n - s) for s in range(0, n, BLOCK)) for n in shape),
        dtype=np.float32,
        meta=np.empty((0, 0), np.float32),
        structures=structures,
        truth=truth,
        optics=microscope,
        noise_sigma=sigma,
        seed=seed,
    ).rechunk(chunks)
    coords = {axis: np.arange(n) * pixel_size for axis, n in zip("yx", shape, strict=True)}
    labelled = xr.DataArray(image, coords, dims=("y", "x"), name=name)
    labelled.attrs = {"pixel_size": pixel_size, "source": name}
    return SimulatedMicrograph(labelled, truth[_COLUMNS], microscope, sigma)


_COLUMNS = ["micrograph_name", "template", "class", "x", "y", "x_a", "y_a", "defocus"]
_COLUMNS += ["phi", "theta", "psi", "qw", "qx", "qy", "qz"]


def _truth(
    shape: tuple[int, int], pixel_size: float, particles: Particles, spacing: float, seed: int
) -> pd.DataFrame:
    size = (np.array(shape[::-1]) - 1) * pixel_size
    margin = max(structure.diameter for structure, _ in particles.values()) / 2
    truth = place_particles(size, particles, margin=margin, spacing=spacing, seed=seed)
    truth[["x", "y"]] = truth[["x_a", "y_a"]] / pixel_size
    return truth


def _block(
    *,
    structures: dict[str, Structure],
    truth: pd.DataFrame,
    optics: ImageOptics,
    noise_sigma: float,
    seed: int,
    block_info: Any = None,
) -> np.ndarray:
    """Compute one block: every particle whose image reaches into it, then noise."""
    (top, bottom), (left, right) = block_info[None]["array-location"]
    shape = (bottom - top, right - left)
    block = white_noise((top, left), shape, seed) * np.float32(noise_sigma)
    for row, rotation in zip(truth.to_dict("records"), rotations_of(truth), strict=True):
        structure = structures[row["template"]]
        defocus = None if np.isnan(row["defocus"]) else row["defocus"]
        box = optics.box(structure, defocus)
        place = np.array([row["x"] - left, row["y"] - top])
        whole = np.round(place).astype(int)
        low = whole[::-1] - box // 2
        first, last = np.maximum(low, 0), np.minimum(low + box, shape)
        if np.all(first < last):
            image = particle_image(structure, rotation, place - whole, optics, defocus=defocus, box=box)
            into = tuple(map(slice, first.tolist(), last.tolist()))
            block[into] += image[tuple(map(slice, (first - low).tolist(), (last - low).tolist()))]
    return block
