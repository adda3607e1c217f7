"""The template and its mask as the search uses them: contrast, cube, symmetry."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cryodask.geometry.symmetry import symmetry_group
from cryodask.kernels.rotation import rotate, rotation_coefficients
from cryodask.optics.masks import sphere_mask

if TYPE_CHECKING:
    from cryodask.jobs.tomogram_matching.parameters import MatchParameters

LEAST_SYMMETRY = 0.8
LEAST_MASK_SUM = 30.0
LEAST_EDGE = 8
SUPPORT = 1e-3  # a mask value that still counts, as after its rotation


@dataclass(frozen=True)
class Sphere:
    """A spherical mask: radius and width of its soft edge, voxels."""

    radius: float
    edge: float

    @property
    def reach(self) -> float:
        """Distance from the centre beyond which the mask does not count."""
        return self.radius + self.edge * math.acos(2 * SUPPORT - 1) / math.pi


@dataclass(frozen=True)
class Particle:
    """A template and its mask in one cubic box.

    Parameters
    ----------
    template, mask
        (z, y, x) float32, centre voxel n//2.
    given_box
        Edge of the cube before it grew for the mask: Fourier pixels of the user count in it.
    """

    template: np.ndarray
    mask: np.ndarray
    given_box: int

    @property
    def box(self) -> int:
        """Edge of the box, voxels."""
        return self.template.shape[0]

    def in_box(self, box: int) -> "Particle":
        """Return the particle in a larger box; Fourier pixels still count in the box that was given."""
        return Particle(in_cube(self.template, box), in_cube(self.mask, box), self.given_box)

    @property
    def support(self) -> float:
        """Largest distance from the centre at which the mask counts, voxels."""
        return float(_reach(self.mask, SUPPORT))

    @property
    def diameter(self) -> float:
        """Twice the largest distance from the centre at which the mask is above one half, voxels."""
        return 2.0 * float(_reach(self.mask, 0.5))


def box_edge(given: int, reach: float) -> int:
    """Return the edge of a box that holds every rotation of a mask of some reach, at least the given one."""
    return given if reach <= given / 2 - 1 else 2 * math.ceil(reach + 1)


def make_particle(template: np.ndarray, mask: np.ndarray | Sphere, parameters: "MatchParameters") -> Particle:
    """Check template and mask and bring them into the search's form.

    Parameters
    ----------
    template
        (z, y, x).
    mask
        (z, y, x) of the template's shape, or a sphere.
    parameters
        Gives contrast and symmetry, and the words of messages.

    Raises
    ------
    InputError
        Naming the field.
    """
    _check_template(template, parameters)
    edge = max(template.shape)
    if isinstance(mask, Sphere):
        weights = sphere_mask(box_edge(edge, mask.reach), mask.radius, mask.edge)
    else:
        _check_mask(mask, template.shape, parameters)
        weights = in_cube(np.clip(mask, 0, 1).astype(np.float32), edge)
        weights = in_cube(weights, box_edge(edge, _reach(weights, SUPPORT)))
    _check_size(weights, parameters)
    template = in_cube(template.astype(np.float32), len(weights))
    if parameters.contrast == "inverted":
        template = -template
    if parameters.symmetry != "C1":
        template = _averaged(template, weights, parameters)
    return Particle(template, weights, edge)


def _check_template(template: np.ndarray, parameters: "MatchParameters") -> None:
    source, name = parameters.source, parameters.template
    bad = int(np.count_nonzero(~np.isfinite(template)))
    if bad:
        first = np.unravel_index(int(np.argmin(np.isfinite(template))), template.shape)
        at = ",".join(str(int(i)) for i in first)
        raise source.wrong("template", name, f"{bad} non-finite voxels, first at (z,y,x) = ({at})")
    if template.min() == template.max():
        raise source.wrong("template", name, "template is constant")
    if min(template.shape) < LEAST_EDGE:
        shape = ",".join(map(str, template.shape))
        raise source.wrong("template", name, f"shape {shape}, expected edges of {LEAST_EDGE} voxels or more")


def _check_mask(mask: np.ndarray, shape: tuple[int, ...], parameters: "MatchParameters") -> None:
    source = parameters.source
    label = source.label("mask")
    if mask.shape != shape:
        found, expected = (",".join(map(str, s)) for s in (mask.shape, shape))
        raise source.error(f"{label}: shape {found}, expected {expected} (template)")
    if not np.isfinite(mask).all():
        raise source.error(f"{label}: {int((~np.isfinite(mask)).sum())} non-finite voxels")
    low, high = float(mask.min()), float(mask.max())
    if low < -1e-3 or high > 1 + 1e-3:
        raise source.error(f"{label}: values from {low:.4g} to {high:.4g}, expected 0 to 1")


def _check_size(mask: np.ndarray, parameters: "MatchParameters") -> None:
    total, label = float(mask.sum(dtype=np.float64)), parameters.source.label("mask")
    if total < LEAST_MASK_SUM:
        text = f"{label}: mask covers {total:.1f} voxels, expected {LEAST_MASK_SUM:g} or more"
        raise parameters.source.error(text)


def in_cube(volume: np.ndarray, edge: int) -> np.ndarray:
    """Pad a volume (z, y, x) with zeros to a cube, voxel n//2 staying in the middle of each axis."""
    pads = [(edge // 2 - n // 2, edge - n - (edge // 2 - n // 2)) for n in volume.shape]
    return np.pad(volume, pads)


def _averaged(template: np.ndarray, mask: np.ndarray, parameters: "MatchParameters") -> np.ndarray:
    """Average over the symmetry group: the sum of rotated copies over the sum of rotated ones."""
    group = symmetry_group(parameters.symmetry).as_matrix()
    volume = rotation_coefficients(template, "cubic")
    ones = rotation_coefficients(np.ones_like(template), "linear")
    total, weight = np.zeros_like(template), np.zeros_like(template)
    for matrix in group:
        total += rotate(volume, matrix, "cubic")
        weight += rotate(ones, matrix, "linear")
    average = np.where(weight > 1e-3, total / np.maximum(weight, 1e-3), 0).astype(np.float32)
    likeness = _correlation(template, average, mask)
    if likeness < LEAST_SYMMETRY:
        name = parameters.symmetry
        raise parameters.source.error(f"template correlates {likeness:.2f} with its {name} average")
    return average


def _correlation(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> float:
    w = weight.astype(np.float64) / weight.sum(dtype=np.float64)
    a, b = first - (w * first).sum(), second - (w * second).sum()
    return float((w * a * b).sum() / np.sqrt((w * a * a).sum() * (w * b * b).sum()))


def _reach(mask: np.ndarray, threshold: float) -> float:
    places = np.argwhere(mask > threshold) - np.array(mask.shape) // 2
    return float(np.sqrt((places**2).sum(axis=1).max(initial=0)))
