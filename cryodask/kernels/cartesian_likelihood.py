"""Inner products of images with listed projections in many displacements, on the discrete Fourier transform.

The Cartesian companion of `polar_likelihood`, for orientations that are given one by one and for windows of
many displacements, as BioEM has them (Cossio and Hummer 2013). A displacement is a phase, so the inner
products of all displacements are one inverse transform of conj(T) C I. Only a small symmetric window of it is
wanted and real images need a half plane, so it is made as products with matrices of cosines and sines: the
parts even and odd in ky first, then those in kx, each for displacements of one sign.

A contrast point is one combination of defocus, envelope and amplitude that an integral runs over. The
amplitude is linear: C = sqrt(1 - A^2) C0 + A C1, so that a pair of planes serves every amplitude.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cryodask.arrays.module import array_module, to_numpy
from cryodask.kernels.likelihood_form import LikelihoodForm

GROUP = 8  # images that are transformed together, padded: the same bits for any chunks


@dataclass(frozen=True, eq=False)
class Window:
    """Displacements of a symmetric grid as signs and rows of two short lists.

    Parameters
    ----------
    y, x : (a,), (b,)
        Absolute displacements along each axis, pixels, rising.
    place : (D, 4) int32
        Row of y, row of x, sign of y, sign of x.
    """

    y: np.ndarray
    x: np.ndarray
    place: np.ndarray


def window_of(displacements: np.ndarray) -> Window:
    """Return the window of displacements (D, 2) x y in pixels."""
    rows = []
    lists = []
    for axis in (1, 0):
        sizes, row = np.unique(np.round(np.abs(displacements[:, axis]), 9), return_inverse=True)
        lists.append(sizes)
        rows.append(row.ravel())
    signs = [np.where(displacements[:, axis] < 0, -1, 1) for axis in (1, 0)]
    return Window(lists[0], lists[1], np.stack([*rows, *signs], axis=1).astype(np.int32))


@dataclass(frozen=True)
class Waves:
    """Matrices from frequencies to displacements: `cos_y`, `sin_y` (a, K), `cos_x`, `sin_x` (K, b)."""

    cos_y: Any
    sin_y: Any
    cos_x: Any
    sin_x: Any


def waves_of(window: Window, box: int, edge: int, dtype: Any) -> Waves:
    """Return the matrices for frequencies 0 .. edge - 1 of a box of pixels."""
    k = 2 * np.pi * np.arange(edge) / box
    y, x = window.y[:, None] * k, k[:, None] * window.x
    return Waves(*(np.ascontiguousarray(f, dtype) for f in (np.cos(y), np.sin(y), np.cos(x), np.sin(x))))


@dataclass(frozen=True)
class Contrast:
    """The contrast points of a set of images that share them.

    Parameters
    ----------
    planes : (P, 2 K - 1 or 2 K - 2, K) real
        C on rows ky 0, 1, .., -1 and columns kx 0, 1, ..; where amplitudes are integrated over, pairs C0, C1.
    mix : (points, 2) float64
        Weights of a point's two planes; of the first alone where the second is 0 throughout.
    first : (points,) int
        First plane of each point.
    """

    planes: np.ndarray
    mix: np.ndarray
    first: np.ndarray

    @property
    def is_paired(self) -> bool:
        """Whether points take two planes."""
        return bool(np.any(self.mix[:, 1]))


@dataclass(frozen=True)
class Search:
    """Where a Cartesian search samples frequencies and displacements.

    Parameters
    ----------
    box
        N, pixels.
    edge
        K: columns kx 0 .. K - 1; rows are ky 0, 1, .., -1.
    window, waves
        The displacements.
    """

    box: int
    edge: int
    window: Window
    waves: Waves

    @property
    def mirrored(self) -> int:
        """Rows above 0 that have a mirror image below; Nyquist of an even box has none."""
        return self.edge - (2 if 2 * (self.edge - 1) == self.box else 1)


def make_search(box: int, edge: int, displacements: np.ndarray, dtype: Any) -> Search:
    """Return the search of displacements (D, 2) x y in pixels; `dtype` is real."""
    window = window_of(displacements)
    return Search(box, edge, window, waves_of(window, box, edge, dtype))


@dataclass(frozen=True)
class CartesianBlock:
    """What is needed of m images; arrays of one module and precision.

    Parameters
    ----------
    spectra : (m, P, 2, rows, K) real
        Real and imaginary parts of the transforms over the variance of the noise, times each plane of the
        CTF, times how often a coefficient of the half plane counts; 0 outside the region.
    powers : (u, Q, rows K) real
        Square of each plane, then the product of each pair, times the same counts over the variance, for u
        sets of planes.
    of : (m,) int
        Which set an image has.
    mix, first
        Of the contrast points, as in `Contrast`.
    iss
        Squared norm of the constant image; 1 where there is no offset.
    iyy, constant : (m,) float64
    """

    spectra: Any
    powers: Any
    of: np.ndarray
    mix: np.ndarray
    first: np.ndarray
    iss: float
    iyy: np.ndarray
    constant: np.ndarray

    def __len__(self) -> int:
        return len(self.of)

    def take(self, rows: np.ndarray) -> "CartesianBlock":
        """Return some images."""
        return replace(
            self,
            spectra=self.spectra[rows],
            of=self.of[rows],
            iyy=self.iyy[rows],
            constant=self.constant[rows],
        )


def counts(edge: int, box: int) -> np.ndarray:
    """Return how often each column of the half plane counts: (K,), 1 for 0 and Nyquist, else 2."""
    found = np.full(edge, 2.0)
    found[0] = 1.0
    if 2 * (edge - 1) == box:
        found[-1] = 1.0
    return found


def rows_of(edge: int, box: int) -> np.ndarray:
    """Return the frequencies ky of the rows: 0, 1, .., -1; Nyquist of an even box stands once."""
    below = edge - (2 if 2 * (edge - 1) == box else 1)
    return np.concatenate([np.arange(edge), np.arange(-below, 0)])


def cropped_spectrum(spectrum: Any, edge: int) -> Any:
    """Return the rows and columns below an edge of half-plane spectra (..., N, N//2 + 1)."""
    return spectrum[..., rows_of(edge, spectrum.shape[-2]), :edge]


def cartesian_block(
    spectra: Any, contrasts: list[Contrast], of: np.ndarray, weights: np.ndarray, search: Search,
    form: LikelihoodForm,
) -> CartesianBlock:  # fmt: skip
    """Prepare images.

    With an offset the coefficient at frequency 0 is left out, which is what integrating over it comes to.

    Parameters
    ----------
    spectra : (m, rows, K) complex
        Unitary transforms of the images about their middle pixel.
    contrasts, of
        Sets of contrast points, and the set of each image.
    weights : (rows, K) float64
        1 over the variance of the noise, 0 outside the region.
    search, form
        Frequencies; the likelihood.
    """
    xp = array_module(spectra)
    has_offset = form.offset != "none"
    real = spectra.real.dtype
    weight = counts(search.edge, search.box) * weights
    iss = float(search.box**2 * weight[0, 0]) if has_offset else 1.0
    if has_offset:
        weight[0, 0] = 0.0
    weight = xp.asarray(weight)
    planes = xp.asarray(np.stack([each.planes for each in contrasts]))
    powers = planes * planes
    if contrasts[0].is_paired:
        powers = xp.concatenate([powers, planes[:, ::2] * planes[:, 1::2]], axis=1)
    powers = (powers * weight).reshape(*powers.shape[:2], -1).astype(real)
    iyy = (xp.abs(spectra).astype(np.float64) ** 2 * weight).sum(axis=(1, 2))
    parts = xp.stack([spectra.real, spectra.imag], axis=1) * weight.astype(real)
    products = parts[:, None] * planes.astype(real)[of][:, :, None]
    constant = form.constant(np.full(len(of), iss))
    own = contrasts[0]
    return CartesianBlock(
        xp.ascontiguousarray(products), powers, of, own.mix, own.first, iss, to_numpy(iyy), constant
    )


def projection_norms(block: CartesianBlock, projection: Any) -> np.ndarray:
    """Return Ixx of a projection (2, rows, K) under every contrast point, the same for any displacement.

    Returns
    -------
    (m, points) float64
    """
    power = (projection[0] ** 2 + projection[1] ** 2).ravel()
    own = to_numpy(block.powers @ power).astype(np.float64)
    first, mix = block.first, block.mix
    found = mix[:, 0] ** 2 * own[:, first]
    if mix[:, 1].any():
        planes = block.spectra.shape[1]
        found = found + mix[:, 1] ** 2 * own[:, first + 1]
        found = found + 2 * mix.prod(axis=1) * own[:, planes + first // 2]
    return found[block.of]


def folded_products(spectra: Any, projection: Any, mirrored: int) -> tuple[Any, Any]:
    """Return conj(T) I of g images, the sums and the differences of rows ky and -ky.

    Parameters
    ----------
    spectra : (g, 2, rows, K)
    projection : (2, rows, K)
    mirrored
        Rows that have a mirror image.

    Returns
    -------
    even, odd : (2, K, g, K), real parts first
    """
    xp = array_module(spectra)
    a, b = projection
    real = spectra[:, 0] * a + spectra[:, 1] * b
    imaginary = spectra[:, 1] * a - spectra[:, 0] * b
    products = xp.stack([real, imaginary]).transpose(0, 2, 1, 3)
    edge = products.shape[-1]
    even = xp.array(products[:, :edge], order="C")
    odd = xp.zeros_like(even)
    if mirrored:
        below = products[:, : -mirrored - 1 : -1]
        odd[:, 1 : mirrored + 1] = even[:, 1 : mirrored + 1] - below
        even[:, 1 : mirrored + 1] += below
    return even, odd


def quarters(even: Any, odd: Any, waves: Waves) -> tuple[Any, Any, Any, Any]:
    """Return the four products of cosines and sines, each (a, g, b).

    With C from the even rows and S from the odd ones: Re C cos, Im S cos, Im C sin, Re S sin.
    """
    xp = array_module(even)
    _, edge, count, columns = even.shape
    rows = len(waves.cos_y)
    c = xp.matmul(waves.cos_y, even.reshape(2, edge, -1)).reshape(2, rows * count, columns)
    s = xp.matmul(waves.sin_y, odd.reshape(2, edge, -1)).reshape(2, rows * count, columns)
    shape = (rows, count, waves.cos_x.shape[1])
    terms = (c[0], waves.cos_x), (s[1], waves.cos_x), (c[1], waves.sin_x), (s[0], waves.sin_x)
    return tuple((term @ wave).reshape(shape) for term, wave in terms)


def gathered(parts: tuple[Any, Any, Any, Any], window: Window) -> Any:
    """Return the transform at the displacements of a window, (g, D), from its four products."""
    xp = array_module(parts[0])
    row, column, sign_y, sign_x = (xp.asarray(window.place[:, i]) for i in range(4))
    a, b, c, d = (part[row, :, column] for part in parts)
    y, x = sign_y[:, None], sign_x[:, None]
    return (a - y * b - x * c - (x * y) * d).T


def inner_products(block: CartesianBlock, projection: Any, search: Search) -> Any:
    """Return Ixy of a projection (2, rows, K) in every pose: (m, D, points)."""
    xp = array_module(projection)
    found = []
    for plane in range(block.spectra.shape[1]):
        groups = []
        for start in range(0, len(block), GROUP):
            part = padded_group(block.spectra[start : start + GROUP, plane])
            folded = folded_products(part, projection, search.mirrored)
            groups.append(gathered(quarters(*folded, search.waves), search.window))
        found.append(xp.concatenate(groups)[: len(block)])
    planes = xp.stack(found, axis=-1)
    first, mix = block.first, xp.asarray(block.mix)
    result = planes[..., first] * mix[:, 0]
    return result + planes[..., first + 1] * mix[:, 1] if block.mix[:, 1].any() else result


def padded_group(spectra: Any) -> Any:
    """Fill up to `GROUP` images with zeros."""
    missing = GROUP - len(spectra)
    if not missing:
        return spectra
    xp = array_module(spectra)
    return xp.concatenate([spectra, xp.zeros((missing, *spectra.shape[1:]), spectra.dtype)])


def pose_scores(
    block: CartesianBlock, projection: Any, search: Search, form: LikelihoodForm
) -> tuple[Any, Any]:
    """Return the correlation and ln L of every pose of a projection: (m, D, points), float64."""
    xp = array_module(projection)
    xy = xp.asarray(inner_products(block, projection, search), np.float64)
    xx = xp.asarray(projection_norms(block, projection))[:, None]
    iyy = xp.asarray(block.iyy)[:, None, None]
    score, _ = form.log_likelihood(xy, xx, 0.0 * xx, block.iss, 0.0, iyy)
    return xy / xp.sqrt(xx * iyy), score + xp.asarray(block.constant)[:, None, None]
