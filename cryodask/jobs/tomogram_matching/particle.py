"""The template and its mask as the search uses them: contrast, cube, symmetry."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cryodask.geometry.symmetry import symmetry_group
from cryodask.kernels.rotation import rotate, rotation_coefficients

if TYPE_CHECKING:
    from cryodask.jobs.tomogram_matching.parameters import MatchParameters

LEAST_SYMMETRY = 0.8
LEAST_MASK_SUM = 30.0
LEAST_EDGE = 8
SUPPORT = 1e-3  # a mask value that still counts, as after its rotation


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

    @property
    def has_grown(self) -> bool:
        """Whether the box is larger than the cube that was given."""
        return self.box > self.given_box

    @property
    def support(self) -> float:
        """Largest distance from the centre at which the mask counts, voxels."""
        return float(_reach(self.mask, SUPPORT))

    @property
    def diameter(self) -> float:
        """Twice the largest distance from the centre at which the mask is above one half, voxels."""
        return 2.0 * float(_reach(self.mask, 0.5))


def make_particle(template: np.ndarray, mask: np.ndarray, parameters: "MatchParameters") -> Particle:
    """Check template and mask and bring them into the search's form.

    Parameters
    ----------
    template, mask
        (z, y, x), equal shapes.
    parameters
        Gives contrast and symmetry, and the words of messages.

    Raises
    ------
    InputError
        Naming the field.
    """
    _check_template(template, parameters)
    mask = _checked_mask(mask, template.shape, parameters)
    edge = max(template.shape)
    template = _in_cube(template.astype(np.float32), edge)
    mask = _in_cube(mask, edge)
    needed = 2 * int(np.ceil(_reach(mask, SUPPORT) + 1))
    box = max(edge, needed)
    template, mask = _in_cube(template, box), _in_cube(mask, box)
    if parameters.contrast == "inverted":
        template = -template
    if parameters.symmetry != "C1":
        template = _averaged(template, mask, parameters)
    return Particle(template, mask, edge)


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


def _checked_mask(mask: np.ndarray, shape: tuple[int, ...], parameters: "MatchParameters") -> np.ndarray:
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
    mask = np.clip(mask, 0, 1).astype(np.float32)
    total = float(mask.sum(dtype=np.float64))
    if total < LEAST_MASK_SUM:
        raise source.error(f"{label}: mask covers {total:.1f} voxels, expected {LEAST_MASK_SUM:g} or more")
    return mask


def _in_cube(volume: np.ndarray, edge: int) -> np.ndarray:
    """Pad with zeros to a cube, voxel n//2 staying in the middle of each axis."""
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
