"""Picking from any result: the job that made it decides how."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from cryodask.jobs.micrograph_matching.picks import is_of_micrographs, pick_micrographs
from cryodask.jobs.tomogram_matching.picks import pick as pick_tomograms

Source = str | Path | xr.Dataset


def pick(result: Source | Sequence[Source], **options: Any) -> pd.DataFrame:
    """Choose the particles of one or several search results.

    Parameters
    ----------
    result
        Result store, its dataset, or a list of these, which gives one table. Of tomograms also a bare score
        map; of micrographs also a match_template YAML whose maps are written.
    **options
        Of tomograms: keywords of `cryodask.picking.pick.pick`, such as one of `threshold`, `sigma`,
        `false_positives`, `triangle` and `fdr`; `score`, `particle_diameter`, `min_distance`, `refine`, ...;
        and `executor`, workers for regions and refinements.
        Of micrographs: `metric`, one of `false_positives` and `cutoff`, `mask_radius`, `mask`; see
        `cryodask.jobs.micrograph_matching.picks.ImagePickOptions`.

    Returns
    -------
    pandas.DataFrame
        One row a particle, by falling score within a tomogram or micrograph: columns
        `cryodask.io.particle_table.COLUMNS`, or those of Leopard-EM's table. `attrs` say how it was made.

    Raises
    ------
    InputError
        Options that exclude each other or do not fit the result.
    """
    results = [result] if isinstance(result, str | Path | xr.Dataset) else list(result)
    if results and all(is_of_micrographs(each) for each in results):
        return pick_micrographs(results, **options)
    return pick_tomograms(result, **options)
