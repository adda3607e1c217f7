"""The contrast transfer function of an image: astigmatism, phase shift, envelope, aberrations.

Sign: the function is positive at the origin (``+sqrt(1-w^2) sin + w cos``), as RELION and torch-ctf write it;
a job whose particles are darker than their surroundings multiplies by -1 itself.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.fft

from cryodask.optics.ctf import electron_wavelength

EVEN_TERMS = ("Z44c", "Z44s", "Z60")
ODD_TERMS = ("Z31c", "Z31s", "Z33c", "Z33s")


@dataclass(frozen=True)
class ImageCtf:
    """What decides the contrast transfer function of an image.

    Parameters
    ----------
    pixel_size
        Angstrom.
    defocus_u, defocus_v
        Angstrom, positive for underfocus. The difference is signed: u lies along `astigmatism_angle`,
        whichever is the larger.
    astigmatism_angle
        Degrees; 0 puts u along x (columns), growing towards y (rows), as in RELION and cisTEM.
    voltage
        kV.
    spherical_aberration
        mm.
    amplitude_contrast
        Fraction w, 0 <= w < 1.
    phase_shift
        Of a phase plate, degrees.
    b_factor
        Angstrom^2; the envelope is exp(-B K^2 / 4).
    zernikes
        Pairs of name (``Z44c``, ``Z44s``, ``Z60`` even; ``Z31c``, ``Z31s``, ``Z33c``, ``Z33s`` odd) and
        coefficient, radians.
    zernike_radius
        ``corner``: the radius of the polynomials is 1 at the corner of the spectrum, |k| / sqrt(0.5)
        (Leopard-EM 1.2, torch-ctf up to 0.5); ``inverse_angstrom``: it is K (torch-ctf 0.6).
    magnification
        Matrix of anisotropic magnification, row-major, that carries positions (y, x) of the image to those of
        the specimen; None for the identity.
    """

    pixel_size: float
    defocus_u: float
    defocus_v: float
    astigmatism_angle: float = 0.0
    voltage: float = 300.0
    spherical_aberration: float = 2.7
    amplitude_contrast: float = 0.07
    phase_shift: float = 0.0
    b_factor: float = 0.0
    zernikes: tuple[tuple[str, float], ...] = ()
    zernike_radius: Literal["corner", "inverse_angstrom"] = "corner"
    magnification: tuple[float, float, float, float] | None = None

    @property
    def is_complex(self) -> bool:
        """Whether odd aberrations make the function complex."""
        return any(name in ODD_TERMS and value != 0 for name, value in self.zernikes)


def undistorted_frequencies(
    ky: np.ndarray, kx: np.ndarray, magnification: tuple[float, float, float, float] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the frequencies of the specimen that an anisotropic magnification shows at (ky, kx).

    Parameters
    ----------
    ky, kx
        Broadcastable, cycles per pixel.
    magnification
        A, row-major, carries positions (y, x) of the image to those of the specimen; frequencies take its
        inverse transpose.
    """
    if magnification is None:
        return ky, kx
    (a, b), (c, d) = np.linalg.inv(np.reshape(magnification, (2, 2))).T
    return a * ky + b * kx, c * ky + d * kx


def ctf_at(
    ky: np.ndarray,
    kx: np.ndarray,
    optics: ImageCtf,
    *,
    defocus_offset: float = 0.0,
    pixel_offset: float = 0.0,
) -> np.ndarray:
    """Return the contrast transfer function at frequencies, positive at the origin.

    Parameters
    ----------
    ky, kx
        Broadcastable, cycles per pixel.
    optics
        The microscope and the defocus.
    defocus_offset
        Added to both defoci, angstrom.
    pixel_offset
        Added to the pixel size, angstrom.

    Returns
    -------
    numpy.ndarray
        float64, or complex128 with odd aberrations; of the broadcast shape.
    """
    ky, kx = np.broadcast_arrays(np.asarray(ky, np.float64), np.asarray(kx, np.float64))
    v, u = undistorted_frequencies(ky, kx, optics.magnification)
    pixel_size = optics.pixel_size + pixel_offset
    azimuth, radius = np.arctan2(v, u), np.hypot(v, u)
    k2 = (radius / pixel_size) ** 2
    mean = 0.5 * (optics.defocus_u + optics.defocus_v) + defocus_offset
    half = 0.5 * (optics.defocus_u - optics.defocus_v)
    defocus = mean + half * np.cos(2.0 * (azimuth - math.radians(optics.astigmatism_angle)))
    wavelength, cs = electron_wavelength(optics.voltage), optics.spherical_aberration * 1e7
    chi = -math.pi * wavelength * defocus * k2 + 0.5 * math.pi * cs * wavelength**3 * k2**2
    chi -= math.radians(optics.phase_shift) + math.asin(optics.amplitude_contrast)
    rho = radius / math.sqrt(0.5) if optics.zernike_radius == "corner" else radius / pixel_size
    chi += _aberration(rho, azimuth, optics, EVEN_TERMS)
    ctf = -np.sin(chi) * np.exp(-0.25 * optics.b_factor * k2)
    if optics.is_complex:
        return ctf * np.exp(1j * _aberration(rho, azimuth, optics, ODD_TERMS))
    return ctf


def ctf_image(
    shape: tuple[int, int], optics: ImageCtf, *, defocus_offset: float = 0.0, pixel_offset: float = 0.0
) -> np.ndarray:
    """Return the contrast transfer function over the half spectrum of an image, un-shifted.

    Parameters
    ----------
    shape
        (y, x) of the image, pixels.
    optics, defocus_offset, pixel_offset
        As in `ctf_at`.

    Returns
    -------
    numpy.ndarray
        (y, x//2 + 1), float64 or complex128.
    """
    ky, kx = half_plane(shape)
    return ctf_at(ky, kx, optics, defocus_offset=defocus_offset, pixel_offset=pixel_offset)


def half_plane(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the frequencies ky (y, 1) and kx (1, x//2 + 1) of an image's half spectrum, cycles per pixel."""
    height, width = shape
    return scipy.fft.fftfreq(height)[:, None], scipy.fft.rfftfreq(width)[None, :]


def _aberration(
    rho: np.ndarray, azimuth: np.ndarray, optics: ImageCtf, names: tuple[str, ...]
) -> np.ndarray | float:
    terms = {name: value for name, value in optics.zernikes if name in names and value != 0}
    return sum(value * _term(name, rho, azimuth) for name, value in terms.items()) if terms else 0.0


def _term(name: str, rho: np.ndarray, azimuth: np.ndarray) -> np.ndarray:
    """Return one polynomial; Z60 is round, the last letter tells cosine from sine."""
    if name == "Z60":
        return rho**6
    order, fold = int(name[1]), int(name[2])
    wave = np.cos if name.endswith("c") else np.sin
    return rho**order * wave(fold * azimuth)
