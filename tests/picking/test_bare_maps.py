import numpy as np
import pytest

from cryodask.errors import InputError
from cryodask.io.angles import write_angle_list
from cryodask.io.volume import write_volume
from cryodask.picking.pick import pick

PEAKS = [(8, 9, 10, 0.9, 3), (15, 20, 25, 0.7, 7)]
SHAPE = (24, 28, 32)


@pytest.fixture
def bare(make_result, tmp_path):
    """Score map, angle map counted from 1 and rotation list, as STOPGAP leaves them."""
    result = make_result(PEAKS)
    result.orientation[0, :2] = 4294967295
    rows = result.orientation.values[0].astype(np.int64) + 1
    rows[:2] = -1
    place = {"shape": SHAPE, "voxel_size": 10.0, "origin": (0.0, 0.0, 0.0)}
    write_volume(tmp_path / "scores.mrc", result.score.values[0], **place)
    write_volume(tmp_path / "angles.mrc", rows.astype(np.float32), **place)
    write_volume(tmp_path / "small.mrc", rows[:4].astype(np.float32), **place | {"shape": (4, 28, 32)})
    write_angle_list(tmp_path / "list.csv", result.euler.values[0])
    options = {"angles": tmp_path / "angles.mrc", "angle_list": tmp_path / "list.csv", "angle_base": 1}
    return tmp_path / "scores.mrc", options, result


def test_bare_maps_give_the_particles_of_their_result(bare):
    scores, options, result = bare
    table = pick(scores, **options, particle_diameter=60)
    expected = pick(result, sigma=6)
    assert table.attrs["rule"] == "sigma = 6"
    assert table.angle_row.tolist() == [3, 7]
    same = ["x", "y", "z", "x_a", "score"]
    np.testing.assert_allclose(table[same].to_numpy(float), expected[same].to_numpy(float), rtol=1e-6)
    np.testing.assert_allclose(table[["phi", "theta", "psi"]], expected[["phi", "theta", "psi"]], atol=1e-4)
    assert table.tomo_name.tolist() == ["scores", "scores"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"angles": None}, "a bare score map needs --angles and --angle-list"),
        ({"angle_base": 0}, "angle map has row 50, list has 50 rows"),
        ({"angles": "small.mrc"}, "shape 4,28,32, expected 24,28,32 "),
        ({"order": "zyz"}, "expected zxz or zzx"),
        ({"particle_diameter": None}, "--particle-diameter or --min-distance is required"),
        ({"false_positives": 1}, "needs sigma, n_rotations, n_voxels in the result"),
        ({"angles": ["a", "b"]}, "2 angle maps for 1 score maps"),
    ],
)
def test_wrong_bare_maps_are_named(bare, monkeypatch, changed, message):
    scores, options, _ = bare
    monkeypatch.chdir(scores.parent)
    with pytest.raises(InputError, match=message):
        pick(scores, **{"particle_diameter": 60, **options, **changed})


def test_a_bare_map_without_voxel_size_asks_for_it(bare):
    scores, options, result = bare
    place = {"shape": SHAPE, "voxel_size": 1.0, "origin": (0.0, 0.0, 0.0)}
    write_volume(scores, result.score.values[0], **place, overwrite=True)
    with pytest.raises(InputError, match="the header gives no voxel size, set --voxel-size"):
        pick(scores, **options, particle_diameter=60)
    assert pick(scores, **options, particle_diameter=60, voxel_size=10).attrs["voxel_size"] == 10
