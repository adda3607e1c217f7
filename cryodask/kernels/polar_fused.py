"""The CPU kernel of `polar_likelihood`: transforms over the angle and all sums in one pass, 16 images at once.

A block is 32 images in two vectors of 16 lanes. For a template and a displacement the products of all q become the
correlations of all rotations by one inverse transform in the first-level cache, and are folded there: the largest
correlation with its pose, and sums of exp(ln L) relative to the largest ln L so far. Poses below exp(-40) of it are
passed over without their logarithm. Nothing that has all pose axes leaves the cache.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numba
import numpy as np

from cryodask.kernels.likelihood_form import LikelihoodForm
from cryodask.kernels.polar_likelihood import BLOCK, ImageBlock, TemplateSpectra, template_norms
from cryodask.kernels.simd import LANES, aligned_empty, any_above, fill, larger, load, store
from cryodask.kernels.simd_math import divide, exponential, logarithm, square_root, where_above
from cryodask.kernels.transforms import JIT, ROW, factors, inverse, order, stages

NEGLIGIBLE = 40.0  # nats below the largest at which a pose no longer counts
NEED_SHARE = 36.0  # p u above which the share of positive scales is 1 in double precision
GROUPS = BLOCK // LANES
# rows of the sums of a template
REFERENCE, WEIGHTED, PLAIN, FIRST, SQUARE, THRESHOLD, LIKELIEST = range(7)
SUMS = 7


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
        Sums over poses of e = exp(ln L + ln prior - reference), of exp(ln L - reference), of e times its logarithm,
        and of e squared.
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


@dataclass(frozen=True)
class FusedBlock:
    """An image block in the layout of the kernel: the real product of Ti and Ii gives real and imaginary parts."""

    block: ImageBlock
    operand: np.ndarray  # (W/2+1, 2 n, 2 * 32) float32

    def __len__(self) -> int:
        return len(self.block)


def can_fuse(rotations: int, dtype: Any) -> bool:
    """Say whether the kernel has a transform of this length; it is for single precision."""
    return dtype == np.complex64 and rotations % 2 == 0 and bool(factors(rotations // 2))


def fused_block(block: ImageBlock) -> FusedBlock:
    """Bring at most 32 images into the kernel's layout, padded with zeros."""
    spectra = np.zeros((*block.spectra.shape[:2], BLOCK), np.complex64)
    spectra[..., : len(block)] = block.spectra
    real, imaginary = spectra.real, spectra.imag
    upper = np.concatenate([real, imaginary], axis=2)
    lower = np.concatenate([-imaginary, real], axis=2)
    return FusedBlock(block, np.concatenate([upper, lower], axis=1))


def fused_operand(template: TemplateSpectra) -> np.ndarray:
    """Return a template's displaced spectra as (W/2+1, D, 2 n) float32, real parts first."""
    return np.concatenate([template.displaced.real, template.displaced.imag], axis=2)


def fold_template(
    fused: FusedBlock,
    template: TemplateSpectra,
    operand: np.ndarray,
    form: LikelihoodForm,
    log_prior: np.ndarray | None,
) -> TemplateFold:
    """Fold all poses of a template for a block of images.

    Parameters
    ----------
    fused, template, operand
        Of the images, of the template, and `fused_operand` of it.
    form
        The likelihood; ln L is without its constant c.
    log_prior : (D,) float64 or None
        Of the displacements; None for the correlation alone, without sums.
    """
    block, count = fused.block, len(fused)
    half = len(block.spectra) - 1
    norms = _padded(template_norms(block, template.power, half), 1.0)
    inverse_norms = (1 / np.sqrt(norms * _padded(block.iyy, 1.0))).astype(np.float32)
    products = np.matmul(operand, fused.operand)
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
    _fold(
        products.reshape(-1), products.shape[1], order(half), table, twiddles, _unpacking(half),
        aligned_empty((half * ROW,)), aligned_empty((half * ROW,)), inverse_norms.reshape(-1),
        np.stack([full, 0.5 * np.log(full), 1 / full]).astype(np.float32).reshape(-1),
        offset.reshape(-1), steps[0], steps[1], lanes64, lanes64.astype(np.float32).reshape(-1),
        log_prior is not None, prior, form.exponent, form.scale == "positive", _share(form.exponent),
        best, poses, sums,
    )  # fmt: skip
    shift = -form.exponent * np.log(lanes64[2, :count])
    rows = sums[:, :count]
    return TemplateFold(
        best[0, :count], poses[0, :count], rows[REFERENCE] + shift, rows[WEIGHTED], rows[PLAIN],
        rows[FIRST], rows[SQUARE], poses[1, :count],
    )  # fmt: skip


