"""Inner products of images with templates in every pose, on a polar grid, and the likelihoods of the poses.

The model of a pose is C Rot_w(K_d T): a template T displaced by d, turned by w steps in the plane, times
the CTF. A rotation is a shift of the angle, so the Fourier transform over the angle turns all rotations
into one product for each angular frequency q, as in CryoLike. Here only half of the frequencies are taken,
since images and structures are real: Ixy = irfft_q(sum_n conj(hat(I C)) hat(K_d T)).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from cryodask.arrays.module import array_module
from cryodask.kernels.likelihood_form import LikelihoodForm

BLOCK = 32  # images that are scored together, padded with zeros: the same bits for any chunks


@dataclass(frozen=True)
class ImageBlock:
    """What is needed of m images; arrays of one module and precision.

    Parameters
    ----------
    spectra : (W/2+1, n, m) complex
        conj(FFT over the angle of I C sqrt(w)).
    contrast_power : (W/4+1, n, m) complex
        conj(real FFT over half of the angles of C^2).
    offset_rows : (m, rank) real
        Of each image's b C on `OffsetBasis` (exact), or b C itself (template); (m, 0) for none.
    iss, isy, iyy : (m,) float64
    constant : (m,) float64
        c of ln L.
    """

    spectra: Any
    contrast_power: Any
    offset_rows: Any
    iss: Any
    isy: Any
    iyy: Any
    constant: Any

    def __len__(self) -> int:
        return int(self.spectra.shape[2])

    def take(self, rows: Any) -> "ImageBlock":
        """Return some images."""
        return ImageBlock(
            array_module(self.spectra).ascontiguousarray(self.spectra[..., rows]),
            self.contrast_power[..., rows],
            self.offset_rows[rows],
            self.iss[rows],
            self.isy[rows],
            self.iyy[rows],
            self.constant[rows],
        )


@dataclass(frozen=True)
class TemplateSpectra:
    """What is needed of one template.

    Parameters
    ----------
    displaced : (W/2+1, D, n) complex
        FFT over the angle of K_d T sqrt(w).
    power : (W/4+1, n) complex
        Real FFT over half of the angles of 2 w |T|^2.
    offset : (D, W/2, rank) or (1, 1, rank) real
        Overlaps of the offset basis with the template in its poses; rank 0 for none.
    """

    displaced: Any
    power: Any
    offset: Any


@dataclass(frozen=True)
class TemplateFold:
    """What the poses of one template give for each image, arrays (m,).

    Parameters
    ----------
    correlation, pose
        The largest correlation and its pose d W + w.
    reference
        The largest ln L + ln prior, the scale of the sums.
    weighted, plain, first, square
        Sums over poses of e = exp(ln L + ln prior - reference), of exp(ln L - reference), of e times its
        logarithm, and of e squared.
    likeliest
        Pose of the largest ln L + ln prior.
    """

    correlation: np.ndarray
    pose: np.ndarray
    reference: np.ndarray
    weighted: np.ndarray
    plain: np.ndarray
    first: np.ndarray
    square: np.ndarray
    likeliest: np.ndarray


def image_block(
    polar: Any, contrast: Any, box: Any, weights: Any, form: LikelihoodForm, basis: Any
) -> ImageBlock:
    """Prepare images.

    Parameters
    ----------
    polar : (m, n, W) complex
        Transforms of the images over sigma, of norm 1.
    contrast : (m, n, W/2) real
        CTF over sigma on half of the angles.
    box : (m or 1, n, W/2) real
        Transform of the constant image over sigma.
    weights : (n,) float64
    form
        The likelihood.
    basis : (rank, n, W/2) real or None
        Rows that span b C of all images (`offset_basis`), for the exact offset.
    """
    xp = array_module(polar)
    real = contrast.dtype
    half = contrast.shape[-1]
    both = xp.concatenate([contrast, contrast], axis=-1)
    root = xp.sqrt(weights).astype(real)[:, None]
    spectra = xp.conj(xp.fft.fft(polar * both * root, axis=-1)[..., : half + 1])
    w = weights[:, None]
    norms = 2 * xp.sum(w * xp.asarray(box, np.float64) ** 2, axis=(1, 2))
    isy = 2 * xp.sum(w * xp.real(polar[..., :half]) * box, axis=(1, 2), dtype=np.float64)
    iyy = xp.sum(w * xp.abs(polar) ** 2, axis=(1, 2), dtype=np.float64)
    count = len(polar)
    if form.offset == "none":
        rows = xp.zeros((count, 0), real)
    elif form.offset == "template":
        rows = (box * contrast).reshape(count, -1)
    else:
        rows = ((2 * w * box * contrast).reshape(count, -1) @ basis.reshape(len(basis), -1).T).astype(real)
    iss = xp.broadcast_to(norms, (count,)) + xp.zeros(count)
    return ImageBlock(
        xp.ascontiguousarray(spectra.transpose(2, 1, 0)).astype(polar.dtype),
        xp.ascontiguousarray(xp.conj(xp.fft.rfft(contrast**2, axis=-1)).transpose(2, 1, 0)).astype(
            polar.dtype
        ),
        rows,
        iss,
        isy,
        iyy,
        xp.asarray(form.constant(np.asarray(iss) if xp is np else iss.get())),
    )


def offset_basis(rows: np.ndarray, weights: np.ndarray, tolerance: float) -> np.ndarray:
    """Return rows (rank, n, W/2), orthonormal under the quadrature, that span b C of images (m, n, W/2).

    The part of any row outside the span has a norm below `tolerance` times the norm of the largest row, so
    that Isx errs by no more than that times the norm of x.
    """
    w = 2 * weights[:, None]
    flat = (rows * np.sqrt(w)).reshape(len(rows), -1).astype(np.float64)
    gram = flat @ flat.T
    values, vectors = np.linalg.eigh(gram)
    # largest squared norm over the rows of what is lost when all modes up to one are dropped
    lost = np.cumsum(vectors**2 * np.maximum(values, 0.0), axis=1).max(axis=0)
    kept = lost > (tolerance**2) * np.max(np.diag(gram))
    kept[-1] = True
    basis = vectors[:, kept].T @ flat / np.sqrt(values[kept])[:, None]
    return basis.reshape(-1, *rows.shape[1:]) / np.sqrt(w)


def template_spectra(
    half_plane: Any, phases: Any, weights: Any, form: LikelihoodForm, basis: Any
) -> TemplateSpectra:
    """Prepare one template.

    Parameters
    ----------
    half_plane : (n, W/2) complex
        The template on half of the angles.
    phases : (D, n, W/2) complex
        Of the displacements.
    weights : (n,)
    form, basis
        As for `image_block`.
    """
    xp = array_module(half_plane)
    half = half_plane.shape[-1]
    real = half_plane.real.dtype
    moved = half_plane * phases * xp.sqrt(weights).astype(real)[:, None]
    spectra = xp.fft.fft(xp.concatenate([moved, xp.conj(moved)], axis=-1), axis=-1)[..., : half + 1]
    spectra = xp.ascontiguousarray(spectra.transpose(2, 0, 1)).astype(half_plane.dtype)
    w = (2 * weights[:, None]).astype(real)
    power = xp.fft.rfft(w * xp.abs(half_plane) ** 2, axis=-1).T.astype(half_plane.dtype)
    if form.offset == "exact":
        offset = _offset_overlaps(spectra, basis, weights)
    elif form.offset == "template":
        offset = (w * half_plane.real).reshape(1, 1, -1)
    else:
        offset = xp.zeros((1, 1, 0), real)
    return TemplateSpectra(spectra, power, offset)


def _offset_overlaps(spectra: Any, basis: Any, weights: Any) -> Any:
    """Return <basis row, Rot_w(K_d T)>, (D, W/2, rank): the rows have period pi, so even q alone count."""
    xp = array_module(spectra)
    half = basis.shape[-1]
    root = xp.sqrt(weights)[:, None]
    # FFT over all angles at q = 2 u is twice the real FFT over half of them
    rows = 2 * xp.conj(xp.fft.rfft(basis * root, axis=-1)).transpose(2, 1, 0).astype(spectra.dtype)
    even = xp.matmul(spectra[::2], rows[: len(spectra[::2])])
    return xp.ascontiguousarray(xp.fft.irfft(even, n=half, axis=0).transpose(1, 0, 2) / 2).astype(
        spectra.real.dtype
    )


def template_norms(block: ImageBlock, power: Any, half: int) -> Any:
    """Return Ixx of templates (W/4+1, n) or (W/4+1, n, s) for images: (W/2, m) or (W/2, s, m)."""
    xp = array_module(power)
    if power.ndim == 2:
        return xp.fft.irfft(xp.einsum("qn,qnm->qm", power, block.contrast_power), n=half, axis=0)
    terms = xp.matmul(power.transpose(0, 2, 1), block.contrast_power)
    return xp.fft.irfft(terms, n=half, axis=0)


def inner_products(block: ImageBlock, template: TemplateSpectra) -> tuple[Any, Any, Any]:
    """Return Ixy (D, W, m), Ixx (1, W, m) and Isx (D or 1, W or 1, m) of every pose."""
    xp = array_module(block.spectra)
    half = len(block.spectra) - 1
    xy = xp.fft.irfft(xp.matmul(template.displaced, block.spectra), n=2 * half, axis=0).transpose(1, 0, 2)
    xx = template_norms(block, template.power, half)[None]
    sx = xp.matmul(template.offset, block.offset_rows.T)
    if sx.shape[1] == half:
        sx = xp.concatenate([sx, sx], axis=1)
    return xy, xp.concatenate([xx, xx], axis=1), sx


def pose_scores(block: ImageBlock, template: TemplateSpectra, form: LikelihoodForm) -> tuple[Any, Any]:
    """Return the correlation and ln L of every pose of a template: (m, D, W), float64."""
    xp = array_module(block.spectra)
    xy, xx, sx = (xp.asarray(term, np.float64) for term in inner_products(block, template))
    correlation = xy / xp.sqrt(xx * block.iyy)
    score, _ = form.log_likelihood(xy, xx, sx, block.iss, block.isy, block.iyy)
    return correlation.transpose(2, 0, 1), (score + block.constant).transpose(2, 0, 1)


def fold_scores(correlation: Any, score: Any, log_prior: Any, point_prior: Any = 0.0) -> TemplateFold:
    """Fold the scores of every pose (m, D, W), with the log priors of displacements (D,), or None for no
    sums, and of what else is folded (W,)."""
    xp = array_module(correlation)
    count = len(correlation)
    rows = xp.arange(count)
    flat = correlation.reshape(count, -1)
    pose = flat.argmax(axis=1)
    if log_prior is None:
        none = xp.zeros(count)
        return TemplateFold(flat[rows, pose], pose, none - xp.inf, none, none, none, none, pose * 0)
    prior, points = xp.asarray(log_prior)[:, None], xp.asarray(point_prior)
    total = (score + prior + points).reshape(count, -1)
    likeliest = total.argmax(axis=1)
    reference = total[rows, likeliest]
    relative = total - reference[:, None]
    e = xp.exp(relative)
    first = xp.sum(e * xp.where(e > 0, relative, 0.0), axis=1)
    counted = (score + points)[:, xp.isfinite(prior[:, 0])].reshape(count, -1)
    plain = xp.exp(counted - reference[:, None]).sum(axis=1)
    return TemplateFold(
        flat[rows, pose], pose, reference, e.sum(axis=1), plain, first, (e * e).sum(axis=1), likeliest
    )
