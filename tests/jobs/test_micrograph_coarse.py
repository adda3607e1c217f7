"""Coarse to fine over orientations and binnings of a micrograph: what it misses, and what it keeps exact."""

from fractions import Fraction

import numpy as np
import pytest
import scipy.fft

import cryodask as cd
from cryodask.errors import IncompleteError, InputError
from cryodask.geometry.zyz import zyz_rotations
from cryodask.geometry.zyz_grids import OrientationGrid
from cryodask.jobs.micrograph_matching import coarse_choice, two_stages
from cryodask.jobs.micrograph_matching.binning import Binning, crop_image, crop_stamp, exact_binnings
from cryodask.jobs.micrograph_matching.coarse_choice import CoarseChoice, _Planner, coarse_angles
from cryodask.jobs.micrograph_matching.coarse_model import full_moments, miss_model
from cryodask.jobs.micrograph_matching.inputs import load_inputs
from cryodask.jobs.micrograph_matching.planning import Resources
from cryodask.jobs.micrograph_matching.rescoring import Rescoring
from cryodask.simulate.structure import GaussianStructure
from tests.jobs.micrographs import BOX, Planted, make_scene

STEP = 15.0
ANGLES = OrientationGrid(STEP, STEP).angles()
PLANTED = [
    Planted(7, 12, tuple(ANGLES[1234]), 400.0),
    Planted(60, 66, tuple(ANGLES[3210]), -400.0),
    Planted(64, 8, tuple(ANGLES[2222])),
]
SEARCH = {"psi_step": STEP, "theta_step": STEP}
OWN = {"padding": 2, "gridding": "sinc2"}


@pytest.fixture(scope="module")
def scene():
    return make_scene(PLANTED, signal=18.0, structure=grainy_structure())


def grainy_structure():
    """Small Gaussians in a sphere: its views have little in common, as those of a protein."""
    rng = np.random.default_rng(2)
    centres = rng.standard_normal((70, 3))
    centres *= 22 * rng.random((70, 1)) ** (1 / 3) / np.linalg.norm(centres, axis=1, keepdims=True)
    return GaussianStructure(centres, np.full(70, 1.5), np.ones(70))


def config_of(scene, folder, **own):
    return cd.MatchConfig.from_yaml(
        scene.write(folder, orientation_search_config=SEARCH, cryodask={**OWN, **own})
    )


def choosing(ratio, factor, monkeypatch):
    """Let the first stage be a given one."""

    def choose(inputs, resources):
        binning = Binning(ratio.numerator, ratio.denominator, inputs.box, inputs.image_shape)
        angles = coarse_angles(inputs.angles, factor * STEP, STEP, "C1")
        return CoarseChoice(binning, angles, factor * STEP, STEP, "C1", "given"), "given"

    monkeypatch.setattr(two_stages, "choose_first_stage", choose)


