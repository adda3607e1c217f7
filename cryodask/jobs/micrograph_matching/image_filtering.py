"""The filtered image of a micrograph and the filter that its projections take."""

from dataclasses import dataclass

import numpy as np
import scipy.fft

from cryodask.jobs.micrograph_matching.filter_block import PreprocessingFilters
from cryodask.optics.image_filters import BandPassEdges, Curve, filter_grid, normalized_image, whitening_curve


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
    shape = (image.shape[0], image.shape[1])
    spectrum = scipy.fft.rfft2(np.asarray(image, np.float32))
    spectrum[0, 0] = 0.0
    curves: tuple[Curve | BandPassEdges, ...] = filters.fixed_curves
    whitening = filters.whitening_filter
    if whitening.enabled:
        curve = whitening_curve(
            spectrum,
            shape,
            bins=whitening.num_freq_bins,
            is_power=whitening.do_power_spectrum,
            max_frequency=whitening.max_freq,
        )
        curves = (curve, *curves)
    return FilteredImage(normalized_image(spectrum, shape, filter_grid(shape, curves), filters.band), curves)
