import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryodask.kernels.fused import FusedTile
from cryodask.kernels.template import normalise
from cryodask.kernels.volume_correlation import (
    correlate_general,
    correlate_spherical,
    correlate_with_norm,
    empty_state,
    finish_general,
    finish_spherical,
    local_statistics,
    tile_spectra,
    workspace_bytes,
)
from cryodask.kernels.whole_array import WholeTile

NONE = 4294967295
SHAPES = [
    pytest.param((24, 30, 40), (13, 19, 29), 12, id="padded"),
    pytest.param((20, 18, 36), (20, 18, 36), 11, id="periodic"),
    pytest.param((16, 25, 50), (16, 14, 50), 12, id="mixed"),
    pytest.param((12, 20, 18), (12, 20, 18), 12, id="smallest"),
    pytest.param((14, 22, 21), (14, 12, 11), 9, id="library"),
]


def boxes(rng, mask, count):
    """u, rotated masks and sums of some rotations: here each has its own template and mask."""
    n = mask.shape[0]
    templates = rng.standard_normal((count, n, n, n)).astype(np.float32)
    masks = np.stack([mask * (0.5 + 0.5 * rng.random((n, n, n), dtype=np.float32)) for _ in range(count)])
    prepared = [normalise(t, m) for t, m in zip(templates, masks, strict=True)]
    return np.stack([u for u, _ in prepared]), masks, np.array([float(c) for _, c in prepared])


def search(block, u, masks, counts, ids, valid, batches=(slice(None),), moments=True):
    spectra = tile_spectra(block, box=u.shape[1], valid=valid, squares=True)
    state = empty_state(valid, moments=moments)
    for some in batches:
        correlate_general(spectra, u[some], masks[some], counts[some], ids[some], state)
    finish_general(state)
    return state


@pytest.mark.parametrize(("shape", "valid", "n"), SHAPES)
def test_num_is_the_direct_sum(rng, reference, shape, valid, n):
    block = rng.standard_normal(shape, dtype=np.float32)
    u = rng.standard_normal((1, n, n, n)).astype(np.float32)
    state = empty_state(valid, moments=True)
    correlate_spherical(tile_spectra(block, box=n, valid=valid, squares=False), u, [5], state)
    expected = reference.correlation(block, u[0], valid)
    np.testing.assert_allclose(state["value"], expected, atol=2e-6 * np.abs(expected).max())
    np.testing.assert_allclose(state["square_sum"], expected**2, atol=1e-5 * (expected**2).max())
    assert (state["id"] == 5).all()


@pytest.mark.parametrize(("shape", "valid", "n"), SHAPES)
def test_scores_are_the_direct_ones_for_every_kind_of_mask(rng, reference, shape, valid, n):
    block = rng.standard_normal(shape, dtype=np.float32)
    u, masks, counts = boxes(rng, reference.sphere(n, n / 2 - 2, 2.0), 5)
    scores = np.stack([reference.score(block, u[i], masks[i], valid) for i in range(5)])
    state = search(block, u, masks, counts, np.arange(5), valid)
    np.testing.assert_allclose(state["value"], scores.max(axis=0), atol=2e-6)
    np.testing.assert_array_equal(state["id"], scores.argmax(axis=0))
    np.testing.assert_allclose(state["sum"], scores.sum(axis=0), atol=1e-5)
    np.testing.assert_allclose(state["square_sum"], (scores**2).sum(axis=0), atol=1e-5)

    spectra = tile_spectra(block, box=n, valid=valid, squares=True)
    norm = local_statistics(spectra, masks[0], counts[0])
    at_end, at_once = empty_state(valid, moments=True), empty_state(valid, moments=True)
    correlate_spherical(spectra, u, np.arange(5), at_end)
    finish_spherical(at_end, norm)
    correlate_with_norm(spectra, u, np.arange(5), norm, at_once)
    for name in at_end:
        np.testing.assert_allclose(at_end[name], at_once[name], atol=2e-6)


