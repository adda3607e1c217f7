"""Lists of rotations to search: how they are made, and how well they cover."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from cryodask.errors import InputError
from cryodask.geometry.directions import golden_directions, healpix_directions, ring_directions
from cryodask.geometry.euler import euler_from_rotation, rotation_from_euler
from cryodask.geometry.symmetry import axial_order, symmetry_group

Method = Literal["golden", "rings", "healpix"]

_DIRECTIONS: dict[str, Callable[[float, float], np.ndarray]] = {
    "golden": golden_directions,
    "rings": ring_directions,
    "healpix": healpix_directions,
}
_ANGLE_TOLERANCE = 1e-9
MOST_ROTATIONS = 1e8


@dataclass(frozen=True)
class GridSummary:
    """What a user is told of a list: its size, and the gaps it leaves (degrees, to random rotations)."""

    rotations: int
    directions: int
    inplane: int | None
    mean_gap: float
    largest_gap: float

    def __str__(self) -> str:
        # lists for T, O and I have no common number of in-plane values
        product = f"{self.directions} directions x {self.inplane} in-plane values = " if self.inplane else ""
        gaps = f"gap to a random rotation {self.mean_gap:.2f} mean, {self.largest_gap:.2f} largest (degrees)"
        return f"{product}{self.rotations} rotations, {gaps}"


def rotation_grid(
    step: float,
    *,
    method: Method = "healpix",
    cone: float = 180.0,
    inplane_step: float | None = None,
    inplane_range: float | None = None,
    symmetry: str = "C1",
    centre: np.ndarray | None = None,
) -> np.ndarray:
    """Return a list of rotations that covers all orientations, or a cone of them, once under the symmetry.

    Parameters
    ----------
    step
        Distance of neighbouring directions, degrees, 0 < step <= 180.
    method
        ``golden`` (the lists of GAPSTOP(TM) and cryoCAT), ``rings`` (STOPGAP) or ``healpix``.
    cone
        Half opening angle of the cone of directions about z, degrees.
    inplane_step
        Step of phi, degrees; `step` when None.
    inplane_range
        phi runs over the multiples of `inplane_step` in [-range, range], degrees; the full circle when None.
    symmetry
        Point group of the template, as in `symmetry_group`; the list holds one of each set of equal views.
    centre
        (3,) zxz degrees: every rotation R becomes R_centre R.

    Returns
    -------
    numpy.ndarray
        (N, 3) float64, degrees, columns phi, theta, psi (zxz). phi runs fastest, in ``rings`` slowest.

    Raises
    ------
    InputError
        A value is out of its range, the method or the symmetry unknown.
    """
    inplane_step = step if inplane_step is None else inplane_step
    _check(step, method, cone, inplane_step, inplane_range)
    group, order = symmetry_group(symmetry), axial_order(symmetry)
    # the 2-fold axis of Dn across z makes the lower half of the directions equal to the upper
    half_cone = min(cone, 90.0) if symmetry.strip().upper().startswith("D") else cone
    directions = _DIRECTIONS[method](step, half_cone)
    phi = _inplane_angles(method, 360.0 / (order or 1), inplane_step, inplane_range)
    angles = _product(phi, directions, phi_fastest=method != "rings")
    if order is None:
        angles = _one_of_each_view(angles, group, step / 4.0, cone, inplane_range)
    if centre is not None:
        angles = euler_from_rotation(rotation_from_euler(centre) * rotation_from_euler(angles))
    return angles


def crowther_step(diameter: float, resolution: float, voxel_size: float | None = None) -> float:
    """Return the angular step at which a particle's rim moves by one resolution element (Crowther 1970).

    Parameters
    ----------
    diameter
        Of the particle, angstrom.
    resolution
        Finest detail kept, angstrom; not taken below two voxels.
    voxel_size
        Angstrom; None leaves `resolution` as it is.

    Returns
    -------
    float
        Degrees, at most 180.

    Raises
    ------
    InputError
        A length is not positive.
    """
    for name, value in (("particle diameter", diameter), ("resolution", resolution)):
        if not value > 0:
            raise InputError(f"{name} = {value:g}: expected more than 0 angstrom")
    return min(180.0, math.degrees(max(resolution, 2.0 * (voxel_size or 0.0)) / diameter))


def grid_gaps(
    angles: np.ndarray,
    symmetry: str = "C1",
    n: int = 4000,
    seed: int = 0,
    *,
    cone: float | None = None,
    inplane_range: float | None = None,
    centre: np.ndarray | None = None,
) -> np.ndarray:
    """Return the distance from random rotations to the nearest row, modulo the symmetry.

    Parameters
    ----------
    angles
        (N, 3) zxz degrees.
    symmetry
        Point group: a rotation R is as near as the nearest of its equals R g.
    n
        Number of random rotations, even over the cone.
    seed
        Of the random rotations.
    cone, inplane_range, centre
        What the list was made to cover, as in `rotation_grid`; a `cone` of None is read off the rows (180 for
        T, O and I).

    Returns
    -------
    numpy.ndarray
        (n,) degrees.
    """
    group = symmetry_group(symmetry)
    around = Rotation.identity() if centre is None else rotation_from_euler(centre)[0]
    rows = rotation_from_euler(angles)
    if cone is None:
        # the rows of T, O and I fill a cell about the identity, from which no cone can be read
        cone = 180.0 if axial_order(symmetry) is None else _covered_cone(around.inv() * rows)
    tests = around * _random_rotations(n, seed, cone, inplane_range)
    quaternions = rows.as_quat()
    # q and -q are one rotation
    tree = KDTree(np.concatenate([quaternions, -quaternions]))
    chord = np.stack([tree.query((tests * g).as_quat())[0] for g in group]).min(axis=0)
    return np.degrees(4.0 * np.arcsin(np.clip(chord / 2.0, 0.0, 1.0)))


def grid_summary(
    angles: np.ndarray,
    symmetry: str = "C1",
    *,
    cone: float | None = None,
    inplane_range: float | None = None,
    centre: np.ndarray | None = None,
) -> GridSummary:
    """Return the size of a list and its gaps to 4000 random rotations.

    Parameters
    ----------
    angles
        (N, 3) zxz degrees.
    symmetry
        Point group of the template.
    cone, inplane_range, centre
        What the list was made to cover, as in `grid_gaps`.
    """
    gaps = grid_gaps(angles, symmetry, cone=cone, inplane_range=inplane_range, centre=centre)
    per_direction = _rows_per_direction(rotation_from_euler(angles))
    inplane = int(per_direction[0]) if np.ptp(per_direction) == 0 else None
    return GridSummary(len(angles), len(per_direction), inplane, float(gaps.mean()), float(gaps.max()))


def _check(step: float, method: str, cone: float, inplane_step: float, inplane_range: float | None) -> None:
    if method not in _DIRECTIONS:
        raise InputError(f"method = {method}: expected golden, rings or healpix")
    if not 0.0 < step <= 180.0:
        raise InputError(f"angular step = {step:g}: expected 0 < step <= 180 degrees")
    if not 0.0 < cone <= 180.0:
        raise InputError(f"cone = {cone:g}: expected 0 < cone <= 180 degrees")
    if not 0.0 < inplane_step <= 360.0:
        raise InputError(f"in-plane step = {inplane_step:g}: expected 0 < step <= 360 degrees")
    if inplane_range is not None and not inplane_range >= 0.0:
        raise InputError(f"in-plane range = {inplane_range:g}: expected at least 0 degrees")
    sphere = 1.0 if method == "healpix" else (1.0 - math.cos(math.radians(cone))) / 2.0
    directions = 4.0 * math.pi * sphere / math.radians(step) ** 2
    inplane = min(360.0, 360.0 if inplane_range is None else 2.0 * inplane_range) / inplane_step
    if (count := directions * max(inplane, 1.0)) > MOST_ROTATIONS:
        raise InputError(
            f"angular step = {step:g}: about {count:.1g} rotations, expected at most {MOST_ROTATIONS:.0g}"
        )


def _inplane_angles(method: str, period: float, step: float, half_range: float | None) -> np.ndarray:
    if half_range is not None and 2.0 * half_range < period - _ANGLE_TOLERANCE:
        n = math.floor(half_range / step + _ANGLE_TOLERANCE)
        return step * np.arange(-n, n + 1)
    ratio = round(period / step, 9)
    counts = {"golden": round(ratio), "rings": math.floor(ratio + 0.5), "healpix": math.ceil(ratio)}
    count = max(1, counts[method])
    return period * np.arange(count) / count


def _product(phi: np.ndarray, directions: np.ndarray, *, phi_fastest: bool) -> np.ndarray:
    i, j = np.indices((len(directions), len(phi))).reshape(2, -1)
    if not phi_fastest:
        j, i = np.indices((len(phi), len(directions))).reshape(2, -1)
    return np.column_stack([phi[j], directions[i]])


def _one_of_each_view(
    angles: np.ndarray, group: Rotation, slack: float, cone: float, inplane_range: float | None
) -> np.ndarray:
    """Keep the rows that turn no farther than any of their equals in the domain of the list, but for `slack`.

    The slack (degrees) keeps both sides of a border between equal cells, which would else be thinned on both.
    """
    rotations = rotation_from_euler(angles)
    quaternions, third_rows = rotations.as_quat(), rotations.as_matrix()[:, 2]
    least = rotations.magnitude()
    for g in group:
        # angle of R g from the scalar part of the quaternion product
        cosine = np.abs(quaternions @ g.inv().as_quat())
        turn = 2.0 * np.arccos(np.clip(cosine, 0.0, 1.0))
        in_domain = _in_domain(third_rows @ g.as_matrix(), cone, inplane_range)
        least = np.where(in_domain, np.minimum(least, turn), least)
    # ties between equal cells must not hang on the last bit
    return angles[rotations.magnitude() <= least + math.radians(slack) + 1e-6]


def _in_domain(third_rows: np.ndarray, cone: float, inplane_range: float | None) -> np.ndarray:
    # the third row of Rz(psi) Rx(theta) Rz(phi) is (sin theta sin phi, sin theta cos phi, cos theta)
    x, y, z = third_rows.T
    inside = z >= math.cos(math.radians(cone)) - _ANGLE_TOLERANCE
    if inplane_range is not None:
        inside &= np.abs(np.degrees(np.arctan2(x, y))) <= inplane_range + 1e-6
    return inside


def _covered_cone(rotations: Rotation) -> float:
    """Return the half cone that the directions of a list fill, 180 when only the far pole is missing."""
    least = np.clip(rotations.apply([0.0, 0.0, 1.0])[:, 2].min(), -1.0, 1.0)
    spacing = math.degrees(math.sqrt(2.0 * math.pi * (1.0 - least) / len(_rows_per_direction(rotations))))
    half_cone = math.degrees(math.acos(least))
    return 180.0 if half_cone + 1.5 * spacing >= 180.0 else half_cone


def _rows_per_direction(rotations: Rotation) -> np.ndarray:
    # adding 0 makes -0 and 0 one
    directions = rotations.apply([0.0, 0.0, 1.0]).round(7) + 0.0
    return np.unique(directions, axis=0, return_counts=True)[1]


def _random_rotations(n: int, seed: int, cone: float, inplane_range: float | None) -> Rotation:
    rng = np.random.default_rng(seed)
    theta = np.degrees(np.arccos(rng.uniform(math.cos(math.radians(cone)), 1.0, n)))
    half_range = 180.0 if inplane_range is None else min(inplane_range, 180.0)
    phi = rng.uniform(-half_range, half_range, n)
    return rotation_from_euler(np.column_stack([phi, theta, rng.uniform(-180.0, 180.0, n)]))
