"""The filtered image of a micrograph and the filter that its projections take."""

from dataclasses import dataclass

import numpy as np

from cryodask.jobs.micrograph_matching.filter_block import PreprocessingFilters
from cryodask.jobs.micrograph_matching.preparation import filtered_image
from cryodask.optics.image_filters import BandPassEdges, Curve, filter_grid


@dataclass(frozen=True, eq=False)
class FilteredImage:
    """A micrograph, filtered and normalised.

    Parameters
    ----------
    image
        (y, x) float32: a unit-energy template scores noise with variance 1.
    curves
        What was applied, and what projections must be filtered with too.
    """

    image: np.ndarray
    curves: tuple[Curve | BandPassEdges, ...]

    def template_filter(self, edge: int) -> np.ndarray:
        """Return the filter of projections, (n, n//2 + 1) float64, for a template edge in pixels."""
        return filter_grid((edge, edge), self.curves)


def filter_image(image: np.ndarray, filters: PreprocessingFilters) -> FilteredImage:
    """Whiten and band an image as configured.

    Parameters
    ----------
    image
        (y, x).
    filters
        Whitening, band-pass and curve; the phases of the template are not touched here.
    """
    made, whitening = filtered_image(image, filters)
    curves = (whitening, *filters.fixed_curves) if whitening is not None else filters.fixed_curves
    return FilteredImage(made, curves)
