"""Stacks of particle images with known truth."""

from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

from cryodask.simulate.placement import Particles, pose_columns, rotations_of
from cryodask.simulate.projections import ImageOptics, image_noise, particle_image
from cryodask.simulate.random import Stream, generator, random_rotations
from cryodask.simulate.structure import Structure


@dataclass(frozen=True)
class SimulatedStack:
    """A lazy stack and what each image shows.

    Parameters
    ----------
    images : DataArray (particle, y, x) float32, Dask-backed
        attrs pixel_size, source.
    truth : DataFrame
        One row an image: template, class, shift_x, shift_y (angstrom, the particle's centre relative to pixel
        box//2), defocus (angstrom), phi, theta, psi (zxz, degrees), qw, qx, qy, qz.
    optics : ImageOptics
    noise_sigma : float
    """

    images: xr.DataArray
    truth: pd.DataFrame
    optics: ImageOptics
    noise_sigma: float


def simulate_stack(
    box: int,
    pixel_size: float,
    *,
    particles: Particles,
    max_shift: float = 0.0,
    defocus: tuple[float, float] | None = (10_000.0, 25_000.0),
    snr: float = 0.1,
    chunk: int = 256,
    seed: int = 0,
    name: str = "simulated",
    **optics: float,
) -> SimulatedStack:
    """Simulate images of particles in random orientations, in random order, each from its own random stream.

    Parameters
    ----------
    box : int, pixels
    pixel_size : angstrom
    particles : {name: (structure, count)}
        The first structure is the one that `snr` refers to.
    max_shift : angstrom
        Centres lie within this distance of the middle along each axis.
    defocus : (least, greatest) angstrom, positive for underfocus, or None for no CTF
    snr : float
        Variance of the imaged first structure, unrotated, at the middle defocus, within its circle, over the
        variance of the noise; infinite for no noise.
    chunk : int
        Images in a Dask chunk; the values do not depend on it.
    seed : int >= 0
    name : source of the images
    **optics : float
        voltage (kV), cs (mm), amplitude_contrast of `ImageOptics`.
    """
    microscope = ImageOptics(pixel_size, **optics)
    structures = {key: structure for key, (structure, _) in particles.items()}
    truth = _truth(particles, max_shift, defocus, seed)
    middle = None if defocus is None else sum(defocus) / 2
    sigma = image_noise(next(iter(structures.values())), microscope, middle, snr)
    counts = tuple(min(chunk, len(truth) - s) for s in range(0, len(truth), chunk))
    images = da.map_blocks(
        _images,
        chunks=(counts, (box,), (box,)),
        dtype=np.float32,
        meta=np.empty((0, 0, 0), np.float32),
        structures=structures,
        truth=truth,
        optics=microscope,
        noise_sigma=sigma,
        seed=seed,
    )
    attrs = {"pixel_size": pixel_size, "source": name}
    labelled = xr.DataArray(images, dims=("particle", "y", "x"), name=name, attrs=attrs)
    return SimulatedStack(labelled, truth, microscope, sigma)


def _truth(
    particles: Particles, max_shift: float, defocus: tuple[float, float] | None, seed: int
) -> pd.DataFrame:
    rng = generator(seed, Stream.POSES)
    classes = rng.permutation([i for i, (_, count) in enumerate(particles.values()) for _ in range(count)])
    n = len(classes)
    shifts = rng.uniform(-max_shift, max_shift, (2, n))
    low, high = (np.nan, np.nan) if defocus is None else defocus
    table = pd.DataFrame(
        {
            "template": [list(particles)[i] for i in classes],
            "class": classes + 1,
            "shift_x": shifts[0],
            "shift_y": shifts[1],
            "defocus": low + (high - low) * rng.random(n),
        }
    )
    return pd.concat([table, pose_columns(random_rotations(n, rng))], axis=1)


def _images(
    *,
    structures: dict[str, Structure],
    truth: pd.DataFrame,
    optics: ImageOptics,
    noise_sigma: float,
    seed: int,
    block_info: Any = None,
) -> np.ndarray:
    """Compute the images of one chunk."""
    (first, last), (_, box), _ = block_info[None]["array-location"]
    rows = truth.iloc[first:last]
    images = np.empty((last - first, box, box), np.float32)
    for i, (row, rotation) in enumerate(zip(rows.to_dict("records"), rotations_of(rows), strict=True)):
        defocus = None if np.isnan(row["defocus"]) else row["defocus"]
        shift = np.array([row["shift_x"], row["shift_y"]]) / optics.pixel_size
        structure = structures[row["template"]]
        images[i] = particle_image(structure, rotation, shift, optics, defocus=defocus, box=box)
        noise = generator(seed, Stream.NOISE, first + i).standard_normal((box, box), dtype=np.float32)
        images[i] += noise * np.float32(noise_sigma)
    return images
