"""All generations together: one row an image, one row a class."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from cryodask.jobs.classify.acceptance import Reason
from cryodask.jobs.classify.checkpoints import Outcome
from cryodask.jobs.classify.poses import Poses


@dataclass(frozen=True)
class Assembled:
    """The classification of a stack.

    Parameters
    ----------
    images : DataFrame
        One row an image: class_id (-1 for none), reason, generation (0 for none), angle (radians), mirror,
        centre_x, centre_y (working pixels), score, margin, pixel_error, vote, agreement.
    run_class : (runs, n) int32
        Every run's class of the generation in which an image was last tested.
    averages : (C, R, M) complex64
        Accepted class means.
    classes : DataFrame
        One row a class: run, generation, size, mean_score, pixel_error, mirror_stable, jaccard, agreement,
        spread_ratio, price.
    """

    images: pd.DataFrame
    run_class: np.ndarray
    averages: np.ndarray
    classes: pd.DataFrame

    def poses(self, rows: np.ndarray) -> Poses:
        """Return the poses of some images, centres in working pixels."""
        found = self.images.iloc[rows]
        return Poses(
            found["class_id"].to_numpy(np.int32),
            found["angle"].to_numpy(np.float64),
            found["mirror"].to_numpy(bool),
            found[["centre_x", "centre_y"]].to_numpy(np.float32),
            found["score"].to_numpy(np.float32),
        )

    def members(self, number: int) -> np.ndarray:
        """Return the rows of a class's images."""
        return np.flatnonzero(self.images["class_id"].to_numpy() == number)


def assemble(count: int, usable: np.ndarray, outcomes: list[Outcome], runs: int) -> Assembled:
    """Join generations; classes are numbered by generation, then by falling size.

    Parameters
    ----------
    count : int
        Images n.
    usable : (n,) bool
        The others were never classified and are junk.
    outcomes : list of Outcome
    runs : int
    """
    images = pd.DataFrame({"class_id": np.full(count, -1), "reason": np.full(count, int(Reason.LEFTOVER))})
    images.loc[~usable, "reason"] = int(Reason.JUNK)
    images["generation"], images["mirror"] = 0, False
    for name in ("angle", "centre_x", "centre_y"):
        images[name] = 0.0
    for name in ("score", "margin", "pixel_error", "vote", "agreement"):
        images[name] = np.float32(np.nan)
    run_class = np.full((runs, count), -1, np.int32)
    averages, tables, first = [], [], 0
    for generation, outcome in enumerate(outcomes, start=1):
        rows = outcome.population
        run_class[:, rows] = outcome.run_label
        numbers, kept = _numbered(outcome, first)
        for name, values in _columns(outcome, numbers, generation).items():
            column = images[name].to_numpy(copy=True)
            column[rows] = values
            images[name] = column
        averages.append(outcome.averages[kept])
        tables.append(_class_rows(outcome, kept, generation))
        first += len(kept)
    joined = np.concatenate(averages) if averages else np.zeros((0, 0, 0), np.complex64)
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    return Assembled(images, run_class, joined, table)


def _numbered(outcome: Outcome, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the class number of each image, and the accepted classes by falling size."""
    own = outcome.label[outcome.accounted]
    sizes = np.bincount(own, minlength=len(outcome.averages))
    kept = np.argsort(-sizes, kind="stable")
    kept = kept[sizes[kept] > 0]
    names = np.full(len(outcome.averages) + 1, -1)
    names[kept] = first + np.arange(len(kept))
    return np.where(outcome.accounted, names[outcome.label], -1), kept


def _columns(outcome: Outcome, numbers: np.ndarray, generation: int) -> dict[str, np.ndarray]:
    return {
        "class_id": numbers,
        "reason": outcome.reason.astype(np.int64),
        "generation": np.full(len(numbers), generation),
        "angle": outcome.angle,
        "mirror": outcome.mirror,
        "centre_x": outcome.centre[:, 0].astype(np.float64),
        "centre_y": outcome.centre[:, 1].astype(np.float64),
        "score": outcome.score,
        "margin": outcome.margin,
        "pixel_error": outcome.error,
        "vote": outcome.vote,
        "agreement": outcome.views,
    }


def _class_rows(outcome: Outcome, kept: np.ndarray, generation: int) -> pd.DataFrame:
    own = pd.DataFrame({"label": outcome.label, "score": outcome.score, "views": outcome.views})
    means = own[outcome.accounted].groupby("label").mean().reindex(kept)
    sizes = np.bincount(outcome.label[outcome.accounted], minlength=len(outcome.averages))
    return pd.DataFrame(
        {
            "run": np.full(len(kept), outcome.chosen + 1),
            "generation": np.full(len(kept), generation),
            "size": sizes[kept],
            "mean_score": means["score"].to_numpy(np.float32),
            "pixel_error": outcome.class_error[kept],
            "mirror_stable": outcome.mirror_rate[kept],
            "jaccard": outcome.jaccard[kept],
            "agreement": means["views"].to_numpy(np.float32),
            "spread_ratio": outcome.spread_ratio[kept],
            "price": outcome.price[kept],
        }
    )