@pytest.fixture(scope="module")
def exhaustive(scene, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exhaustive")
    return cd.open_result(config_of(scene, folder).run(folder / "r.zarr"))


@pytest.mark.parametrize(("ratio", "factor"), [(Fraction(1), 2), (Fraction(3, 4), 1)])
def test_particles_are_those_of_the_whole_search(scene, exhaustive, tmp_path, monkeypatch, ratio, factor):
    choosing(ratio, factor, monkeypatch)
    config = config_of(scene, tmp_path, strategy="coarse_to_fine", miss_rate=0.1)
    found = cd.open_result(config.run(tmp_path / "r.zarr"))
    assert found.attrs["total_projections"] == exhaustive.attrs["total_projections"] == 3 * len(ANGLES)
    assert found.attrs["threshold"] == exhaustive.attrs["threshold"]
    assert found.mip.shape == exhaustive.mip.shape
    whole, two = (cd.pick(d).sort_values("pos_y", ignore_index=True) for d in (exhaustive, found))
    assert len(whole) == len(two) == len(PLANTED)
    for name in ("pos_y", "pos_x", "hypothesis"):
        assert (two[name] == whole[name]).all()
    np.testing.assert_allclose(two.mip, whole.mip, atol=5e-5)
    np.testing.assert_allclose(two.scaled_mip, whole.scaled_mip, rtol=0.04)
    # nothing is better than the best of everything, and what is not rescored is never picked
    exact = found.rescored.values > 0
    assert (found.mip.values[exact] <= exhaustive.mip.values[exact] + 5e-5).all()
    assert exact[two.pos_y, two.pos_x].all() and not exact.all()
    assert np.abs(found.score_std / exhaustive.score_std - 1).mean() < 0.02
    assert np.abs(found.score_mean - exhaustive.score_mean).mean() < 0.02
    assert int(found.orientation.max()) < len(ANGLES)


def test_tiles_of_the_second_stage_may_be_cut_anywhere(scene, tmp_path, monkeypatch):
    choosing(Fraction(3, 4), 1, monkeypatch)
    config = config_of(scene, tmp_path, strategy="coarse_to_fine", miss_rate=0.5)
    one = cd.open_result(config.run(tmp_path / "one.zarr"))
    monkeypatch.setattr(two_stages, "SHARD", 40)
    many = cd.open_result(config.run(tmp_path / "many.zarr"))
    np.testing.assert_array_equal(many.rescored.values, one.rescored.values)
    exact = one.rescored.values > 0
    for name in ("mip", "hypothesis", "defocus"):
        np.testing.assert_array_equal(many[name].values[exact], one[name].values[exact])
    np.testing.assert_allclose(many.scaled_mip, one.scaled_mip, atol=1e-4)


def test_a_run_stopped_in_its_second_stage_goes_on_with_the_same_choice(scene, tmp_path, monkeypatch):
    choosing(Fraction(3, 4), 1, monkeypatch)
    config = config_of(scene, tmp_path, strategy="coarse_to_fine", miss_rate=0.5)
    whole = cd.open_result(config.run(tmp_path / "whole.zarr"))

    def killed(self, tile, batch):
        raise RuntimeError("worker killed")

    with monkeypatch.context() as patched:
        patched.setattr(Rescoring, "fold", killed)
        with pytest.raises(IncompleteError, match="run again with --resume"):
            config.run(tmp_path / "part.zarr")
    monkeypatch.setattr(two_stages, "choose_first_stage", None)
    part = cd.open_result(config.run(tmp_path / "part.zarr", resume=True))
    for name in whole.data_vars:
        np.testing.assert_array_equal(part[name].values, whole[name].values, err_msg=name)


def test_no_more_particles_lie_below_the_first_threshold_than_stated(scene, tmp_path):
    """Particles of one fine score in white noise, scored by a first stage at its nearest pixel and rows."""
    inputs = load_inputs(config_of(scene, tmp_path, strategy="coarse_to_fine"))
    planner = _Planner(inputs, Resources(device="cpu"))
    binning = Binning(3, 4, BOX, (96, 96))
    few = coarse_angles(inputs.angles, 2 * STEP, STEP, "C1")
    coarse_inputs = coarse_choice.on_first_stage(inputs, binning, few)
    coarse = planner._view(coarse_inputs, planner._problem(coarse_inputs))
    model, share = miss_model(planner.fine, coarse)
    assert 0.5 < share <= 1
    score, rate = 8.0, 0.1
    tau = model.coarse_threshold(score, rate)
    rng = np.random.default_rng(3)
    finder = coarse_choice.RowFinder(coarse.rotations, "C1")
    below = 0
    for _ in range(300):
        row, defocus = int(rng.integers(len(inputs.angles))), int(rng.integers(3))
        y, x = rng.integers(0, 96 - BOX, 2)
        t = planner.fine.templates(np.array([row]), 0, defocus)[0]
        image = rng.standard_normal((96, 96)).astype(np.float32)
        place = slice(y, y + BOX), slice(x, x + BOX)
        image[place] += (score - np.sum(image[place] * t)) * t
        binned = crop_image(image, binning)
        corner = (
            np.rint(np.array([y + BOX // 2, x + BOX // 2]) * 0.75).astype(int) - binning.searched_box // 2
        )
        n = binning.searched_box
        window = binned[corner[0] : corner[0] + n, corner[1] : corner[1] + n]
        rows = finder.nearest(zyz_rotations(inputs.angles[row][None]), 4)[1][0]
        below += np.tensordot(coarse.templates(rows, 0, defocus), window, 2).max() < tau
    # four rows see more noise than the one of the formula, so that fewer are missed than stated
    assert 0.01 < below / 300 < rate + 3 * np.sqrt(rate * (1 - rate) / 300)


def test_a_stamp_is_cropped_as_the_image_around_it():
    rng = np.random.default_rng(0)
    spectrum = scipy.fft.rfft2(rng.standard_normal((BOX, BOX)))
    spectrum[BOX // 2] = spectrum[:, -1] = 0
    stamp = scipy.fft.irfft2(spectrum)
    binning = Binning(1, 2, BOX, (BOX, BOX))
    np.testing.assert_allclose(crop_stamp(stamp, binning, np.zeros(2)), crop_image(stamp, binning), atol=1e-5)
    np.testing.assert_allclose(
        crop_stamp(stamp, Binning(1, 1, BOX, (BOX, BOX)), np.array([3, -5])), np.roll(stamp, (-3, 5), (0, 1)),
        atol=1e-12,
    )  # fmt: skip


def test_exact_binnings_divide_the_box():
    ratios = [each.ratio for each in exact_binnings(96, (400, 500))]
    assert ratios == sorted(ratios) and ratios[-1] == 1.0 and 2 / 3 in ratios and 0.75 in ratios
    for each in exact_binnings(96, (400, 500)):
        assert each.padded_box == 96


def test_moments_of_a_binned_search_in_full_units():
    """Scores of templates of which a share lies on the binned pixels, the rest in noise of its own."""
    rng = np.random.default_rng(0)
    share, weights = 0.7, rng.standard_normal((4000, 8))
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    binned = weights @ rng.standard_normal(8) + 0.5
    full = np.sqrt(share) * binned + np.sqrt(1 - share) * rng.standard_normal(4000)
    mean, std = full_moments(binned.mean(), binned.std(), share)
    assert mean == pytest.approx(full.mean(), abs=0.03) and std == pytest.approx(full.std(), rel=0.03)


def test_the_planner_takes_everything_where_that_is_cheaper_and_says_so(scene, tmp_path, caplog):
    config = config_of(scene, tmp_path, strategy="coarse_to_fine")
    found = cd.open_result(config.run(tmp_path / "r.zarr"))
    assert "rescored" not in found and "coarse_to_fine" not in found.attrs
    assert "searching everything is cheapest" in caplog.text


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"crop": "same"}, r"cryodask\.crop = same: not supported beside strategy: coarse_to_fine"),
        ({"histogram": True}, r"cryodask\.histogram = True: not supported beside"),
        ({"compat": "leopard-em-1.2"}, r"cryodask\.compat = leopard-em-1.2: not supported beside"),
        ({"miss_rate": 1.5}, r"cryodask\.miss_rate = 1.5: expected a probability between 0 and 1"),
        ({"strategy": "coarse"}, r"strategy = coarse: expected exhaustive or coarse_to_fine"),
    ],
)
def test_what_two_stages_do_not_make_is_refused(scene, tmp_path, own, message):
    with pytest.raises(InputError, match=message):
        config_of(scene, tmp_path, **{"strategy": "coarse_to_fine", **own})


def test_a_lazy_dataset_of_two_stages_is_refused(scene, tmp_path):
    with pytest.raises(InputError, match=r"a search in two stages is stored as it runs; use"):
        cd.match_micrograph(config_of(scene, tmp_path, strategy="coarse_to_fine"))
