"""Orientation grids of micrograph matching against torch-so3's lists, counts and coverage."""

import numpy as np
import pytest
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from cryodask.errors import InputError
from cryodask.geometry.symmetry import symmetry_group
from cryodask.geometry.zyz import zyz_angles, zyz_matrices, zyz_rotations
from cryodask.geometry.zyz_grids import (
    OrientationGrid,
    cartesian_rows,
    overshooting_values,
    psi_values,
    search_values,
    symmetry_limits,
)


def test_rows_of_torch_so3(shared_data):
    with np.load(shared_data / "micrograph_matching" / "so3.npz") as reference:
        for base in ("uniform", "healpix"):
            found = OrientationGrid(30, 30, base=base).angles()
            np.testing.assert_allclose(found, reference[f"{base}_30_30"], atol=1e-9)
        local = OrientationGrid(
            0.15, 0.25, None, phi=(-1.5, 1.5), theta=(-2.5, 2.5), psi=(-1.5, 1.5 + 1e-6)
        ).angles()
        np.testing.assert_allclose(local, reference["local"], atol=1e-9)


@pytest.mark.parametrize(
    ("symmetry", "count"),
    [
        ("C2", 793_920),
        ("C7", 226_800),
        ("D2", 405_600),
        ("D7", 115_920),
        ("T", 176_400),
        ("O", 88_320),
        ("I", 67_200),
        ("i2", 67_200),
    ],
)
def test_counts_of_leopard_em(symmetry, count):
    assert len(OrientationGrid(symmetry=symmetry).angles()) == count


@pytest.mark.parametrize(
    ("steps", "count"),
    [((90, 90), 24), ((60, 60), 72), ((45, 45), 176), ((10, 10), 14_832), ((3, 5), 198_240)],
)
def test_counts_at_other_steps(steps, count):
    assert len(OrientationGrid(*steps).angles()) == count


def test_default_counts_of_every_base():
    counts = {"uniform": 1_584_480, "healpix": 1_658_880, "cartesian": 2_488_320}
    for base, count in counts.items():
        grid = OrientationGrid(base=base)
        assert len(grid.angles()) == count, base


def test_a_cartesian_grid_leaves_out_both_ends():
    rows = cartesian_rows(45.0, (0.0, 5.0), (0.0, 90.0))
    np.testing.assert_allclose(rows, [[0, 0], [0, 45], [2.5, 0], [2.5, 45]])


def test_every_direction_has_a_mate_inside_the_ranges_of_its_symmetry():
    views = Rotation.random(4000, rng=0)
    for name in ("C3", "D2", "T", "O", "I1", "I2"):
        phi_max, theta_max = symmetry_limits(name)
        found = np.zeros(len(views), bool)
        for g in symmetry_group(name):
            phi, theta, _ = zyz_angles(np.swapaxes((views * g).as_matrix(), 1, 2)).T
            found |= (phi <= phi_max) & (theta <= theta_max)
        assert found.all(), name


def test_a_full_grid_leaves_no_gap_wider_than_its_steps():
    grid = zyz_rotations(OrientationGrid(10, 10).angles()).as_quat()
    tree = KDTree(np.concatenate([grid, -grid]))
    chord, _ = tree.query(Rotation.random(2000, rng=1).as_quat())
    gap = np.degrees(4 * np.arcsin(chord / 2))
    assert gap.max() < np.hypot(10 / np.sqrt(2), 5) * 1.15


def test_in_plane_angles_leave_out_their_end():
    np.testing.assert_allclose(psi_values((0.0, 360.0), 90.0), [0, 90, 180, 270])
    np.testing.assert_allclose(psi_values((-10.0, 5.0), 10.0), [-10, 0])
    np.testing.assert_allclose(psi_values((7.0, 7.0), 10.0), [7])


def test_search_values_hold_zero_and_do_not_overshoot():
    np.testing.assert_allclose(search_values(-1000, 1000, 200), np.arange(-1000, 1001, 200))
    assert len(search_values(-1200, 1200, 200)) == 13
    fine = search_values(-0.05, 0.05, 0.01)
    assert len(fine) == 11 and fine[5] == 0.0
    np.testing.assert_allclose(search_values(-500, 400, 300), [-500, -200, 0, 100, 400])
    np.testing.assert_allclose(search_values(-500, 400, 300, with_zero=False), [-500, -200, 100, 400])
    np.testing.assert_allclose(search_values(200, 600, 200), [0, 200, 400, 600])
    assert len(overshooting_values(-0.05, 0.05, 0.01)) == 12


def test_unknown_symmetry_and_step_are_refused():
    with pytest.raises(InputError, match="symmetry = X3: expected C<n>, D<n>, T, O or I"):
        OrientationGrid(symmetry="X3").angles()
    with pytest.raises(InputError, match="theta_step = 0: expected more than 0"):
        OrientationGrid(theta_step=0).angles()


def test_angles_come_back_from_their_matrices():
    angles = np.array([[40.0, 70.0, 25.0], [359.0, 179.0, 3.0], [0.0, 90.0, 359.5]])
    np.testing.assert_allclose(zyz_angles(zyz_matrices(angles)), angles, atol=1e-9)
    np.testing.assert_allclose(zyz_angles(zyz_matrices([[10.0, 0.0, 20.0]])), [[0, 0, 30]], atol=1e-9)
    np.testing.assert_allclose(zyz_angles(zyz_matrices([[10.0, -60.0, 20.0]])), [[190, 60, 200]], atol=1e-9)
    upside_down = zyz_angles(zyz_matrices([[30.0, 180.0, 10.0]]))
    np.testing.assert_allclose(zyz_matrices(upside_down), zyz_matrices([[30.0, 180.0, 10.0]]), atol=1e-6)


def test_the_matrix_is_the_product_of_three_turns():
    phi, theta, psi = np.radians([40.0, 70.0, 25.0])

    def about_z(a):
        return np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])

    about_y = np.array([[np.cos(theta), 0, np.sin(theta)], [0, 1, 0], [-np.sin(theta), 0, np.cos(theta)]])
    expected = about_z(phi) @ about_y @ about_z(psi)
    np.testing.assert_allclose(zyz_matrices([[40.0, 70.0, 25.0]])[0], expected, atol=1e-12)
    np.testing.assert_allclose(zyz_rotations([[40.0, 70.0, 25.0]]).as_matrix()[0], expected.T, atol=1e-12)
