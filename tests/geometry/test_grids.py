import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryodask.errors import InputError
from cryodask.geometry.euler import rotation_from_euler
from cryodask.geometry.grids import crowther_step, grid_gaps, grid_summary, rotation_grid
from cryodask.geometry.symmetry import symmetry_group

STEPS = (30, 20, 15, 12, 10, 7, 5)
COUNTS = {
    "rings": (576, 1944, 4512, 8820, 15192, 44268, 119952),
    "golden": (636, 2088, 4776, 9240, 15804, 45543, 122472),
    "healpix": (576, 1944, 4608, 9000, 15552, 50544, 124416),
}
FOLDER = "tomogram_matching/local_correlation"


def as_relative(angles, centre):
    return rotation_from_euler(centre).inv() * rotation_from_euler(angles)


@pytest.mark.parametrize("method", COUNTS)
def test_counts_of_the_full_circle_lists(method):
    assert tuple(len(rotation_grid(step, method=method)) for step in STEPS) == COUNTS[method]


@pytest.mark.parametrize(
    ("method", "symmetry", "step", "count"),
    [
        ("golden", "C13", 10, 1317),
        ("golden", "C13", 5, 10206),
        ("rings", "C4", 10, 3798),
        ("rings", "D2", 10, 4122),
        ("rings", "D7", 10, 1145),
        ("healpix", "C4", 10, 3888),
        ("healpix", "C13", 10, 1296),
        ("healpix", "D2", 10, 4104),
        ("healpix", "D4", 10, 2052),
        ("healpix", "D7", 10, 1368),
    ],
)
def test_counts_under_axial_symmetry(method, symmetry, step, count):
    assert len(rotation_grid(step, method=method, symmetry=symmetry)) == count


@pytest.mark.parametrize(("symmetry", "count"), [("T", 1364), ("O", 696), ("I", 280), ("I2", 280)])
def test_counts_under_polyhedral_symmetry(symmetry, count):
    assert len(rotation_grid(10, symmetry=symmetry)) == pytest.approx(count, rel=0.02)


@pytest.mark.parametrize("step", [20, 30])
def test_rings_are_the_distributed_lists_row_by_row(shared_data, step):
    phi, psi, theta = np.loadtxt(shared_data / FOLDER / f"AGL_anglist_{step}_deg_c1.csv", delimiter=",").T
    np.testing.assert_allclose(
        rotation_grid(step, method="rings"), np.column_stack([phi, theta, psi]), rtol=0, atol=5e-3
    )


def test_golden_starts_as_documented():
    grid = rotation_grid(30, method="golden")
    np.testing.assert_allclose(
        grid[:12], np.column_stack([np.arange(0, 360, 30), np.zeros(12), np.zeros(12)])
    )
    np.testing.assert_allclose(grid[12], [0.0, 15.9424, -132.4922], atol=5e-5)
    np.testing.assert_allclose(grid[-1], [330.0, 180.0, 0.0])


def test_healpix_rows_follow_the_ring_formula():
    step, nside = 12, 5
    expected = []
    for i in range(1, 4 * nside):
        j = np.arange(4 * min(i, nside, 4 * nside - i))
        cap = min(i, 4 * nside - i)
        if cap < nside:
            cosine = 1 - cap**2 / (3 * nside**2)
            cosine = cosine if i < nside else -cosine
            azimuth = (j + 0.5) * 90 / cap
        else:
            cosine = 4 / 3 - 2 * i / (3 * nside)
            azimuth = (j + (0.5 if (i - nside) % 2 == 0 else 0.0)) * 90 / nside
        expected += [(np.degrees(np.arccos(cosine)), a + 90) for a in azimuth]
    grid = rotation_grid(step, inplane_step=360)
    difference = grid[:, 1:] - expected
    difference[:, 1] = (difference[:, 1] + 180) % 360 - 180
    np.testing.assert_allclose(difference, 0, atol=1e-9)


@pytest.mark.parametrize("method", COUNTS)
def test_no_rotation_is_farther_from_the_list_than_measured(method):
    gaps = grid_gaps(rotation_grid(10, method=method))
    assert gaps.mean() == pytest.approx(4.69, abs=0.06)
    assert np.percentile(gaps, 95) == pytest.approx(6.6, abs=0.12)
    assert gaps.max() < 8.4


@pytest.mark.parametrize("method", COUNTS)
@pytest.mark.parametrize("symmetry", ["C4", "C13", "D2", "D7", "T", "T3", "O", "I", "I2"])
def test_no_symmetry_leaves_a_hole(method, symmetry):
    gaps = grid_gaps(rotation_grid(10, method=method, symmetry=symmetry), symmetry)
    assert gaps.max() < 8.7
    assert gaps.mean() < 4.8


