"""Rotation lists of five programs become zxz degrees."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryodask.errors import InputError
from cryodask.io.angles import read_angle_list, write_angle_list


@pytest.mark.parametrize(
    ("text", "order", "units"),
    [
        ("10,20,30\n40,50,60\n", "zxz", None),
        ("phi,theta,psi\n\n10, 20, 30\n# note\n40, 50, 60\n", "zxz", None),
        ("10 30 20\n40 60 50\n", "zzx", None),
        ("80 20 -120\n50 50 -150\n", "relion", None),
        ("0.17453293 0.34906585 0.52359878\n0.6981317 0.87266463 1.04719755\n", "zxz", "radian"),
    ],
)
def test_every_text_dialect_gives_the_same_rotations(tmp_path, text, order, units):
    (tmp_path / "a.txt").write_text(text)
    angles = read_angle_list(tmp_path / "a.txt", order, units)
    np.testing.assert_allclose(angles, [[10, 20, 30], [40, 50, 60]], atol=1e-5)


@pytest.mark.parametrize(("name", "count"), [("angles_19.95_1944.em", 1944), ("angles_07_45123.em", 45123)])
def test_pytom_lists_are_read_as_rotations(shared_data, name, count):
    angles = read_angle_list(shared_data / "tomogram_matching/angle_lists" / name)
    assert angles.shape == (count, 3)
    assert 6 < np.abs(angles).max() <= 360
    assert angles[:, 1].max() == pytest.approx(180, abs=25)
    matrices = Rotation.from_euler("zxz", angles[:500], degrees=True).as_matrix()
    np.testing.assert_allclose(
        matrices @ matrices.transpose(0, 2, 1), np.eye(3)[None].repeat(500, 0), atol=1e-12
    )


def test_stopgap_list_has_theta_last(shared_data):
    path = shared_data / "tomogram_matching/local_correlation/AGL_anglist_20_deg_c1.csv"
    angles = read_angle_list(path, "zzx")
    assert angles.shape == (1944, 3)
    assert angles[3].tolist() == [0, 20, 128.57]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("phi,theta,psi\n1,2,3\n\n4,5\n", r"angles.csv line 4: expected 3 numbers, found 2"),
        ("1,2,3\n4,x,5\n", r"angles.csv line 2: expected numbers, found '4,x,5'"),
        ("1,2,3\n4,nan,5\n", r"angles.csv line 2: expected finite numbers"),
        ("phi,theta,psi\n", r"angles.csv: no rows"),
        ("0.1,1.2,6.2\n" * 51, r"angles.csv: looks like radians, set units"),
    ],
)
def test_wrong_lists_are_named(tmp_path, text, message):
    (tmp_path / "angles.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_angle_list(tmp_path / "angles.csv")


def test_wrong_order_and_a_set_unit(tmp_path):
    (tmp_path / "a.csv").write_text("0.1,1.2,6.2\n" * 51)
    assert read_angle_list(tmp_path / "a.csv", units="degree")[0].tolist() == [0.1, 1.2, 6.2]
    with pytest.raises(InputError, match="expected zxz or zzx"):
        read_angle_list(tmp_path / "a.csv", "zyz")


@pytest.mark.parametrize("order", ["zxz", "zzx", "relion"])
def test_a_written_list_is_read_back_to_five_decimals(tmp_path, order):
    angles = np.random.default_rng(0).uniform([-179, 0, -179], [179, 180, 179], (20, 3))
    write_angle_list(tmp_path / "a.csv", angles, order)
    np.testing.assert_allclose(read_angle_list(tmp_path / "a.csv", order), angles, atol=5.1e-6)
    with pytest.raises(InputError, match=r"a.csv exists; use --overwrite"):
        write_angle_list(tmp_path / "a.csv", angles)
