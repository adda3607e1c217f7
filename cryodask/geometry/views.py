"""Viewing directions with quadrature weights over the sphere, or listed orientations.

A view is the central slice k3 = Rz(azimuth) Ry(polar) Rz(psi) (k cos t, k sin t, 0), psi = 0 but for lists.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from cryodask.geometry.symmetry import axial_order, symmetry_group


@dataclass(frozen=True)
class Views:
    """Views of a structure.

    Parameters
    ----------
    azimuth, polar : (S,) degrees
    weight : (S,)
        Quadrature weights; they sum to 1.
    psi : (S,) degrees or None
        In-plane rotation that is part of the view; None for 0.
    """

    azimuth: np.ndarray
    polar: np.ndarray
    weight: np.ndarray
    psi: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.azimuth)

    @property
    def axes(self) -> np.ndarray:
        """Unit vectors of the slices' x and y axes in the structure's frame: (S, 2, 3)."""
        a, b = np.radians(self.azimuth), np.radians(self.polar)
        x = np.stack([np.cos(a) * np.cos(b), np.sin(a) * np.cos(b), -np.sin(b)], axis=-1)
        y = np.stack([-np.sin(a), np.cos(a), np.zeros_like(a)], axis=-1)
        if self.psi is None:
            return np.stack([x, y], axis=1)
        cos, sin = np.cos(np.radians(self.psi))[:, None], np.sin(np.radians(self.psi))[:, None]
        return np.stack([cos * x + sin * y, cos * y - sin * x], axis=1)

    @property
    def directions(self) -> np.ndarray:
        """Unit vectors along the projection (S, 3)."""
        x, y = np.moveaxis(self.axes, 1, 0)
        return np.cross(x, y)


def ring_views(distance: float, symmetry: str = "C1") -> Views:
    """Return rings at Gauss-Legendre nodes of cos(polar), as CryoLike takes them.

    Parameters
    ----------
    distance
        Distance of neighbouring views, radians.
    symmetry
        ``Cn``: rings of n m' views of which m' are kept; ``Dn``: also polar <= 90; T, O, I: of each set of
        equal views the one nearest to (azimuth 10, polar 20).
    """
    nodes, node_weights = np.polynomial.legendre.leggauss(
        3 + math.ceil((3 + round(2 * np.pi / distance)) / 2)
    )
    order, is_dihedral = axial_order(symmetry) or 1, symmetry.strip().upper().startswith("D")
    rings = []
    for cosine, node in zip(nodes, node_weights, strict=True):
        if is_dihedral and cosine < -1e-12:
            continue
        node = node / 2 if is_dihedral and abs(cosine) < 1e-12 else node
        around = 3 + round(2 * np.pi * math.sqrt(1 - cosine**2) / distance)
        count = math.ceil(around / order)
        azimuth = 360.0 / (order * count) * np.arange(count)
        polar = np.full(count, math.degrees(math.acos(cosine)))
        rings.append(np.stack([azimuth, polar, np.full(count, node / count)]))
    azimuth, polar, weight = np.concatenate(rings, axis=1)
    views = Views(azimuth, polar, weight / weight.sum())
    return views if axial_order(symmetry) else _one_of_each(views, symmetry)


def healpix_views(nside: int) -> Views:
    """Return the 12 nside^2 HEALPix centres in ring order, of equal weight."""
    import healpix

    polar, azimuth = healpix.pix2ang(nside, np.arange(12 * nside**2))
    return listed_views(np.degrees(azimuth), np.degrees(polar))


def listed_views(azimuth: np.ndarray, polar: np.ndarray) -> Views:
    """Return given views, of equal weight."""
    return Views(
        np.asarray(azimuth, float), np.asarray(polar, float), np.full(len(azimuth), 1 / len(azimuth))
    )


def oriented_views(axes: np.ndarray, log_prior: np.ndarray | None = None) -> Views:
    """Return views whose image axes are given (S, 2, 3), of equal weight or of that of a log prior (S,)."""
    from cryodask.geometry.euler import euler_from_rotation

    matrices = np.concatenate([axes, np.cross(axes[:, 0], axes[:, 1])[:, None]], axis=1)
    rot, tilt, psi = euler_from_rotation(Rotation.from_matrix(matrices), "relion").T
    weight = np.ones(len(axes)) if log_prior is None else np.exp(log_prior - np.max(log_prior))
    return Views(rot, tilt, weight / weight.sum(), psi)


def turned_views(views: Views, rotations: int) -> Views:
    """Return every view at every in-plane rotation, as views of their own, rotations fastest."""
    angles = 360.0 / rotations * np.arange(rotations)
    azimuth, polar, weight = (np.repeat(v, rotations) for v in (views.azimuth, views.polar, views.weight))
    own = np.zeros(len(views)) if views.psi is None else views.psi
    return Views(azimuth, polar, weight / rotations, (own[:, None] + angles).ravel())


def _one_of_each(views: Views, symmetry: str) -> Views:
    """Keep the views that are nearest, among their mates, to one direction."""
    a, b = math.radians(10.0), math.radians(20.0)
    toward = np.array([math.sin(b) * math.cos(a), math.sin(b) * math.sin(a), math.cos(b)])
    own = views.directions @ toward
    mates = np.stack([g.apply(views.directions) @ toward for g in symmetry_group(symmetry)])
    kept = own >= mates.max(axis=0) - 1e-9
    weight = views.weight[kept]
    return Views(views.azimuth[kept], views.polar[kept], weight / weight.sum())
