"""The block of orientations to search."""

from typing import Literal

import numpy as np
from pydantic import field_validator, model_validator

from cryodask.errors import InputError
from cryodask.geometry.zyz_grids import OrientationGrid, symmetry_limits
from cryodask.jobs.block import Block, PositiveDegrees
from cryodask.jobs.messages import FieldError

_RANGES = ("phi_min", "phi_max", "theta_min", "theta_max", "psi_min", "psi_max")


class OrientationSearch(Block):
    """One grid of orientations: a symmetry, or ranges (degrees)."""

    base_grid_method: Literal["uniform", "healpix", "cartesian"] = "uniform"
    psi_step: PositiveDegrees = 1.5
    theta_step: PositiveDegrees = 2.5
    symmetry: str | None = "C1"
    phi_min: float | None = None
    phi_max: float | None = None
    theta_min: float | None = None
    theta_max: float | None = None
    psi_min: float | None = None
    psi_max: float | None = None

    @field_validator("symmetry")
    @classmethod
    def _known_group(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                symmetry_limits(value)
            except InputError:
                raise ValueError("expected C<n>, D<n>, T, O or I") from None
        return value

    @field_validator("base_grid_method", mode="before")
    @classmethod
    def _no_basic(cls, value: object) -> object:
        if value == "basic":
            raise ValueError("not supported, use uniform, healpix or cartesian")
        return value

    @model_validator(mode="after")
    def _one_of_both(self) -> "OrientationSearch":
        given = self.given_ranges
        if given and "symmetry" in self.model_fields_set and self.symmetry is not None:
            text = f"given beside {given[0]} = {getattr(self, given[0]):g}; give one, set the other to null"
            raise FieldError("symmetry", self.symmetry, text)
        for name in ("phi", "theta", "psi"):
            low, high = self._range(name)
            if high < low:
                raise FieldError(f"{name}_max", high, f"expected at least {name}_min = {low:g}")
        return self

    @property
    def given_ranges(self) -> list[str]:
        """The ends of ranges that are set."""
        return [name for name in _RANGES if getattr(self, name) is not None]

    @property
    def group(self) -> str | None:
        """The symmetry in use: None where ranges are given."""
        return None if self.given_ranges else self.symmetry

    def grid(self) -> OrientationGrid:
        """Return the grid."""
        return OrientationGrid(
            psi_step=self.psi_step,
            theta_step=self.theta_step,
            symmetry=self.group,
            base=self.base_grid_method,
            phi=self._range("phi"),
            theta=self._range("theta"),
            psi=self._range("psi"),
        )

    def angles(self) -> np.ndarray:
        """Return the grid's (N, 3) angles phi, theta, psi, degrees."""
        return self.grid().angles()

    @property
    def groups(self) -> tuple[str, ...]:
        """The symmetries that the template must have."""
        return (self.group,) if self.group else ()

    def _range(self, name: str) -> tuple[float, float]:
        low, high = getattr(self, f"{name}_min"), getattr(self, f"{name}_max")
        full = 180.0 if name == "theta" else 360.0
        return 0.0 if low is None else low, full if high is None else high


class OrientationSearches(Block):
    """Several grids, one after the other; orientations in more than one count each time."""

    orientation_configs: tuple[OrientationSearch, ...]

    @field_validator("orientation_configs")
    @classmethod
    def _not_empty(cls, value: tuple[OrientationSearch, ...]) -> tuple[OrientationSearch, ...]:
        if not value:
            raise ValueError("expected at least one grid")
        return value

    def angles(self) -> np.ndarray:
        """Return the (N, 3) angles of all grids, degrees."""
        return np.concatenate([grid.angles() for grid in self.orientation_configs])

    @property
    def groups(self) -> tuple[str, ...]:
        """The symmetries that the template must have."""
        return tuple(group for grid in self.orientation_configs for group in grid.groups)
