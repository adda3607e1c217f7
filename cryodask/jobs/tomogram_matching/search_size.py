"""How many scores a match will make, and the threshold that follows, before anything is searched."""

from typing import Any

import numpy as np

from cryodask.jobs.tomogram_matching.area import search_area
from cryodask.jobs.tomogram_matching.inputs import MatchInputs
from cryodask.picking.thresholds import false_positive_threshold


def search_size(inputs: MatchInputs) -> dict[str, Any]:
    """Return the size of a search and its threshold for one expected false positive, in sigma.

    Near seeds the scores are about the voxels times the mean number of rotations of a seed.

    Raises
    ------
    InputError
        Where no voxel is searched.
    """
    voxels = search_area(inputs).count
    lists = [len(each.angles) for each in inputs.every]
    rows = lists if inputs.seeds is None else [float(np.mean(each.seed_rows)) for each in inputs.every]
    scores = voxels * sum(rows)
    return {
        "voxel_size": inputs.voxel_size,
        "box": inputs.particle.box,
        "n_voxels": voxels,
        "n_rotations": sum(lists),
        **({"n_seeds": len(inputs.seeds), "n_scores": round(scores)} if inputs.seeds is not None else {}),
        "threshold_sigma": round(false_positive_threshold(1.0, scores), 4),
    }
