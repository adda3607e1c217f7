"""Particle images of a likelihood job: checks, optics, and what a task makes of its chunk."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.fft

from cryodask.arrays.npy import load_npy, load_npz
from cryodask.errors import InputError
from cryodask.geometry.polar import PolarGrid
from cryodask.io.image_stacks import ImagePlaces
from cryodask.io.particle_lists import open_particle_list, select_rows
from cryodask.io.particle_stack import ParticleStack
from cryodask.jobs.likelihood.parameters import ImageOptions, LikelihoodParameters
from cryodask.kernels.likelihood_form import LikelihoodForm
from cryodask.kernels.polar_likelihood import BLOCK, ImageBlock, image_block
from cryodask.kernels.polar_transform import polar_from_images
from cryodask.optics.ctf_image import ImageCtf, ctf_at

OPTICS = (
    "defocus_u",
    "defocus_v",
    "defocus_angle",
    "voltage",
    "cs",
    "amplitude_contrast",
    "phase_shift",
    "b_factor",
)
REQUIRED = {"defocus_u": "rlnDefocusU", "voltage": "rlnVoltage", "cs": "rlnSphericalAberration"}
ABERRATIONS = ("rlnBeamTiltX", "rlnBeamTiltY", "rlnOddZernike", "rlnEvenZernike")
MAGNIFICATION = {"rlnMagMat00": 1.0, "rlnMagMat01": 0.0, "rlnMagMat10": 0.0, "rlnMagMat11": 1.0}
MICROMETRES = 100.0  # a defocus below it is given in micrometres


def load_images(parameters: LikelihoodParameters) -> tuple[ParticleStack, list[str]]:
    """Open the images of a configuration and settle their optics; the table then has no gaps in `OPTICS`.

    Raises
    ------
    InputError
        A wrong file or value.
    """
    options, source = parameters.image_options, parameters.source
    with source.placed("images"):
        stack = open_particle_list(
            parameters.image_paths,
            root=options.root,
            pixel_size=options.pixel_size,
            n_stacks=None if options.n_stacks == "all" else options.n_stacks,
        )
    return settle_images(stack, parameters)


def settle_images(stack: ParticleStack, parameters: LikelihoodParameters) -> tuple[ParticleStack, list[str]]:
    """Select images and settle their optics, as `load_images`."""
    options, source = parameters.image_options, parameters.source
    notices: list[str] = []
    if options.select != "all":
        with source.placed("image_options"):
            stack = stack.take(select_rows(stack, options.select))
    if stack.pixel_size is None:
        raise source.error(f"{Path(stack.source).name}: no pixel size, give image_options.pixel_size")
    if options.optics != "none":
        if not parameters.ignore_aberrations:
            _check_aberrations(stack)
        _settle_optics(stack, options, notices)
    if options.downsample > 1 and stack.box % (2 * options.downsample):
        raise source.wrong(
            "image_options.downsample", options.downsample, f"expected a divisor of half of {stack.box}"
        )
    return stack, notices


def _check_aberrations(stack: ParticleStack) -> None:
    for frame in stack.blocks.values():
        for name in (*ABERRATIONS, *MAGNIFICATION):
            if name not in frame:
                continue
            values = pd.to_numeric(frame[name], errors="coerce").to_numpy(float)
            unusual = np.flatnonzero(~np.isclose(values, MAGNIFICATION.get(name, 0.0)))
            if len(unusual):
                value = frame[name].iloc[unusual[0]]
                raise InputError(f"{name} = {value}: not supported (--ignore-aberrations)")


def _settle_optics(stack: ParticleStack, options: ImageOptions, notices: list[str]) -> None:
    table = stack.table
    if isinstance(options.optics, dict):
        for key, value in options.optics.items():
            if key not in OPTICS:
                raise InputError(f"image_options.optics: unknown key {key}, expected {', '.join(OPTICS)}")
            table[key] = float(value)
    if (
        isinstance(options.optics, dict)
        and "defocus_v" not in options.optics
        and "defocus_u" in options.optics
    ):
        table["defocus_v"] = table["defocus_u"]
    for key, name in REQUIRED.items():
        absent = not stack.has_defocus if key == "defocus_u" else table[key].isna().any()
        if absent:
            raise InputError(f"{Path(stack.source).name}: {name} is missing; give optics, or optics: none")
    small = np.flatnonzero(table["defocus_u"].abs().to_numpy() < MICROMETRES)
    if len(small):
        value = table["defocus_u"].iloc[small[0]]
        raise InputError(
            f"rlnDefocusU = {value:g}: expected angstrom; looks like micrometres (row {small[0] + 1})"
        )
    bad = np.flatnonzero(~table["voltage"].between(60, 1000).to_numpy())
    if len(bad):
        raise InputError(f"rlnVoltage = {table['voltage'].iloc[bad[0]]:g}: expected kV, 60..1000")
    if table["amplitude_contrast"].isna().any():
        notices.append("no amplitude contrast in the file, 0.1 taken")
    defaults = {"amplitude_contrast": 0.1, "phase_shift": 0.0, "b_factor": 0.0, "defocus_angle": 0.0}
    for key, value in defaults.items():
        table[key] = table[key].fillna(value)


@dataclass(frozen=True)
class ImagePreparation:
    """Makes the kernel's image blocks of a range of images; small, its tables lie in a folder.

    Parameters
    ----------
    folder
        Where `write` put places (or images) and optics.
    grid, pixel_size
        After downsampling; angstrom.
    downsample, method
        Factor; crop of the spectrum, mean or max of pixels.
    sign, is_transposed, is_centred
        -1 for dark particles; axes of CryoLike; moved by the origins of the STAR file.
    has_ctf, is_absolute, has_envelope
        CTF at all; unsigned astigmatism; B factor.
    form, dtype
        The likelihood; "complex64" or "complex128".
    """

    folder: str
    grid: PolarGrid
    pixel_size: float
    downsample: int
    method: str
    sign: float
    is_transposed: bool
    is_centred: bool
    has_ctf: bool
    is_absolute: bool
    has_envelope: bool
    form: LikelihoodForm
    dtype: str

    def write(self, stack: ParticleStack) -> None:
        """Write what tasks read."""
        folder = Path(self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        columns: dict[str, Any] = {
            key: stack.table[key].to_numpy(float) for key in (*OPTICS, "origin_x", "origin_y")
        }
        names = stack.table["name"].to_numpy(str)
        if stack.places is None:
            np.save(folder / "images.npy", stack.images.values)
            np.savez(folder / "images.npz", names=names, **columns)
            return
        where: dict[str, Any] = {
            "files": np.array(stack.places.files),
            "file_number": stack.places.file_number,
        }
        np.savez(
            folder / "images.npz", names=names, **where, image_number=stack.places.image_number, **columns
        )

    @cached_property
    def _tables(self) -> dict[str, np.ndarray]:
        return load_npz(Path(self.folder) / "images.npz")

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_tables"}

    def read(self, start: int, stop: int) -> np.ndarray:
        """Read images (m, N, N), contrast white, downsampled, in the axes of the job.

        Raises
        ------
        InputError
            "000017@a.mrcs: 4 non-finite pixels, first at (y,x) = (3,9)"; "image 5 is constant".
        """
        tables = self._tables
        if "files" in tables:
            rows = slice(start, stop)
            places = ImagePlaces(
                tuple(tables["files"].tolist()), tables["file_number"][rows], tables["image_number"][rows]
            )
            images = places.take(slice(None)).read().astype(np.float64)
        else:
            images = load_npy(Path(self.folder) / "images.npy", "r")[start:stop].astype(np.float64)
        self._check(images, start)
        images = downsampled(self.sign * images, self.downsample, self.method)
        return images.transpose(0, 2, 1) if self.is_transposed else images

    def _check(self, images: np.ndarray, start: int) -> None:
        names = self._tables["names"]
        for i, image in enumerate(images):
            bad = np.argwhere(~np.isfinite(image))
            if len(bad):
                y, x = bad[0]
                raise InputError(
                    f"{names[start + i]}: {len(bad)} non-finite pixels, first at (y,x) = ({y},{x})"
                )
            if image.min() == image.max():
                raise InputError(f"{names[start + i]}: image {start + i} is constant")

    def contrast(self, start: int, stop: int) -> np.ndarray:
        """Return the CTF on half of the angles (m, n, W/2) float64."""
        half = self.grid.rotations // 2
        if not self.has_ctf:
            return np.ones((stop - start, len(self.grid.radii), half))
        step = 2 / self.grid.box
        ky, kx = step * self.grid.ky[:, :half], step * self.grid.kx[:, :half]
        return np.stack([ctf_at(ky, kx, self.optics(i)) for i in range(start, stop)])

    def optics(self, i: int) -> ImageCtf:
        """Return the optics of an image."""
        row = {key: float(self._tables[key][i]) for key in OPTICS}
        u, v = row["defocus_u"], row["defocus_v"]
        if self.is_absolute:
            u, v = max(u, v), min(u, v)
        return ImageCtf(
            self.pixel_size,
            u,
            v,
            row["defocus_angle"],
            voltage=row["voltage"],
            spherical_aberration=row["cs"],
            amplitude_contrast=row["amplitude_contrast"],
            phase_shift=row["phase_shift"],
            b_factor=row["b_factor"] if self.has_envelope else 0.0,
        )

    def polar(self, start: int, stop: int) -> np.ndarray:
        """Return the transforms (m, n, W) of images, of norm 1."""
        images = self.read(start, stop)
        images -= images.mean(axis=(1, 2), keepdims=True)
        images /= np.abs(images).max(axis=(1, 2), keepdims=True)
        dtype = np.dtype(self.dtype)
        result = polar_from_images(images, self.grid.kx, self.grid.ky, dtype)
        if self.is_centred:
            result *= self.shifts(start, stop, self.grid.ky, self.grid.kx).astype(dtype)
        norm = np.sqrt((np.abs(result).astype(float) ** 2 * self.grid.weights[:, None]).sum(axis=(1, 2)))
        return result / norm[:, None, None].astype(result.real.dtype)

    def shifts(self, start: int, stop: int, ky: np.ndarray, kx: np.ndarray) -> np.ndarray:
        """Return exp(+2 pi i k.t 2/L), t = -origin: moves particles from the file's place to the middle.

        Frequencies in cycles per half box.
        """
        scale = 2 / (self.grid.box * self.pixel_size)
        x, y = (-self._tables[f"origin_{axis}"][start:stop, None, None] * scale for axis in "xy")
        if self.is_transposed:
            x, y = y, x
        return np.exp(2j * np.pi * (kx * x + ky * y))

    def origins(self, start: int, stop: int) -> np.ndarray:
        """Return the origins (2, m) that the file gives, angstrom."""
        return np.stack([self._tables[f"origin_{axis}"][start:stop] for axis in "xy"])

    def blocks(self, start: int, stop: int, basis: np.ndarray | None) -> list[ImageBlock]:
        """Return the kernel's blocks of at most 32 images."""
        return [self._block(first, min(first + BLOCK, stop), basis) for first in range(start, stop, BLOCK)]

    def _block(self, start: int, stop: int, basis: np.ndarray | None) -> ImageBlock:
        dtype = np.dtype(self.dtype)
        real = np.zeros(0, dtype).real.dtype
        half = self.grid.rotations // 2
        contrast = self.contrast(start, stop).astype(real)
        box = self.grid.box_transform[None, :, :half].astype(real)
        return image_block(self.polar(start, stop), contrast, box, self.grid.weights, self.form, basis)


def downsampled(images: np.ndarray, factor: int, method: str) -> np.ndarray:
    """Return images (m, N, N) of N / factor pixels.

    Parameters
    ----------
    images, factor
        An even factor that divides N/2, or 1.
    method
        ``crop``: the spectrum is cropped and pixel n//2 stays the middle; ``mean``, ``max``: of the pixels
        of each square, as CryoLike pools them, which moves the middle by (factor - 1) / 2 pixels.
    """
    if factor == 1:
        return images
    if method != "crop":
        m = images.shape[-1] // factor
        squares = images.reshape(len(images), m, factor, m, factor)
        return squares.mean(axis=(2, 4)) if method == "mean" else squares.max(axis=(2, 4))
    n = images.shape[-1]
    m = n // factor
    spectrum = scipy.fft.fftshift(scipy.fft.fft2(scipy.fft.ifftshift(images, axes=(1, 2))), axes=(1, 2))
    low = n // 2 - m // 2
    inner = scipy.fft.ifftshift(spectrum[:, low : low + m, low : low + m], axes=(1, 2))
    return scipy.fft.fftshift(scipy.fft.ifft2(inner), axes=(1, 2)).real / factor**2
