"""Local grids: three degrees of freedom, counts of the specification, Leopard-EM's list where asked for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from cryodask.errors import InputError
from cryodask.geometry.local_grid import LocalGrid, leopard_em_local_matrices, roll_angles
from cryodask.geometry.zyz import zyz_matrices

TILTS = {1: 5, 2: 13, 3: 29, 4: 49, 5: 81, 6: 113, 8: 197, 10: 317}


@pytest.mark.parametrize(("reach", "count"), TILTS.items())
def test_tilts_fill_a_disc_of_a_square_lattice(reach, count):
    assert len(LocalGrid(reach * 0.25, 0.25, 0.0, 0.1).matrices()) == count


def test_counts_and_order_at_the_defaults():
    assert len(LocalGrid().matrices()) == 9827
    grid = LocalGrid(psi_step=0.15)
    matrices = grid.matrices()
    assert len(matrices) == 6657 and (len(grid.coarse().matrices()), len(grid.around())) == (259, 125)
    np.testing.assert_allclose(matrices[0], np.eye(3), atol=1e-12)
    tilt = np.degrees(np.arccos(np.clip(matrices[:, 2, 2], -1, 1)))
    assert (np.diff(tilt) > -1e-5).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_no_orientation_inside_lies_farther_than_the_spacing(seed):
    grid = LocalGrid(1.0, 0.25, 0.6, 0.15)
    rng = np.random.default_rng(seed)
    tilt = rng.uniform(-0.6, 0.6, 2)
    azimuth, tau, turn = np.degrees(np.arctan2(tilt[1], tilt[0])), np.hypot(*tilt), rng.uniform(-0.6, 0.6)
    wanted = Rotation.from_euler("ZYZ", [azimuth, tau, turn - azimuth], degrees=True)
    apart = (Rotation.from_matrix(grid.matrices()).inv() * wanted).magnitude()
    assert np.degrees(apart.min()) <= grid.spacing + 1e-3


def test_leopard_em_local_list_row_by_row(shared_data):
    wanted = np.load(shared_data / "micrograph_matching" / "so3.npz")["local"]
    np.testing.assert_allclose(
        leopard_em_local_matrices(2.5, 0.25, 1.5, 0.15), zyz_matrices(wanted), atol=1e-9
    )


def test_roll_grid_counts_ends_and_leaves_the_view_near_the_axis():
    angles = roll_angles(np.arange(0.0, 180.0, 2.0), (-10.0, 10.0), 0.5, (-10.0, 10.0), 0.5)
    assert len(angles) == 151_290
    turns = Rotation.from_matrix(zyz_matrices(angles[::997])).magnitude()
    assert np.degrees(turns).max() <= np.hypot(10.0, 10.0) + 1e-6


@pytest.mark.parametrize(("field", "value"), [("theta_step", 0.0), ("psi_step", -1.0), ("psi_range", -0.1)])
def test_steps_and_ranges_are_checked(field, value):
    with pytest.raises(InputError, match=f"{field} = {value:g}: expected"):
        LocalGrid(**{field: value})
