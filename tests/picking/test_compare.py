import numpy as np
import pandas as pd
import pytest

from cryodask.errors import InputError
from cryodask.geometry.euler import euler_from_rotation, rotation_from_euler
from cryodask.geometry.symmetry import symmetry_group
from cryodask.picking.compare import compare

GRID = np.array([[x, y, 20.0] for x in (10, 40, 70) for y in (10, 40, 70)])


def particles(positions, *, scores=None, angles=None, tomo_num=1):
    table = pd.DataFrame(np.asarray(positions, float).reshape(-1, 3), columns=["x", "y", "z"])
    table["score"] = np.linspace(1, 0.1, len(table)) if scores is None else scores
    table["tomo_num"] = tomo_num
    angles = np.full((len(table), 3), 30.0) if angles is None else angles
    return table.assign(phi=angles[:, 0], theta=angles[:, 1], psi=angles[:, 2])


def test_perfect_picks_score_one_everywhere():
    found = compare(particles(GRID), particles(GRID[::-1]), radius=50, voxel_size=10)
    assert (found.recall, found.precision, found.f1) == (1, 1, 1)
    assert found.median_position_error == 0
    assert found.median_angular_error == pytest.approx(0, abs=1e-4)
    assert found.matches.truth.tolist() == list(range(8, -1, -1))


def test_counts_at_every_threshold():
    picks = particles([*GRID[:3], [25, 25, 20], GRID[3]], scores=[0.9, 0.8, 0.8, 0.7, 0.6])
    found = compare(picks, particles(GRID), radius=50, voxel_size=10)
    assert found.table[["threshold", "picks", "found"]].to_numpy().tolist() == [
        [0.9, 1, 1],
        [0.8, 3, 3],
        [0.7, 4, 3],
        [0.6, 5, 4],
    ]
    assert found.recall == pytest.approx(4 / 9)
    assert found.precision == pytest.approx(4 / 5)
    assert found.f1 == pytest.approx(2 * 4 / (5 + 9))


def test_two_picks_of_one_particle_count_once_and_the_better_score_has_it():
    picks = particles([GRID[0] + [3, 0, 0], GRID[0]], scores=[0.5, 0.4])
    found = compare(picks, particles(GRID), radius=50, voxel_size=10)
    assert found.true_positives == 1
    assert found.matches.truth.tolist() == [0, -1]
    assert found.median_position_error == pytest.approx(30)


def test_a_pick_outside_the_radius_is_false():
    picks = particles([GRID[0] + [0, 0, 5.1]])
    assert compare(picks, particles(GRID), radius=50, voxel_size=10).true_positives == 0
    assert compare(picks, particles(GRID), radius=52, voxel_size=10).true_positives == 1


def test_angles_are_compared_modulo_symmetry():
    truth = particles(GRID, angles=np.random.default_rng(0).uniform(0, 180, (9, 3)))
    rotation = rotation_from_euler(truth[["phi", "theta", "psi"]].to_numpy())
    tilt = rotation_from_euler(np.array([[0.0, 4.0, 0.0]]))
    mates = tilt * rotation * symmetry_group("D3")[[0, 1, 2, 3, 4, 5, 1, 2, 3]]
    picks = particles(GRID, angles=euler_from_rotation(mates))
    found = compare(picks, truth, radius=50, voxel_size=10, symmetry="D3")
    np.testing.assert_allclose(found.matches.angular_error, 4, atol=1e-6)
    assert compare(picks, truth, radius=50, voxel_size=10).median_angular_error > 60


def test_truth_without_angles_has_no_angular_error():
    truth = particles(GRID).drop(columns=["phi", "theta", "psi"])
    found = compare(particles(GRID), truth, radius=50, voxel_size=10)
    assert found.median_angular_error is None
    assert found.recall == 1


def test_tomograms_are_compared_apart():
    truth = pd.concat([particles(GRID[:4]), particles(GRID[4:], tomo_num=2)])
    found = compare(particles(GRID, tomo_num=2), truth, radius=50, voxel_size=10)
    assert found.true_positives == 5
    with pytest.raises(InputError, match=r"truth has no rows for tomo_num 9 \(has 1, 2\)"):
        compare(particles(GRID, tomo_num=9), truth, radius=50, voxel_size=10)


def test_no_picks_find_nothing():
    empty = particles(np.empty((0, 3)))
    found = compare(empty, particles(GRID), radius=50, voxel_size=10)
    assert found.summary()["recall"] == 0
    assert found.summary()["median_position_error_angstrom"] is None


def test_what_picks_carry_is_the_default():
    picks = particles(GRID + np.array([0, 0, 4.0]))
    picks.attrs = {"voxel_size": 10.0, "particle_diameter": 90.0, "symmetry": "C1"}
    assert compare(picks, particles(GRID)).recall == 1
    picks.attrs = {"voxel_size": 10.0}
    with pytest.raises(InputError, match="expected a particle radius above 0"):
        compare(picks, particles(GRID))
