"""What must not change a map, and what must change it in a known way, through the whole job."""

import numpy as np
import pytest

import cryodask as cd
from benchmarks.workload import make_workload
from cryodask.geometry.euler import euler_from_rotation
from cryodask.geometry.grids import rotation_grid
from cryodask.optics.masks import mask_kind

from .conftest import BOX, VOXEL, particle, rotated

SHAPE = (41, 50, 47)
ANGLES = rotation_grid(60.0, method="rings")


@pytest.fixture(scope="module")
def tomogram():
    rng = np.random.default_rng(9)
    volume = rng.standard_normal(SHAPE).astype(np.float32)
    template, mask = particle()
    volume[8 : 8 + BOX, 14 : 14 + BOX, 10 : 10 + BOX] += 2 * template * mask
    return volume


def match(tomogram, template=None, mask=None, angles=ANGLES, **settings):
    given = particle()
    settings = {"tilts": [-54.0, 60.0], "lowpass": 25.0, "interpolation": "linear"} | settings
    dataset = cd.match_tomogram(
        tomogram,
        given[0] if template is None else template,
        mask=given[1] if mask is None else mask,
        angles=angles,
        voxel_size=VOXEL,
        **settings,
    )
    names = [name for name in ("score_raw", "orientation", "score_mean", "score_std") if name in dataset]
    return dataset[names].compute(scheduler="threads").isel(template=0)


@pytest.fixture(scope="module")
def expected(tomogram):
    return match(tomogram)


def assert_scores(one, two, tolerance):
    np.testing.assert_allclose(one.score_raw, two.score_raw, atol=tolerance)
    differ = (one.orientation != two.orientation).values
    # where two rotations score alike, either may win
    assert differ.mean() < 1e-2


@pytest.mark.parametrize(("factor", "offset"), [(3.5, 0.0), (0.01, -1.0), (250.0, 1000.0)])
def test_scale_and_offset_of_the_tomogram_do_not_matter(tomogram, expected, factor, offset):
    assert_scores(match(tomogram * factor + offset), expected, 1e-5)


def test_scale_and_offset_of_the_template_do_not_matter(tomogram, expected):
    template = particle()[0]
    assert_scores(match(tomogram, 40 * template), expected, 1e-5)


def test_negated_template_negates_every_score(tomogram, expected):
    row = ANGLES[7:8]
    straight, negated = (match(tomogram, sign * particle()[0], angles=row) for sign in (1, -1))
    np.testing.assert_allclose(negated.score_raw, -straight.score_raw, atol=1e-6)
    inverted = match(tomogram, -particle()[0], contrast="inverted")
    assert_scores(inverted, expected, 1e-6)


def test_permuted_list_permutes_rows_alone(tomogram, expected):
    order = np.random.default_rng(3).permutation(len(ANGLES))
    found = match(tomogram, angles=ANGLES[order])
    np.testing.assert_array_equal(found.score_raw, expected.score_raw)
    same = order[found.orientation.values] == expected.orientation.values
    assert same.mean() > 0.999  # but for exact ties
    np.testing.assert_allclose(found.score_mean, expected.score_mean, atol=1e-6)
    np.testing.assert_allclose(found.score_std, expected.score_std, atol=1e-6)


def test_of_equal_rows_the_lower_wins(tomogram, expected):
    found = match(tomogram, angles=np.concatenate([ANGLES, ANGLES]))
    np.testing.assert_array_equal(found.score_raw, expected.score_raw)
    np.testing.assert_array_equal(found.orientation, expected.orientation)


PADS = [((3, 3), (3, 3), (3, 3)), ((0, 0), (2, 2), (4, 4)), ((0, 1), (0, 1), (0, 1))]


@pytest.mark.parametrize("pad", PADS)
def test_zeros_around_the_box_do_not_matter(tomogram, pad):
    """Even and odd boxes, and boxes that are no cubes; voxel n//2 stays the centre."""
    template, mask = particle()
    # unfiltered, for filters ring beyond the box, and periodic, for the padding at the faces follows the box
    settings = {"lowpass": None, "tilts": None, "boundary": "wrap"}
    found = match(tomogram, np.pad(template, pad), np.pad(mask, pad), **settings)
    assert_scores(found, match(tomogram, **settings), 2e-5)


@pytest.fixture(scope="module")
def workload():
    return make_workload((60, 64, 72), n_rotations=24, n_planted=1, snr=0.1)


def match_workload(workload, mask, kind):
    angles = euler_from_rotation(workload.rotations)
    settings = {"tilts": None, "lowpass": None, "boundary": "wrap", "statistics_grid": "exact"}
    return match(workload.tomogram, workload.template, mask, angles, mask_kind=kind, **settings).score_raw


@pytest.mark.parametrize("kind", ["axial", "general"])
def test_a_soft_sphere_scores_alike_as_a_mask_of_any_kind(workload, kind):
    """To what rotating it blurs of its edge."""
    sphere = match_workload(workload, workload.sphere, "spherical")
    np.testing.assert_allclose(match_workload(workload, workload.sphere, kind), sphere, atol=1e-3)


def test_an_axial_mask_scores_alike_as_a_general_one(workload):
    z, y, x = np.indices((40,) * 3) - 20
    radius = np.sqrt((z / 16) ** 2 + (x**2 + y**2) / 13**2)
    mask = np.where(radius <= 1, 1, np.exp(-((14 * (radius - 1)) ** 2) / 4.5))
    mask = np.where(mask < 0.0135, 0, mask).astype(np.float32)
    assert mask_kind(mask) == "axial"
    axial = match_workload(workload, mask, "axial")
    np.testing.assert_allclose(match_workload(workload, mask, "general"), axial, atol=1e-3)


def test_c4_particle_is_found_by_the_c4_list_as_by_the_whole_one():
    template = particle()[0]
    fourfold = sum(np.rot90(template[1:, 1:, 1:], k, axes=(1, 2)) for k in range(4))
    fourfold = np.pad(fourfold, ((1, 0), (1, 0), (1, 0))).astype(np.float32)
    whole = rotation_grid(30.0, method="rings")
    quarter = rotation_grid(30.0, method="rings", symmetry="C4")
    assert 3.9 < len(whole) / len(quarter) < 4.1
    rng = np.random.default_rng(2)
    volume = rng.standard_normal(SHAPE).astype(np.float32)
    turned = rotated(fourfold, np.linalg.qr(rng.standard_normal((3, 3)))[0])
    volume[8 : 8 + BOX, 14 : 14 + BOX, 10 : 10 + BOX] += 2 * turned
    peaks = [
        float(match(volume, fourfold, angles=angles, symmetry=symmetry).score_raw.max())
        for angles, symmetry in ((whole, "C1"), (quarter, "C4"))
    ]
    assert peaks[0] > 0.5
    assert peaks[1] == pytest.approx(peaks[0], rel=0.02)
