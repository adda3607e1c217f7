"""Projections of structures on the discrete Fourier transform, one for each listed orientation."""

import math
from dataclasses import dataclass

import numpy as np

from cryodask.errors import InputError
from cryodask.jobs.likelihood.structures import AtomModel, MapModel, Structure
from cryodask.jobs.likelihood.templates import TemplateMaker
from cryodask.kernels.cartesian_likelihood import counts, cropped_spectrum, rows_of
from cryodask.kernels.polar_transform import slices_of_atoms_at, slices_of_map

RADII_PER_PIXEL = 4  # at which form factors are sampled


@dataclass(frozen=True)
class ProjectionMaker:
    """Makes unitary transforms of projections about the middle pixel, (rows, K).

    Parameters
    ----------
    maker
        How atoms and maps become templates.
    pixel_size
        Angstrom.
    edge
        K, columns of the half plane.
    inside : (rows, K) bool
        Coefficients within the resolution.
    """

    maker: TemplateMaker
    pixel_size: float
    edge: int
    inside: np.ndarray

    @property
    def box(self) -> int:
        """Pixels along an edge."""
        return self.maker.grid.box

    def projections(self, structure: Structure, axes: np.ndarray) -> np.ndarray:
        """Return the projections (s, rows, K) whose image axes are given (s, 2, 3).

        `slices` are of norm 1 within the resolution; `pixels` keep the electrons of the model.

        Raises
        ------
        InputError
            A structure without contrast within the resolution.
        """
        model = structure.model
        assert isinstance(model, AtomModel | MapModel)
        if self.maker.atoms.projection == "pixels":
            return self._in_pixels(model, axes)
        result = self._slices(model, axes)
        weight = counts(self.edge, self.box) * self.inside
        norm = np.sqrt((np.abs(result.astype(complex)) ** 2 * weight).sum(axis=(1, 2)))
        if not (norm > 0).all():
            raise InputError(f"{structure.name}: a projection is zero; expected density inside the box")
        return result / norm[:, None, None].astype(result.real.dtype)

    def _slices(self, model: AtomModel | MapModel, axes: np.ndarray) -> np.ndarray:
        maker, dtype = self.maker, np.dtype(self.maker.dtype)
        ky, kx = np.meshgrid(rows_of(self.edge, self.box) / 2, np.arange(self.edge) / 2, indexing="ij")
        scale = 2 / maker.box_length
        if isinstance(model, MapModel):
            volume = model.volume.T if maker.axes == "cryolike" else model.volume
            result = slices_of_map(volume, model.voxel_size * scale, axes, kx, ky, dtype)
        else:
            radii = np.linspace(0, math.sqrt(0.5) * (self.edge + 1), RADII_PER_PIXEL * self.box)
            factors = maker.factors(model, radii)
            result = slices_of_atoms_at(model.positions * scale, radii, factors, axes, kx, ky, dtype)
        if maker.removes_offset(model):
            result[:, 0, 0] = 0
        return result

    def _in_pixels(self, model: AtomModel | MapModel, axes: np.ndarray) -> np.ndarray:
        if isinstance(model, MapModel):
            result = self._slices(model, axes)
            first = result[:, :1, :1]
            return result * (model.volume.sum() / self.box / np.where(first == 0, 1, first))
        images = np.stack([drawn_points(model, x, y, self.box, self.pixel_size) for x, y in axes])
        spectra = np.fft.rfft2(np.fft.ifftshift(images, axes=(1, 2)), norm="ortho")
        return cropped_spectrum(spectra, self.edge).astype(self.maker.dtype)


def drawn_points(model: AtomModel, x: np.ndarray, y: np.ndarray, box: int, pixel_size: float) -> np.ndarray:
    """Return the projection of spheres in pixels (y, x), scaled to the model's electrons, as BioEM draws it.

    Spheres of a radius of at most a pixel go to the nearest pixel; larger ones put the density along each
    line of sight at the middle of each pixel, about the pixel nearest to their own middle.

    Raises
    ------
    InputError
        A point outside of the box.
    """
    places = np.stack([np.floor(model.positions @ axis / pixel_size + box / 2 + 0.5) for axis in (y, x)])
    places = places.astype(np.int64)
    image = np.zeros((box, box))
    reach = np.where(model.radius <= pixel_size, 0, (model.radius / pixel_size).astype(int) + 1)
    if (places - reach < 0).any() or (places + reach >= box).any():
        raise InputError("a point of the model falls outside of the image; use a larger box")
    for radius in np.unique(model.radius):
        chosen = model.radius == radius
        own, weight = places[:, chosen], model.weight[chosen]
        size = int(radius / pixel_size) + 1 if radius > pixel_size else 0
        offsets = np.arange(-size, size + 1)
        for dy in offsets:
            for dx in offsets:
                square = radius**2 - (dy * dy + dx * dx) * pixel_size**2
                if size and square <= 0:
                    continue
                share = 3 * pixel_size**2 * 2 * math.sqrt(square) / (4 * np.pi * radius**3) if size else 1.0
                np.add.at(image, (own[0] + dy, own[1] + dx), share * weight)
    found: np.ndarray = image * (model.weight.sum() / image.sum())
    return found
