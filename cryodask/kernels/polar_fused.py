"""The CPU kernel of `polar_likelihood`: transforms over the angle and all sums in one pass, 16 images at
once.

A block is 32 images in two vectors of 16 lanes. For a template and a displacement the products of all q
become the correlations of all rotations by one inverse transform in the first-level cache, and are folded
there: the largest correlation with its pose, and sums of exp(ln L) relative to the largest ln L so far.
Poses below exp(-40) of it are passed over without their logarithm. Nothing that has all pose axes leaves
the cache.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from cryodask.kernels.likelihood_form import LikelihoodForm
from cryodask.kernels.polar_fused_rows import (
    FIRST,
    LIKELIEST,
    PLAIN,
    REFERENCE,
    SQUARE,
    SUMS,
    THRESHOLD,
    WEIGHTED,
    fold_block,
)
from cryodask.kernels.polar_fused_template import FusedTemplate, can_fuse_templates
from cryodask.kernels.polar_likelihood import (
    BLOCK,
    ImageBlock,
    TemplateFold,
    template_norms,
)
from cryodask.kernels.simd import aligned_empty
from cryodask.kernels.transforms import ROW, factors, order, stages


@dataclass(frozen=True)
class FusedBlock:
    """An image block in the layout of the kernel: the real product of Ti and Ii gives real and imaginary
    parts."""

    block: ImageBlock
    operand: np.ndarray  # (W/2+1, 2 n, 2 * 32) float32

    def __len__(self) -> int:
        return len(self.block)


def can_fuse(rotations: int, shells: int, dtype: Any) -> bool:
    """Say whether the kernel has transforms of this length; it is for single precision."""
    return dtype == np.complex64 and bool(factors(rotations // 2)) and can_fuse_templates(rotations, shells)


def fused_block(block: ImageBlock) -> FusedBlock:
    """Bring at most 32 images into the kernel's layout, padded with zeros."""
    spectra = np.zeros((*block.spectra.shape[:2], BLOCK), np.complex64)
    spectra[..., : len(block)] = block.spectra
    real, imaginary = spectra.real, spectra.imag
    upper = np.concatenate([real, imaginary], axis=2)
    lower = np.concatenate([-imaginary, real], axis=2)
    return FusedBlock(block, np.concatenate([upper, lower], axis=1))


def fold_template(
    fused: FusedBlock,
    template: FusedTemplate,
    form: LikelihoodForm,
    log_prior: np.ndarray | None,
) -> TemplateFold:
    """Fold all poses of a template for a block of images.

    Parameters
    ----------
    fused, template
        Images and a template in the kernel's layout.
    form
        The likelihood; ln L is without its constant c.
    log_prior : (D,) float64 or None
        Of the displacements; None for the correlation alone, without sums.
    """
    block, count = fused.block, len(fused)
    half = len(block.spectra) - 1
    norms = _padded(template_norms(block, template.power, half), 1.0)
    inverse_norms = (1 / np.sqrt(norms * _padded(block.iyy, 1.0))).astype(np.float32)
    products = np.matmul(template.operand, fused.operand)
    offset, steps = _offset(block, template, form)
    is_free = form.offset == "none"
    iss = _padded(np.ones(count) if is_free else block.iss, 1.0)
    isy = _padded(np.zeros(count) if is_free else block.isy, 0.0)
    prior = np.zeros(1) if log_prior is None else log_prior
    slack = prior.max() - 0.5 * np.log(0.5 * (iss * norms).min(axis=0))
    full = iss * norms
    lanes64 = np.stack([iss, isy, iss * _padded(block.iyy, 1.0) - isy**2, slack])
    best = np.full((2, BLOCK), -np.inf, np.float32)
    poses = np.zeros((2, BLOCK), np.int32)
    sums = np.zeros((SUMS, BLOCK))
    sums[REFERENCE] = sums[LIKELIEST] = -np.inf
    sums[THRESHOLD] = -1.0
    table, twiddles = stages(half)
    fold_block(
        products.reshape(-1), products.shape[1], order(half), table, twiddles, _unpacking(half),
        aligned_empty((half * ROW,)), aligned_empty((half * ROW,)), inverse_norms.reshape(-1),
        np.stack([full, 0.5 * np.log(full), 1 / full]).astype(np.float32).reshape(-1),
        offset.reshape(-1), steps[0], steps[1], lanes64, lanes64.astype(np.float32).reshape(-1),
        log_prior is not None, prior, form.exponent, form.scale == "positive", share_table(form.exponent),
        best, poses, sums,
    )  # fmt: skip
    shift = -form.exponent * np.log(lanes64[2, :count])
    rows = sums[:, :count]
    return TemplateFold(
        best[0, :count], poses[0, :count], rows[REFERENCE] + shift + block.constant, rows[WEIGHTED],
        rows[PLAIN], rows[FIRST], rows[SQUARE], poses[1, :count],
    )  # fmt: skip


def _padded(array: np.ndarray, value: float) -> np.ndarray:
    """Fill the last axis up to 32 images."""
    missing = BLOCK - array.shape[-1]
    widths = [(0, 0)] * (array.ndim - 1) + [(0, missing)]
    return np.pad(array.astype(np.float64), widths, constant_values=value)


def _offset(
    block: ImageBlock, template: FusedTemplate, form: LikelihoodForm
) -> tuple[np.ndarray, tuple[int, int]]:
    """Return Isx (D or 1, W/2 or 1, 32) and the floats to go on for the next displacement and rotation."""
    if form.offset == "none":
        return np.zeros((1, 1, BLOCK), np.float32), (0, 0)
    rows = np.zeros((BLOCK, block.offset_rows.shape[1]), np.float32)
    rows[: len(block)] = block.offset_rows
    overlaps = template.offset.reshape(-1, rows.shape[1]) @ rows.T
    displacements, half = template.offset.shape[:2]
    steps = (half * BLOCK, BLOCK) if displacements * half > 1 else (0, 0)
    return np.ascontiguousarray(overlaps), steps


def _unpacking(half: int) -> np.ndarray:
    """Return exp(2 pi i k / W) / W, real and imaginary, of the split of a real transform, and 1/W."""
    k = np.arange(half)
    angle = np.pi * k / half
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32).ravel()


@lru_cache(maxsize=8)
def share_table(p: float) -> np.ndarray:
    """Return t^2 / (p u) of the share of positive scales, and ln(erfcx(t) / tau) in tau = 1 / (1 + t / 2).

    The polynomial, the highest power first, is a Chebyshev fit; it errs by less than 1e-6.
    """
    from scipy.special import erfcx

    tau = 0.5 - 0.5 * np.cos(np.pi * (np.arange(400) + 0.5) / 400)
    t = 2 / tau - 2
    fit = np.polynomial.Polynomial.fit(tau, np.log(erfcx(t) / tau), 11).convert()
    return np.array([((16 * p + 1) / (16 * p + 3)) ** 2, *fit.coef[::-1]], np.float32)
