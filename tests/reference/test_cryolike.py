"""CryoLike's numbers, array by array, under its conventions; and what the calibrated likelihood makes of it.

The native numbers were computed independently from the formulas.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from scipy.special import logsumexp

from cryodask.geometry.polar import PolarGrid, displacement_grid, displacement_phases
from cryodask.geometry.views import Views, ring_views
from cryodask.kernels.likelihood_form import LikelihoodForm
from cryodask.kernels.polar_fused import fold_template, fused_block
from cryodask.kernels.polar_fused_template import fused_template, planar_basis, planar_phases
from cryodask.kernels.polar_likelihood import (
    fold_scores,
    image_block,
    offset_basis,
    pose_scores,
    template_spectra,
)
from cryodask.kernels.polar_transform import polar_from_images, slices_of_atoms, slices_of_map, whole_circle
from cryodask.optics.ctf_image import ImageCtf, ctf_at

NOISY, CLEAN = "case1_gauss_32px_double", "case4_gauss_32px_noiseless_double"
BOX, PIXEL, ROTATIONS = 32, 4.0, 64
HALF, LENGTH = ROTATIONS // 2, BOX * PIXEL
GRID = PolarGrid(BOX, 1.0, ROTATIONS)
COMPAT = LikelihoodForm(BOX**2, 0.0, "template", "free")
NATIVE = LikelihoodForm(GRID.disc_samples, 0.0, "exact", "free")


@lru_cache
def case(folder: Path, name: str) -> dict[str, Any]:
    with np.load(folder / "likelihood" / f"{name}.npz") as file:
        return dict(file)


@dataclass
class Scored:
    correlation: np.ndarray
    score: np.ndarray


def blocks(z: dict[str, Any], form: LikelihoodForm, dtype: Any) -> tuple[Any, list[Any]]:
    real = np.zeros(0, dtype).real.dtype
    contrast, box = z["ctf"][:, :, :HALF], GRID.box_transform[None, :, :HALF]
    basis = offset_basis(box * contrast, GRID.weights, 1e-13).astype(real)
    shifts = z["displacement_grid_angstrom"].T.astype(float)
    phases = displacement_phases(GRID, shifts, LENGTH).astype(dtype)
    images = image_block(
        z["images_fourier"].astype(dtype), contrast.astype(real), box.astype(real), GRID.weights, form, basis
    )
    templates = [
        template_spectra(each[:, :HALF].astype(dtype), phases, GRID.weights, form, basis)
        for each in z["templates_fourier"]
    ]
    return images, templates


@lru_cache
def scores(folder: Path, name: str, form: LikelihoodForm, dtype: Any = complex) -> Scored:
    images, templates = blocks(case(folder, name), form, dtype)
    found = [pose_scores(images, template, form) for template in templates]
    return Scored(np.stack([f[0] for f in found], 1), np.stack([f[1] for f in found], 1))


def views_of(z: dict[str, Any]) -> Views:
    return Views(
        np.degrees(z["azimus"].astype(float)), np.degrees(z["polars"].astype(float)), z["weights_viewing"]
    )


def test_grids(shared_data: Path) -> None:
    z = case(shared_data, NOISY)
    np.testing.assert_allclose(GRID.radii, z["radius_shells"], atol=1e-12)
    np.testing.assert_allclose(
        np.tile(GRID.weights[:, None], ROTATIONS), z["integration_weight_points"], atol=1e-12
    )
    np.testing.assert_allclose(GRID.box_transform, z["mask_points"], atol=1e-12)
    np.testing.assert_allclose(
        displacement_grid(2 * PIXEL, 5, 5).T, z["displacement_grid_angstrom"], atol=1e-12
    )
    views = ring_views(16 / (4 * np.pi))
    np.testing.assert_allclose(np.radians(views.azimuth), z["azimus"], atol=1e-6)
    np.testing.assert_allclose(np.radians(views.polar), z["polars"], atol=1e-6)
    np.testing.assert_allclose(4 * np.pi * views.weight, z["weights_viewing"], rtol=1e-12)


def test_ctf(shared_data: Path) -> None:
    z = case(shared_data, NOISY)
    for i in range(8):
        u, v = z["defocusU"][i], z["defocusV"][i]
        optics = ImageCtf(
            PIXEL, max(u, v), min(u, v), float(z["defocusAngle_deg"][i]), voltage=float(z["voltage_kV"]),
            spherical_aberration=float(z["sphericalAberration_mm"]),
            amplitude_contrast=float(z["amplitudeContrast"]), phase_shift=float(z["phaseShift"]),
        )  # fmt: skip
        found = ctf_at(2 / BOX * GRID.ky, 2 / BOX * GRID.kx, optics)
        # CryoLike rounds the constants of the wavelength to nine digits
        np.testing.assert_allclose(found, z["ctf"][i], atol=1e-7)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.complex128, 1e-11), (np.complex64, 1e-4)])
def test_transforms(shared_data: Path, dtype: Any, tolerance: float) -> None:
    z = case(shared_data, NOISY)
    radius = z["atom_radii"].astype(float) * 2 / LENGTH
    amplitude = (2 * np.pi) ** -1.5 * radius**-3 / len(radius)
    factors = amplitude * np.exp(-2 * np.pi**2 * (GRID.radii[:, None] * radius) ** 2)
    kx, ky = GRID.kx[:, :HALF], GRID.ky[:, :HALF]
    positions = z["atoms_xyz"].astype(float) * 2 / LENGTH
    found = slices_of_atoms(positions, factors, views_of(z).axes, kx, ky, np.dtype(dtype))
    found = whole_circle(found - amplitude.sum() * np.sinc(2 * kx) * np.sinc(2 * ky))
    found /= norm(found)
    np.testing.assert_allclose(found, z["templates_fourier"], atol=tolerance)
    images = z["images_raw"] - z["images_raw"].mean((1, 2), keepdims=True)
    images /= np.abs(images).max((1, 2), keepdims=True)
    polar = polar_from_images(images.transpose(0, 2, 1), GRID.kx, GRID.ky, np.dtype(dtype))
    np.testing.assert_allclose(polar / norm(polar), z["images_fourier"], atol=max(tolerance / 10, 1e-11))


def norm(polar: np.ndarray, weights: np.ndarray = GRID.weights) -> np.ndarray:
    return np.sqrt((np.abs(polar) ** 2 * weights[:, None]).sum((1, 2)))[:, None, None]


def test_templates_of_a_map(shared_data: Path) -> None:
    z = case(shared_data, "case5_volume_templates_64px_double")
    volume = mrcfile.read(shared_data / "structures" / "3j9g_potential_ps4_4.mrc").astype(float)
    grid = PolarGrid(64, 1.0, 128)
    kx, ky = grid.kx[:, :64], grid.ky[:, :64]
    axes = Views(
        np.degrees(z["azimus"].astype(float)), np.degrees(z["polars"].astype(float)), z["azimus"]
    ).axes
    found = whole_circle(slices_of_map(volume.T, 2 / 64, axes, kx, ky, np.dtype(complex)))
    found -= np.pi / 64 * volume.sum() * np.sinc(2 * grid.kx) * np.sinc(2 * grid.ky)
    scale = np.abs(z["templates_fourier_unnormalised"]).max()
    np.testing.assert_allclose(found / scale, z["templates_fourier_unnormalised"] / scale, atol=1e-11)
    np.testing.assert_allclose(found / norm(found, grid.weights), z["templates_fourier"], atol=1e-11)


@pytest.mark.parametrize("name", [NOISY, CLEAN])
@pytest.mark.parametrize(("dtype", "tolerance"), [(complex, 1e-12), (np.complex64, 1e-6)])
def test_cross_correlations(shared_data: Path, name: str, dtype: Any, tolerance: float) -> None:
    z, found = case(shared_data, name), scores(shared_data, name, COMPAT, dtype).correlation
    np.testing.assert_allclose(found, z["cross_correlation_MSdw"], atol=tolerance)
    x, y = z["displacement_grid_angstrom"]
    for level, axes in (("MSd", (3,)), ("MSw", (2,)), ("MS", (2, 3)), ("M", (1, 2, 3))):
        np.testing.assert_allclose(found.max(axes), z[f"cross_correlation_{level}"], atol=tolerance)
    best = found.reshape(8, -1).argmax(1)
    template, d, w = np.unravel_index(best, found.shape[1:])
    np.testing.assert_array_equal(template, z["optimal_template_M"])
    np.testing.assert_array_equal(x[d], z["optimal_displacement_x_M"].astype("f4"))
    np.testing.assert_array_equal(y[d], z["optimal_displacement_y_M"].astype("f4"))
    np.testing.assert_allclose(2 * np.pi * w / ROTATIONS, z["optimal_inplane_rotation_M"], atol=1e-6)
    np.testing.assert_array_equal(template, z["truth_template"])
    np.testing.assert_array_equal(d, z["truth_displacement_index"])
    assert (w == z["truth_inplane_index"]).sum() >= (7 if name == NOISY else 8)


@pytest.mark.parametrize(
    ("name", "dtype", "tolerance"),
    [
        (NOISY, complex, 1e-9),
        (CLEAN, complex, 1e-8),
        (NOISY, np.complex64, 2e-3),
        (CLEAN, np.complex64, 0.03),
    ],
)
def test_log_likelihoods(shared_data: Path, name: str, dtype: Any, tolerance: float) -> None:
    z, found = case(shared_data, name), scores(shared_data, name, COMPAT, dtype).score
    np.testing.assert_allclose(found[0], z["log_likelihood_MSdw_image0"], rtol=0, atol=tolerance)
    of_templates = logsumexp(found, axis=(2, 3))
    np.testing.assert_allclose(of_templates, z["log_likelihood_MS"], rtol=0, atol=tolerance)
    weights, poses = z["weights_viewing"], np.log(25 * ROTATIONS)
    total = logsumexp(of_templates + np.log(weights / weights.sum()), axis=1) - poses
    np.testing.assert_allclose(total, z["log_likelihood_integrated_M_logweights"], rtol=0, atol=tolerance)
    shipped = logsumexp(of_templates + weights, axis=1) - poses
    np.testing.assert_allclose(shipped, z["log_likelihood_integrated_M_asshipped"], rtol=0, atol=tolerance)
    exact = scores(shared_data, name, LikelihoodForm(BOX**2, 0.0, "exact", "free"), dtype).score.reshape(
        8, -1
    )
    best = z["cross_correlation_MSdw"].reshape(8, -1).argmax(1)
    np.testing.assert_allclose(
        exact[np.arange(8), best], z["log_likelihood_optimal_M"], rtol=0, atol=tolerance
    )


CALIBRATED = {
    ("free", NOISY): ([1549.29918, 1557.50017, 1551.26338], 1e-5),
    ("positive", NOISY): ([1549.29880, 1557.50017, 1551.26332], 1e-4),
    ("free", CLEAN): ([1602.91608, 1641.09430, 1652.06880], 1e-4),
}
TOTALS = [1568.72397, 1561.43909, 1585.10686, 1577.30145, 1557.77958, 1552.24005, 1562.79597, 1563.99021]


@pytest.mark.parametrize(("scale", "name"), list(CALIBRATED))
def test_calibrated_log_likelihoods(shared_data: Path, scale: Any, name: str) -> None:
    expected, tolerance = CALIBRATED[scale, name]
    form = LikelihoodForm(GRID.disc_samples, 0.0, "exact", scale)
    assert form.exponent == pytest.approx(400.12386, abs=1e-5)
    of_templates = logsumexp(scores(shared_data, name, form).score, axis=(2, 3))
    np.testing.assert_allclose(of_templates[0, :3], expected, rtol=0, atol=tolerance)
    weights = case(shared_data, name)["weights_viewing"]
    total = logsumexp(of_templates + np.log(weights / weights.sum()), axis=1) - np.log(25 * ROTATIONS)
    if name == NOISY:
        np.testing.assert_allclose(total, TOTALS, rtol=0, atol=1e-5)
    else:
        np.testing.assert_allclose(total[:2], [3070.84115, 2851.04585], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", [NOISY, CLEAN])
@pytest.mark.parametrize("samples", [60.0, GRID.disc_samples])
@pytest.mark.parametrize(
    ("offset", "scale"), [("template", "free"), ("none", "free"), ("exact", "positive"), ("none", "positive")]
)
def test_fused_kernel_gives_what_the_arrays_give(
    shared_data: Path, name: str, samples: float, offset: Any, scale: Any
) -> None:
    form = LikelihoodForm(samples, 0.0, offset, scale)
    z = case(shared_data, name)
    images, templates = blocks(z, form, np.complex64)
    basis = offset_basis(GRID.box_transform[None, :, :HALF] * z["ctf"][:, :, :HALF], GRID.weights, 1e-13)
    planes = planar_phases(
        displacement_phases(GRID, z["displacement_grid_angstrom"].T.astype(float), LENGTH), GRID.weights
    )
    rows = planar_basis(basis if form.offset == "exact" else None, GRID.weights)
    prior = np.log(np.linspace(1, 2, 25) / 37.5)
    prior[7] = -np.inf
    fused = fused_block(images)
    tolerance = 5e-3 if name == CLEAN else 1e-4
    for template, half in list(zip(templates, z["templates_fourier"][:, :, :HALF], strict=True))[::5]:
        own = fused_template(half.astype(np.complex64), planes, GRID.weights, form, rows)
        real, imaginary = np.split(own.operand, 2, axis=2)
        np.testing.assert_allclose(real + 1j * imaginary, template.displaced, rtol=0, atol=1e-5)
        np.testing.assert_allclose(own.offset, template.offset, rtol=0, atol=1e-5)
        expected = fold_scores(*pose_scores(images, template, form), prior)
        found = fold_template(fused, own, form, prior)
        np.testing.assert_allclose(found.correlation, expected.correlation, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(found.pose, expected.pose)
        np.testing.assert_array_equal(found.likeliest, expected.likeliest)
        for of in (log_sum, log_plain, lambda f: f.reference):
            np.testing.assert_allclose(of(found), of(expected), rtol=0, atol=tolerance)
        np.testing.assert_allclose(
            found.first / found.weighted - np.log(found.weighted),
            expected.first / expected.weighted - np.log(expected.weighted),
            rtol=0, atol=tolerance,
        )  # fmt: skip
        square = [f.square / f.weighted**2 for f in (found, expected)]
        np.testing.assert_allclose(*square, rtol=0, atol=tolerance)
        alone = fold_template(fused, own, form, None)
        np.testing.assert_array_equal(alone.pose, expected.pose)


def log_sum(fold: Any) -> np.ndarray:
    return fold.reference + np.log(fold.weighted)


def log_plain(fold: Any) -> np.ndarray:
    return fold.reference + np.log(fold.plain)
