import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from cryodask.errors import InputError
from cryodask.geometry.euler import euler_from_rotation, rotation_from_euler, zxz_to_relion

quarter_turns = st.sampled_from([-180.0, -90.0, 0.0, 90.0, 180.0])
turns = st.one_of(quarter_turns, st.floats(-180.0, 180.0))


def rx(degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def ry(degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def rz(degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def test_the_documented_matrix_comes_from_both_conventions():
    expected = [
        [0.263258, -0.829598, 0.492404],
        [0.909616, 0.043412, -0.413176],
        [0.321394, 0.556670, 0.766044],
    ]
    zxz = rotation_from_euler(np.array([[30.0, 40.0, 50.0]])).as_matrix()[0]
    relion = rotation_from_euler(zxz_to_relion(np.array([[30.0, 40.0, 50.0]])), "relion").as_matrix()[0]
    np.testing.assert_allclose(zxz, expected, atol=1e-6)
    np.testing.assert_allclose(relion, expected, atol=1e-6)
    np.testing.assert_allclose(zxz_to_relion(np.array([[30.0, 40.0, 50.0]])), [[60.0, 40.0, -140.0]])


@settings(max_examples=50, deadline=None, derandomize=True)
@given(turns, st.floats(0.0, 180.0), turns)
def test_both_conventions_are_products_of_axis_turns(a, b, c):
    zxz = rotation_from_euler(np.array([[a, b, c]]), "zxz").as_matrix()[0]
    relion = rotation_from_euler(np.array([[a, b, c]]), "relion").as_matrix()[0]
    np.testing.assert_allclose(zxz, rz(c) @ rx(b) @ rz(a), atol=1e-12)
    np.testing.assert_allclose(relion, rz(-c) @ ry(-b) @ rz(-a), atol=1e-12)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(turns, st.one_of(st.sampled_from([0.0, 180.0]), st.floats(0.0, 180.0)), turns)
@pytest.mark.parametrize("convention", ["zxz", "relion"])
def test_angles_come_back_as_the_same_rotation(convention, a, b, c):
    rotation = rotation_from_euler(np.array([[a, b, c]]), convention)
    angles = euler_from_rotation(rotation, convention)
    again = rotation_from_euler(angles, convention)
    assert np.degrees((rotation * again.inv()).magnitude())[0] < 1e-4
    assert ((angles[:, [0, 2]] > -180.0) & (angles[:, [0, 2]] <= 180.0)).all()


def test_psi_is_zero_at_the_poles():
    poles = Rotation.from_euler("zxz", [[20.0, 0.0, 30.0], [20.0, 180.0, 30.0]], degrees=True)
    np.testing.assert_allclose(euler_from_rotation(poles), [[50.0, 0.0, 0.0], [-10.0, 180.0, 0.0]], atol=1e-9)


def test_wrong_input_is_named():
    with pytest.raises(InputError, match=r"shape \(1, 2\): expected \(N, 3\)"):
        rotation_from_euler(np.array([[1.0, 2.0]]))
    with pytest.raises(InputError, match="convention zyz: expected zxz or relion"):
        rotation_from_euler(np.zeros((1, 3)), "zyz")
