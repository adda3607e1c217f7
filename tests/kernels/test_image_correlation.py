"""The image kernel against a slow float64 form, for any lengths, blocks and order."""

import numpy as np
import pytest
import scipy.fft
from hypothesis import given, settings
from hypothesis import strategies as st

from cryodask.geometry.zyz import zyz_matrices
from cryodask.kernels.image_correlation import FusedImage, WholeImage, image_search, templates_per_call
from cryodask.kernels.image_projection import Projector, fold_orientations, leopard_energy
from cryodask.kernels.slices import slice_axes, template_spectrum, unit_energy

SUM, SQUARE = 2.0**24, 2.0**20


def plain_scores(tile, templates, valid):
    """cc of every template at every position, float64, by the definition."""
    height, width = tile.shape
    spectrum = scipy.fft.rfft2(tile.astype(np.float64))
    scores = []
    for template in templates.astype(np.float64):
        padded = np.zeros((height, width))
        padded[: template.shape[0], : template.shape[1]] = template
        scores.append(scipy.fft.irfft2(spectrum * np.conj(scipy.fft.rfft2(padded)), (height, width)))
    return np.array(scores)[:, : valid[0], : valid[1]]


def searched(kind, tile, templates, ids, valid, *, block=8, histogram=False):
    search = kind(tile, box=templates.shape[-1], valid=valid, histogram=histogram)
    for start in range(0, len(templates), block):
        search.fold(templates[start : start + block], ids[start : start + block])
        search.end_block()
    return search.result()


def unit_templates(rng, count, box):
    return unit_energy(rng.standard_normal((count, box, box)).astype(np.float32))


@pytest.mark.parametrize("kind", [FusedImage, WholeImage])
@settings(max_examples=12, deadline=None)
@given(
    data=st.tuples(
        st.sampled_from([24, 30, 36, 40, 48, 50, 60]),
        st.sampled_from([24, 30, 36, 40, 48, 64]),
        st.sampled_from([4, 6, 10, 16, 18, 20]),
        st.booleans(),
        st.integers(0, 10**6),
    )
)
def test_scores_ids_and_sums_are_those_of_the_definition(kind, data):
    height, width, box, periodic, seed = data
    rng = np.random.default_rng(seed)
    tile = rng.standard_normal((height, width), dtype=np.float32)
    templates, ids = unit_templates(rng, 11, box), rng.permutation(100)[:11].astype(np.uint32)
    valid = (height, width) if periodic else (height - box + 1, width - box + 1)
    expected = plain_scores(tile, templates, valid)
    found = searched(kind, tile, templates, ids, valid, histogram=True)
    np.testing.assert_allclose(found["value"], expected.max(0), atol=2e-5)
    np.testing.assert_allclose(found["sum"] / SUM, expected.sum(0), atol=1e-4)
    np.testing.assert_allclose(found["square_sum"] / SQUARE, (expected**2).sum(0), rtol=1e-5, atol=1e-4)
    ranked = np.sort(expected, axis=0)
    clear = ranked[-1] - ranked[-2] > 1e-4
    np.testing.assert_array_equal(found["id"][clear], ids[expected.argmax(0)][clear])
    assert found["counts"].sum() == expected.size
    counts, _ = np.histogram(np.clip(expected, -12.5, 22.499), 512, (-12.5, 22.5))
    assert np.abs(found["counts"] - counts).sum() <= 4


def test_a_template_scores_its_own_place_highest_with_its_energy():
    rng = np.random.default_rng(1)
    templates = unit_templates(rng, 3, 16)
    tile = np.zeros((64, 80), np.float32)
    tile[20:36, 33:49] = 5 * templates[2]
    found = searched(FusedImage, tile, templates, np.arange(3, dtype=np.uint32), (49, 65))
    assert np.unravel_index(found["value"].argmax(), found["value"].shape) == (20, 33)
    assert found["value"].max() == pytest.approx(5.0, abs=1e-4)
    assert found["id"][20, 33] == 2


@pytest.mark.parametrize("kind", [FusedImage, WholeImage])
def test_equal_scores_go_to_the_lowest_id_in_any_order(kind):
    rng = np.random.default_rng(2)
    tile, one = rng.standard_normal((32, 32), dtype=np.float32), unit_templates(rng, 1, 8)
    for order in ([7, 3, 5], [3, 5, 7], [5, 7, 3]):
        ids = np.array(order, np.uint32)
        found = searched(kind, tile, np.repeat(one, 3, axis=0), ids, (25, 25))
        assert np.all(found["id"] == 3)


