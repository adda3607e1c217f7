"""What picking asks of the job that made a result."""

from concurrent.futures import Executor
from typing import Protocol

import numpy as np
import pandas as pd
import xarray as xr


class SearchJob(Protocol):
    """A job that can read its templates and data again."""

    def independent_scores(self, dataset: xr.Dataset) -> np.ndarray:
        """Return for each template as how many independent scores its search counts."""

    def refine(
        self, dataset: xr.Dataset, peaks: pd.DataFrame, *, position: bool, executor: Executor | None = None
    ) -> pd.DataFrame:
        """Refine the orientations of peaks, and with `position` their places between the voxels.

        Parameters
        ----------
        dataset
            Result the peaks come from.
        peaks
            template, z, y, x, angle_row and score columns, one row a peak.
        position
            Set dz, dy, dx from the refined scores; else they are 0.
        executor
            Workers that share the file system; None: this process.

        Returns
        -------
        pandas.DataFrame
            The peaks with z, y, x, dz, dy, dx and scores refined, phi, theta, psi (zxz degrees) and
            score_grid, the raw score before.
        """