@pytest.mark.parametrize("symmetry", ["C4", "D2", "D7", "O", "I"])
def test_a_symmetric_list_holds_its_share_of_the_full_one(symmetry):
    full = len(rotation_grid(7))
    share = len(rotation_grid(7, symmetry=symmetry)) * len(symmetry_group(symmetry)) / full
    assert 1.0 <= share < 1.15


def test_a_thinned_list_shows_its_gap():
    grid = rotation_grid(20)
    near_identity = rotation_from_euler(grid).magnitude() < np.radians(50)
    assert grid_gaps(grid[~near_identity]).max() > 35


@pytest.mark.parametrize(("method", "directions"), [("golden", 139), ("rings", 132)])
def test_cones_have_the_documented_number_of_directions(method, directions):
    grid = rotation_grid(5, method=method, cone=30)
    assert len(grid) == directions * 72
    assert grid[:, 1].max() == pytest.approx(30.0)


@pytest.mark.parametrize("symmetry", ["C1", "C3", "D2", "T", "O"])
def test_a_cone_is_covered_whatever_the_symmetry(symmetry):
    grid = rotation_grid(6, cone=40, symmetry=symmetry)
    assert grid[:, 1].max() <= 40.0
    # healpix leaves out pixel centres beyond the rim, half a pixel of border
    assert grid_gaps(grid, symmetry, cone=40).max() < 6.5


@pytest.mark.parametrize("method", COUNTS)
def test_inplane_ranges_are_symmetric_multiples_of_the_step(method):
    grid = rotation_grid(10, method=method, cone=20, inplane_step=4, inplane_range=9)
    np.testing.assert_array_equal(np.unique(grid[:, 0]), [-8, -4, 0, 4, 8])
    whole = rotation_grid(10, method=method, cone=20, inplane_step=4, inplane_range=180)
    np.testing.assert_array_equal(whole, rotation_grid(10, method=method, cone=20, inplane_step=4))


def test_rings_run_phi_slowest_and_the_others_fastest():
    assert rotation_grid(30, method="rings")[1, 0] == 0.0
    assert rotation_grid(30, method="golden")[1, 0] == 30.0
    assert rotation_grid(30, method="healpix")[1, 0] == 30.0


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.tuples(st.floats(-180, 180), st.floats(0, 180), st.floats(-180, 180)))
def test_centre_turns_every_row_in_front(centre):
    plain = rotation_grid(30, cone=40)
    turned = rotation_grid(30, cone=40, centre=np.array(centre))
    difference = as_relative(turned, np.array(centre)) * rotation_from_euler(plain).inv()
    assert np.degrees(difference.magnitude()).max() < 1e-4


def test_step_from_the_size_of_the_particle():
    assert crowther_step(300, 20) == pytest.approx(3.8197, abs=5e-5)
    assert crowther_step(300, 20, voxel_size=15) == pytest.approx(1.5 * 3.8197, abs=1e-4)
    with pytest.raises(InputError, match="particle diameter = 0: expected more than 0 angstrom"):
        crowther_step(0, 20)


def test_summary_tells_directions_and_inplane_values():
    text = str(grid_summary(rotation_grid(10)))
    assert text.startswith(
        "432 directions x 36 in-plane values = 15552 rotations, gap to a random rotation 4.6"
    )
    assert str(grid_summary(rotation_grid(10, symmetry="O"), "O")).startswith("696 rotations, gap")
    centre = np.array([10.0, 40.0, 70.0])
    cone = grid_summary(rotation_grid(5, cone=30, centre=centre), centre=centre)
    assert (cone.directions, cone.rotations) == (112, 8064)
    assert cone.largest_gap < 5.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step": 0.0}, "angular step = 0: expected 0 < step <= 180"),
        ({"step": float("nan")}, "angular step = nan: expected"),
        ({"step": 10, "cone": 181}, "cone = 181: expected 0 < cone <= 180"),
        ({"step": 10, "inplane_step": 361}, "in-plane step = 361: expected 0 < step <= 360"),
        ({"step": 10, "inplane_range": -1}, "in-plane range = -1: expected at least 0"),
        ({"step": 10, "method": "spiral"}, "method = spiral: expected golden, rings or healpix"),
        ({"step": 10, "symmetry": "X5"}, "expected Cn, Dn, T, T3, O, I, I1, I2"),
    ],
)
def test_wrong_values_are_named(options, message):
    with pytest.raises(InputError, match=message):
        rotation_grid(**options)
