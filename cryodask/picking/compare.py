"""How good a particle table is where the truth is known."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from cryodask.errors import InputError
from cryodask.geometry.euler import rotation_from_euler
from cryodask.geometry.symmetry import symmetry_group

POSITION = ["x", "y", "z"]
ANGLES = ["phi", "theta", "psi"]


@dataclass(frozen=True)
class Comparison:
    """Picks against truth.

    Attributes
    ----------
    n_picks, n_truth, true_positives
        Counts; a pick and a true particle belong to at most one pair.
    recall, precision, f1
        Shares, 0 where undefined.
    median_position_error
        Angstrom, over the pairs; None without a pair.
    median_angular_error
        Degrees modulo symmetry; None without a pair that has angles on both sides.
    matches
        One row a pick, by falling score: pick, truth (row numbers; -1 = none), score, position_error,
        angular_error.
    table
        The same figures at every threshold: threshold, picks, found, recall, precision, f1,
        position_error, angular_error.
    """

    n_picks: int
    n_truth: int
    true_positives: int
    recall: float
    precision: float
    f1: float
    median_position_error: float | None
    median_angular_error: float | None
    matches: pd.DataFrame
    table: pd.DataFrame

    def summary(self) -> dict[str, Any]:
        """Return the figures as plain numbers for JSON."""
        return {
            "picks": self.n_picks,
            "truth": self.n_truth,
            "found": self.true_positives,
            "recall": self.recall,
            "precision": self.precision,
            "f1": self.f1,
            "median_position_error_angstrom": self.median_position_error,
            "median_angular_error_deg": self.median_angular_error,
        }


def compare(
    picks: pd.DataFrame,
    truth: pd.DataFrame,
    *,
    radius: float | None = None,
    symmetry: str | None = None,
    voxel_size: float | None = None,
    score: str = "score",
) -> Comparison:
    """Pair picks with true particles, one to one, greedily by falling score.

    A pick takes the nearest true particle within the radius that no better pick has taken. Truth of
    tomograms without a pick counts only where both tables name several tomograms.

    Parameters
    ----------
    picks, truth
        Particle tables with x, y, z in voxels of the same tomogram, and phi, theta, psi (zxz, degrees).
    radius
        Angstrom; None: half the particle diameter that `pick` left in `picks.attrs`.
    symmetry
        Point group; None: that of `picks.attrs`, else C1.
    voxel_size
        Angstrom; None: that of `picks.attrs`.
    score
        Column of `picks` that ranks them.

    Raises
    ------
    InputError
        A radius or voxel size that is not known, an empty truth, or picks in a tomogram without truth.
    """
    voxel = voxel_size or picks.attrs.get("voxel_size")
    if voxel is None:
        raise InputError("compare: voxel_size is required (the picks do not carry it)")
    reach = _radius(picks, radius)
    if len(truth) == 0:
        raise InputError("compare: the truth holds no particle")
    group = symmetry_group(symmetry or picks.attrs.get("symmetry") or "C1")
    ranked = picks.reset_index(drop=True).sort_values(score, ascending=False, kind="stable")
    true = truth.reset_index(drop=True)
    pairs = np.full(len(ranked), -1)
    for picked, wanted in _tomograms(ranked, true):
        pairs[picked] = _paired(ranked.iloc[picked], true.iloc[wanted], reach / voxel, wanted)
    matches = _matches(ranked, true, pairs, voxel, group).assign(score=ranked[score].to_numpy(float))
    return _comparison(matches, len(true))


def _radius(picks: pd.DataFrame, radius: float | None) -> float:
    """Return the particle radius in angstrom."""
    diameter = picks.attrs.get("particle_diameter")
    reach = radius if radius is not None else diameter / 2 if diameter else None
    if reach is None or not reach > 0:
        raise InputError(f"compare: radius {reach}: expected a particle radius above 0 in angstrom")
    return float(reach)


def _tomograms(picks: pd.DataFrame, truth: pd.DataFrame) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return, for each tomogram, the positions of its rows in both tables."""
    ours, theirs = picks["tomo_num"].unique(), truth["tomo_num"].unique()
    if len(ours) <= 1 and len(theirs) == 1:
        return [(np.arange(len(picks)), np.arange(len(truth)))]
    missing = sorted(set(ours) - set(theirs))
    if missing:
        known = ", ".join(str(n) for n in sorted(theirs))
        raise InputError(f"compare: truth has no rows for tomo_num {missing[0]} (has {known})")
    return [(np.flatnonzero(picks["tomo_num"] == n), np.flatnonzero(truth["tomo_num"] == n)) for n in ours]


