"""Tomograms with known truth."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from scipy.spatial.transform import Rotation

from cryodask.simulate.imaging import Imaging, image_region
from cryodask.simulate.placement import Particles, place_particles, pose_columns
from cryodask.simulate.scene import Scene, Vesicle

# Blocks are fixed, so that no value depends on the chunks asked for.
BLOCK = 64


@dataclass(frozen=True)
class SimulatedTomogram:
    """A lazy tomogram and what is in it.

    Parameters
    ----------
    volume : DataArray (z, y, x) float32, Dask-backed
        Coordinates in angstrom; attrs voxel_size, origin, source.
    truth : DataFrame
        One row a particle, the columns of the csv particle table that apply: tomo_name, tomo_num, template,
        class, x, y, z (voxels, 0-based), x_a, y_a, z_a (angstrom), phi, theta, psi (zxz, degrees), qw .. qz.
    imaging : Imaging
    noise_sigma : float
        Standard deviation of the noise.
    """

    volume: xr.DataArray
    truth: pd.DataFrame
    imaging: Imaging
    noise_sigma: float


def simulate_tomogram(
    shape: tuple[int, int, int],
    voxel_size: float,
    *,
    particles: Particles,
    tilt_range: tuple[float, float] | None = (-60.0, 60.0),
    defocus: float | None = 30_000.0,
    snr: float = 0.1,
    vesicles: Sequence[Vesicle] = (),
    margin: float | None = None,
    spacing: float = 1.1,
    whole_voxels: bool = False,
    chunks: Any = BLOCK,
    seed: int = 0,
    tomo_name: str = "simulated",
    tomo_num: int = 1,
    **optics: float,
) -> SimulatedTomogram:
    """Simulate a tomogram of particles at random places and orientations, lazily and block by block.

    Density is bright. The tilt axis is y; specimen and noise are empty in the missing wedge; the specimen is
    multiplied by the amplitude of the CTF (a phase-flipped tomogram). The values do not depend on the chunks.

    Parameters
    ----------
    shape : (z, y, x), voxels
    voxel_size : angstrom
    particles : {name: (structure, count)}
        The first structure is the one that `snr` refers to.
    tilt_range : (min, max) degrees, or None for no missing wedge
    defocus : angstrom, or None for no CTF
    snr : float
        Variance of the imaged first structure, unrotated, within its sphere, over the variance of the noise;
        infinite for no noise.
    vesicles : sequence of Vesicle
    margin : angstrom, least distance of a centre from the faces (default: half the largest diameter)
    spacing : float
        Least distance of two centres in units of their mean diameter.
    whole_voxels : bool
        Put centres on whole voxels.
    chunks : as for dask.array
    seed : int >= 0
        Of places, orientations and noise.
    tomo_name, tomo_num : what the truth calls the tomogram
    **optics : float
        voltage (kV), cs (mm), amplitude_contrast of `Imaging`.

    Raises
    ------
    InputError
        When the particles do not fit the shape.
    """
    imaging = Imaging(voxel_size, tilt_range, defocus, **optics)
    structures = {name: structure for name, (structure, _) in particles.items()}
    truth = _truth(shape, voxel_size, particles, vesicles, margin, spacing, seed, whole_voxels)
    truth = truth.assign(tomo_name=tomo_name, tomo_num=tomo_num)[_COLUMNS]
    scene = Scene(structures, truth, tuple(vesicles))
    sigma = noise_sigma(next(iter(structures)), structures, imaging, snr) if structures else 1.0
    volume = _lazy_volume(shape, scene, imaging, sigma, seed).rechunk(chunks)
    return SimulatedTomogram(_labelled(volume, voxel_size, tomo_name), truth, imaging, sigma)


_COLUMNS = ["tomo_name", "tomo_num", "template", "class", "x", "y", "z", "x_a", "y_a", "z_a"]
_COLUMNS += ["phi", "theta", "psi", "qw", "qx", "qy", "qz"]


def _truth(
    shape: tuple[int, int, int],
    voxel_size: float,
    particles: Particles,
    vesicles: Sequence[Vesicle],
    margin: float | None,
    spacing: float,
    seed: int,
    whole_voxels: bool,
) -> pd.DataFrame:
    """Place the particles; return them with positions in voxels and in angstrom."""
    half_largest = max((structure.diameter for structure, _ in particles.values()), default=0) / 2
    truth = place_particles(
        (np.array(shape[::-1]) - 1) * voxel_size,
        particles,
        margin=half_largest if margin is None else margin,
        spacing=spacing,
        seed=seed,
        clearance=lambda place: min((v.distance(place) for v in vesicles), default=np.inf),
    )
    places = truth[["x_a", "y_a", "z_a"]] / voxel_size
    truth[["x", "y", "z"]] = places.round() if whole_voxels else places
    truth[["x_a", "y_a", "z_a"]] = truth[["x", "y", "z"]] * voxel_size
    return truth


def _lazy_volume(shape: tuple[int, ...], scene: Scene, imaging: Imaging, sigma: float, seed: int) -> da.Array:
    """Return the tomogram in its fixed blocks, nothing computed yet."""
    chunks = tuple(tuple(min(BLOCK, n - s) for s in range(0, n, BLOCK)) for n in shape)
    return da.map_blocks(
        _block,
        chunks=chunks,
        dtype=np.float32,
        meta=np.empty((0, 0, 0), np.float32),
        scene=scene,
        imaging=imaging,
        noise_sigma=sigma,
        seed=seed,
    )


def _block(block_info: Any = None, **settings: Any) -> np.ndarray:
    """Compute one block, from its place in the array."""
    place = block_info[None]["array-location"]
    start, shape = tuple(lo for lo, _ in place), tuple(hi - lo for lo, hi in place)
    return image_region(start, shape, **settings)


def _labelled(volume: da.Array, voxel_size: float, name: str) -> xr.DataArray:
    coords = {axis: np.arange(n) * voxel_size for axis, n in zip("zyx", volume.shape, strict=True)}
    attrs = {"voxel_size": voxel_size, "origin": (0.0, 0.0, 0.0), "source": name}
    return xr.DataArray(volume, coords, dims=("z", "y", "x"), name=name, attrs=attrs)


def noise_sigma(name: str, structures: dict[str, Any], imaging: Imaging, snr: float) -> float:
    """Return the noise that stands in the given ratio to one imaged, unrotated particle within its sphere."""
    if np.isinf(snr):
        return 0.0
    radius = structures[name].diameter / imaging.voxel_size / 2
    half = int(np.ceil(radius))
    pose = pd.DataFrame([{"template": name, "x_a": 0.0, "y_a": 0.0, "z_a": 0.0}])
    scene = Scene(structures, pd.concat([pose, pose_columns(Rotation.identity(1))], axis=1))
    particle = image_region((-half,) * 3, (2 * half + 1,) * 3, scene, imaging, noise_sigma=0, seed=0)
    z, y, x = np.ogrid[-half : half + 1, -half : half + 1, -half : half + 1]
    inside = z**2 + y**2 + x**2 <= radius**2
    return float(np.sqrt(particle[inside].var(dtype=np.float64) / snr))
