import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryodask.errors import InputError
from cryodask.geometry.symmetry import count_symmetry_mates, symmetry_group

ORDERS = {
    "C1": 1,
    "C7": 7,
    "D1": 2,
    "D2": 4,
    "D7": 14,
    "T": 12,
    "T3": 12,
    "O": 24,
    "I": 60,
    "I1": 60,
    "I2": 60,
}
SHORT, LONG = 0.525731, 0.850651


def angle_to_group(rotations, group):
    """Least angle (degrees) from each rotation to an element."""
    return np.degrees(np.min([(rotations * g.inv()).magnitude() for g in group], axis=0))


@pytest.mark.parametrize(("name", "order"), ORDERS.items())
def test_group_is_closed_and_starts_with_the_identity(name, order):
    group = symmetry_group(name)
    assert len(group) == order
    assert group[0].magnitude() < 1e-9
    products = Rotation.concatenate([g * group for g in group])
    assert angle_to_group(products, group).max() < 1e-5
    apart = [(group[i] * group[j].inv()).magnitude() for i in range(order) for j in range(i)]
    assert not apart or min(apart) > 0.05


@pytest.mark.parametrize(
    ("name", "fold", "axis"),
    [
        ("C7", 7, (0, 0, 1)),
        ("D7", 7, (0, 0, 1)),
        ("D7", 2, (1, 0, 0)),
        ("T", 2, (1, 0, 0)),
        ("T", 2, (0, 0, 1)),
        ("T", 3, (1, 1, 1)),
        ("T3", 3, (0, 0, 1)),
        ("T3", 2, (0, 0.816497, 0.577350)),
        ("O", 4, (1, 0, 0)),
        ("O", 4, (0, 0, 1)),
        *[(name, 2, axis) for name in ("I", "I1", "I2") for axis in np.eye(3)],
        *[(n, 5, a) for n in ("I", "I1") for a in [(0, SHORT, LONG), (LONG, 0, SHORT), (SHORT, LONG, 0)]],
        ("I2", 5, (SHORT, 0, LONG)),
        ("I2", 5, (0, LONG, SHORT)),
    ],
)
def test_axes_lie_where_the_setting_says(name, fold, axis):
    turn = Rotation.from_rotvec(2 * np.pi / fold * np.array(axis) / np.linalg.norm(axis))
    assert angle_to_group(turn, symmetry_group(name)) < 1e-3


@pytest.mark.parametrize("name", ["X5", "C0", "C100", "D", "T2", "I3", "", "C-1"])
def test_unknown_names_are_refused(name):
    with pytest.raises(InputError, match="expected Cn, Dn, T, T3, O, I, I1, I2"):
        symmetry_group(name)


def test_rows_that_repeat_a_view_are_counted():
    views = Rotation.random(50, rng=3)
    group = symmetry_group("D3")
    repeated = Rotation.concatenate([views, views[:10] * group[2], views[:5] * group[4]])
    assert count_symmetry_mates(repeated, "D3") == 15
    assert count_symmetry_mates(repeated, "C1") == 0
    assert count_symmetry_mates(views, "D3") == 0
