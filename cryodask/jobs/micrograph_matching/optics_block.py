"""The blocks of microscope, defocus and pixel size."""

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import model_validator

from cryodask.geometry.zyz_grids import overshooting_values, search_values
from cryodask.jobs.block import Block, PositiveAngstrom, limited, refuse
from cryodask.jobs.messages import FieldError
from cryodask.optics.ctf_image import EVEN_TERMS, ODD_TERMS, ImageCtf

# Below this many angstrom a defocus is a number of micrometres.
_LEAST_DEFOCUS = 10.0

Compat = Literal["leopard-em-1.2"]


class EvenZernikes(Block):
    """Even aberrations, radians."""

    Z44c: float = 0.0
    Z44s: float = 0.0
    Z60: float = 0.0


class OddZernikes(Block):
    """Odd aberrations, radians."""

    Z31c: float = 0.0
    Z31s: float = 0.0
    Z33c: float = 0.0
    Z33s: float = 0.0


class OpticsGroup(Block):
    """A microscope and the defocus of an image; names and units of Leopard-EM.

    `pixel_size`, defoci and `ctf_B_factor` in angstrom (squared), `voltage` kV, `spherical_aberration` mm,
    angles degrees; underfocus is positive. `mag_matrix` is row-major and acts on (y, x).
    """

    label: str
    pixel_size: PositiveAngstrom
    voltage: Annotated[float, limited(lambda v: 60 <= v <= 1000, "60 to 1000 kV")]
    defocus_u: float
    defocus_v: float
    astigmatism_angle: float
    spherical_aberration: Annotated[float, limited(lambda v: 0 <= v <= 10, "0 to 10 mm")] = 2.7
    amplitude_contrast_ratio: Annotated[float, limited(lambda v: 0 <= v < 1, "a fraction, 0 <= w < 1")] = 0.07
    phase_shift: float = 0.0
    ctf_B_factor: Annotated[float, limited(lambda v: v >= 0, "at least 0 angstrom^2")] = 0.0
    even_zernikes: EvenZernikes | None = None
    odd_zernikes: OddZernikes | None = None
    mag_matrix: tuple[float, float, float, float] | None = None

    chromatic_aberration: Annotated[float | None, refuse("use ctf_B_factor for an envelope", None, 0)] = 0.0
    mtf_reference: Annotated[str | None, refuse("use arbitrary_curve_filter for an MTF", None)] = None
    mtf_values: Annotated[list[float] | None, refuse("use arbitrary_curve_filter for an MTF", None)] = None
    beam_tilt_x: Annotated[float | None, refuse("use odd_zernikes", None, 0)] = None
    beam_tilt_y: Annotated[float | None, refuse("use odd_zernikes", None, 0)] = None

    @model_validator(mode="after")
    def _check_matrix(self) -> "OpticsGroup":
        if self.mag_matrix is not None and abs(np.linalg.det(np.reshape(self.mag_matrix, (2, 2)))) < 1e-6:
            raise FieldError("mag_matrix", list(self.mag_matrix), "expected a matrix that can be inverted")
        return self

    @property
    def looks_like_micrometres(self) -> bool:
        """Whether both defoci are so small that angstrom cannot be meant."""
        return max(abs(self.defocus_u), abs(self.defocus_v)) < _LEAST_DEFOCUS

    def ctf(
        self,
        *,
        zernike_radius: Literal["corner", "inverse_angstrom"] = "corner",
        compat: Compat | None = None,
    ) -> ImageCtf:
        """Return what decides the CTF; with `compat` u is the larger defocus whatever the file says."""
        mean, half = 0.5 * (self.defocus_u + self.defocus_v), 0.5 * (self.defocus_u - self.defocus_v)
        half = abs(half) if compat else half
        return ImageCtf(
            pixel_size=self.pixel_size,
            defocus_u=mean + half,
            defocus_v=mean - half,
            astigmatism_angle=self.astigmatism_angle,
            voltage=self.voltage,
            spherical_aberration=self.spherical_aberration,
            amplitude_contrast=self.amplitude_contrast_ratio,
            phase_shift=self.phase_shift,
            b_factor=self.ctf_B_factor,
            zernikes=self.zernikes,
            zernike_radius=zernike_radius,
            magnification=self.mag_matrix,
        )

    @property
    def zernikes(self) -> tuple[tuple[str, float], ...]:
        """All aberrations that are not 0: name and coefficient."""
        given: dict[str, Any] = {}
        for block in (self.even_zernikes, self.odd_zernikes):
            given |= block.model_dump() if block is not None else {}
        return tuple((name, given[name]) for name in (*EVEN_TERMS, *ODD_TERMS) if given.get(name))


class DefocusSearch(Block):
    """Defoci relative to the mean of u and v, angstrom."""

    enabled: bool = True
    defocus_min: float = -1000.0
    defocus_max: float = 1000.0
    defocus_step: PositiveAngstrom = 200.0
    skip_enforce_zero: bool = False

    @model_validator(mode="after")
    def _check_order(self) -> "DefocusSearch":
        if self.defocus_max < self.defocus_min:
            raise FieldError(
                "defocus_max", self.defocus_max, f"expected at least defocus_min = {self.defocus_min:g}"
            )
        return self

    def values(self, compat: Compat | None = None) -> np.ndarray:
        """Return the defoci to search, (n_d,) angstrom."""
        return _values(
            self.enabled,
            (self.defocus_min, self.defocus_max, self.defocus_step),
            self.skip_enforce_zero,
            compat,
        )


class PixelSizeSearch(Block):
    """Pixel sizes relative to that of the image, angstrom."""

    enabled: bool = False
    pixel_size_min: float = -0.05
    pixel_size_max: float = 0.05
    pixel_size_step: PositiveAngstrom = 0.01
    skip_enforce_zero: bool = False

    @model_validator(mode="after")
    def _check_order(self) -> "PixelSizeSearch":
        if self.pixel_size_max < self.pixel_size_min:
            raise FieldError(
                "pixel_size_max",
                self.pixel_size_max,
                f"expected at least pixel_size_min = {self.pixel_size_min:g}",
            )
        return self

    def values(self, compat: Compat | None = None) -> np.ndarray:
        """Return the pixel sizes to search, (n_p,) angstrom, relative."""
        return _values(
            self.enabled,
            (self.pixel_size_min, self.pixel_size_max, self.pixel_size_step),
            self.skip_enforce_zero,
            compat,
        )


def _values(
    enabled: bool, limits: tuple[float, float, float], skip_zero: bool, compat: Compat | None
) -> np.ndarray:
    if not enabled:
        return np.zeros(1)
    make = overshooting_values if compat else search_values
    return make(*limits, with_zero=not skip_zero)
