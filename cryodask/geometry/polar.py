"""The polar grid of an image's transform: Gauss-Jacobi shells times even angles.

Frequencies k are cycles per half box, so 2 k / L is in 1/angstrom for a box of L angstrom and Nyquist is N/4.
Angles run from +x towards +y.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.spatial.transform import Rotation


@dataclass(frozen=True)
class PolarGrid:
    """Where the transform of an N x N image is sampled.

    Parameters
    ----------
    box
        N, pixels.
    resolution_factor
        F, 0 < F <= 1: the outermost frequency over Nyquist.
    rotations
        W, even: angles of a shell, and in-plane rotations of a search.
    """

    box: int
    resolution_factor: float
    rotations: int

    @property
    def radius(self) -> float:
        """R = F N / 4, the outermost frequency."""
        return self.resolution_factor * self.box / 4

    @cached_property
    def _rule(self) -> tuple[np.ndarray, np.ndarray]:
        from scipy.special import roots_jacobi

        nodes, weights = roots_jacobi(1 + math.ceil(4 * self.radius), 0, 1)
        return nodes, weights

    @cached_property
    def radii(self) -> np.ndarray:
        """Shells k (n,), rising."""
        return (self._rule[0] + 1) * self.radius / 2

    @cached_property
    def weights(self) -> np.ndarray:
        """Quadrature weight (n,) of each point of a shell; over all points they sum to pi R^2."""
        return self._rule[1] * 2 * np.pi * (self.radius / 2) ** 2 / self.rotations

    @property
    def angles(self) -> np.ndarray:
        """Angles (W,), radians."""
        return 2 * np.pi * np.arange(self.rotations) / self.rotations

    @property
    def shape(self) -> tuple[int, int]:
        """Shells and angles, (n, W)."""
        return len(self.radii), self.rotations

    @property
    def kx(self) -> np.ndarray:
        """Frequencies along x (n, W)."""
        return self.radii[:, None] * np.cos(self.angles)

    @property
    def ky(self) -> np.ndarray:
        """Frequencies along y (n, W)."""
        return self.radii[:, None] * np.sin(self.angles)

    @property
    def box_transform(self) -> np.ndarray:
        """Transform of the constant image (n, W): 4 sinc(2 kx) sinc(2 ky)."""
        return 4 * np.sinc(2 * self.kx) * np.sinc(2 * self.ky)

    @property
    def disc_samples(self) -> float:
        """Real degrees of freedom within R: 4 pi R^2, as N^2 of them fill the square of area N^2 / 4."""
        return 4 * math.pi * self.radius**2


def displacement_grid(largest: float, count_x: int, count_y: int) -> np.ndarray:
    """Return displacements (D, 2), x fastest: even steps from -largest to largest, or 0 for a count of 1 or
    less."""
    x, y = (np.linspace(-largest, largest, n) if n > 1 else np.zeros(1) for n in (count_x, count_y))
    return np.stack([np.tile(x, len(y)), np.repeat(y, len(x))], axis=1)


def displacement_phases(grid: PolarGrid, displacements: np.ndarray, box_length: float) -> np.ndarray:
    """Return exp(-2 pi i k.d) of displacements (D, 2) in angstrom, on half of the angles: (D, n, W/2).

    At the other half they are the conjugates.
    """
    half = grid.rotations // 2
    scaled = displacements * (2 / box_length)
    phase = scaled[:, 0, None, None] * grid.kx[:, :half] + scaled[:, 1, None, None] * grid.ky[:, :half]
    return np.exp(-2j * np.pi * phase)


def relion_pose(
    azimuth: np.ndarray, polar: np.ndarray, rotation: np.ndarray, displacement: np.ndarray
) -> np.ndarray:
    """Return RELION's rot, tilt, psi (degrees) and origins x, y (unit of the displacement) of poses.

    Parameters
    ----------
    azimuth, polar, rotation : (...,) degrees
        The view and the in-plane rotation.
    displacement : (..., 2)
        In the template frame, before the rotation.

    Returns
    -------
    (..., 5) rot, tilt, psi, origin x, origin y; rot and psi in (-180, 180].
    """
    from cryodask.geometry.euler import wrap_degrees

    cos, sin = np.cos(np.radians(rotation)), np.sin(np.radians(rotation))
    x, y = displacement[..., 0], displacement[..., 1]
    origin = -(cos * x + sin * y), -(-sin * x + cos * y)
    return np.stack([wrap_degrees(azimuth), polar + 0 * cos, wrap_degrees(rotation), *origin], axis=-1)


def relion_pose_of_cryolike(
    azimuth: np.ndarray, polar: np.ndarray, rotation: np.ndarray, displacement: np.ndarray, *, is_map: bool
) -> np.ndarray:
    """Return RELION's pose, as `relion_pose`, of one in CryoLike's axes: angle 0 along array axis 0.

    `is_map`: the structure was a map, whose array (z, y, x) is taken there as (x, y, z).
    """
    from cryodask.geometry.euler import euler_from_rotation, wrap_degrees

    cos, sin = np.cos(np.radians(rotation)), np.sin(np.radians(rotation))
    x, y = displacement[..., 0], displacement[..., 1]
    origin = -(-sin * x + cos * y), -(cos * x + sin * y)
    if not is_map:
        turned = wrap_degrees(azimuth + 180.0), 180.0 - polar, wrap_degrees(270.0 - rotation)
        return np.stack([*turned, *origin], axis=-1)
    # E = Rz(azimuth) Ry(polar) Rz(rotation); E' = P E Q, x and z and then x and y exchanged
    angles = np.stack(np.broadcast_arrays(azimuth, polar, rotation), axis=-1)
    active = Rotation.from_euler("ZYZ", angles.reshape(-1, 3), degrees=True).as_matrix()
    exchanged = active[:, ::-1][:, :, [1, 0, 2]]
    euler = euler_from_rotation(Rotation.from_matrix(exchanged).inv(), "relion").reshape(angles.shape)
    return np.concatenate([euler, np.stack(origin, axis=-1)], axis=-1)
