"""Picking from the results of tomogram matching, with template and tomogram at hand."""

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from cryodask.jobs.tomogram_matching.independence import independent_scores
from cryodask.jobs.tomogram_matching.refinement import refine
from cryodask.picking.pick import pick as pick_particles

Source = str | Path | xr.Dataset


@dataclass(frozen=True)
class TomogramPicks:
    """What picking asks of tomogram matching.

    Attributes
    ----------
    device
        ``cpu`` or ``cuda``.
    memory
        Bytes that filtering the tomogram again may use.
    """

    device: str = "cpu"
    memory: float = 2.0 * 2**30

    def independent_scores(self, dataset: xr.Dataset) -> np.ndarray:
        """Return for each template as how many independent scores its search counts."""
        return independent_scores(dataset)

    def refine(
        self, dataset: xr.Dataset, peaks: pd.DataFrame, *, position: bool, executor: Executor | None = None
    ) -> pd.DataFrame:
        """Return the peaks with refined orientations; see `cryodask.picking.search_job.SearchJob`."""
        return refine(
            dataset, peaks, position=position, device=self.device, memory=self.memory, executor=executor
        )


def pick(
    result: Source | Sequence[Source], *, executor: Executor | None = None, **options: Any
) -> pd.DataFrame:
    """Choose the particles of one or several search results.

    Parameters
    ----------
    result
        Result store, its dataset, a bare score map, or a list of these, which gives one table.
    executor
        Workers for regions and refinements, such as ``client.get_executor()``; None: this process.
    **options
        Keywords of `cryodask.picking.pick.pick`: one of `threshold`, `sigma`, `false_positives`, `triangle`
        and `fdr`; `score`, `particle_diameter`, `min_distance`, `max_particles`, `refine`,
        `mask`, `edge`, ...

    Returns
    -------
    pandas.DataFrame
        One row a particle (columns: `cryodask.io.particle_table.COLUMNS`), by falling score within a
        tomogram; `attrs` say how it was made.

    Raises
    ------
    InputError
        Options that exclude each other or do not fit the result.
    """
    return pick_particles(result, job=TomogramPicks(), executor=executor, **options)
