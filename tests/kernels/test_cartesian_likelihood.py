"""The Cartesian likelihood against direct sums over the discrete Fourier transform and over pixels."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryodask.kernels.cartesian_fused import fold_projection
from cryodask.kernels.cartesian_likelihood import (
    CartesianBlock,
    Contrast,
    Search,
    cartesian_block,
    cropped_spectrum,
    inner_products,
    make_search,
    pose_scores,
    rows_of,
)
from cryodask.kernels.likelihood_form import LikelihoodForm
from cryodask.kernels.polar_likelihood import fold_scores


def spectra_of(images: np.ndarray) -> np.ndarray:
    return np.fft.rfft2(np.fft.ifftshift(images, axes=(-2, -1)), norm="ortho")


def contrast_of(rng: np.random.Generator, box: int, edge: int, amplitudes: Any = None) -> Contrast:
    """A smooth even function of frequency, as a CTF is; or a pair of planes for each of two defoci."""
    ky, kx = rows_of(edge, box)[:, None], np.arange(edge)
    planes = [
        np.cos(a * (ky**2 + kx**2) / box + b * ky * kx / box**2)
        for a, b in rng.uniform(0.2, 2, (1 if amplitudes is None else 4, 2))
    ]
    if amplitudes is None:
        return Contrast(np.stack(planes), np.array([[1.0, 0.0]]), np.array([0]))
    mix = [[np.sqrt(1 - a * a), a] for a in amplitudes] * 2
    first = np.repeat([0, 2], len(amplitudes))
    return Contrast(np.stack(planes), np.array(mix), first)


def case(
    box: int, factor: float, displacements: np.ndarray, *, amplitudes: Any = None, offset: Any = "exact",
    scale: Any = "positive", samples: float = 60.0, dtype: Any = np.float64, count: int = 3, seed: int = 0,
) -> tuple[CartesianBlock, np.ndarray, Search, LikelihoodForm, np.ndarray, np.ndarray, Contrast]:  # fmt: skip
    rng = np.random.default_rng(seed)
    edge = int(factor * (box // 2)) + 1
    search = make_search(box, edge, displacements, dtype)
    contrast = contrast_of(rng, box, edge, amplitudes)
    model, images = rng.normal(size=(box, box)), rng.normal(size=(count, box, box))
    form = LikelihoodForm(samples, 0.5, offset, scale)
    weights = 1 / rng.uniform(0.5, 2, (len(rows_of(edge, box)), edge))
    mirror = (-rows_of(edge, box))[:, None] == rows_of(edge, box)  # noise of a real image is even
    if 2 * (edge - 1) == box:
        mirror[edge - 1, edge - 1] = True
    for column in (0, edge - 1):
        weights[:, column] = (weights[:, column] + mirror @ weights[:, column]) / 2
    kind = np.complex64 if dtype == np.float32 else complex
    spectra = cropped_spectrum(spectra_of(images), edge).astype(kind)
    block = cartesian_block(spectra, [contrast], np.zeros(count, int), weights, search, form)
    own = cropped_spectrum(spectra_of(model), edge)
    projection = np.stack([own.real, own.imag]).astype(dtype)
    return block, projection, search, form, cropped_spectrum(spectra_of(images), edge), weights, contrast


def direct(
    images: np.ndarray, model: np.ndarray, weights: np.ndarray, plane: np.ndarray, box: int, shift: Any
) -> tuple[np.ndarray, float]:
    """Ixy and Ixx as sums over the whole plane, each column of the half counted as often as it stands."""
    edge = images.shape[-1]
    ky, kx = rows_of(edge, box)[:, None], np.arange(edge)
    often = np.where((kx == 0) | (2 * kx == box), 1, 2) * weights
    often[0, 0] = 0
    moved = model * plane * np.exp(-2j * np.pi * (kx * shift[0] + ky * shift[1]) / box)
    return (often * np.conj(moved) * images).real.sum((1, 2)), (often * np.abs(moved) ** 2).sum()


@settings(max_examples=25, deadline=None)
@given(
    box=st.sampled_from([8, 9, 12]),
    factor=st.sampled_from([1.0, 0.6]),
    counts=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    step=st.sampled_from([1.0, 0.5, 2.0]),
    has_points=st.booleans(),
)
def test_products_equal_direct_sums(
    box: int, factor: float, counts: tuple[int, int], step: float, has_points: bool
) -> None:
    x, y = ((np.arange(n) - (n - 1) / 2) * step for n in counts)
    if 2 * int(factor * (box // 2)) == box:  # half a pixel of a Nyquist wave is not defined
        x, y = np.round(x), np.round(y)
    displacements = np.stack([np.tile(x, len(y)), np.repeat(y, len(x))], axis=1)
    amplitudes = [0.0, 0.3, 1.0] if has_points else None
    block, projection, search, _, images, weights, contrast = case(
        box, factor, displacements, amplitudes=amplitudes
    )
    found = inner_products(block, projection, search)
    model = projection[0] + 1j * projection[1]
    for point, (a, b) in enumerate(contrast.mix):
        i = contrast.first[point]
        plane = a * contrast.planes[i] + (b * contrast.planes[i + 1] if has_points else 0)
        for d, shift in enumerate(displacements):
            xy, xx = direct(images, model, weights, plane, box, shift)
            np.testing.assert_allclose(found[:, d, point], xy, atol=1e-10 * np.sqrt(xx) * box)


GRID = np.stack([np.tile(np.arange(-2, 3), 5), np.repeat(np.arange(-2, 3), 5)], axis=1).astype(float)


@pytest.mark.parametrize("amplitudes", [None, [0.05, 0.4]])
@pytest.mark.parametrize("offset", ["exact", "none"])
@pytest.mark.parametrize("scale", ["positive", "free"])
@pytest.mark.parametrize(("samples", "dtype"), [(30.0, np.float64), (400.0, np.float32)])
def test_compiled_sums_equal_the_arrays(
    amplitudes: Any, offset: Any, scale: Any, samples: float, dtype: Any
) -> None:
    options = {"amplitudes": amplitudes, "offset": offset, "scale": scale, "samples": samples, "dtype": dtype}
    block, projection, search, form, *_ = case(16, 1.0, GRID, count=11, **options)
    prior = np.log(np.linspace(1, 2, 25) / 37.5)
    prior[7] = -np.inf
    points = np.log(np.full(len(block.first), 1 / len(block.first)))
    expected = fold_scores(*pose_scores(block, projection, search, form), prior, points)
    found = fold_projection(block, projection, search, form, prior, points)
    rough = 1e-9 if dtype == np.float64 else 2e-4
    for name in ("pose", "likeliest"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    np.testing.assert_allclose(found.correlation, expected.correlation, atol=rough)
    for name in ("weighted", "plain"):
        a, b = (f.reference + np.log(getattr(f, name)) for f in (found, expected))
        np.testing.assert_allclose(a, b, rtol=0, atol=rough * 10)
    mean = [f.first / f.weighted + f.reference for f in (found, expected)]
    np.testing.assert_allclose(*mean, rtol=0, atol=rough * 10)
    alone = fold_projection(block, projection, search, form, None, points)
    np.testing.assert_array_equal(alone.pose, expected.pose)


def test_likelihood_of_a_pose_is_that_of_least_squares_in_pixels() -> None:
    """r^2 of the model with its offset is what a fit of scale and offset explains."""
    box = 12
    rng = np.random.default_rng(3)
    model, images = rng.normal(size=(box, box)), rng.normal(size=(2, box, box)) + 5
    search = make_search(box, box // 2 + 1, GRID, np.float64)
    form = LikelihoodForm(float(box * box), 0.5, "exact", "free")
    rows = len(rows_of(search.edge, box))
    plane = Contrast(np.ones((1, rows, search.edge)), np.array([[1.0, 0.0]]), np.array([0]))
    spectra = cropped_spectrum(spectra_of(images), search.edge)
    ones = np.ones((rows, search.edge))
    block = cartesian_block(spectra, [plane], np.zeros(2, int), ones, search, form)
    own = cropped_spectrum(spectra_of(model), search.edge)
    projection = np.stack([own.real, own.imag])
    cc, score = pose_scores(block, projection, search, form)
    n = box * box
    for d, (x, y) in enumerate(GRID.astype(int)):
        moved = np.roll(model, (y, x), (0, 1)).ravel()
        for m, image in enumerate(images.reshape(2, -1)):
            sxx, sx, sxy = moved @ moved, moved.sum(), moved @ image
            a, e = n * sxx - sx**2, n * (image @ image) - image.sum() ** 2
            r = (n * sxy - sx * image.sum()) / np.sqrt(a * e)
            assert cc[m, d, 0] == pytest.approx(r, abs=1e-12)
            p = n / 2 - 1.5
            expected = form.constant(np.array([n]))[0] - p * np.log(e * (1 - r * r)) - 0.5 * np.log(a)
            assert score[m, d, 0] == pytest.approx(expected, abs=1e-8)


def test_amplitudes_from_two_planes_equal_each_amplitude_alone() -> None:
    amplitudes = [0.0, 0.2, 0.7]
    block, projection, search, form, images, weights, contrast = case(12, 1.0, GRID, amplitudes=amplitudes)
    _, both = pose_scores(block, projection, search, form)
    for point, (a, b) in enumerate(contrast.mix):
        i = contrast.first[point]
        plane = (a * contrast.planes[i] + b * contrast.planes[i + 1])[None]
        alone = Contrast(plane, np.array([[1.0, 0.0]]), np.array([0]))
        single = cartesian_block(images, [alone], np.zeros(3, int), weights, search, form)
        _, score = pose_scores(single, projection, search, form)
        np.testing.assert_allclose(both[:, :, point], score[:, :, 0], rtol=0, atol=1e-10)


def test_same_bits_for_any_block_of_images_that_begins_at_a_group() -> None:
    block, projection, search, form, *_ = case(16, 1.0, GRID, count=19, dtype=np.float32)
    prior, points = np.full(25, -np.log(25.0)), np.zeros(1)
    whole = fold_projection(block, projection, search, form, prior, points)
    for rows in (np.arange(8), np.arange(8, 19), np.arange(16, 19)):
        part = fold_projection(block.take(rows), projection, search, form, prior, points)
        for name in ("correlation", "reference", "weighted", "first", "square", "plain"):
            assert getattr(part, name).tobytes() == getattr(whole, name)[rows].tobytes()
