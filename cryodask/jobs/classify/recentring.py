"""Class means brought back to the middle when their members have drifted together."""

from dataclasses import replace

import numpy as np

from cryodask.jobs.classify.passes import Classes, Population
from cryodask.jobs.classify.poses import FARTHEST, moved_centres
from cryodask.kernels.class_sums import turned_back

TOLERATED = 0.5  # pixels of a mean offset


def recentred(population: Population, classes: Classes) -> Classes:
    """Return the classes, those moved whose members' mean offset from their origins exceeds half a pixel."""
    poses = classes.poses
    drift = turned_back(poses.centre - population.origins, poses.angle, poses.mirror)
    sizes = np.maximum(classes.sizes, 1)
    mean = np.stack(
        [np.bincount(poses.label, axis, minlength=classes.count) / sizes for axis in drift.T], axis=1
    )
    model = population.images.model
    if model.bar:
        mean[:, 0] = 0  # along the axis nothing moves
    far = np.hypot(*mean.T) > TOLERATED
    if not far.any():
        return classes
    averages = classes.averages.copy()
    pictures = model.grid.images(averages[far], model.box)
    averages[far] = model.grid.coefficients(pictures, -mean[far])
    offsets = np.where(far[poses.label][:, None], mean[poses.label], 0.0)
    centre = moved_centres(
        poses.centre, population.origins, offsets, poses.angle, poses.mirror, farthest=model.reach(FARTHEST)
    )
    return replace(classes, poses=poses.replaced(centre=centre), averages=averages)
