"""Micrograph matching in Python: planted particles, tiles, masks, pixel sizes, binning, local statistics."""

import numpy as np
import pytest

import cryodask as cd
from cryodask.errors import InputError, ResourceError
from cryodask.geometry.symmetry import symmetry_group
from cryodask.geometry.zyz_grids import OrientationGrid
from cryodask.jobs.disk import scratch_folder
from cryodask.jobs.micrograph_matching.inputs import Explicit, load_inputs
from cryodask.jobs.micrograph_matching.match import lazy_match
from cryodask.jobs.micrograph_matching.planning import Resources, make_plan, make_problem, write_constants
from cryodask.jobs.micrograph_matching.template import check_symmetry, randomized_phases
from cryodask.kernels.local_zscore import local_zscore
from cryodask.search.aggregates import merge_states
from cryodask.search.task import score_tile
from cryodask.search.tiles import Batch
from cryodask.simulate.structure import GaussianStructure
from tests.jobs.micrographs import BOX, OPTICS, PIXEL, Planted, draw_template, make_scene

ANGLES = OrientationGrid(60, 60).angles()
DEFOCI = np.array([-400.0, 0.0, 400.0])
PLANTED = [Planted(5, 9, tuple(ANGLES[17]), 400.0), Planted(50, 60, tuple(ANGLES[40]), -400.0)]


@pytest.fixture(scope="module")
def scene():
    return make_scene(PLANTED, signal=30.0)


def matched(scene, **options):
    given = {"optics": OPTICS, "orientations": ANGLES, "defocus": DEFOCI, **options}
    return cd.match_micrograph(scene.image, scene.template, **given)


def computed(dataset):
    return dataset.compute(scheduler="single-threaded")


