"""The contrast transfer function of a tilt, as a curve over the length of the frequency."""

import math
from typing import Literal

import numpy as np
import scipy.fft
from scipy import constants
from scipy.interpolate import CubicSpline

from cryodask.errors import InputError
from cryodask.optics.tilts import TiltSeries

CtfForm = Literal["amplitude", "signed"]


def electron_wavelength(voltage: float) -> float:
    """Return the relativistic wavelength of electrons, angstrom.

    Parameters
    ----------
    voltage
        kV.
    """
    energy = constants.e * voltage * 1e3
    rest = constants.m_e * constants.c**2
    momentum = math.sqrt(2.0 * constants.m_e * energy * (1.0 + energy / (2.0 * rest)))
    return constants.h / momentum / constants.angstrom


def ctf_curve(
    frequency: np.ndarray,
    defocus: float,
    *,
    voltage: float = 300.0,
    cs: float = 2.7,
    amplitude_contrast: float = 0.07,
    phase_shift: float = 0.0,
) -> np.ndarray:
    """Return the contrast transfer function, positive at the origin.

    Parameters
    ----------
    frequency
        Any shape, 1/angstrom.
    defocus
        Angstrom, positive for underfocus.
    voltage
        kV.
    cs
        Spherical aberration, mm.
    amplitude_contrast
        Fraction A; the curve is sqrt(1 - A^2) sin(chi) + A cos(chi).
    phase_shift
        Of a phase plate, degrees.
    """
    wavelength = electron_wavelength(voltage)
    f2 = np.square(np.asarray(frequency, dtype=np.float64))
    chi = math.pi * wavelength * f2 * (defocus - 0.5 * wavelength**2 * (cs * 1e7) * f2)
    chi += math.radians(phase_shift)
    return math.sqrt(1.0 - amplitude_contrast**2) * np.sin(chi) + amplitude_contrast * np.cos(chi)


def box_ctf(tilts: TiltSeries, tilt: int, form: CtfForm, box: int, voxel_size: float) -> CubicSpline:
    """Return the transfer function of one tilt as a template box can hold it.

    A box samples frequency as often as it has voxels; where the curve swings faster it would alias. So the
    curve is made on the fine sampling of the whole tomogram and only what the box can hold of it is kept, as
    in STOPGAP.

    Parameters
    ----------
    tilts
        The series, with defocus.
    tilt
        Which of its tilts.
    form
        ``amplitude`` for |ctf| (phase-flipped tomograms), ``signed`` for the ctf (uncorrected ones).
    box
        Edge of the template box, voxels.
    voxel_size
        Of the template, angstrom.

    Returns
    -------
    scipy.interpolate.CubicSpline
        The curve over the frequency in Fourier pixels of the box.

    Raises
    ------
    InputError
        The series has no defocus.
    """
    if tilts.defocus is None:
        raise InputError("ctf: the tilts have no defocus")
    fine = max(tilts.tomogram_shape) if tilts.tomogram_shape else 8 * box
    fine = fine if fine >= box else 8 * box
    curve = ctf_curve(
        scipy.fft.fftfreq(fine, voxel_size),
        tilts.defocus[tilt],
        voltage=tilts.voltage,
        cs=tilts.cs,
        amplitude_contrast=tilts.amplitude_contrast,
        phase_shift=0.0 if tilts.phase_shift is None else tilts.phase_shift[tilt],
    )
    samples = _central_coefficients(np.abs(curve) if form == "amplitude" else curve, box)
    # samples repeat with the box, so radii a little beyond its Nyquist are still defined
    return CubicSpline(np.arange(box + 1), np.append(samples, samples[0]), bc_type="periodic")


def _central_coefficients(curve: np.ndarray, n: int) -> np.ndarray:
    """Keep the n central Fourier coefficients of a curve, and so n samples of it."""
    coefficients = scipy.fft.fft(curve)
    kept = np.concatenate([coefficients[: (n + 1) // 2], coefficients[len(curve) - n // 2 :]])
    return scipy.fft.ifft(kept).real * (n / len(curve))
