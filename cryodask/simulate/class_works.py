"""Particle stacks of a volume with known views: what classifications are judged by.

Projections are exact central slices by a non-uniform FFT (Barnett, Magland and af Klinteberg 2019, finufft);
the noise is white, the phases and shifts are those of a microscope.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.fft

from cryodask.io.star import write_star
from cryodask.optics.ctf_image import ImageCtf, ctf_image

BATCH = 256
NOISE_SEED = 10**6  # added to the seed of everything else


@dataclass(frozen=True)
class WorkSettings:
    """What a work is.

    Parameters
    ----------
    images : int
    views : int
        Discrete views, or 0 for orientations all over the sphere.
    junk : float
        Share of images of noise alone.
    snr : float
        Mean square of noise-free images over the variance of the noise.
    pixel_size : angstrom
    max_shift : float
        Pixels, along x and along y.
    defocus_groups : int
    defocus : (least, most), angstrom
    voltage, cs, amplitude_contrast : kV, mm, fraction
    seed : int
    """

    images: int
    views: int = 0
    junk: float = 0.0
    snr: float = 0.1
    pixel_size: float = 5.0
    max_shift: float = 2.0
    defocus_groups: int = 20
    defocus: tuple[float, float] = (10_000.0, 25_000.0)
    voltage: float = 300.0
    cs: float = 2.7
    amplitude_contrast: float = 0.1
    seed: int = 1


@dataclass(frozen=True)
class ClassWork:
    """A simulated stack and what each image shows.

    Parameters
    ----------
    images : (n, L, L) float32
        Noise of unit variance.
    rotations : (n, 3, 3)
        Rows are image x, image y and the view axis in the volume's frame.
    shift : (n, 2)
        Of the particle, x y, pixels.
    view : (n,) int
        Number of the view, -1 where views are not discrete.
    noise : (n,) bool
        Images of noise alone.
    defocus : (n,) angstrom
    group : (n,) int
    settings : WorkSettings
    """

    images: np.ndarray
    rotations: np.ndarray
    shift: np.ndarray
    view: np.ndarray
    noise: np.ndarray
    defocus: np.ndarray
    group: np.ndarray
    settings: WorkSettings


def quaternion_rotations(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return uniform rotation matrices (n, 3, 3) from normal quaternions (w, x, y, z)."""
    q = rng.standard_normal((count, 4))
    w, x, y, z = (q / np.linalg.norm(q, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def cropped_spectrum(volume: np.ndarray, box: int) -> np.ndarray:
    """Return a volume resampled to box^3 by cropping its spectrum; voxel n//2 stays on box//2."""
    spectrum = scipy.fft.fftshift(scipy.fft.fftn(scipy.fft.ifftshift(volume.astype(np.float64))))
    n, kept = len(volume), min(len(volume), box)
    target = np.zeros((box,) * 3, complex)
    low, into = n // 2 - kept // 2, box // 2 - kept // 2
    source = (slice(low, low + kept),) * 3
    target[(slice(into, into + kept),) * 3] = spectrum[source]
    return scipy.fft.fftshift(scipy.fft.ifftn(scipy.fft.ifftshift(target))).real * (box / n) ** 3


def exact_projections(volume: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """Return central-slice projections (n, L, L) float32 of a volume (L, L, L).

    Parameters
    ----------
    volume : (L, L, L), z y x
    rotations : (n, 3, 3)
        Rows are image x, image y and the view axis.
    """
    import finufft

    box = len(volume)
    axis = (np.arange(box) - box // 2) * (2 * np.pi / box)
    ky, kx = np.meshgrid(axis, axis, indexing="ij")
    disc = kx**2 + ky**2 <= (np.pi * (1 - 1e-9)) ** 2
    density = np.ascontiguousarray(volume, np.complex128)
    images = np.empty((len(rotations), box, box), np.float32)
    for start in range(0, len(rotations), BATCH):
        some = rotations[start : start + BATCH]
        places = kx.ravel()[:, None] * some[:, None, 0] + ky.ravel()[:, None] * some[:, None, 1]
        places = (places + np.pi) % (2 * np.pi) - np.pi
        x, y, z = (np.ascontiguousarray(places[..., i].ravel()) for i in range(3))
        slices = finufft.nufft3d2(z, y, x, density, eps=1e-8, isign=-1).reshape(len(some), box, box) * disc
        shifted = scipy.fft.ifft2(scipy.fft.ifftshift(slices, axes=(1, 2)))
        images[start : start + BATCH] = scipy.fft.fftshift(shifted, axes=(1, 2)).real
    return images


def simulate_work(volume: np.ndarray, box: int, settings: WorkSettings) -> ClassWork:
    """Simulate a stack of a volume.

    Parameters
    ----------
    volume : cubic
    box : int
        Edge of the images, pixels; the volume is resampled to it.
    settings : WorkSettings
    """
    rng = np.random.default_rng(settings.seed)
    count = settings.images
    rng.integers(0, 1, count)  # which of one volume
    rotations = quaternion_rotations(count, rng)
    view = np.full(count, -1)
    if settings.views:
        axes = quaternion_rotations(settings.views, rng)
        view = rng.integers(0, settings.views, count)
        rotations = _turned(rng.uniform(0, 2 * np.pi, count)) @ axes[view]
    shift = rng.uniform(-settings.max_shift, settings.max_shift, (count, 2))
    noise = rng.random(count) < settings.junk
    defoci = rng.uniform(*settings.defocus, settings.defocus_groups)
    group = rng.integers(0, settings.defocus_groups, count)
    density = cropped_spectrum(volume, box)
    density /= np.sqrt(np.square(density).mean())
    signal = np.zeros((count, box, box), np.float32)
    signal[~noise] = exact_projections(density, rotations[~noise])
    signal = _imaged(signal, shift, defoci[group], settings)
    deviation = _noise_deviation(signal[~noise], settings.snr)
    images = _noisy(signal, deviation, settings.seed + NOISE_SEED)
    return ClassWork(images, rotations, shift, view, noise, defoci[group], group, settings)


def _noise_deviation(signal: np.ndarray, snr: float) -> float:
    """Return the noise of a signal-to-noise ratio; 1 where there is no signal."""
    return float(np.sqrt(np.square(signal.astype(np.float64)).mean() / snr)) if signal.any() else 1.0


def _turned(angle: np.ndarray) -> np.ndarray:
    turn = np.zeros((len(angle), 3, 3))
    turn[:, 0, 0] = turn[:, 1, 1] = np.cos(angle)
    turn[:, 0, 1], turn[:, 1, 0] = np.sin(angle), -np.sin(angle)
    turn[:, 2, 2] = 1
    return turn


def _imaged(signal: np.ndarray, shift: np.ndarray, defocus: np.ndarray, settings: WorkSettings) -> np.ndarray:
    """Shift images and convolve them with their point spread functions."""
    box = signal.shape[1]
    ky, kx = scipy.fft.fftfreq(box)[:, None], scipy.fft.rfftfreq(box)
    ctfs = {value: ctf_image((box, box), optics_of(value, settings)) for value in np.unique(defocus)}
    for i, image in enumerate(signal):
        phase = np.exp(-2j * np.pi * (kx * shift[i, 0] + ky * shift[i, 1]))
        spectrum = scipy.fft.rfft2(image.astype(np.float64)) * phase * ctfs[defocus[i]]
        signal[i] = scipy.fft.irfft2(spectrum, s=image.shape)
    return signal


def optics_of(defocus: float, settings: WorkSettings) -> ImageCtf:
    """Return the microscope at a defocus."""
    return ImageCtf(
        pixel_size=settings.pixel_size,
        defocus_u=float(defocus),
        defocus_v=float(defocus),
        voltage=settings.voltage,
        spherical_aberration=settings.cs,
        amplitude_contrast=settings.amplitude_contrast,
    )


def _noisy(signal: np.ndarray, deviation: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    images = np.empty_like(signal)
    for i, image in enumerate(signal):
        noise = rng.standard_normal(image.shape).astype(np.float32)
        images[i] = (image + deviation * noise) / deviation
    return images


def write_work(folder: Path, name: str, work: ClassWork, *, overwrite: bool = False) -> Path:
    """Write NAME.mrcs and NAME.star (RELION 3.1, without poses), and return the STAR file."""
    from cryodask.io.image_stacks import write_stack

    settings, count = work.settings, len(work.images)
    stack = folder / f"{name}.mrcs"
    write_stack(stack, work.images, pixel_size=settings.pixel_size, overwrite=overwrite)
    optics = {
        "rlnOpticsGroup": [1],
        "rlnOpticsGroupName": ["opticsGroup1"],
        "rlnVoltage": [settings.voltage],
        "rlnSphericalAberration": [settings.cs],
        "rlnAmplitudeContrast": [settings.amplitude_contrast],
        "rlnImagePixelSize": [settings.pixel_size],
        "rlnImageSize": [work.images.shape[1]],
        "rlnImageDimensionality": [2],
    }
    particles = {
        "rlnImageName": [f"{i + 1:06d}@{stack.name}" for i in range(count)],
        "rlnMicrographName": [f"mic{g + 1:04d}.mrc" for g in work.group],
        "rlnOpticsGroup": 1,
        "rlnCoordinateX": 100.0 + 200 * (np.arange(count) % 20),
        "rlnCoordinateY": 100.0 + 200 * (np.arange(count) // 20 % 20),
        "rlnDefocusU": work.defocus.round(2),
        "rlnDefocusV": work.defocus.round(2),
        "rlnDefocusAngle": 0.0,
    }
    path = folder / f"{name}.star"
    blocks = {"optics": pd.DataFrame(optics), "particles": pd.DataFrame(particles)}
    write_star(path, blocks, overwrite=overwrite)
    return path
