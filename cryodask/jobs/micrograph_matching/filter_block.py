"""The blocks of filters; all frequencies are cycles per pixel (Nyquist 0.5)."""

from itertools import pairwise
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from cryodask.jobs.block import Block, CyclesPerPixel, limited, refuse
from cryodask.jobs.messages import FieldError
from cryodask.optics.image_filters import BandPassEdges, Curve


class WhiteningFilter(Block):
    """Flattens the spectrum of the image."""

    enabled: bool = True
    do_power_spectrum: bool = True
    max_freq: Annotated[float, limited(lambda v: v > 0, "more than 0 cycles per pixel")] | None = 0.5
    num_freq_bins: Annotated[int, Field(ge=2)] | None = None


class BandpassFilter(Block):
    """A band with cosine falls."""

    enabled: bool = False
    low_freq_cutoff: CyclesPerPixel | None = None
    high_freq_cutoff: CyclesPerPixel | None = None
    falloff: CyclesPerPixel | None = None

    @model_validator(mode="after")
    def _check_order(self) -> "BandpassFilter":
        edges = self.edges()
        if edges.low >= edges.high:
            raise FieldError(
                "low_freq_cutoff", edges.low, f"expected less than high_freq_cutoff = {edges.high:g}"
            )
        return self

    def edges(self) -> BandPassEdges:
        """Return the band."""
        high = 1.0 if self.high_freq_cutoff is None else self.high_freq_cutoff
        return BandPassEdges(self.low_freq_cutoff or 0.0, high, self.falloff or 0.0)


class ArbitraryCurveFilter(Block):
    """A curve given by points; 1 outside its range."""

    enabled: bool = False
    frequencies: tuple[float, ...] | None = None
    amplitudes: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def _check_points(self) -> "ArbitraryCurveFilter":
        if not self.enabled:
            return self
        x, y = self.frequencies or (), self.amplitudes or ()
        if len(x) < 2:
            raise FieldError("frequencies", list(x), "expected at least 2 frequencies")
        if any(b <= a for a, b in pairwise(x)):
            raise FieldError("frequencies", list(x), "expected strictly rising frequencies")
        if len(x) != len(y):
            raise FieldError(
                "amplitudes", f"{len(y)} values", f"expected one for each of {len(x)} frequencies"
            )
        return self

    def curve(self) -> Curve:
        """Return the curve."""
        x, y = np.array(self.frequencies or (0.0, 1.0)), np.array(self.amplitudes or (1.0, 1.0))
        return Curve(x, y, outside=1.0)


class PhaseRandomizationFilter(Block):
    """Random phases of the template from a frequency on."""

    enabled: bool = False
    cuton: CyclesPerPixel | None = None

    @model_validator(mode="after")
    def _check_cuton(self) -> "PhaseRandomizationFilter":
        if self.enabled and not (self.cuton or 0.0) > 0:
            raise FieldError("cuton", self.cuton, "expected more than 0 cycles per pixel when enabled")
        return self


class RandomFourierDropout(Block):
    """A filter of Leopard-EM 1.3 that cryodask does not have."""

    enabled: Annotated[bool, refuse("leave random_fourier_dropout out", False)] = False
    dropout_fraction: float = 0.1
    seed: int | None = None


class PreprocessingFilters(Block):
    """All filters; off unless enabled, but for whitening."""

    whitening_filter: WhiteningFilter = WhiteningFilter()
    bandpass_filter: BandpassFilter = BandpassFilter()
    arbitrary_curve_filter: ArbitraryCurveFilter = ArbitraryCurveFilter()
    phase_randomization_filter: PhaseRandomizationFilter = PhaseRandomizationFilter()
    random_fourier_dropout: RandomFourierDropout = RandomFourierDropout()

    @property
    def band(self) -> BandPassEdges | None:
        """The band-pass, None where it is off."""
        return self.bandpass_filter.edges() if self.bandpass_filter.enabled else None

    @property
    def fixed_curves(self) -> "tuple[Curve | BandPassEdges, ...]":
        """The filters that do not depend on the image: band-pass and curve."""
        curve = (self.arbitrary_curve_filter.curve(),) if self.arbitrary_curve_filter.enabled else ()
        return ((self.band,) if self.band is not None else ()) + curve