def test_fused_passes_agree_with_library_ffts(rng, reference):
    shape, n = (30, 40, 48), 14
    valid = tuple(p - n + 1 for p in shape)
    block = rng.standard_normal(shape, dtype=np.float32)
    u, masks, counts = boxes(rng, reference.sphere(n, 4.5, 2.0), 3)
    for fraction in (1.0, 0.75, 0.5):
        states = []
        for tile in (FusedTile, WholeTile):
            state = empty_state(valid, moments=True)
            spectra = tile(block, box=n, valid=valid, squares=True)
            spectra.fold_general(u, masks, counts, np.arange(3), state, fraction)
            states.append(state)
        for name in states[0]:
            np.testing.assert_allclose(states[0][name], states[1][name], atol=2e-6)


@settings(max_examples=6, deadline=None, derandomize=True)
@given(order=st.permutations(range(7)), cut=st.integers(1, 6))
def test_same_bits_for_any_batching_and_order(reference, order, cut):
    rng = np.random.default_rng(3)
    shape, n, valid = (24, 24, 32), 10, (15, 15, 23)
    block = rng.standard_normal(shape, dtype=np.float32)
    u, masks, counts = boxes(rng, reference.sphere(n, 3.5), 7)
    ids = np.array([4, 9, 11, 12, 20, 30, 31])
    plain = search(block, u, masks, counts, ids, valid)
    rows = np.array(order)
    batched = search(
        block, u[rows], masks[rows], counts[rows], ids[rows], valid, [slice(0, cut), slice(cut, None)]
    )
    for name in ("value", "id"):
        np.testing.assert_array_equal(plain[name], batched[name])
    np.testing.assert_allclose(plain["sum"], batched["sum"], atol=1e-6)

    spectra = tile_spectra(block, box=n, valid=valid, squares=False)
    maps = []
    for batches in ([slice(None)], [slice(0, cut), slice(cut, None)]):
        state = empty_state(valid, moments=False)
        for some in batches:
            correlate_spherical(spectra, u[some], ids[some], state)
        maps.append(state)
    np.testing.assert_array_equal(maps[0]["value"], maps[1]["value"])
    np.testing.assert_array_equal(maps[0]["id"], maps[1]["id"])


@settings(max_examples=6, deadline=None, derandomize=True)
@given(shift=st.tuples(*[st.integers(-20, 20)] * 3))
def test_a_shifted_periodic_tile_gives_shifted_scores(reference, shift):
    rng = np.random.default_rng(3)
    shape, n = (18, 20, 24), 10
    block = rng.standard_normal(shape, dtype=np.float32)
    u, masks, counts = boxes(rng, reference.sphere(n, 3.5), 1)
    moved = search(np.roll(block, shift, axis=(0, 1, 2)), u, masks, counts, np.arange(1), shape)
    still = search(block, u, masks, counts, np.arange(1), shape)
    np.testing.assert_allclose(moved["value"], np.roll(still["value"], shift, axis=(0, 1, 2)), atol=2e-6)


def test_the_lower_row_wins_a_tie_whatever_the_order(rng, reference):
    shape, n, valid = (20, 20, 20), 9, (12, 12, 12)
    block = rng.standard_normal(shape, dtype=np.float32)
    u, masks, counts = boxes(rng, reference.sphere(n, 3), 1)
    for ids in ([3, 8, 5], [8, 5, 3], [5, 3, 8]):
        three = np.repeat(u, 3, axis=0)
        state = search(block, three, np.repeat(masks, 3, axis=0), np.repeat(counts, 3), np.array(ids), valid)
        assert (state["id"] == 3).all()


def test_scores_ignore_contrast_and_offset_and_follow_the_sign(rng, reference):
    shape, n, valid = (24, 24, 24), 11, (14, 14, 14)
    block = rng.standard_normal(shape, dtype=np.float32)
    u, masks, counts = boxes(rng, reference.sphere(n, 4), 1)
    plain = search(block, u, masks, counts, np.arange(1), valid)["value"]
    scaled = search(2.5 * block + 0.7, u, masks, counts, np.arange(1), valid)["value"]
    np.testing.assert_allclose(scaled, plain, atol=1e-5)
    np.testing.assert_array_equal(search(block, -u, masks, counts, np.arange(1), valid)["value"], -plain)


