"""Templates: central slices of a structure at its views, of norm 1, without the constant image."""

import hashlib
import json
import math
from dataclasses import dataclass

import numpy as np

from cryodask.errors import InputError
from cryodask.geometry.polar import PolarGrid
from cryodask.geometry.symmetry import axial_order, symmetry_group
from cryodask.geometry.views import Views, healpix_views, oriented_views, ring_views
from cryodask.io.orientation_lists import bioem_euler_grid, goldstein_axes, read_orientations
from cryodask.jobs.likelihood.parameters import Atoms, BioemEuler, Grid, Healpix, Listed, Step
from cryodask.jobs.likelihood.ready_templates import ReadyTemplates
from cryodask.jobs.likelihood.structures import AtomModel, FunctionModel, MapModel, Structure, check_fits
from cryodask.kernels.polar_transform import slices_of_atoms, slices_of_map

LEAST_SYMMETRY = 0.8
TESTED_VIEWS = 6


@dataclass(frozen=True)
class TemplateMaker:
    """Makes the templates of structures on one grid.

    Parameters
    ----------
    grid
        Of the images.
    box_length
        L, angstrom.
    atoms
        How atoms become templates.
    axes
        ``relion``, or ``cryolike``: map arrays (z, y, x) are taken as (x, y, z).
    dtype
        "complex64" or "complex128".
    """

    grid: PolarGrid
    box_length: float
    atoms: Atoms
    axes: str
    dtype: str

    def slices(
        self, model: AtomModel | MapModel | FunctionModel, axes: np.ndarray, turns: np.ndarray | None = None
    ) -> np.ndarray:
        """Return slices (s, n, W/2) with the given unit vectors (s, 2, 3), as they come.

        `turns` (s,) degrees: how far the vectors were turned in the plane; the constant image that is taken
        out turns with a template.
        """
        half = self.grid.rotations // 2
        kx, ky = self.grid.kx[:, :half], self.grid.ky[:, :half]
        dtype = np.dtype(self.dtype)
        scale = 2 / self.box_length
        if isinstance(model, MapModel):
            volume = model.volume.T if self.axes == "cryolike" else model.volume
            result = slices_of_map(volume, model.voxel_size * scale, axes, kx, ky, dtype)
            origin = np.pi / len(volume) * model.volume.sum()
        elif isinstance(model, FunctionModel):
            points = axes[:, 0, None, None, :] * kx[..., None] + axes[:, 1, None, None, :] * ky[..., None]
            result = np.asarray(model.transform(points * scale)).astype(dtype)
            if result.shape != points.shape[:-1]:
                raise InputError(
                    f"a structure's function gave shape {result.shape} at {points.shape[:-1]} frequencies"
                )
            origin = np.asarray(model.transform(np.zeros((1, 3)))).real.sum()
        else:
            factors = self.factors(model, self.grid.radii)
            result = slices_of_atoms(model.positions * scale, factors, axes, kx, ky, dtype)
            origin = self.factors(model, np.zeros(1)).sum()
        if self.removes_offset(model):
            result = result - (origin * self._box(turns)).astype(dtype)
        return result

    def _box(self, turns: np.ndarray | None) -> np.ndarray:
        """Return sinc(2 kx) sinc(2 ky) on half of the angles (n, W/2), or turned (s, n, W/2)."""
        angles = self.grid.angles[: self.grid.rotations // 2]
        if turns is not None:
            angles = angles + np.radians(turns)[:, None, None]
        radii = self.grid.radii[:, None]
        return np.sinc(2 * radii * np.cos(angles)) * np.sinc(2 * radii * np.sin(angles))

    def removes_offset(self, model: AtomModel | MapModel | FunctionModel) -> bool:
        """Whether the constant image is taken out of templates of a model."""
        if self.atoms.template_offset == "gaussian" and isinstance(model, AtomModel):
            return self.atoms.model.endswith("gaussian") and not model.element
        return self.atoms.template_offset != "none"

    def templates(self, structure: Structure, views: Views, batch: int = 64) -> np.ndarray:
        """Return the templates of a structure (S, n, W/2), of norm 1 on the whole circle.

        Raises
        ------
        InputError
            A structure without contrast within the resolution.
        """
        if isinstance(structure.model, ReadyTemplates):
            return structure.model.read(np.dtype(self.dtype))
        weights = 2 * self.grid.weights[:, None]
        parts = []
        for first in range(0, len(views), batch):
            part = self.slices(structure.model, views.axes[first : first + batch])
            norm = np.sqrt((np.abs(part.astype(np.complex128)) ** 2 * weights).sum(axis=(1, 2)))
            if not (norm > 0).all():
                raise InputError(f"{structure.name}: a template is zero; expected density inside the box")
            parts.append(part / norm[:, None, None].astype(part.real.dtype))
        return np.concatenate(parts)

    def factors(self, model: AtomModel, k: np.ndarray) -> np.ndarray:
        """Return the form factor of each atom on shells k: (n, atoms)."""
        if model.element:
            return _scattering(model, 2 * k / self.box_length)
        s = model.radius * (2 / self.box_length)
        shape = self.atoms.weight == "shape"
        if self.atoms.model.endswith("gaussian"):
            amplitude = (2 * np.pi) ** -1.5 * s**-3 / len(s) if shape else model.weight
            return amplitude * np.exp(-2 * np.pi**2 * (k[:, None] * s) ** 2)
        u = 2 * np.pi * k[:, None] * s
        with np.errstate(invalid="ignore", divide="ignore"):
            sphere = np.where(u < 1e-3, 1 - u * u / 10, 3 * (np.sin(u) - u * np.cos(u)) / u**3)
        return sphere * (np.pi * s**3 / len(s) if shape else model.weight)

    def key(self, structure: Structure, views: Views) -> str:
        """Return a short hash of all that decides the templates, but for the file's content."""
        text = json.dumps([structure.path, structure.name, self.box_length, self.axes, self.dtype])
        parts = (text, repr(self.grid), self.atoms.model_dump_json())
        digest = hashlib.sha256("".join(parts).encode())
        digest.update(views.axes.tobytes())
        return digest.hexdigest()[:16]


def structure_views(
    maker: TemplateMaker, structure: Structure, grid: Grid, pixel_size: float, *, has_prior: bool = False
) -> Views:
    """Return the views of a structure: those that a configuration asks for, or of its ready templates.

    Raises
    ------
    InputError
        Atoms outside the box; a structure without its symmetry; ready templates of other grids.
    """
    if isinstance(structure.model, ReadyTemplates):
        structure.model.check_fits(maker.grid, pixel_size, maker.axes)
        return structure.model.views
    check_fits(structure, maker.box_length)
    check_symmetry(maker, structure)
    return make_views(grid, maker.grid.resolution_factor, structure.symmetry, has_prior=has_prior)


def make_views(grid: Grid, factor: float, symmetry: str, *, has_prior: bool = False) -> Views:
    """Return the views, or listed orientations, that a configuration asks for.

    Raises
    ------
    InputError
        A wrong list; symmetry with views that do not know of it.
    """
    chosen = grid.viewing_distance
    if isinstance(chosen, Healpix | Listed | BioemEuler) and symmetry != "C1":
        raise InputError("viewing_distance: expected symmetry C1 with healpix or a list of orientations")
    match chosen:
        case Healpix():
            return healpix_views(chosen.healpix)
        case Listed():
            listed = read_orientations(chosen.file, has_prior=has_prior, kind=grid.list_kind)
            return oriented_views(listed.axes, listed.log_prior)
        case BioemEuler():
            return oriented_views(goldstein_axes(bioem_euler_grid(*chosen.bioem_euler)))
        case Step():
            return ring_views(math.radians(chosen.step), symmetry)
    distance = chosen if chosen is not None else min(1.0, max(0.02, 1 / (4 * math.pi * factor)))
    return ring_views(distance, symmetry)


def check_symmetry(maker: TemplateMaker, structure: Structure) -> None:
    """Refuse a structure that does not have the symmetry it is said to have.

    Raises
    ------
    InputError
        "NAME: correlates 0.31 with its D2 average, limit 0.8".
    """
    if axial_order(structure.symmetry) == 1 and structure.symmetry.upper().startswith("C"):
        return
    assert not isinstance(structure.model, ReadyTemplates)
    model = structure.model
    views = ring_views(1.0)
    axes = views.axes[:: max(1, len(views) // TESTED_VIEWS)]
    own = maker.slices(model, axes)
    mates = [maker.slices(model, axes @ g.as_matrix().T) for g in symmetry_group(structure.symmetry)]
    mean = np.mean(mates, axis=0)
    weights = maker.grid.weights[:, None]

    def product(a: np.ndarray, b: np.ndarray) -> float:
        return float((weights * (a.conj() * b).real).sum())

    found = product(own, mean) / math.sqrt(product(own, own) * product(mean, mean))
    if found < LEAST_SYMMETRY:
        raise InputError(
            f"{structure.name}: correlates {found:.2f} with its {structure.symmetry} average, "
            f"limit {LEAST_SYMMETRY}"
        )


def _scattering(model: AtomModel, kappa: np.ndarray) -> np.ndarray:
    """Return electron scattering factors with B factors and occupancy: sum a exp(-(b + B) kappa^2 / 4)."""
    import gemmi

    assert model.b_factor is not None
    elements, place = np.unique(np.array(model.element), return_inverse=True)
    square = (kappa / 2) ** 2
    table = np.zeros((len(elements), len(kappa)))
    for row, name in enumerate(elements):
        coefficients = gemmi.Element(str(name)).c4322
        for a, b in zip(coefficients.a, coefficients.b, strict=True):
            table[row] += a * np.exp(-b * square)
    decay = np.exp(-model.b_factor * square[:, None])
    return table[place].T * decay * model.weight
