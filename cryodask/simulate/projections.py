"""Images of single particles: projection, contrast transfer, and the noise that a ratio asks for."""

from dataclasses import dataclass

import numpy as np
import scipy.fft
from scipy.spatial.transform import Rotation

from cryodask.arrays.lengths import fast_even_length
from cryodask.optics.ctf import ctf_curve, electron_wavelength
from cryodask.simulate.structure import Structure


@dataclass(frozen=True)
class ImageOptics:
    """The microscope that takes images.

    Parameters
    ----------
    pixel_size : angstrom
    voltage : kV
    cs : mm
    amplitude_contrast : 0..1
    """

    pixel_size: float
    voltage: float = 300.0
    cs: float = 2.7
    amplitude_contrast: float = 0.07

    def reach(self, defocus: float | None) -> int:
        """Return the pixels beyond which a point of the specimen has no effect."""
        if defocus is None:
            return 0
        spread = electron_wavelength(self.voltage) * abs(defocus) / (2 * self.pixel_size**2)
        return int(np.ceil(spread)) + 4

    def box(self, structure: Structure, defocus: float | None) -> int:
        """Return the edge of an image that holds a particle and its fringes, pixels."""
        return fast_even_length(int(np.ceil(structure.diameter / self.pixel_size)) + 2 * self.reach(defocus))


def particle_image(
    structure: Structure,
    rotation: Rotation,
    shift: np.ndarray,
    optics: ImageOptics,
    *,
    defocus: float | None,
    box: int,
) -> np.ndarray:
    """Return the noise-free image of a particle, bright where it is dense.

    Parameters
    ----------
    structure : Structure
    rotation : one Rotation, active, in (x, y, z); the projection is along z
    shift : (x, y), pixels
        Place of the particle's centre relative to pixel box//2.
    optics : ImageOptics
    defocus : angstrom, positive for underfocus, or None for no CTF
    box : int, pixels
        Edge of the image; fringes are cut at it, never folded back.

    Returns
    -------
    (box, box) float32, y x
    """
    size = max(box, optics.box(structure, defocus))
    image = structure.projection((size, size), optics.pixel_size, rotation, size // 2 + np.asarray(shift))
    if defocus is not None:
        ky = scipy.fft.fftfreq(size, optics.pixel_size)[:, None]
        kx = scipy.fft.rfftfreq(size, optics.pixel_size)
        contrast = ctf_curve(
            np.hypot(ky, kx),
            defocus,
            voltage=optics.voltage,
            cs=optics.cs,
            amplitude_contrast=optics.amplitude_contrast,
        )
        image = scipy.fft.irfft2(scipy.fft.rfft2(image) * contrast.astype(np.float32), s=image.shape)
    low = size // 2 - box // 2
    return image[low : low + box, low : low + box]


def image_noise(structure: Structure, optics: ImageOptics, defocus: float | None, snr: float) -> float:
    """Return the noise that stands in the given ratio to one imaged, unrotated particle within its circle."""
    if np.isinf(snr):
        return 0.0
    box = optics.box(structure, defocus)
    image = particle_image(structure, Rotation.identity(), np.zeros(2), optics, defocus=defocus, box=box)
    y, x = np.ogrid[-(box // 2) : box - box // 2, -(box // 2) : box - box // 2]
    inside = np.hypot(y, x) <= structure.diameter / optics.pixel_size / 2
    return float(np.sqrt(image[inside].var(dtype=np.float64) / snr))