def test_planted_particles_are_found_with_orientation_and_defocus(scene):
    found = computed(matched(scene, gridding="sinc2", padding=2))
    far = np.ones(found.mip.shape, bool)
    for one in PLANTED:
        far[max(0, one.y - 16) : one.y + 17, max(0, one.x - 16) : one.x + 17] = False
    elsewhere = found.scaled_mip.values[far].max()
    for one, row in zip(PLANTED, (17, 40), strict=True):
        here = found.isel(y=one.y, x=one.x)
        near = slice(max(0, one.y - 3), one.y + 4), slice(max(0, one.x - 3), one.x + 4)
        assert here.scaled_mip == found.scaled_mip.values[near].max() > elsewhere
        assert (int(here.orientation), float(here.defocus)) == (row, one.defocus)
        assert (float(here.best_phi), float(here.best_psi)) == pytest.approx((ANGLES[row, 0], ANGLES[row, 2]))
        # coordinates are those of the particle's centre
        assert float(here.y) == (one.y + BOX // 2) * PIXEL and int(here.x_index) == one.x


@pytest.mark.parametrize("crop", ["valid", "same"])
def test_same_maps_for_any_tiling(scene, crop):
    whole = computed(matched(scene, crop=crop))
    for tile in (48, 64, 72):
        tiled = computed(matched(scene, crop=crop, tile=tile))
        np.testing.assert_allclose(tiled.mip, whole.mip, atol=5e-5)
        np.testing.assert_allclose(tiled.score_mean, whole.score_mean, atol=2e-5)
        np.testing.assert_allclose(tiled.score_std, whole.score_std, rtol=1e-5)
        assert np.mean(tiled.hypothesis.values != whole.hypothesis.values) < 2e-3


def test_same_crop_holds_the_valid_positions(scene):
    same, valid = computed(matched(scene, crop="same")), computed(matched(scene))
    height, width = valid.mip.shape
    np.testing.assert_allclose(same.mip.values[:height, :width], valid.mip.values, atol=5e-5)


def test_ranges_of_orientations_give_the_bits_of_one(scene):
    dataset = matched(scene)
    plan = dataset.encoding["cryodask_plan"]

    inputs = load_inputs(plan.config, explicit=plan.explicit)
    problem = make_problem(inputs, scratch_folder() / "constants", Resources(device="cpu"))
    write_constants(inputs, problem)
    problem.prepare()
    tile = make_plan(inputs, problem, Resources()).tiles[0]
    count = problem.hypotheses
    whole = score_tile(problem, tile, [Batch(0, count)])
    for size in (8, 24, 40):
        parts = [problem.fold(tile, Batch(a, min(a + size, count))) for a in range(0, count, size)]
        joined = parts[-1]
        for part in parts[:-1]:
            joined = merge_states(problem.aggregates, joined, part)
        for aggregate, state in whole.items():
            for name, values in state.items():
                np.testing.assert_array_equal(joined[aggregate][name], values)


def test_a_mask_limits_where_centres_may_lie(scene):
    mask = np.zeros(scene.image.shape, np.float32)
    mask[:, :40] = 1
    found = computed(matched(scene, mask=mask))
    searched = found.orientation.values != 0xFFFFFFFF
    assert searched[:, : 40 - BOX // 2].all() and not searched[:, 40 - BOX // 2 :].any()
    assert found.attrs["positions"] == searched.sum()
    assert np.all(found.mip.values[~searched] == 0)
    with pytest.raises(InputError, match=r"mask\.mrc leaves no position"):
        matched(scene, mask=np.zeros(scene.image.shape))
    with pytest.raises(InputError, match="mask of 4 x 4, expected 96 x 112"):
        matched(scene, mask=np.ones((4, 4)))


def test_pixel_size_search_finds_a_particle_that_was_magnified():
    planted = [Planted(30, 40, tuple(ANGLES[17]))]
    scene = make_scene(planted, pixel=PIXEL * 0.96, signal=60.0, seed=3)
    options = {"orientations": ANGLES[17:18], "defocus": [0.0], "gridding": "sinc2", "padding": 2}
    offsets = np.array([-0.16, -0.12, -0.08, -0.04, 0.0, 0.04])
    found = computed(matched(scene, pixel_sizes=offsets, **options))
    assert float(found.pixel_size.isel(y=30, x=40)) == pytest.approx(PIXEL - 0.08)
    assert found.attrs["total_pixel_sizes"] == 6
    with pytest.raises(InputError, match=r"is scaled by 0\.\d+, expected 0.8 to 1.25"):
        matched(scene, pixel_sizes=[0.0, 0.6], **options)


def test_odd_aberrations_are_applied():
    """A trefoil and coma shift and smear a particle; with them in the CTF it scores at its place again."""
    planted = [Planted(30, 40, tuple(ANGLES[17]))]
    scene = make_scene(planted, signal=60.0, seed=5, zernikes=(("Z31c", 30.0), ("Z33s", 60.0)))
    options = {"orientations": ANGLES[17:18], "defocus": [0.0]}
    options["filters"] = {"whitening_filter": {"enabled": False}}
    aberrated = OPTICS | {"odd_zernikes": {"Z31c": 30.0, "Z33s": 60.0}}
    right, wrong = computed(matched(scene, optics=aberrated, **options)), computed(matched(scene, **options))
    assert np.unravel_index(right.mip.values.argmax(), right.mip.shape) == (30, 40)
    assert float(right.mip.max()) > 1.1 * float(wrong.mip.max())


def test_hot_pixels_are_clipped_to_the_mean(scene):
    hot = scene.image.copy()
    hot[40, 40] = 1e4
    clipped = computed(matched(type(scene)(hot, scene.template), clip_sigma=20.0))
    clean = computed(matched(scene))
    assert np.abs(clipped.mip - clean.mip).max() < 0.5
    assert np.abs(computed(matched(type(scene)(hot, scene.template))).mip - clean.mip).max() > 5


def test_a_binned_search_finds_the_particles_at_their_places(scene):
    found = matched(scene, bin_to=6.0)
    assert found.attrs["searched_pixel_size"] == pytest.approx(3.0)
    share = found.attrs["binned_share"]
    assert 0.5 < share < 1
    found, full = computed(found), computed(matched(scene))
    for one, row in zip(PLANTED, (17, 40), strict=True):
        y, x = (one.y + BOX // 2) * PIXEL, (one.x + BOX // 2) * PIXEL
        near = found.scaled_mip.where((abs(found.y - y) <= 4) & (abs(found.x - x) <= 4)).fillna(-9)
        best = near.argmax(...)
        assert int(found.orientation.isel(best)) == row
        exact = float(full.scaled_mip.isel(y=one.y, x=one.x))
        assert float(near.max()) == pytest.approx(exact * np.sqrt(share), rel=0.2)
    assert found.score_std.mean() == pytest.approx(float(full.score_std.mean()), rel=0.05)


def shell(radius=20.0):
    """Gaussians on the corners, edges and faces of a cube: octahedral symmetry."""
    axis = np.array([-1.0, 0.0, 1.0])
    corners = np.stack(np.meshgrid(axis, axis, axis), -1).reshape(-1, 3)
    corners = corners[np.abs(corners).sum(1) > 0]
    centres = radius * corners / np.linalg.norm(corners, axis=1, keepdims=True)
    return GaussianStructure(centres, np.full(len(centres), 4.0), np.ones(len(centres)), "O")


def test_local_statistics_find_symmetric_particles_that_moments_miss():
    angles = OrientationGrid(30, 30, symmetry="O").angles()
    places = [(8, 8), (20, 120), (110, 30), (100, 110)]
    planted = [Planted(y, x, tuple(angles[5])) for y, x in places]
    scene = make_scene(planted, shape=(176, 192), signal=16.0, structure=shell())
    options = {"orientations": OrientationGrid(30, 30, "O"), "defocus": [0.0], "statistics": "local"}
    found = computed(matched(scene, **options))
    threshold = found.attrs["threshold"]
    for y, x in places:
        near = found.isel(y=slice(max(0, y - 2), y + 3), x=slice(max(0, x - 2), x + 3))
        assert float(near.scaled_mip_local.max()) > threshold > float(near.scaled_mip.max())
    far = np.ones(found.mip.shape, bool)
    for y, x in places:
        far[max(0, y - 20) : y + 21, max(0, x - 20) : x + 21] = False
    assert float(found.scaled_mip_local.values[far].max()) < threshold


def test_local_statistics_are_those_of_their_definition():
    rng = np.random.default_rng(0)
    mip, mean = rng.standard_normal((2, 40, 50))
    std = rng.uniform(0.5, 1.5, (40, 50))
    found = local_zscore(mip, mean, std, 16)
    for y, x in ((0, 0), (12, 31), (39, 49)):
        part = slice(max(0, y - 8), y + 9), slice(max(0, x - 8), x + 9)
        mu = np.median(mean[part])
        v = (1.4826 * np.median(np.abs(mean[part] - mu))) ** 2 + np.median(std[part] ** 2)
        assert found[y, x] == pytest.approx((mip[y, x] - mu) / np.sqrt(v), rel=1e-5)


def test_random_phases_keep_moduli_and_low_frequencies():
    volume = draw_template()
    changed = randomized_phases(volume, 0.2, seed=4)
    before, after = np.fft.fftn(volume), np.fft.fftn(changed)
    np.testing.assert_allclose(np.abs(after), np.abs(before), atol=1e-3)
    k = np.sqrt(sum(f**2 for f in np.meshgrid(*[np.fft.fftfreq(BOX)] * 3, indexing="ij")))
    np.testing.assert_allclose(after[k < 0.199], before[k < 0.199], atol=1e-3)
    assert np.abs(after - before)[k >= 0.2].max() > 1
    np.testing.assert_array_equal(changed, randomized_phases(volume, 0.2, seed=4))


def test_a_template_without_its_symmetry_is_refused(scene, tmp_path):
    config = changed_symmetry(scene, tmp_path, "D2")
    with pytest.raises(InputError, match=r"symmetry = D2: the template turned by 180 degrees about z"):
        check_symmetry(config, scene.template)
    octahedral = draw_template(shell())
    icosahedral = changed_symmetry(scene, tmp_path, "I")
    with pytest.raises(InputError, match="symmetry = I: the template turned by 72 degrees"):
        check_symmetry(icosahedral, octahedral)
    for setting in ("I1", "I2"):
        centres = symmetry_group(setting).apply([4.0, 9.0, 20.0])
        capsid = GaussianStructure(centres, np.full(60, 4.0), np.ones(60), setting)
        check_symmetry(icosahedral, draw_template(capsid))
    for group in ("O", "T", "C4", "D4", "D2"):
        check_symmetry(changed_symmetry(scene, tmp_path, group), octahedral)


def changed_symmetry(scene, folder, group):
    search = {"symmetry": group, "psi_step": 60, "theta_step": 60}
    return cd.MatchConfig.from_yaml(scene.write(folder, orientation_search_config=search))


def test_a_template_from_an_atomic_model_is_a_template(shared_data, scene):
    model = shared_data / "structures" / "1mh1.pdb"
    dataset = cd.match_micrograph(
        scene.image,
        str(model),
        optics=OPTICS,
        orientations=ANGLES[:8],
        defocus=[0.0],
        template_model={"box": 48},
    )
    assert dataset.attrs["template_box"] == 48
    with pytest.raises(InputError, match=r"an atomic model needs cryodask.template_model"):
        cd.match_micrograph(scene.image, str(model), optics=OPTICS, orientations=ANGLES[:8])
    with pytest.raises(InputError, match=r"the model reaches \d+ angstrom from its centre"):
        cd.match_micrograph(scene.image, str(model), optics=OPTICS, template_model={"box": 16})


def test_results_under_the_names_of_leopard_em(scene):
    found = matched(scene).cryo.to_leopard_em()
    assert found["total_projections"] == len(ANGLES) * 3
    assert found["best_global_index"].dtype == np.uint32
    z = (found["mip"] - found["correlation_mean"]) / found["correlation_variance"]
    np.testing.assert_allclose(found["scaled_mip"], z, atol=1e-4)
    mean = found["correlation_sum"] / found["total_projections"]
    np.testing.assert_allclose(found["correlation_mean"], mean, atol=1e-6)


def test_no_memory_is_refused_with_the_numbers(scene, tmp_path):
    config = cd.MatchConfig.from_yaml(scene.write(tmp_path))
    with pytest.raises(ResourceError, match=r"smallest tile needs .* GiB, a worker has"):
        lazy_match(config, Explicit(), Resources(memory=2**16))


def test_wrong_arrays_are_refused(scene):
    with pytest.raises(InputError, match=r"orientations: shape \(4,\), expected \(row, 3\)"):
        matched(scene, orientations=np.zeros(4))
    with pytest.raises(InputError, match=r"template: shape \(32, 32\), expected 3-D"):
        cd.match_micrograph(scene.image, scene.template[0], optics=OPTICS)
    with pytest.raises(InputError, match="optics_group is required"):
        cd.match_micrograph(scene.image, scene.template)
    image = scene.image.copy()
    image[3, 7] = np.nan
    with pytest.raises(InputError, match=r"1 pixels are not finite, the first at \(y, x\) = \(3, 7\)"):
        cd.match_micrograph(image, scene.template, optics=OPTICS, orientations=ANGLES)
    with pytest.raises(InputError, match="image has no variance"):
        cd.match_micrograph(np.ones((64, 64)), scene.template, optics=OPTICS, orientations=ANGLES)
    with pytest.raises(InputError, match="image of 24 x 112 is smaller than the template of 32"):
        cd.match_micrograph(scene.image[:24], scene.template, optics=OPTICS, orientations=ANGLES)
