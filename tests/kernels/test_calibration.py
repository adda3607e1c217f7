"""The likelihood ratio of two structures is the true one: slope 1 against the exact marginal in pixel
space."""

from pathlib import Path

import numpy as np
import pytest

from cryodask.geometry.polar import PolarGrid
from cryodask.kernels.likelihood_form import LikelihoodForm
from cryodask.kernels.polar_likelihood import (
    ImageBlock,
    image_block,
    offset_basis,
    pose_scores,
    template_spectra,
)
from cryodask.kernels.polar_transform import (
    images_from_polar,
    polar_from_images,
    slices_of_atoms,
    whole_circle,
)

BOX, PIXEL, DRAWS, SNR = 64, 2.0, 300, 0.02


def exact_log_likelihood(images: np.ndarray, model: np.ndarray) -> np.ndarray:
    """Scale, offset and variance integrated out over all pixels; without what does not depend on the
    model."""
    n = BOX * BOX
    a = n * (model**2).sum() - model.sum() ** 2
    b = n * (images * model).sum((1, 2)) - images.sum((1, 2)) * model.sum()
    e = n * (images**2).sum((1, 2)) - images.sum((1, 2)) ** 2
    return -(n / 2 - 2) * np.log1p(-b * b / (a * e)) - 0.5 * np.log(a)


def draws(shared_data: Path, grid: PolarGrid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return noisy images of the first of two structures, and both as templates and as images of a full
    disc."""
    with np.load(shared_data / "likelihood" / "case1_gauss_32px_double.npz") as file:
        atoms, radii = file["atoms_xyz"].astype(float), file["atom_radii"].astype(float) * 2 / (BOX * PIXEL)
    bent = atoms + np.where(atoms[:, :1] > 0, [0, 3.0, 0], 0)
    half = grid.rotations // 2
    factors = radii**-3 * np.exp(-2 * np.pi**2 * (grid.radii[:, None] * radii) ** 2)
    axes = np.array([[[0.35, 0.29, -0.89], [-0.64, 0.76, 0.0]]])
    kx, ky = grid.kx[:, :half], grid.ky[:, :half]
    templates = np.concatenate(
        [
            slices_of_atoms(each * 2 / (BOX * PIXEL), factors, axes, kx, ky, np.dtype(complex))
            for each in (atoms, bent)
        ]
    )
    clean = images_from_polar(whole_circle(templates), grid.weights[:, None], grid.kx, grid.ky, BOX)
    noise = np.random.default_rng(3).standard_normal((DRAWS, BOX, BOX))
    return clean[0] + noise * clean[0].std() / np.sqrt(SNR), templates, clean


def scored(
    block: ImageBlock, template: np.ndarray, grid: PolarGrid, form: LikelihoodForm, basis: np.ndarray
) -> np.ndarray:
    norm = np.sqrt(2 * (grid.weights[:, None] * np.abs(template) ** 2).sum())
    phases = np.ones((1, *template.shape), complex)
    spectra = template_spectra(template / norm, phases, grid.weights, form, basis)
    return pose_scores(block, spectra, form)[1][:, 0, 0]


@pytest.mark.parametrize("factor", [1.0, 0.75, 0.5, 0.25])
def test_slope_of_the_likelihood_ratio_is_one(shared_data: Path, factor: float) -> None:
    grid = PolarGrid(BOX, factor, 128)
    images, templates, clean = draws(shared_data, grid)
    exact = exact_log_likelihood(images, clean[0]) - exact_log_likelihood(images, clean[1])
    polar = polar_from_images(
        images - images.mean((1, 2), keepdims=True), grid.kx, grid.ky, np.dtype(complex)
    )
    box = grid.box_transform[None, :, :64]
    contrast = np.ones((DRAWS, *box.shape[1:]))
    basis = offset_basis(box, grid.weights, 1e-8)
    slopes = []
    for samples in (grid.disc_samples, float(BOX**2)):
        form = LikelihoodForm(samples, 0.0, "exact", "free")
        block = image_block(polar, contrast, box, grid.weights, form, basis)
        found = scored(block, templates[0], grid, form, basis) - scored(
            block, templates[1], grid, form, basis
        )
        slopes.append(np.polyfit(exact, found, 1)[0])
    assert slopes[0] == pytest.approx(1.0, abs=0.05)
    assert slopes[1] == pytest.approx(4 / (np.pi * factor**2), rel=0.05)
