"""Rotations near others, held against quaternions."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryodask.geometry.euler import rotation_from_euler
from cryodask.geometry.grids import rotation_grid
from cryodask.geometry.nearness import are_near
from cryodask.geometry.symmetry import symmetry_group


def slow(rotation, centre, cone, inplane_range, symmetry):
    """One pair by swing and twist of the quaternion of C⁻¹ R g."""
    for element in symmetry_group(symmetry):
        x, y, z, w = (centre.inv() * rotation * element).as_quat()
        swing = np.degrees(2 * np.arcsin(min(np.hypot(x, y), 1.0)))
        twist = np.degrees(2 * np.arctan2(z, w))
        twist = abs((twist + 180) % 360 - 180)
        if (cone is None or swing <= cone) and (inplane_range is None or twist <= inplane_range):
            return True
    return False


@pytest.mark.parametrize("symmetry", ["C1", "C4", "D2", "T", "O", "I"])
@pytest.mark.parametrize(("cone", "inplane_range"), [(35.0, None), (None, 20.0), (50.0, 40.0), (None, None)])
def test_a_rotation_is_near_by_its_swing_and_its_twist(symmetry, cone, inplane_range):
    rotations, centres = Rotation.random(40, rng=1), Rotation.random(7, rng=2)
    found = are_near(
        rotations.as_matrix(),
        centres.as_matrix(),
        cone=cone,
        inplane_range=inplane_range,
        symmetry=symmetry,
    )
    expected = [[slow(r, c, cone, inplane_range, symmetry) for c in centres] for r in rotations]
    np.testing.assert_array_equal(found, expected)


def test_the_rows_of_a_cone_are_those_near_its_centre():
    centre = np.array([[40.0, 70.0, -120.0]])
    rows = rotation_grid(15.0, method="rings", centre=centre[0])
    near = are_near(rotation_from_euler(rows).as_matrix(), rotation_from_euler(centre).as_matrix(), cone=45.0)
    inside = rotation_grid(15.0, method="rings")[:, 1] <= 45.0 + 1e-9
    np.testing.assert_array_equal(near[:, 0], inside)


def test_the_answer_for_a_pair_does_not_depend_on_the_others():
    rotations, centres = Rotation.random(300, rng=3).as_matrix(), Rotation.random(50, rng=4).as_matrix()
    near = {"cone": 40.0, "inplane_range": 50.0, "symmetry": "D3"}
    together = are_near(rotations, centres, **near)
    alone = [are_near(rotations[i : i + 1], centres, **near)[0] for i in range(300)]
    np.testing.assert_array_equal(together, alone)
