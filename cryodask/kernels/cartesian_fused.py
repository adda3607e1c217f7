"""The CPU kernel of `cartesian_likelihood`: products and sums over displacements in compiled loops.

Within one projection and contrast point ln L depends on the correlation alone, which is linear in the inner
product: one pass finds the best displacement, a second one sums those that are not negligible beside the best
of all so far, 16 at a time in single precision.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numba
import numpy as np

from cryodask.arrays.module import array_module
from cryodask.kernels.cartesian_likelihood import (
    GROUP,
    CartesianBlock,
    Search,
    Window,
    padded_group,
    pose_scores,
    projection_norms,
    quarters,
)
from cryodask.kernels.likelihood_form import LikelihoodForm
from cryodask.kernels.polar_fused import share_table
from cryodask.kernels.polar_fused_rows import (
    FIRST,
    LIKELIEST,
    PLAIN,
    REFERENCE,
    SQUARE,
    SUMS,
    THRESHOLD,
    WEIGHTED,
    pose_score,
    raise_reference,
    score_row,
)
from cryodask.kernels.polar_likelihood import BLOCK, TemplateFold, fold_scores
from cryodask.kernels.simd import LANES, any_above, fill, larger, load, store
from cryodask.kernels.simd_math import logarithm
from cryodask.kernels.transforms import JIT

LEAST_PRIOR = -60.0  # nats; a displacement below it is summed in double precision


@dataclass(frozen=True)
class Cells:
    """Displacements in the order in which the kernel makes them, padded to whole vectors.

    Parameters
    ----------
    ids : (n,) int64
        Row of the displacement, -1 for a cell that is none or stands for a second time.
    log_prior : (n,) float64, -inf where the cell does not count
    tables : (3, n) float32
        The prior, its logarithm (0 for none), and whether the cell counts.
    is_gathered
        Whether `values` must be taken out one by one, since the displacements are no complete grid.
    """

    ids: np.ndarray
    log_prior: np.ndarray
    tables: np.ndarray
    is_gathered: bool


@lru_cache(maxsize=4)
def cells_of(window: Window, prior: bytes) -> Cells:
    """Return the cells of a window whose displacements have a log prior (D,), the bytes of float64."""
    log_prior = np.frombuffer(prior)
    rows, columns = len(window.y), len(window.x)
    y, x, negative_y, negative_x = window.place.T * np.array([[1], [1], [-1], [-1]])
    ids = np.full((2, 2, rows, columns), -1)
    ids[np.maximum(negative_y, 0), np.maximum(negative_x, 0), y, x] = np.arange(len(y))
    own = (window.y > 0)[None, None, :, None] | (np.arange(2) == 0)[:, None, None, None]
    own = own & ((window.x > 0) | (np.arange(2) == 0)[None, :, None, None])
    is_gathered = bool((ids[np.broadcast_to(own, ids.shape)] < 0).any())
    order = np.arange(len(y)) if is_gathered else ids.ravel()
    order = np.pad(order, (0, -len(order) % LANES), constant_values=-1)
    own_prior = np.where(order < 0, -np.inf, log_prior[order])
    counts = np.isfinite(own_prior)
    tables = np.stack([np.exp(own_prior), np.where(counts, own_prior, 0.0), counts]).astype(np.float32)
    return Cells(order, own_prior, tables, is_gathered)


def fold_projection(
    block: CartesianBlock,
    projection: Any,
    search: Search,
    form: LikelihoodForm,
    log_prior: np.ndarray | None,
    point_prior: np.ndarray,
) -> TemplateFold:
    """Fold all poses of a projection for a block of images; pose d points + point.

    Parameters
    ----------
    block, projection : (2, rows, K)
    search, form
        Frequencies and displacements; the likelihood.
    log_prior : (D,) float64 or None
        Of the displacements; None for the correlation alone, without sums.
    point_prior : (points,) float64
        Log prior of the contrast points.
    """
    if array_module(projection) is not np:
        return fold_scores(*pose_scores(block, projection, search, form), log_prior, point_prior)
    count, points = len(block), len(block.first)
    padded = -(-count // GROUP) * GROUP
    norms = np.ones((padded, points))
    norms[:count] = projection_norms(block, projection)
    prior = np.zeros(len(search.window.place)) if log_prior is None else log_prior
    cells = cells_of(search.window, prior.astype(np.float64).tobytes())
    shifts = point_prior - 0.5 * np.log(block.iss * norms)
    iyy = np.ones(padded)
    iyy[:count] = block.iyy
    ones = np.ones(padded)
    lanes = np.stack([ones, 0 * ones, ones, prior.max() + shifts.max(axis=1)])
    best = np.full(padded, -np.inf)
    poses = np.zeros((2, padded), np.int64)
    sums = np.zeros((SUMS, padded))
    sums[REFERENCE] = sums[LIKELIEST] = -np.inf
    sums[THRESHOLD] = -1.0
    is_single = projection.dtype == np.float32 and prior[np.isfinite(prior)].min() > LEAST_PRIOR
    is_paired = bool(block.mix[:, 1].any())
    for start in range(0, count, GROUP):
        for plane in range(0, block.spectra.shape[1], 1 + is_paired):
            values = [
                _values(block, start, plane + k, projection, search, cells) for k in range(1 + is_paired)
            ]
            _fold_group(
                values[0], values[-1], np.flatnonzero(block.first == plane), block.mix,
                1 / np.sqrt(norms * iyy[:, None]), shifts, lanes, start, min(count - start, GROUP),
                log_prior is not None, is_single, cells.ids, cells.log_prior, cells.tables.ravel(),
                form.exponent, form.scale == "positive", share_table(form.exponent), best, poses, sums,
            )  # fmt: skip
    shift = -form.exponent * np.log(block.iss * iyy[:count])
    rows = sums[:, :count]
    return TemplateFold(
        best[:count], poses[0, :count], rows[REFERENCE] + shift + block.constant, rows[WEIGHTED],
        rows[PLAIN], rows[FIRST], rows[SQUARE], poses[1, :count],
    )  # fmt: skip


def _values(
    block: CartesianBlock, start: int, plane: int, projection: Any, search: Search, cells: Cells
) -> np.ndarray:
    """Return the inner products of a group of images under one plane in every cell, (g, n)."""
    spectra = padded_group(block.spectra[start : start + GROUP, plane])
    edge = search.edge
    even = np.empty((2, edge, GROUP, edge), spectra.dtype)
    odd = np.empty_like(even)
    _fold_products(spectra, projection, search.mirrored, even, odd)
    values = np.zeros((GROUP, len(cells.ids)), spectra.dtype)
    parts = quarters(even, odd, search.waves)
    if cells.is_gathered:
        _gather(*parts, search.window.place, values)
    else:
        _combine(*parts, values)
    return values


@numba.njit(**(JIT | {"fastmath": True}))
def _fold_products(spectra: Any, projection: Any, mirrored: Any, even: Any, odd: Any) -> None:
    rows, columns = projection.shape[1], projection.shape[2]
    for i in range(spectra.shape[0]):
        for y in range(columns):
            has_mirror = 1 <= y <= mirrored
            z = rows - y if has_mirror else y
            for x in range(columns):
                a, b = spectra[i, 0, y, x], spectra[i, 1, y, x]
                c, d = projection[0, y, x], projection[1, y, x]
                e, f = spectra[i, 0, z, x], spectra[i, 1, z, x]
                g, h = projection[0, z, x], projection[1, z, x]
                real, imaginary = a * c + b * d, b * c - a * d
                below, below_i = e * g + f * h, f * g - e * h
                if has_mirror:
                    even[0, y, i, x], even[1, y, i, x] = real + below, imaginary + below_i
                    odd[0, y, i, x], odd[1, y, i, x] = real - below, imaginary - below_i
                else:
                    even[0, y, i, x], even[1, y, i, x] = real, imaginary
                    odd[0, y, i, x], odd[1, y, i, x] = 0, 0


@numba.njit(**JIT)
def _gather(a: Any, b: Any, c: Any, d: Any, place: Any, values: Any) -> None:
    for i in range(values.shape[0]):
        for k in range(place.shape[0]):
            y, x = place[k, 0], place[k, 1]
            sign_y, sign_x = place[k, 2], place[k, 3]
            across = sign_y * b[y, i, x] + sign_x * c[y, i, x]
            values[i, k] = a[y, i, x] - across - sign_y * sign_x * d[y, i, x]


@numba.njit(**(JIT | {"fastmath": True}))
def _combine(a: Any, b: Any, c: Any, d: Any, values: Any) -> None:
    """Fill cells in the order sign of y, sign of x, y, x."""
    rows, columns = a.shape[0], a.shape[2]
    size = rows * columns
    for i in range(values.shape[0]):
        for y in range(rows):
            at = y * columns
            for x in range(columns):
                even, odd = a[y, i, x] - d[y, i, x], a[y, i, x] + d[y, i, x]
                plus, minus = b[y, i, x] + c[y, i, x], b[y, i, x] - c[y, i, x]
                values[i, at + x] = even - plus
                values[i, size + at + x] = odd - minus
                values[i, 2 * size + at + x] = odd + minus
                values[i, 3 * size + at + x] = even + plus


@numba.njit(**(JIT | {"fastmath": True}))
def _correlations(first: Any, second: Any, one: Any, two: Any, line: Any) -> Any:
    """Fill the correlations of a contrast point; return the largest."""
    top = line.dtype.type(0)
    for d in range(line.size):
        line[d] = one * first[d] + two * second[d]
        top = max(top, line[d])
    return top


@numba.njit(**JIT)
def _fold_group(
    values: Any,
    second: Any,
    points: Any,
    mix: Any,
    scales: Any,
    shifts: Any,
    lanes: Any,
    start: Any,
    count: Any,
    has_sums: Any,
    is_single: Any,
    ids: Any,
    log_prior: Any,
    tables: Any,
    p: Any,
    is_positive: Any,
    share: Any,
    best: Any,
    poses: Any,
    sums: Any,
) -> None:
    """Fold the displacements of some contrast points for `count` images from `start` on."""
    kind = values.dtype.type
    every = mix.shape[0]
    line, weights = np.empty_like(values[0]), np.zeros(ids.size, np.float32)
    units = _unit_tables()
    for i in range(count):
        image = start + i
        for point in points:
            scale = scales[image, point]
            top = _correlations(
                values[i], second[i], kind(mix[point, 0] * scale), kind(mix[point, 1] * scale), line
            )
            at = _place_of(line, top, ids)
            if top > best[image] or best[image] == -math.inf:
                best[image] = line[at]
                poses[0, image] = ids[at] * every + point
            if not has_sums:
                continue
            shift = shifts[image, point]
            raise_reference(
                pose_score(np.float64(line[at]), 1.0, 0.0, lanes, image, p, is_positive)
                + shift + log_prior[at], image, lanes, p, sums,
            )  # fmt: skip
            if is_single:
                _add_rows(line, ids, tables, weights, units, point, every, shift, image, lanes, p,
                          is_positive, share, poses, sums)  # fmt: skip
            else:
                _add_line(line, ids, log_prior, point, every, shift, image, lanes, p, is_positive, poses,
                          sums)  # fmt: skip


@numba.njit(**JIT)
def _place_of(line: Any, top: Any, ids: Any) -> Any:
    """Return the cell of the largest correlation; where none is above 0, of the largest of all."""
    for d in range(line.size):
        if line[d] == top and ids[d] >= 0:
            return d
    best = -1
    for d in range(line.size):
        if ids[d] >= 0 and (best < 0 or line[d] > line[best]):
            best = d
    return best


@numba.njit(**JIT)
def _unit_tables() -> Any:
    """Return what `score_row` reads of images and norms where the values are correlations: 1, 0, 1 each."""
    found = np.zeros(3 * BLOCK + 3 * LANES, np.float32)
    for k in range(LANES):
        found[k] = found[2 * BLOCK + k] = 1.0
        found[3 * BLOCK + k] = found[3 * BLOCK + 2 * LANES + k] = 1.0
    return found


@numba.njit(**JIT)
def _add_rows(
    line: Any,
    ids: Any,
    tables: Any,
    weights: Any,
    units: Any,
    point: Any,
    every: Any,
    shift: Any,
    image: Any,
    lanes: Any,
    p: Any,
    is_positive: Any,
    share: Any,
    poses: Any,
    sums: Any,
) -> None:
    """Add the displacements of one contrast point to an image's sums, 16 at a time."""
    count = ids.size
    zero = fill(np.float32(0.0))
    threshold = fill(np.float32(sums[THRESHOLD, image]))
    reference = fill(np.float32(sums[REFERENCE, image] - shift))
    nothing = np.zeros(LANES, np.float32)
    total, first, square, plain, top = zero, zero, zero, zero, zero
    for row in range(count // LANES):
        at = row * LANES
        e, is_exact = score_row(line, row, 3 * BLOCK, 0, LANES, units, nothing, units, 0, threshold,
                                reference, p, is_positive, share)  # fmt: skip
        if not is_exact:
            for k in range(LANES):
                score = pose_score(np.float64(line[at + k]), 1.0, 0.0, lanes, image, p, is_positive) + shift
                weights[at + k] = math.exp(max(score - sums[REFERENCE, image], -80.0))
            e = load(weights, at)
        weighted = e * load(tables, at)
        store(weights, at, weighted)
        if any_above(e, zero):
            total = total + weighted
            square = square + weighted * weighted
            logs = logarithm(larger(e, fill(np.float32(1e-37)))) + load(tables, count + at)
            first = first + weighted * logs
            plain = plain + e * load(tables, 2 * count + at)
            top = larger(weighted, top)
    scratch = np.empty(5 * LANES, np.float32)
    store(scratch, 0, total)
    store(scratch, LANES, first)
    store(scratch, 2 * LANES, square)
    store(scratch, 3 * LANES, plain)
    store(scratch, 4 * LANES, top)
    highest = np.float32(0.0)
    for k in range(LANES):
        sums[WEIGHTED, image] += scratch[k]
        sums[FIRST, image] += scratch[LANES + k]
        sums[SQUARE, image] += scratch[2 * LANES + k]
        sums[PLAIN, image] += scratch[3 * LANES + k]
        highest = max(highest, scratch[4 * LANES + k])
    if highest > 0:
        likeliest = sums[REFERENCE, image] + math.log(highest)
        if likeliest > sums[LIKELIEST, image]:
            sums[LIKELIEST, image] = likeliest
            for d in range(count):
                if weights[d] == highest:
                    poses[1, image] = ids[d] * every + point
                    break
            raise_reference(likeliest, image, lanes, p, sums)


@numba.njit(**JIT)
def _add_line(
    line: Any,
    ids: Any,
    log_prior: Any,
    point: Any,
    every: Any,
    shift: Any,
    image: Any,
    lanes: Any,
    p: Any,
    is_positive: Any,
    poses: Any,
    sums: Any,
) -> None:
    """Add the displacements of one contrast point to an image's sums in double precision."""
    for d in range(ids.size):
        r = np.float64(line[d])
        if log_prior[d] == -math.inf or r * r < sums[THRESHOLD, image]:
            continue
        score = pose_score(r, 1.0, 0.0, lanes, image, p, is_positive) + shift
        total = score + log_prior[d]
        if total > sums[LIKELIEST, image]:
            sums[LIKELIEST, image] = total
            poses[1, image] = ids[d] * every + point
            raise_reference(total, image, lanes, p, sums)
        relative = total - sums[REFERENCE, image]
        e = math.exp(relative)
        sums[WEIGHTED, image] += e
        sums[FIRST, image] += relative * e
        sums[SQUARE, image] += e * e
        sums[PLAIN, image] += math.exp(score - sums[REFERENCE, image])
