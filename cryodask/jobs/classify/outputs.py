"""The files of a finished classification that other programs read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cryodask.io.particle_stack import ParticleStack
from cryodask.io.particle_writing import origin_columns, write_particles
from cryodask.io.star import write_star
from cryodask.jobs.classify.acceptance import Reason
from cryodask.jobs.classify.assembled import Assembled
from cryodask.jobs.classify.averages import FullAverage, laid_on_reference
from cryodask.jobs.classify.ordering import Chain
from cryodask.results.class_selection import ACCOUNTED, UNACCOUNTED


@dataclass(frozen=True)
class Pictures:
    """The pictures of the accepted classes.

    Parameters
    ----------
    working : (C, L, L) float32
        Plain means of phase-flipped members.
    full : list of FullAverage or None
        None where they were not asked for.
    chain : Chain
    """

    working: np.ndarray
    full: list[FullAverage] | None
    chain: Chain


def class_table(found: Assembled, pictures: Pictures) -> pd.DataFrame:
    """Return the table of accepted classes; class counts from 1 and is the slice of the averages."""
    table = found.classes.copy()
    count = len(table)
    order = np.zeros(count, np.int64)
    order[pictures.chain.order] = np.arange(1, count + 1)
    table.insert(0, "class", np.arange(1, count + 1))
    table.insert(1, "order", order)
    nan = np.full(count, np.nan)
    full = pictures.full
    table["resolution"] = nan if full is None else [a.resolution for a in full]
    table["resolution_0143"] = nan if full is None else [a.resolution_0143 for a in full]
    table["ssnr"] = nan if full is None else [a.ssnr for a in full]
    return table


def write_class_tables(folder: Path, table: pd.DataFrame) -> None:
    """Write classes.star and classes.csv."""
    write_star(folder / "classes.star", {"classes": table}, overwrite=True)
    table.to_csv(folder / "classes.csv", index=False, float_format="%.6g")


def ordered(images: np.ndarray, chain: Chain, scale: float) -> np.ndarray:
    """Return averages in chain order, each laid on the first.

    Parameters
    ----------
    images : (C, n, n)
    chain : Chain
    scale : float
        Pixels of these images per working pixel.
    """
    laid = [
        laid_on_reference(images[k], shift * scale, angle, mirror)
        for k, angle, mirror, shift in zip(chain.order, chain.angle, chain.mirror, chain.shift, strict=True)
    ]
    return np.array(laid, np.float32).reshape(-1, *images.shape[1:])


def relion_poses(images: pd.DataFrame, scale: float) -> dict[str, Any]:
    """Return RELION's in-plane angle (degrees) and origins (angstrom) of images.

    A straight image is its average rotated by phi, from x to y in pixel coordinates: psi = -phi. A mirrored
    one is the mirrored average: psi = phi. The particle lies at minus the origin from pixel n//2.

    Parameters
    ----------
    images : DataFrame
        Rows of `Assembled.images`.
    scale : float
        Angstrom of a working pixel.
    """
    angle = np.degrees(images["angle"].to_numpy(np.float64))
    psi = np.where(images["mirror"], angle, -angle)
    return {
        "rlnAnglePsi": (psi + 180) % 360 - 180,
        "x": -images["centre_x"].to_numpy(np.float64) * scale,
        "y": -images["centre_y"].to_numpy(np.float64) * scale,
    }


def write_particle_tables(
    folder: Path, stack: ParticleStack, found: Assembled, scale: float
) -> tuple[int, int]:
    """Write the STAR files of accounted and unaccounted particles, and return their rows.

    Every row of the input stands in exactly one of them, in its order.
    """
    images = found.images
    accounted = np.flatnonzero(images["class_id"] >= 0)
    rest = np.flatnonzero(images["class_id"] < 0)
    if len(accounted):
        own = images.iloc[accounted]
        write_particles(
            folder / ACCOUNTED, stack.take(accounted), accounted_columns(stack, own, scale), overwrite=True
        )
    if len(rest):
        own = images.iloc[rest]
        columns = {
            "rlnClassNumber": 0,
            "cryodaskReason": [Reason(r).word for r in own["reason"]],
            "cryodaskScore": own["score"].to_numpy(),
        }
        write_particles(folder / UNACCOUNTED, stack.take(rest), columns, overwrite=True)
    return len(accounted), len(rest)


def accounted_columns(stack: ParticleStack, own: pd.DataFrame, scale: float) -> dict[str, Any]:
    """Return the STAR columns of accounted images."""
    poses = relion_poses(own, scale)
    return {
        "rlnClassNumber": own["class_id"].to_numpy() + 1,
        "rlnAnglePsi": poses["rlnAnglePsi"],
        **origin_columns(stack, poses["x"], poses["y"]),
        "cryodaskMirror": own["mirror"].to_numpy(np.int64),
        "cryodaskScore": own["score"].to_numpy(),
        "cryodaskPixelError": own["pixel_error"].to_numpy(),
        "cryodaskVote": own["vote"].to_numpy(),
        "cryodaskAgreement": own["agreement"].to_numpy(),
        "cryodaskMargin": own["margin"].to_numpy(),
    }


def reason_counts(found: Assembled) -> dict[str, int]:
    """Return how many images have each reason, the accounted among them."""
    counts = np.bincount(found.images["reason"], minlength=len(Reason))
    return {reason.word: int(counts[reason]) for reason in Reason}