def _padded(array: np.ndarray, value: float) -> np.ndarray:
    """Fill the last axis up to 32 images."""
    missing = BLOCK - array.shape[-1]
    widths = [(0, 0)] * (array.ndim - 1) + [(0, missing)]
    return np.pad(array.astype(np.float64), widths, constant_values=value)


def _offset(
    block: ImageBlock, template: TemplateSpectra, form: LikelihoodForm
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
def _share(p: float) -> np.ndarray:
    """Return t^2 / (p u) of the share of positive scales, and ln(erfcx(t) / tau) in tau = 1 / (1 + t / 2).

    The polynomial, the highest power first, is a Chebyshev fit; it errs by less than 1e-6.
    """
    from scipy.special import erfcx

    tau = 0.5 - 0.5 * np.cos(np.pi * (np.arange(400) + 0.5) / 400)
    t = 2 / tau - 2
    fit = np.polynomial.Polynomial.fit(tau, np.log(erfcx(t) / tau), 11).convert()
    return np.array([((16 * p + 1) / (16 * p + 3)) ** 2, *fit.coef[::-1]], np.float32)


@numba.njit(**JIT)
def _fold(
    products, displacements, place, table, twiddles, unpacking, line, weights, inverse_norms, tables, offset,
    offset_d, offset_w, lanes64, lanes32, has_sums, log_prior, p, is_positive, share, best, poses, sums,
):  # fmt: skip
    half = place.shape[0]
    scratch = np.empty(4 * LANES, np.float32)
    for group in range(GROUPS):
        for d in range(displacements):
            _rotations(products, displacements, d, group, place, table, twiddles, unpacking, line)
            _fold_largest(line, half, group, d, inverse_norms, tables, offset, offset_d, offset_w, lanes64,
                          has_sums, log_prior, p, is_positive, best, poses, sums)  # fmt: skip
            if has_sums:
                _fold_sums(line, weights, half, group, d, tables, offset, offset_d, offset_w, lanes64, lanes32,
                           log_prior, p, is_positive, share, poses, sums, scratch)  # fmt: skip


@numba.njit(**JIT)
def _rotations(products, displacements, d, group, place, table, twiddles, unpacking, line):
    """Turn the products of all q into the correlations of all rotations: the real inverse transform.

    One complex transform of half the length gives even rotations in its real and odd ones in its imaginary part.
    """
    half = place.shape[0]
    row = 2 * BLOCK
    step = displacements * row
    at = d * row + group * LANES
    scale = np.float32(1.0 / (2 * half))
    for k in range(half):
        a = at + k * step
        b = at + (half - k) * step
        ar, ai = load(products, a), load(products, a + BLOCK)
        br, bi = load(products, b), load(products, b + BLOCK)
        if k == 0:  # a real signal has no imaginary part at q = 0 and W/2
            ai, bi = fill(np.float32(0.0)), fill(np.float32(0.0))
        wr, wi, s = fill(unpacking[2 * k]), fill(unpacking[2 * k + 1]), fill(scale)
        er, ei, fr, fi = ar + br, ai - bi, ar - br, ai + bi
        to = place[k] * ROW
        store(line, to, s * (er - (wr * fi + wi * fr)))
        store(line, to + LANES, s * (ei + (wr * fr - wi * fi)))
    inverse(line, 0, table, twiddles)


@numba.njit(**JIT)
def _fold_largest(line, half, group, d, inverse_norms, tables, offset, offset_d, offset_w, lanes64,
                  has_sums, log_prior, p, is_positive, best, poses, sums):  # fmt: skip
    """Keep the largest correlation of the line; its ln L is where the sums start from."""
    flat = best.reshape(-1)
    first = group * LANES
    previous = load(flat, first)
    top = previous
    for w in range(2 * half):
        norm = load(inverse_norms, (w % half if w < half else w - half) * BLOCK + first)
        top = larger(load(line, w * LANES) * norm, top)
    if not any_above(top, previous):
        return
    store(flat, BLOCK + first, top)
    for lane in range(LANES):
        image = first + lane
        if not best[1, image] > best[0, image]:
            continue
        for w in range(2 * half):
            u = w if w < half else w - half
            value = line[w * LANES + lane] * inverse_norms[u * BLOCK + image]
            if value > best[0, image]:
                best[0, image] = value
                poses[0, image] = d * 2 * half + w
        if has_sums:
            w = poses[0, image] % (2 * half)
            u = w if w < half else w - half
            sx = offset[d * offset_d + u * offset_w + image]
            score = _log_likelihood(np.float64(line[w * LANES + lane]), np.float64(tables[u * BLOCK + image]),
                                    np.float64(sx), lanes64, image, p, is_positive)  # fmt: skip
            _raise_reference(score + log_prior[d], image, lanes64, p, sums)


@numba.njit(**JIT)
def _fold_sums(line, weights, half, group, d, tables, offset, offset_d, offset_w, lanes64, lanes32, log_prior,
               p, is_positive, share, poses, sums, scratch):  # fmt: skip
    """Add the poses of the line to the sums; a row of 16 images at one rotation at a time."""
    first = group * LANES
    for lane in range(LANES):
        scratch[lane] = sums[THRESHOLD, first + lane]
        scratch[LANES + lane] = sums[REFERENCE, first + lane]
    threshold, reference = load(scratch, 0), load(scratch, LANES)
    zero = fill(np.float32(0.0))
    total, first_moment, square, top = zero, zero, zero, zero
    for w in range(2 * half):
        u = w if w < half else w - half
        e, is_exact = _row(line, w, u * BLOCK + first, d * offset_d + u * offset_w + first, half * BLOCK, tables,
                           offset, lanes32, first, threshold, reference, p, is_positive, share)  # fmt: skip
        store(weights, w * LANES, e)
        if not is_exact:
            _exact_row(line, weights, w, u, d, first, tables, offset, offset_d, offset_w, lanes64, p,
                       is_positive, sums)  # fmt: skip
            e = load(weights, w * LANES)
        if any_above(e, zero):
            total = total + e
            square = square + e * e
            first_moment = first_moment + e * logarithm(larger(e, fill(np.float32(1e-37))))
            top = larger(e, top)
    store(scratch, 0, total)
    store(scratch, LANES, first_moment)
    store(scratch, 2 * LANES, square)
    store(scratch, 3 * LANES, top)
    prior = math.exp(log_prior[d])
    for lane in range(LANES):
        image = first + lane
        value = prior * np.float64(scratch[lane])
        sums[PLAIN, image] += scratch[lane]
        sums[WEIGHTED, image] += value
        sums[FIRST, image] += prior * scratch[LANES + lane] + log_prior[d] * value
        sums[SQUARE, image] += prior * prior * scratch[2 * LANES + lane]
        highest = scratch[3 * LANES + lane]
        if highest > 0:
            likeliest = sums[REFERENCE, image] + math.log(highest) + log_prior[d]
            if likeliest > sums[LIKELIEST, image]:
                sums[LIKELIEST, image] = likeliest
                for w in range(2 * half):
                    if weights[w * LANES + lane] == highest:
                        poses[1, image] = d * 2 * half + w
                        break
                _raise_reference(likeliest, image, lanes64, p, sums)


@numba.njit(inline="always")
def _row(line, w, at, offset_at, table, tables, offset, lanes32, first, threshold, reference, p, is_positive,
         share):  # fmt: skip
    """Return exp(ln L - reference) of a row, 0 where it is negligible, and whether float32 is enough for it."""
    zero = fill(np.float32(0.0))
    iss, isy, norm_e = load(lanes32, first), load(lanes32, BLOCK + first), load(lanes32, 2 * BLOCK + first)
    sx = load(offset, offset_at)
    full = load(tables, at)  # Iss Ixx
    b = iss * load(line, w * LANES) - sx * isy
    lost = sx * sx
    a = full - lost
    bb, ae = b * b, a * norm_e
    if not any_above(bb, threshold * a):
        return zero, True
    half = fill(np.float32(0.5))
    if any_above(bb, half * ae) or any_above(lost, fill(np.float32(0.05)) * full):
        return zero, False
    y = divide(bb, ae + ae - bb)  # -ln(1 - r^2) = 2 artanh(r^2 / (2 - r^2))
    y2 = y * y
    s = fill(np.float32(2.0 / 15)) * y2 + fill(np.float32(2.0 / 13))
    s = s * y2 + fill(np.float32(2.0 / 11))
    s = s * y2 + fill(np.float32(2.0 / 9))
    s = s * y2 + fill(np.float32(2.0 / 7))
    s = s * y2 + fill(np.float32(2.0 / 5))
    s = s * y2 + fill(np.float32(2.0 / 3))
    s = s * y2 + fill(np.float32(2.0))
    pu = fill(np.float32(p)) * y * s
    x = lost * load(tables, 2 * table + at)  # ln(1 - x) of A beside Iss Ixx, x < 0.05
    grown = x * (half + x * (fill(np.float32(0.25)) + x * fill(np.float32(1.0 / 6))))
    score = pu - load(tables, table + at) + grown - reference
    if not is_positive:
        return exponential(score), True
    square = pu * fill(share[0])
    t = square_root(square)
    tau = divide(fill(np.float32(1.0)), fill(np.float32(1.0)) + half * t)
    tail = fill(share[1])
    for k in range(2, share.shape[0]):
        tail = tail * tau + fill(share[k])
    # half of erfc(t) is tau exp(tail - t^2) / 2
    inverted = half * tau * exponential(score - square + tail)
    if any_above(fill(np.float32(NEED_SHARE)), pu):
        upright = exponential(score) * (fill(np.float32(1.0)) - half * tau * exponential(tail - square))
    else:
        upright = exponential(score)
    return where_above(b, zero, upright, inverted), True


@numba.njit(**JIT)
def _exact_row(line, weights, w, u, d, first, tables, offset, offset_d, offset_w, lanes64, p, is_positive, sums):
    """Fill a row of weights in double precision, where r^2 is large or most of the template is the box."""
    for lane in range(LANES):
        image = first + lane
        score = _log_likelihood(np.float64(line[w * LANES + lane]), np.float64(tables[u * BLOCK + image]),
                                np.float64(offset[d * offset_d + u * offset_w + image]), lanes64, image, p,
                                is_positive)  # fmt: skip
        weights[w * LANES + lane] = math.exp(max(score - sums[REFERENCE, image], -80.0))


@numba.njit(**JIT)
def _raise_reference(score, image, lanes64, p, sums):
    """Take a larger ln L as the scale of the sums, and pass over what is negligible beside it."""
    before = sums[REFERENCE, image]
    if not score > before:
        return
    if before > -math.inf:
        shift = before - score
        e = math.exp(shift)
        sums[FIRST, image] = e * (sums[FIRST, image] + shift * sums[WEIGHTED, image])
        sums[WEIGHTED, image] *= e
        sums[PLAIN, image] *= e
        sums[SQUARE, image] *= e * e
    sums[REFERENCE, image] = score
    least = score - NEGLIGIBLE - lanes64[3, image]  # of p u
    sums[THRESHOLD, image] = lanes64[2, image] * -math.expm1(-least / p) if least > 0 else -1.0


@numba.njit(**JIT)
def _log_likelihood(v, full, sx, lanes64, image, p, is_positive):
    """Return p u - ln(A) / 2 + ln h, u = -ln(1 - r^2)."""
    b = lanes64[0, image] * v - sx * lanes64[1, image]
    a = full - sx * sx
    square = min(b * b / (a * lanes64[2, image]), 1.0 - 1e-15)
    u = -math.log1p(-square)
    score = p * u - 0.5 * math.log(a)
    if not is_positive or (b > 0 and p * u > NEED_SHARE):
        return score
    z = math.sqrt(2 * p * u) * ((16 * p + 1) / (16 * p + 3)) / math.sqrt(2.0)
    if b >= 0:
        return score + math.log1p(-0.5 * math.erfc(z))
    if z < 6.0:
        return score + math.log(0.5 * math.erfc(z))
    s = 0.5 / (z * z)
    series = 1 - s * (1 - 3 * s * (1 - 5 * s * (1 - 7 * s * (1 - 9 * s * (1 - 11 * s)))))
    return score - z * z + math.log(0.5 * series / (z * math.sqrt(math.pi)))
