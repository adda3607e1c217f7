import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from cryodask.geometry.euler import rotation_from_euler
from cryodask.geometry.grids import rotation_grid
from cryodask.geometry.neighbours import RowFinder, coarser_grid
from cryodask.geometry.symmetry import symmetry_group


def angles_to(rows: Rotation, rotation: Rotation, symmetry: str) -> np.ndarray:
    """Every angle by hand, degrees: the least over the symmetry mates."""
    each = [((rotation * g).inv() * rows).magnitude() for g in symmetry_group(symmetry)]
    return np.degrees(np.min(each, axis=0))


@pytest.mark.parametrize("symmetry", ["C1", "C4", "D2", "O"])
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000))
def test_rows_within_an_angle_and_the_nearest_are_those_of_all_angles(symmetry: str, seed: int) -> None:
    rows = rotation_from_euler(rotation_grid(20.0, symmetry=symmetry))
    rotations = Rotation.random(3, random_state=seed)
    finder = RowFinder(rows, symmetry)
    sets = finder.within(rotations, 27.0)
    angles, nearest = finder.nearest(rotations, 4)
    for i, rotation in enumerate(rotations):
        truth = angles_to(rows, rotation, symmetry)
        np.testing.assert_array_equal(sets[i], np.flatnonzero(truth <= 27.0))
        np.testing.assert_allclose(angles[i], np.sort(truth)[:4], atol=1e-6)
        np.testing.assert_allclose(truth[nearest[i]], angles[i], atol=1e-6)
    np.testing.assert_array_equal(sets.union(np.array([0, 2])), np.union1d(sets[0], sets[2]))


def test_every_fine_row_is_near_one_of_the_three_nearest_coarse_rows() -> None:
    fine = RowFinder(rotation_from_euler(rotation_grid(10.0, symmetry="C2")), "C2")
    coarse = coarser_grid(fine, 30.0)
    local = fine.within(coarse, 30.0)
    rotations = rotation_from_euler(rotation_grid(10.0, symmetry="C2"))
    best = RowFinder(coarse, "C2").nearest(rotations, 3)[1]
    assert all(row in local.union(rows) for row, rows in enumerate(best))


def test_the_coarse_grid_of_a_cone_stays_by_the_cone() -> None:
    fine = rotation_from_euler(rotation_grid(10.0, cone=20.0))
    coarse = coarser_grid(RowFinder(fine), 20.0)
    tilt = np.degrees(np.arccos(coarse.apply([0, 0, 1])[:, 2]))
    assert 20.0 < tilt.max() < 45.0
    assert RowFinder(coarse).nearest(fine)[0].max() < 20.0


def test_a_list_shorter_than_what_is_asked_for() -> None:
    finder = RowFinder(Rotation.identity(1), "C3")
    angles, rows = finder.nearest(Rotation.from_euler("z", [[125.0]], degrees=True), 4)
    np.testing.assert_allclose(angles, [[5.0]], atol=1e-9)
    assert rows.tolist() == [[0]]
