"""The peaks of every template of a result, found here or by the workers of an executor."""

import functools
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import xarray as xr

from cryodask.picking.candidates import PeakSearch, Selection
from cryodask.picking.discovery import decoy_maps
from cryodask.picking.maps import MapSource, opened
from cryodask.picking.regions import Region, regions
from cryodask.picking.selection_mask import open_mask
from cryodask.picking.thresholds import Threshold

Mask = str | Path | xr.DataArray


@dataclass(frozen=True)
class PeakFinder:
    """Finds candidates by one set of conditions.

    Attributes
    ----------
    dataset
        Result with maps (template, z, y, x).
    source
        Where it came from.
    selection
        What a peak must satisfy, without the mask.
    mask
        Path or array of the mask of `Selection`.
    executor
        Searches regions where the result and the mask can be opened by their paths; None: this process.
    """

    dataset: xr.Dataset
    source: MapSource
    selection: Selection
    mask: Mask | None = None
    executor: Executor | None = None

    def candidates(self, threshold: Threshold, score: str, *, decoys: bool = False) -> pd.DataFrame:
        """Return the candidates of all templates; with `decoys` those of `decoy_maps`.

        The columns are those of `PeakSearch.in_region`.
        """
        templates = range(self.dataset.sizes["template"])
        order = [_Order(t, threshold, score, self.selection, decoys) for t in templates]
        parts = [part for one in order for part in self._in_regions(one)]
        filled = [part for part in parts if len(part)]
        return pd.concat(filled, ignore_index=True) if filled else parts[0]

    def _in_regions(self, order: "_Order") -> list[pd.DataFrame]:
        """Return the candidates of each region."""
        found = list(regions(self.dataset))
        if self.executor is None or not self._is_elsewhere:
            search = order.on(self.dataset, self.mask)
            return [search.in_region(region) for region in found]
        work: Callable[[Region], pd.DataFrame] = functools.partial(
            _search_stored, self.source, None if self.mask is None else str(self.mask), order
        )
        return list(self.executor.map(work, found))

    @property
    def _is_elsewhere(self) -> bool:
        """Whether workers can open everything by its path."""
        return self.source.is_stored and not isinstance(self.mask, xr.DataArray)


@dataclass(frozen=True)
class _Order:
    """A peak search without its maps."""

    template: int
    threshold: Threshold
    score: str
    selection: Selection
    decoys: bool

    def on(self, dataset: xr.Dataset, mask: Mask | None) -> PeakSearch:
        """Return the search on the maps of a result."""
        selection = self.selection
        if mask is not None:
            selection = replace(selection, mask=open_mask(mask, dataset))
        maps = decoy_maps(dataset) if self.decoys else dataset
        return PeakSearch(maps, self.template, self.threshold, self.score, selection)


def _search_stored(source: MapSource, mask: str | None, order: _Order, region: Region) -> pd.DataFrame:
    """Search one region in a worker, which opens result and mask by their paths."""
    return order.on(opened(source), mask).in_region(region)
