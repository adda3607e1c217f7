"""Helical segments: classified lying along x, their poses given in the images as they were."""

import numpy as np
import pandas as pd

from cryodask.errors import InputError
from cryodask.jobs.classify.assembled import Assembled
from cryodask.kernels.class_sums import turned_vectors


def filament_axis(table: pd.DataFrame, source: str = "particles") -> np.ndarray:
    """Return the angle of the filament in each image, (n,) radians from x to y.

    Parameters
    ----------
    table : DataFrame
        Of a `ParticleStack`; its psi_prior, or its psi, turns a segment onto the x axis.
    source : str
        For the message.

    Raises
    ------
    InputError
        Neither is known of every segment.
    """
    for name in ("psi_prior", "psi"):
        psi = table[name].to_numpy(np.float64)
        if np.isfinite(psi).all():
            return -np.radians(psi)
    raise InputError(
        f"{source}: filament_width needs the angle of each segment, expected rlnAnglePsiPrior or rlnAnglePsi"
    )


def filament_keys(table: pd.DataFrame) -> np.ndarray:
    """Return a number (n,) of the filament of each segment, so that one filament goes into one half."""
    tube = table["helical_tube"].to_numpy()
    if (tube < 0).any():
        return np.arange(len(table))
    return table.groupby(["micrograph", "helical_tube"], sort=True).ngroup().to_numpy()


def turn_back_filaments(found: Assembled, axis: np.ndarray) -> None:
    """Turn the poses of segments that were classified along x to where the segments lie in their images.

    With I'(x) = I(Rot(a) x): centre s = Rot(a) s', and the angle is phi' + a, or phi' - a of a mirrored one.
    """
    images = found.images
    mirror = images["mirror"].to_numpy(bool)
    centre = images[["centre_x", "centre_y"]].to_numpy()
    turned = turned_vectors(centre, axis, np.zeros(len(axis), bool))
    images["centre_x"], images["centre_y"] = turned[:, 0], turned[:, 1]
    known = images["generation"].to_numpy() > 0
    images["angle"] = images["angle"].to_numpy() + np.where(known, np.where(mirror, -axis, axis), 0.0)
