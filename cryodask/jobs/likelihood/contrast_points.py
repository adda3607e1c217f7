"""The grid of CTF parameters that a likelihood is integrated over, as BioEM has it."""

import math
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from cryodask.jobs.block import Block
from cryodask.kernels.cartesian_likelihood import Contrast
from cryodask.optics.ctf import electron_wavelength
from cryodask.optics.ctf_image import ImageCtf, ctf_at

MOST_POINTS = 1000


class CtfIntegration(Block):
    """Grids of CTF parameters: [from, to, points, prior's centre, prior's standard deviation].

    The points are from + i (to - from) / points; `to` itself is left out. Defocus in angstrom, where its
    centre is "star" an offset from the image's own; `b_envelope` in A^2, exp(-b kappa^2 / 2).
    """

    defocus: tuple[float, float, int, float | Literal["star"], float] | None = None
    b_envelope: tuple[float, float, int, float, float] | None = None
    amplitude: tuple[float, float, int, float, float] | None = None
    prior_signs: Literal["right", "bioem"] = "right"
    wavelength: Annotated[float, Field(ge=0.015, le=0.06)] | None = None

    @field_validator("defocus", "b_envelope", "amplitude")
    @classmethod
    def _grid(cls, value: Any) -> Any:
        if value is None:
            return value
        low, high, count, _, sigma = value
        if not (high >= low and count >= 1 and sigma > 0):
            raise ValueError("expected [from, to >= from, points >= 1, centre, sigma > 0]")
        return value

    @field_validator("amplitude")
    @classmethod
    def _fraction(cls, value: Any) -> Any:
        if value is not None and not (value[0] >= 0 and _points(value)[-1] <= 1):
            raise ValueError("expected amplitudes in 0..1")
        return value

    @model_validator(mode="after")
    def _any(self) -> "CtfIntegration":
        if self.defocus is None and self.b_envelope is None and self.amplitude is None:
            raise ValueError("expected at least one of defocus, b_envelope, amplitude")
        if self.points > MOST_POINTS:
            raise ValueError(f"{self.points} CTFs, expected at most {MOST_POINTS}")
        return self

    @property
    def points(self) -> int:
        """Number of combinations."""
        return math.prod(g[2] for g in (self.defocus, self.b_envelope, self.amplitude) if g is not None)


def _points(grid: Any) -> np.ndarray:
    low, high, count = grid[:3]
    return low + np.arange(count) * (high - low) / count


@dataclass(frozen=True)
class ContrastPoints:
    """The combinations of an integral over CTFs, amplitude fastest; one point stands for the CTF as it is.

    Parameters
    ----------
    defocus, b_envelope, amplitude : (points,)
        NaN where an image's own value is kept.
    is_offset
        Whether the defocus is added to the image's own.
    log_prior : (points,)
        Normalised.
    amplitudes
        Points of the amplitude, 1 where it is not integrated over.
    """

    defocus: np.ndarray
    b_envelope: np.ndarray
    amplitude: np.ndarray
    is_offset: bool
    log_prior: np.ndarray
    amplitudes: int

    def __len__(self) -> int:
        return len(self.log_prior)

    @property
    def is_paired(self) -> bool:
        """Whether two planes serve all amplitudes."""
        return self.amplitudes > 1

    @property
    def planes(self) -> int:
        """Planes of the CTF that an image needs."""
        return len(self) // self.amplitudes * (2 if self.is_paired else 1)

    def contrast(self, ky: np.ndarray, kx: np.ndarray, optics: ImageCtf | None) -> Contrast:
        """Return the planes at frequencies (cycles per pixel) for an image's optics; None for no CTF."""
        shape = np.broadcast_shapes(ky.shape, kx.shape)
        if optics is None:
            return Contrast(np.ones((1, *shape)), np.array([[1.0, 0.0]]), np.zeros(1, int))
        planes = []
        for point in range(0, len(self), self.amplitudes):
            own = self._optics(optics, point)
            if self.is_paired:
                planes += [ctf_at(ky, kx, _with(own, amplitude_contrast=a)) for a in (0.0, 1.0)]
            else:
                planes.append(ctf_at(ky, kx, own))
        if not self.is_paired:
            mix = np.stack([np.ones(len(self)), np.zeros(len(self))], axis=1)
            return Contrast(np.stack(planes), mix, np.arange(len(self)))
        a = self.amplitude
        first = 2 * (np.arange(len(self)) // self.amplitudes)
        return Contrast(np.stack(planes), np.stack([np.sqrt(1 - a * a), a], axis=1), first)

    def _optics(self, optics: ImageCtf, point: int) -> ImageCtf:
        u, v = optics.defocus_u, optics.defocus_v
        if not np.isnan(self.defocus[point]):
            moved = self.defocus[point] if self.is_offset else self.defocus[point] - (u + v) / 2
            u, v = u + moved, v + moved
        b = 0.0 if np.isnan(self.b_envelope[point]) else 2 * self.b_envelope[point]
        a = self.amplitude[point]
        a = optics.amplitude_contrast if np.isnan(a) else a
        return _with(
            optics, defocus_u=u, defocus_v=v, b_factor=optics.b_factor + b, amplitude_contrast=float(a)
        )


def _with(optics: ImageCtf, **changes: Any) -> ImageCtf:
    return replace(optics, **changes)


def contrast_points(settings: CtfIntegration | None) -> ContrastPoints:
    """Return the points of an integral, or the single one of the CTF as it is."""
    if settings is None:
        nan = np.full(1, np.nan)
        return ContrastPoints(nan, nan, nan, False, np.zeros(1), 1)
    grids = settings.defocus, settings.b_envelope, settings.amplitude
    axes = [np.array([np.nan]) if g is None else _points(g) for g in grids]
    priors = []
    for name, grid, axis in zip(("defocus", "b_envelope", "amplitude"), grids, axes, strict=True):
        if grid is None:
            priors.append(np.zeros(1))
            continue
        centre = 0.0 if grid[3] == "star" else float(grid[3])
        exponent = -((axis - centre) ** 2) / (2 * grid[4] ** 2)
        is_added = settings.prior_signs == "bioem" and name != "b_envelope"  # as BioEM 2.1 has it
        priors.append(-exponent if is_added else exponent)
    defocus, b, amplitude = (each.ravel() for each in np.meshgrid(*axes, indexing="ij"))
    total = sum(each.ravel() for each in np.meshgrid(*priors, indexing="ij"))
    log_prior = np.asarray(total) - np.logaddexp.reduce(total)
    is_offset = settings.defocus is not None and settings.defocus[3] == "star"
    return ContrastPoints(defocus, b, amplitude, is_offset, log_prior, len(axes[2]))


def voltage_of(wavelength: float) -> float:
    """Return the voltage (kV) of electrons of a wavelength (angstrom)."""
    from scipy.optimize import brentq

    return float(brentq(lambda kv: electron_wavelength(kv) - wavelength, 20.0, 3000.0, xtol=1e-12))
