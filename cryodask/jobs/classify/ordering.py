"""Class averages in a chain in which neighbours are alike and lie on each other."""

from dataclasses import dataclass

import numpy as np

from cryodask.jobs.classify.model import Model
from cryodask.kernels.class_sums import turned_vectors
from cryodask.kernels.polar_correlation import correlate, in_lanes, pair_spectra, refine_angles

MOST_STARTS = 200  # of the greedy chain
MOST_SWEEPS = 50


@dataclass(frozen=True)
class Chain:
    """Order of C classes, and the pose that lays each on the first.

    Parameters
    ----------
    order : (C,) int
        Classes in chain order.
    angle, mirror : (C,)
        Of each place of the chain: the class is the chain's frame rotated by angle, then mirrored.
    shift : (C, 2)
        Its centre in the class's frame, working pixels, x y.
    """

    order: np.ndarray
    angle: np.ndarray
    mirror: np.ndarray
    shift: np.ndarray


def chain_classes(model: Model, averages: np.ndarray, sizes: np.ndarray, offsets: np.ndarray) -> Chain:
    """Order classes (C, R, M); the larger end comes first, and fewer than three go by size."""
    count = len(averages)
    if count < 3:
        order = np.argsort(-sizes, kind="stable")
        return Chain(order, np.zeros(count), np.zeros(count, bool), np.zeros((count, 2)))
    still = model.references(averages, np.zeros((1, 2)))[:, 0]
    references = model.references(averages, offsets)
    score, code = correlate(in_lanes(still), references, model.basis, model.table)
    score, code = score[:count], code[:count]
    order = open_chain(np.maximum(score, score.T))
    if sizes[order[-1]] > sizes[order[0]]:
        order = order[::-1]
    return _accumulated(model, still, references, code, order, offsets)


def open_chain(similarity: np.ndarray) -> np.ndarray:
    """Return an order of large summed similarity of neighbours: greedy from every start, 2-opt, cut once."""
    count = len(similarity)
    starts = range(min(count, MOST_STARTS))
    ring = max((_greedy(similarity, start) for start in starts), key=lambda r: _ring_sum(similarity, r))
    ring = _two_opt(similarity, ring)
    links = similarity[ring, np.roll(ring, -1)]
    return np.roll(ring, -(int(links.argmin()) + 1))


def _greedy(similarity: np.ndarray, start: int) -> np.ndarray:
    left = np.ones(len(similarity), bool)
    ring = [start]
    left[start] = False
    while left.any():
        ring.append(int(np.where(left, similarity[ring[-1]], -np.inf).argmax()))
        left[ring[-1]] = False
    return np.array(ring)


def _ring_sum(similarity: np.ndarray, ring: np.ndarray) -> float:
    return float(similarity[ring, np.roll(ring, -1)].sum(dtype=np.float64))


def _two_opt(similarity: np.ndarray, ring: np.ndarray) -> np.ndarray:
    """Reverse stretches of the ring while that raises its sum."""
    ring, count = ring.copy(), len(ring)
    for _ in range(MOST_SWEEPS):
        improved = False
        for i in range(count - 1):
            a, b = ring[i], ring[i + 1]
            c, d = ring[i + 1 :], np.roll(ring, -1)[i + 1 :]
            gain = similarity[a, c] + similarity[b, d] - similarity[a, b] - similarity[c, d]
            j = int(gain.argmax())
            if gain[j] > 1e-9:
                ring[i + 1 : i + 2 + j] = ring[i + 1 : i + 2 + j][::-1]
                improved = True
        if not improved:
            break
    return ring


def _accumulated(
    model: Model,
    still: np.ndarray,
    references: np.ndarray,
    code: np.ndarray,
    order: np.ndarray,
    offsets: np.ndarray,
) -> Chain:
    """Compose the poses of neighbours along the chain."""
    before, after = order[:-1], order[1:]
    coarse, mirror, offset = model.table.decode(code[after, before])
    spectra = pair_spectra(still[after], references[before, offset], mirror, model.basis)
    angle, _ = refine_angles(spectra, coarse, model.table.step)
    moved = -turned_vectors(offsets[offset], angle, mirror)
    angles, mirrors, shifts = [0.0], [False], [np.zeros(2)]
    for a, m, s in zip(angle, mirror, moved, strict=True):
        # a class is its neighbour rotated by a and mirrored by m about s; that one likewise of the frame
        turn = np.array([a]), np.array([m])
        shifts.append(s + turned_vectors(shifts[-1][None], *turn)[0])
        angles.append(angles[-1] + (-a if mirrors[-1] else a))
        mirrors.append(bool(mirrors[-1] ^ m))
    return Chain(order, np.array(angles), np.array(mirrors), np.array(shifts))
