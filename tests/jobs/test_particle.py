"""Template and mask as the search uses them."""

import numpy as np
import pytest
from scipy.ndimage import rotate

from cryodask.errors import InputError
from cryodask.jobs.tomogram_matching.inputs import load_inputs
from cryodask.jobs.tomogram_matching.particle import Sphere, box_edge, make_particle


def placed(volume, box):
    """Put a volume into a cube, centre voxel on centre voxel, by an index loop."""
    cube = np.zeros((box,) * 3, np.float32)
    for place in np.ndindex(volume.shape):
        at = [p - n // 2 + box // 2 for p, n in zip(place, volume.shape, strict=True)]
        cube[tuple(at)] = volume[place]
    return cube


@pytest.mark.parametrize("shape", [(9, 12, 11), (12, 9, 10), (13, 8, 8), (12, 12, 12)])
def test_a_template_that_is_no_cube_keeps_its_centre_voxel(job, shape):
    generator = np.random.default_rng(0)
    template = generator.standard_normal(shape).astype(np.float32)
    mask = np.zeros(shape, np.float32)
    mask[tuple(slice(n // 2 - 2, n // 2 + 3) for n in shape)] = generator.random((5, 5, 5))
    particle = make_particle(template, mask, job())
    assert particle.box == particle.given_box == max(shape)
    np.testing.assert_array_equal(particle.template, placed(template, max(shape)))
    np.testing.assert_array_equal(particle.mask, placed(mask, max(shape)))


@pytest.mark.parametrize(
    ("given", "reach", "box"),
    [(12, 5.0, 12), (12, 5.1, 14), (13, 5.5, 13), (13, 5.6, 14), (11, 4.2, 11), (10, 9.0, 20)],
)
def test_the_box_grows_only_for_a_mask_beyond_half_of_it_less_one(given, reach, box):
    assert box_edge(given, reach) == box


def test_template_and_mask_grow_together_and_fourier_radii_stay_those_of_the_given_box(job):
    mask = np.zeros((12,) * 3, np.float32)
    mask[3:10, 3:10, 3:12] = 1
    template = np.random.default_rng(0).standard_normal((12,) * 3).astype(np.float32)
    parameters = job(template=template, mask=mask, lp_rad=5, lp_sigma=2, hp_rad=1)
    inputs = load_inputs(parameters)
    particle = inputs.particle
    # the farthest voxel with weight is (3, 3, 5) from the centre
    assert (particle.box, particle.given_box) == (16, 12)
    np.testing.assert_array_equal(particle.template, placed(template, 16))
    np.testing.assert_array_equal(particle.mask, placed(mask, 16))
    assert particle.support == pytest.approx(np.sqrt(43))
    grown = 16 / 12
    assert inputs.band.lp_rad == pytest.approx(5 * grown)
    assert inputs.band.hp_sigma == pytest.approx(2 * grown)
    # the same frequencies: 5 Fourier pixels of 12 voxels are 20/3 of 16
    given = parameters.band(12, 10.0)
    radius = np.array([0.5, 2, 4, 5, 6, 7])
    np.testing.assert_allclose(inputs.band.curve(radius * grown, 16), given.curve(radius, 12), atol=1e-12)


def test_a_sphere_is_never_cut_by_the_box_of_the_template(job):
    inputs = load_inputs(job(mask={"sphere": 60, "edge": 20}))
    particle = inputs.particle
    assert particle.given_box == 12
    assert particle.box == 18
    edges = [particle.mask[side] for side in (0, -1)] + [particle.mask[:, :, side] for side in (0, -1)]
    assert max(edge.max() for edge in edges) < 1e-3
    assert particle.mask[9, 9, 9 + 6] == 1
    assert particle.mask[9, 9, 9 + 7] == pytest.approx(0.5, abs=1e-6)
    assert particle.diameter == pytest.approx(2 * np.sqrt(48), abs=0.2)
    with pytest.raises(InputError, match=r"template box 3002 exceeds tomogram z = 20 \(the box grew from 12"):
        load_inputs(job(mask={"sphere": 15000}))


def test_a_small_sphere_leaves_the_box(job):
    particle = make_particle(np.random.default_rng(0).random((9, 12, 11)), Sphere(3.0, 1.0), job())
    assert particle.box == 12
    assert particle.mask[6, 6, 9] == 1
    assert particle.mask[6, 6, 10] == 0


def test_a_mask_just_beyond_0_and_1_is_clipped(job):
    mask = np.full((12,) * 3, -5e-4, np.float32)
    mask[3:9, 3:9, 3:9] = 1.0005
    particle = make_particle(np.random.default_rng(0).random((12,) * 3), mask, job())
    assert (particle.mask.min(), particle.mask.max()) == (0, 1)


def test_inverted_contrast_changes_the_sign_and_nothing_else(job):
    template = np.random.default_rng(0).standard_normal((12,) * 3).astype(np.float32)
    same = load_inputs(job(template=template)).particle
    inverted = load_inputs(job(template=template, contrast="inverted")).particle
    np.testing.assert_array_equal(inverted.template, -same.template)
    np.testing.assert_array_equal(inverted.mask, same.mask)


def four_blobs(box, weights=(1, 1, 1, 1)):
    z, y, x = np.ogrid[tuple(slice(-(box // 2), box - box // 2) for _ in range(3))]
    places = [(4, 0), (0, 4), (-4, 0), (0, -4)]
    return sum(
        w * np.exp(-((z - 1) ** 2 + (y - b) ** 2 + (x - a) ** 2) / 8)
        for w, (a, b) in zip(weights, places, strict=True)
    ).astype(np.float32)


@pytest.mark.parametrize("box", [15, 16])
def test_a_symmetric_template_is_averaged_over_its_group(job, box):
    mask = placed(np.ones((9, 11, 11), np.float32), box)
    uneven = four_blobs(box, (1.2, 0.9, 1.0, 0.9))
    average = make_particle(uneven, mask, job(symmetry="C4")).template
    centre = len(average) // 2
    inner = (slice(centre - 5, centre + 6),) * 3
    np.testing.assert_allclose(average[inner], placed(four_blobs(box), len(average))[inner], atol=0.01)
    turned = rotate(average[inner], 90, axes=(1, 2), order=1)
    np.testing.assert_allclose(turned, average[inner], atol=1e-4)


def test_a_template_without_the_symmetry_is_refused_with_the_figure(job):
    one = four_blobs(16, (1, 0, 0, 0))
    mask = placed(np.ones((9, 11, 11), np.float32), 16)
    with pytest.raises(InputError, match=r"^template correlates 0\.\d\d with its C4 average$"):
        make_particle(one, mask, job(symmetry="C4"))
    make_particle(four_blobs(16), mask, job(symmetry="C4"))
