"""The miss probability against the specification's figures and against plain simulation."""

from pathlib import Path

import numpy as np
import pytest
import scipy.fft
from scipy.spatial.transform import Rotation
from scipy.special import ndtr

from cryodask.geometry.euler import rotation_from_euler
from cryodask.geometry.grids import rotation_grid
from cryodask.io.volume import read_volume
from cryodask.jobs.miss_model import MissModel
from cryodask.jobs.tomogram_matching.miss_probability import Stage, miss_models
from cryodask.kernels.rotation import rotation_coefficients
from cryodask.optics.bandpass import BandPass
from cryodask.optics.fourier_crop import crop_volume, resample_mask
from cryodask.optics.frequency import half_frequencies, template_radius
from cryodask.optics.masks import sphere_mask

BOX = 24
SAMPLES = 1500


def rotations(step: float) -> np.ndarray:
    return rotation_from_euler(rotation_grid(step, method="rings")).as_matrix()


def white(box: int) -> np.ndarray:
    return np.ones((box, box, box // 2 + 1))


def lowpassed(volume: np.ndarray, radius: float) -> np.ndarray:
    """A low-pass of `radius` Fourier pixels with the Gaussian fall of the specification's figures."""
    box = volume.shape[0]
    r = template_radius(*half_frequencies((box, box, box), 1.0), box, 1.0)
    fall = np.where(r <= radius, 1.0, np.exp(-np.square((r - radius) / 3.0)))
    return scipy.fft.irfftn(scipy.fft.rfftn(volume) * fall, volume.shape).astype(np.float32)


def stage(volume: np.ndarray, mask: np.ndarray, step: float, **options) -> Stage:
    return Stage(rotation_coefficients(volume, "cubic"), mask, rotations(step), **options)


def blobs(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    volume = lowpassed(generator.standard_normal((BOX,) * 3).astype(np.float32), 5.0)
    mask = sphere_mask(BOX, 8.0, 2.0)
    return volume * mask, mask


# coarse step: κ mean and 5 % of the specification
RIBOSOME = {10.0: (0.851, 0.840), 20.0: (0.811, 0.770)}


def test_likeness_of_a_real_ribosome_is_that_of_the_specification(shared_data: Path) -> None:
    folder = shared_data / "tomogram_matching" / "local_correlation"
    volume = read_volume(str(folder / "bin4_voxel2.176_ribosome.em")).astype(np.float32)
    box, voxel = 48, 8.704
    distance = np.sqrt(np.square(np.indices((box,) * 3) - box // 2).sum(axis=0)) * voxel
    mask = np.clip((170.0 - distance) / 20.0, 0.0, 1.0).astype(np.float32)
    poses = Rotation.random(64, random_state=1).as_matrix()
    fine = Stage(rotation_coefficients(lowpassed(volume, box * voxel / 20.0), "cubic"), mask, poses)
    coarse = [stage(lowpassed(volume, box * voxel / 60.0), mask, step) for step in RIBOSOME]
    models = miss_models(fine, coarse, white, draws=48)
    for (mean, low), model in zip(RIBOSOME.values(), models, strict=True):
        assert model.likeness.mean() == pytest.approx(mean, abs=0.015)
        assert np.quantile(model.likeness, 0.05) == pytest.approx(low, abs=0.03)
    sigma = models[1].fine_sigma, models[1].coarse_sigma
    assert 0.004 < models[1].miss_probability(4.5 * sigma[1], 7.26 * sigma[0]) < 0.03


@pytest.mark.parametrize(("factor", "general"), [(1.0, False), (0.75, True)])
def test_moments_are_those_of_scores_in_simulated_noise(factor: float, general: bool) -> None:
    volume, mask = blobs()
    if general:
        mask = mask * (np.abs(np.indices(mask.shape)[0] - BOX // 2) <= 6)
    band = BandPass(lp_rad=6.0, lp_sigma=1.0)
    small = round(BOX * factor)
    low = band.curve(template_radius(*half_frequencies((small,) * 3, 1 / factor), BOX, 1.0), BOX)
    low[0, 0, 0] = 1.0
    form = resample_mask(mask, small)
    turned = {"mask_coefficients": rotation_coefficients(mask, "linear")} if general else {}
    small_turned = {"mask_coefficients": rotation_coefficients(form, "linear")} if general else {}
    fine = stage(volume, mask, 30.0, **turned)
    coarse = stage(crop_volume(volume, small), form, 60.0, data_filter=low, factor=factor, **small_turned)
    model = miss_models(fine, [coarse], white, draws=1)[0]
    found = simulated(fine, coarse, low, factor)
    for name, value in found.items():
        assert getattr(model, name)[0] == pytest.approx(value, rel=4.0 / np.sqrt(SAMPLES)), name


def simulated(fine: Stage, coarse: Stage, low: np.ndarray, factor: float) -> dict[str, float]:
    """Score noise by the stages' own weights at the place and row of the first draw of seed 0."""
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([0, 13])))
    row = int(generator.integers(0, len(fine.matrices), 1)[0])
    place = generator.integers(0, 2**20, (1, 3))[0]
    shift = np.rint(place * factor) - place * factor
    grid = np.stack(np.meshgrid(*[scipy.fft.fftfreq(coarse.box)] * 3, indexing="ij"))
    phase = np.exp(2j * np.pi * np.tensordot(shift, grid, axes=1))[:, :, : coarse.box // 2 + 1]
    band = (
        np.abs(np.rint(scipy.fft.fftfreq(BOX) * BOX)) < coarse.box / 2 if factor < 1 else np.ones(BOX, bool)
    )

    def seen(volume: np.ndarray) -> np.ndarray:
        spectrum = scipy.fft.rfftn(volume)[np.ix_(band, band, band[: BOX // 2 + 1])]
        kept = np.zeros((coarse.box, coarse.box, coarse.box // 2 + 1), complex)
        at = np.rint(scipy.fft.fftfreq(BOX) * BOX).astype(int)[band]
        kept[np.ix_(at, at, np.arange(spectrum.shape[2]))] = spectrum
        return scipy.fft.irfftn(kept * low * phase, (coarse.box,) * 3) * factor**3

    noise = np.random.default_rng(1).standard_normal((SAMPLES, BOX, BOX, BOX))
    data = np.stack([seen(each) for each in noise])
    gain = 1.0 / data.std()
    signal = seen(fine.template_of(row)) * gain
    weights = [coarse.weights(r) for r in range(len(coarse.matrices))]
    # the best of all rows: more than the four nearest, so at least as good
    best = max(weights, key=lambda w: float((w * signal).sum()))
    fine_scores = np.tensordot(noise, fine.weights(row), axes=3)
    coarse_scores = np.tensordot(data, best, axes=3) * gain
    joint = np.cov(fine_scores, coarse_scores)
    return {
        "coarse_signal": float((best * signal).sum()),
        "fine_signal": float((fine.weights(row) * fine.template_of(row)).sum()),
        "fine_variance": joint[0, 0],
        "coarse_variance": joint[1, 1],
        "covariance": joint[0, 1],
    }


def test_a_stage_that_is_the_search_itself_misses_nothing() -> None:
    volume, mask = blobs()
    fine = stage(volume, mask, 30.0)
    model = miss_models(fine, [stage(volume, mask, 30.0)], white, draws=16)[0]
    np.testing.assert_allclose(model.likeness, 1.0, atol=1e-6)
    score = 7.0 * model.fine_sigma
    assert model.coarse_threshold(score, 0.01) == pytest.approx(score, rel=1e-4)


def test_the_threshold_is_the_largest_that_misses_few_enough() -> None:
    volume, mask = blobs()
    fine, coarse = stage(volume, mask, 15.0), stage(lowpassed(volume, 4.0), mask, 24.0)
    model = miss_models(fine, [coarse], white)[0]
    score = 7.0 * model.fine_sigma
    taus = [model.coarse_threshold(score, rate) for rate in (0.001, 0.01, 0.1)]
    assert taus == sorted(taus)
    for tau, rate in zip(taus, (0.001, 0.01, 0.1), strict=True):
        assert model.miss_probability(tau, score) <= rate < model.miss_probability(tau * 1.0001, score)
    # a stronger particle is missed less
    assert model.miss_probability(taus[1], 1.2 * score) < 0.2 * model.miss_probability(taus[1], score)


def test_the_formula_of_the_miss_probability() -> None:
    ones = np.ones(2)
    model = MissModel(
        ones, 0.0 * ones, 4e-4 * ones, np.array([0.8, 0.9]), 0.0 * ones, 5e-4 * ones, 3e-4 * ones
    )
    spread = np.sqrt(5e-4 + np.array([0.8, 0.9]) ** 2 * 4e-4 - 2 * np.array([0.8, 0.9]) * 3e-4)
    expected = ndtr((0.1 - np.array([0.8, 0.9]) * 0.15) / spread).mean()
    assert model.miss_probability(0.1, 0.15) == pytest.approx(expected)


def test_draws_follow_the_seed_alone() -> None:
    volume, mask = blobs()
    fine = stage(volume, mask, 30.0)
    coarse = [stage(volume, mask, 60.0), stage(volume, mask, 40.0)]
    first = miss_models(fine, coarse, white, draws=4)
    np.testing.assert_array_equal(first[1].kappa, miss_models(fine, coarse[1:], white, draws=4)[0].kappa)
    assert not np.array_equal(first[1].kappa, miss_models(fine, coarse[1:], white, draws=4, seed=1)[0].kappa)