def test_blocks_give_the_same_bits_wherever_a_batch_ends():
    rng = np.random.default_rng(3)
    tile = rng.standard_normal((60, 64), dtype=np.float32)
    projector = small_projector(rng, orientations=22)
    whole = image_search(tile, box=16, valid=(45, 49))
    fold_orientations(whole, projector, 0, 22)
    expected = whole.result()
    parts = []
    for start, stop in ((16, 22), (0, 8), (8, 16)):
        part = image_search(tile, box=16, valid=(45, 49))
        fold_orientations(part, projector, start, stop)
        parts.append(part.result())
    for name in ("sum", "square_sum"):
        np.testing.assert_array_equal(sum(part[name] for part in parts), expected[name])
    np.testing.assert_array_equal(np.max([p["value"] for p in parts], axis=0), expected["value"])


def small_projector(rng, *, orientations):
    volume = rng.standard_normal((16, 16, 16)).astype(np.float32)
    matrices = zyz_matrices(rng.uniform(0, 360, (orientations, 3)))
    axes = np.stack([slice_axes(matrices, scale=scale) for scale in (1.0, 1.05)])
    filters = rng.uniform(0.5, 1, (2, 3, 16, 9)).astype(np.float32)
    return Projector(template_spectrum(volume), axes, filters)


def test_ids_put_pixel_size_before_defocus_before_orientation():
    projector = small_projector(np.random.default_rng(4), orientations=5)
    templates, ids = projector.templates(2, 3)
    assert templates.shape == (6, 16, 16)
    # in the order of summation, defocus outermost: id = (pixel size · 3 + defocus) · 5 + orientation
    assert ids.tolist() == [2, 17, 7, 22, 12, 27]
    np.testing.assert_allclose(np.square(templates.astype(np.float64)).sum((1, 2)), 1, atol=1e-5)
    several, all_ids = projector.templates(1, 4)
    np.testing.assert_array_equal(several[6:12], templates)
    assert all_ids[6:12].tolist() == ids.tolist()


def test_leopard_energy_is_unit_energy_for_projections_without_mean():
    rng = np.random.default_rng(5)
    images = rng.standard_normal((4, 32, 32)).astype(np.float32)
    np.testing.assert_allclose(leopard_energy(images, (256, 256)), unit_energy(images), rtol=1e-4, atol=1e-6)


def test_a_shifted_image_shifts_the_maps():
    rng = np.random.default_rng(6)
    tile, templates = rng.standard_normal((48, 48), dtype=np.float32), unit_templates(rng, 5, 12)
    ids = np.arange(5, dtype=np.uint32)
    still = searched(FusedImage, tile, templates, ids, (48, 48))
    moved = searched(FusedImage, np.roll(tile, (3, -7), (0, 1)), templates, ids, (48, 48))
    np.testing.assert_allclose(np.roll(still["value"], (3, -7), (0, 1)), moved["value"], atol=1e-5)


def test_the_mean_of_a_tile_is_not_removed():
    """A tile must not zero its own DC: a constant added to it adds its sum over the template."""
    rng = np.random.default_rng(7)
    tile = rng.standard_normal((40, 40), dtype=np.float32)
    template = np.full((1, 8, 8), 0.125, np.float32)
    ids = np.zeros(1, np.uint32)
    low = searched(FusedImage, tile, template, ids, (33, 33))["value"]
    high = searched(FusedImage, tile + 1, template, ids, (33, 33))["value"]
    np.testing.assert_allclose(high - low, 8.0, atol=1e-4)


def test_lengths_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="smaller than the box"):
        image_search(np.zeros((8, 32), np.float32), box=16, valid=(1, 1))
    with pytest.raises(ValueError, match="expected at most 17"):
        image_search(np.zeros((32, 32), np.float32), box=16, valid=(20, 17))


def test_other_lengths_go_to_the_library():
    rng = np.random.default_rng(8)
    tile, templates = rng.standard_normal((34, 38), dtype=np.float32), unit_templates(rng, 2, 8)
    assert isinstance(image_search(tile, box=8, valid=(27, 31)), WholeImage)
    found = searched(WholeImage, tile, templates, np.arange(2, dtype=np.uint32), (27, 31))
    np.testing.assert_allclose(found["value"], plain_scores(tile, templates, (27, 31)).max(0), atol=2e-5)


def test_a_stack_of_templates_fits_the_free_memory():
    assert templates_per_call((4096, 4096), 70e9) == 32
    assert templates_per_call((4096, 4096), 8e9) == 11
    assert templates_per_call((4096, 4096), 1e6) == 1
