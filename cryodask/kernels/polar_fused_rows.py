"""The compiled loops of `polar_fused`: one displacement of one template for 16 images at a time."""

import math
from typing import Any

import numba
import numpy as np

from cryodask.kernels.polar_likelihood import BLOCK
from cryodask.kernels.simd import LANES, any_above, fill, larger, load, store
from cryodask.kernels.simd_math import divide, exponential, logarithm, square_root, where_above
from cryodask.kernels.transforms import JIT, ROW, inverse

NEGLIGIBLE = 40.0  # nats below the largest at which a pose no longer counts
NEED_SHARE = 36.0  # p u above which the share of positive scales is 1 in double precision
GROUPS = BLOCK // LANES
# rows of the sums of a template
REFERENCE, WEIGHTED, PLAIN, FIRST, SQUARE, THRESHOLD, LIKELIEST = range(7)
SUMS = 7


@numba.njit(**JIT)
def fold_block(
    products: Any,
    displacements: Any,
    place: Any,
    table: Any,
    twiddles: Any,
    unpacking: Any,
    line: Any,
    weights: Any,
    inverse_norms: Any,
    tables: Any,
    offset: Any,
    offset_d: Any,
    offset_w: Any,
    lanes64: Any,
    lanes32: Any,
    has_sums: Any,
    log_prior: Any,
    p: Any,
    is_positive: Any,
    share: Any,
    best: Any,
    poses: Any,
    sums: Any,
) -> None:
    """Fold every displacement of a template for 32 images; arrays flat, as `polar_fused` lays them out."""
    half = place.shape[0]
    scratch = np.empty(4 * LANES, np.float32)
    for group in range(GROUPS):
        for d in range(displacements):
            _rotations(products, displacements, d, group, place, table, twiddles, unpacking, line)
            _fold_largest(line, half, group, d, inverse_norms, tables, offset, offset_d, offset_w, lanes64,
                          has_sums, log_prior, p, is_positive, best, poses, sums)  # fmt: skip
            if has_sums and log_prior[d] > -math.inf:
                _fold_sums(line, weights, half, group, d, tables, offset, offset_d, offset_w, lanes64,
                lanes32,
                           log_prior, p, is_positive, share, poses, sums, scratch)  # fmt: skip


@numba.njit(**JIT)
def _rotations(
    products: Any,
    displacements: Any,
    d: Any,
    group: Any,
    place: Any,
    table: Any,
    twiddles: Any,
    unpacking: Any,
    line: Any,
) -> None:
    """Turn the products of all q into the correlations of all rotations: the real inverse transform.

    One complex transform of half the length gives even rotations in its real and odd ones in its imaginary
    part.
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
def _fold_largest(
    line: Any,
    half: Any,
    group: Any,
    d: Any,
    inverse_norms: Any,
    tables: Any,
    offset: Any,
    offset_d: Any,
    offset_w: Any,
    lanes64: Any,
    has_sums: Any,
    log_prior: Any,
    p: Any,
    is_positive: Any,
    best: Any,
    poses: Any,
    sums: Any,
) -> None:
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
            score = pose_score(np.float64(line[w * LANES + lane]), np.float64(tables[u * BLOCK + image]),
                                    np.float64(sx), lanes64, image, p, is_positive)  # fmt: skip
            raise_reference(score + log_prior[d], image, lanes64, p, sums)


@numba.njit(**JIT)
def _fold_sums(
    line: Any,
    weights: Any,
    half: Any,
    group: Any,
    d: Any,
    tables: Any,
    offset: Any,
    offset_d: Any,
    offset_w: Any,
    lanes64: Any,
    lanes32: Any,
    log_prior: Any,
    p: Any,
    is_positive: Any,
    share: Any,
    poses: Any,
    sums: Any,
    scratch: Any,
) -> None:
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
        at = d * offset_d + u * offset_w + first
        e, is_exact = score_row(
            line, w, u * BLOCK + first, at, half * BLOCK, tables, offset, lanes32, first, threshold,
            reference, p, is_positive, share,
        )  # fmt: skip
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
                raise_reference(likeliest, image, lanes64, p, sums)


@numba.njit(inline="always")
def score_row(
    line: Any,
    w: Any,
    at: Any,
    offset_at: Any,
    table: Any,
    tables: Any,
    offset: Any,
    lanes32: Any,
    first: Any,
    threshold: Any,
    reference: Any,
    p: Any,
    is_positive: Any,
    share: Any,
) -> Any:
    """Return exp(ln L - reference) of a row, 0 where it is negligible, and whether float32 is enough for
    it."""
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
def _exact_row(
    line: Any,
    weights: Any,
    w: Any,
    u: Any,
    d: Any,
    first: Any,
    tables: Any,
    offset: Any,
    offset_d: Any,
    offset_w: Any,
    lanes64: Any,
    p: Any,
    is_positive: Any,
    sums: Any,
) -> None:
    """Fill a row of weights in double precision, where r^2 is large or most of the template is the box."""
    for lane in range(LANES):
        image = first + lane
        score = pose_score(np.float64(line[w * LANES + lane]), np.float64(tables[u * BLOCK + image]),
                                np.float64(offset[d * offset_d + u * offset_w + image]), lanes64, image, p,
                                is_positive)  # fmt: skip
        weights[w * LANES + lane] = math.exp(max(score - sums[REFERENCE, image], -80.0))


@numba.njit(**JIT)
def raise_reference(score: Any, image: Any, lanes64: Any, p: Any, sums: Any) -> None:
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
def pose_score(v: Any, full: Any, sx: Any, lanes64: Any, image: Any, p: Any, is_positive: Any) -> Any:
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