def _paired(picks: pd.DataFrame, truth: pd.DataFrame, reach: float, rows: np.ndarray) -> np.ndarray:
    """Return the truth row of each pick of one tomogram (picks by falling score), -1 for none."""
    places = truth[POSITION].to_numpy(float)
    points = picks[POSITION].to_numpy(float)
    free = np.ones(len(places), bool)
    paired = np.full(len(points), -1)
    for index, near in enumerate(cKDTree(places).query_ball_point(points, reach)):
        open_ = [row for row in near if free[row]]
        if open_:
            best = min(open_, key=lambda row: (np.linalg.norm(places[row] - points[index]), row))
            free[best], paired[index] = False, rows[best]
    return paired


def _matches(
    picks: pd.DataFrame, truth: pd.DataFrame, pairs: np.ndarray, voxel: float, group: Rotation
) -> pd.DataFrame:
    """Return one row a pick with its errors, NaN where it has no partner."""
    found = np.flatnonzero(pairs >= 0)
    ours, theirs = picks.iloc[found], truth.iloc[pairs[found]]
    errors = np.full((2, len(picks)), np.nan)
    steps = ours[POSITION].to_numpy(float) - theirs[POSITION].to_numpy(float)
    errors[0, found] = np.linalg.norm(steps, axis=1) * voxel
    if set(ANGLES) <= set(ours.columns) and set(ANGLES) <= set(theirs.columns):
        errors[1, found] = angular_errors(ours[ANGLES].to_numpy(float), theirs[ANGLES].to_numpy(float), group)
    return pd.DataFrame(
        {"pick": picks.index, "truth": pairs, "position_error": errors[0], "angular_error": errors[1]}
    )


def angular_errors(found: np.ndarray, true: np.ndarray, group: Rotation) -> np.ndarray:
    """Return the angles between orientations of a symmetric particle, the smallest over its group.

    Parameters
    ----------
    found, true
        (n, 3) zxz degrees; NaN rows give NaN.
    group
        Rotations that leave the template unchanged.

    Returns
    -------
    numpy.ndarray
        (n,) degrees.
    """
    errors = np.full(len(found), np.nan)
    known = np.isfinite(found).all(axis=1) & np.isfinite(true).all(axis=1)
    if known.any():
        difference = rotation_from_euler(true[known]).inv() * rotation_from_euler(found[known])
        errors[known] = np.min([np.degrees((difference * g).magnitude()) for g in group], axis=0)
    return errors


def _comparison(matches: pd.DataFrame, n_truth: int) -> Comparison:
    """Accumulate the matches, ordered by falling score, into figures at every threshold."""
    found = (matches["truth"] >= 0).cumsum()
    picks = np.arange(1, len(matches) + 1)
    recall, precision = found / n_truth, found / picks
    table = pd.DataFrame(
        {
            "threshold": matches["score"],
            "picks": picks,
            "found": found,
            "recall": recall,
            "precision": precision,
            "f1": 2 * found / (picks + n_truth),
            "position_error": matches["position_error"].expanding().median(),
            "angular_error": matches["angular_error"].expanding().median(),
        }
    )
    # Picks of one score pass the threshold together.
    table = table.drop_duplicates("threshold", keep="last").reset_index(drop=True)
    last = table.iloc[-1].to_dict() if len(table) else {}
    return Comparison(
        n_picks=len(matches),
        n_truth=n_truth,
        true_positives=int(last.get("found", 0)),
        recall=float(last.get("recall", 0.0)),
        precision=float(last.get("precision", 0.0)),
        f1=float(last.get("f1", 0.0)),
        median_position_error=_known(last.get("position_error")),
        median_angular_error=_known(last.get("angular_error")),
        matches=matches,
        table=table,
    )


def _known(value: float | None) -> float | None:
    """Return a number, or None for NaN."""
    return None if value is None or math.isnan(value) else float(value)