def test_tiles_with_halo_give_the_scores_of_the_whole(rng, reference):
    n = 12
    volume = rng.standard_normal((32, 36, 60), dtype=np.float32)
    u, masks, counts = boxes(rng, reference.sphere(n, 4.5), 3)
    whole = search(volume, u, masks, counts, np.arange(3), tuple(s - n + 1 for s in volume.shape))
    for start in (0, 7, 24):
        block = np.ascontiguousarray(volume[:, :, start : start + 36])
        part = search(block, u, masks, counts, np.arange(3), (21, 25, 25))
        expected = {name: array[:, :, start : start + 25] for name, array in whole.items()}
        np.testing.assert_allclose(part["value"], expected["value"], atol=2e-5)
        np.testing.assert_array_equal(part["id"], expected["id"])


@pytest.mark.parametrize("shape", [(20, 20, 20), (22, 22, 22)], ids=["fused", "library"])
def test_flat_regions_and_nan_are_never_scored(rng, reference, shape):
    n, valid = 8, tuple(s - 7 for s in shape)
    block = rng.standard_normal(shape, dtype=np.float32)
    block[:12, :12, :12] = 0.0
    u, masks, counts = boxes(rng, reference.sphere(n, 2.5), 2)
    state = search(block, u, masks, counts, np.arange(2), valid)
    assert state["value"][1, 1, 1] == 0.0
    assert state["id"][1, 1, 1] == NONE
    assert state["sum"][1, 1, 1] == 0.0
    assert (state["id"][-2:, -2:, -2:] < 2).all()

    poisoned = np.stack([u[0], np.full_like(u[0], np.nan)])
    spectra = tile_spectra(block, box=n, valid=valid, squares=True)
    norm = local_statistics(spectra, masks[0], counts[0])
    for ids in ([0, 1], [1, 0]):
        state = empty_state(valid, moments=True)
        correlate_spherical(spectra, poisoned, ids, state)
        finish_spherical(state, norm)
        assert np.isfinite(state["sum"]).all()
        assert (state["id"][-2:, -2:, -2:] == ids[0]).all()
        assert state["id"][1, 1, 1] == NONE


def test_two_template_sets_share_one_tile(rng):
    shape, n, valid = (20, 20, 20), 8, (13, 13, 13)
    block = rng.standard_normal(shape, dtype=np.float32)
    u = rng.standard_normal((2, 4, n, n, n)).astype(np.float32)
    shared = tile_spectra(block, box=n, valid=valid, squares=True)
    shared.drop_squares()
    for templates in u:
        state, alone = empty_state(valid, moments=False), empty_state(valid, moments=False)
        correlate_spherical(shared, templates, np.arange(4), state)
        fresh = tile_spectra(block, box=n, valid=valid, squares=False)
        correlate_spherical(fresh, templates, np.arange(4), alone)
        np.testing.assert_array_equal(state["value"], alone["value"])
    with pytest.raises(ValueError, match="squares=True"):
        local_statistics(shared, u[0, 0], 10.0)


def test_lengths_that_do_not_fit_are_refused():
    block = np.zeros((16, 16, 16), np.float32)
    with pytest.raises(ValueError, match="10 positions on 16 voxels, expected at most 9"):
        tile_spectra(block, box=8, valid=(9, 10, 9), squares=False)
    with pytest.raises(ValueError, match="tile of 16 voxels is smaller than the box of 20"):
        tile_spectra(block, box=20, valid=(16, 16, 16), squares=False)


@pytest.mark.parametrize("valid", [(48, 60, 64), (33, 45, 49)])
@pytest.mark.parametrize(("kind", "squares"), [("spherical", False), ("general", True)])
def test_workspace_covers_what_is_allocated(rng, kind, squares, valid):
    shape, n = (48, 60, 64), 16
    spectra = FusedTile(rng.standard_normal(shape, dtype=np.float32), box=n, valid=valid, squares=squares)
    state = empty_state(valid, moments=True)
    u = np.ones((4, n, n, n), np.float32)
    if kind == "spherical":
        spectra.fold(u, np.arange(4), state)
    else:
        spectra.fold_general(u, u, np.full(4, n**3), np.arange(4), state, 1.0)
    held = sum(array.nbytes for array in state.values()) + spectra.nbytes
    planned = workspace_bytes(shape, valid, box=n, mask_kind=kind, moments=True, noise_copies=0)
    assert 0.6 * planned < held <= planned
