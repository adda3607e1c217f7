"""How well a classification finds the truth: spread of views, agreement of partitions, purity."""

from dataclasses import dataclass

import numpy as np


def contingency(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the counts (a, b) of each pair of labels."""
    _, a = np.unique(first, return_inverse=True)
    _, b = np.unique(second, return_inverse=True)
    counts = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(counts, (a, b), 1)
    return counts


def adjusted_rand(first: np.ndarray, second: np.ndarray) -> float:
    """Return the adjusted Rand index of two labellings (Hubert and Arabie 1985)."""
    counts = contingency(first, second)

    def pairs(n: np.ndarray) -> float:
        return float((n * (n - 1) / 2).sum())

    together, rows, columns = pairs(counts), pairs(counts.sum(1)), pairs(counts.sum(0))
    expected = rows * columns / pairs(counts.sum(keepdims=True))
    mean = (rows + columns) / 2
    return 1.0 if mean == expected else (together - expected) / (mean - expected)


def mutual_information(first: np.ndarray, second: np.ndarray) -> float:
    """Return the normalised mutual information 2 I / (H1 + H2)."""
    p = contingency(first, second)
    p = p / p.sum()

    def entropy(q: np.ndarray) -> float:
        q = q[q > 0]
        return float(-(q * np.log(q)).sum())

    h1, h2, h12 = entropy(p.sum(1)), entropy(p.sum(0)), entropy(p.ravel())
    return 1.0 if h1 + h2 == 0 else 2 * (h1 + h2 - h12) / (h1 + h2)


def spread(views: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Return the angles between accounted images' view axes and their class's, degrees, modulo mirror.

    Parameters
    ----------
    views : (n, 3)
        Unit view axes.
    label : (n,)
        Class, below 0 where not accounted.
    """
    angles = []
    for k in np.unique(label[label >= 0]):
        own = views[label == k]
        axis = np.linalg.eigh(own.T @ own)[1][:, -1]
        angles.append(np.degrees(np.arccos(np.clip(np.abs(own @ axis), 0, 1))))
    return np.concatenate(angles) if angles else np.array([np.nan])


def main_shares(view: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Return the share of the commonest view in each class, noise (view below 0) among the others."""
    shares = []
    for k in np.unique(label[label >= 0]):
        own = view[label == k]
        shares.append(np.bincount(own[own >= 0], minlength=1).max() / len(own))
    return np.array(shares)


@dataclass(frozen=True)
class Truth:
    """What the images of a simulated stack show: view axis (n, 3), view number or -1, whether noise alone."""

    axis: np.ndarray
    view: np.ndarray
    noise: np.ndarray


def summary(truth: Truth, label: np.ndarray) -> dict[str, float]:
    """Return every figure of a labelling (n,), -1 where not accounted."""
    real, kept = ~truth.noise, label >= 0
    angles = spread(truth.axis[real], label[real])
    found = {
        "classes": len(np.unique(label[kept])),
        "accounted": float(kept[real].mean()),
        "spread_median": float(np.median(angles)),
        "spread_90": float(np.percentile(angles, 90)),
    }
    if truth.noise.any():
        found["noise_accounted"] = float(kept[~real].mean())
    if truth.view.max() >= 0 and (kept & real).any():
        both = kept & real
        view = np.where(truth.noise, -1, truth.view)
        shares = main_shares(view, label)
        found["ari_all"] = adjusted_rand(truth.view[real], label[real])
        found["ari_accounted"] = adjusted_rand(truth.view[both], label[both])
        found["nmi"] = mutual_information(truth.view[real], label[real])
        found["least_share"] = float(shares.min())
        tops = [np.bincount(view[(label == k) & both]).max() for k in np.unique(label[both])]
        found["purity"] = float(sum(tops) / both.sum())
        found["views_found"] = len(
            {int(np.bincount(view[(label == k) & both]).argmax()) for k in np.unique(label[both])}
        )
    return found
