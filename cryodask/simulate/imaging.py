"""What a tilt series and its reconstruction do to a specimen, as filters of finite reach.

A filter of finite reach lets a tomogram be made block by block: a block depends on its surroundings out to
the reach and on nothing else.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.fft

from cryodask.optics.ctf import ctf_curve, electron_wavelength
from cryodask.optics.frequency import half_frequencies
from cryodask.optics.wedge import filled_wedge
from cryodask.simulate.random import white_noise
from cryodask.simulate.scene import Scene

_LEAST_REACH = 32


@dataclass(frozen=True)
class Imaging:
    """Optics and geometry of a simulated tomogram.

    Parameters
    ----------
    voxel_size : angstrom
    tilt_range : (min, max) degrees about y, or None for no missing wedge
    defocus : angstrom, positive for underfocus, or None for no CTF
    voltage : kV
    cs : mm
    amplitude_contrast : 0..1
    """

    voxel_size: float
    tilt_range: tuple[float, float] | None = (-60.0, 60.0)
    defocus: float | None = 30_000.0
    voltage: float = 300.0
    cs: float = 2.7
    amplitude_contrast: float = 0.07

    @property
    def reach(self) -> int:
        """Voxels beyond which a point of the specimen has no effect."""
        if self.defocus is None:
            return _LEAST_REACH
        spread = electron_wavelength(self.voltage) * abs(self.defocus) / (2 * self.voxel_size**2)
        return max(_LEAST_REACH, 2 * int(np.ceil(spread)))

    def transfer(self, frequency: np.ndarray) -> np.ndarray:
        """Return the amplitude of the CTF, phases flipped, at frequencies in 1/angstrom."""
        if self.defocus is None:
            return np.ones_like(frequency)
        contrast = ctf_curve(
            frequency,
            self.defocus,
            voltage=self.voltage,
            cs=self.cs,
            amplitude_contrast=self.amplitude_contrast,
        )
        return np.abs(contrast)


@lru_cache(maxsize=4)
def kernels(imaging: Imaging) -> tuple[np.ndarray, np.ndarray]:
    """Return the point spread functions of specimen (wedge, CTF) and noise (wedge alone).

    Returns
    -------
    two (n, n, n) float32, z y x, n = 2 reach, centred on voxel 0 (FFT order)
    """
    n = 2 * imaging.reach
    kz, ky, kx = half_frequencies((n, n, n), imaging.voxel_size)
    wedge = np.ones((n, n, n // 2 + 1))
    if imaging.tilt_range is not None:
        wedge *= filled_wedge(kz, ky, kx, imaging.tilt_range, n, imaging.voxel_size)
    axis = np.cos(np.pi * np.fft.fftfreq(n)) ** 2
    taper = axis[:, None, None] * axis[:, None] * axis
    transfer = imaging.transfer(np.sqrt(kz**2 + ky**2 + kx**2))
    specimen, noise = (scipy.fft.irfftn(w, s=(n, n, n)) * taper for w in (wedge * transfer, wedge))
    return specimen.astype(np.float32), noise.astype(np.float32)


@lru_cache(maxsize=4)
def _spectra(imaging: Imaging, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the transforms of both kernels, zero-padded to a shape."""
    padded = []
    for kernel in kernels(imaging):
        volume = np.zeros(shape, np.float32)
        volume[tuple(slice(n) for n in kernel.shape)] = scipy.fft.fftshift(kernel)
        shift = tuple(-imaging.reach for _ in shape)
        padded.append(scipy.fft.rfftn(np.roll(volume, shift, axis=(0, 1, 2))))
    return padded[0], padded[1]


def image_region(
    start: tuple[int, ...],
    shape: tuple[int, ...],
    scene: Scene,
    imaging: Imaging,
    *,
    noise_sigma: float,
    seed: int,
) -> np.ndarray:
    """Return a region of the tomogram of a scene.

    Parameters
    ----------
    start, shape : (z, y, x), voxels
    scene : Scene
    imaging : Imaging
    noise_sigma : float
        Standard deviation of the noise in the tomogram.
    seed : int
        Of the noise.

    Returns
    -------
    (z, y, x) float32
    """
    reach = imaging.reach
    first = tuple(s - reach for s in start)
    size = tuple(scipy.fft.next_fast_len(n + 2 * reach, real=True) for n in shape)
    specimen, noise = _spectra(imaging, size)
    spectrum = scipy.fft.rfftn(scene.density(first, size, imaging.voxel_size)) * specimen
    if noise_sigma > 0:
        white = white_noise(first, size, seed) * np.float32(noise_sigma / noise_gain(imaging))
        spectrum += scipy.fft.rfftn(white) * noise
    return scipy.fft.irfftn(spectrum, s=size)[tuple(slice(reach, reach + n) for n in shape)]


def noise_gain(imaging: Imaging) -> float:
    """Return the standard deviation that unit white noise keeps behind the wedge."""
    return float(np.sqrt(np.sum(kernels(imaging)[1].astype(np.float64) ** 2)))
