"""The configuration of a constrained search: Leopard-EM's YAML, and our own block."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import field_validator, model_validator

from cryodask.geometry.local_grid import roll_angles
from cryodask.geometry.zyz import zyz_matrices
from cryodask.geometry.zyz_grids import OrientationGrid
from cryodask.jobs.block import Block, PositiveDegrees
from cryodask.jobs.messages import FieldError
from cryodask.jobs.micrograph_matching.optics_block import DefocusSearch
from cryodask.jobs.micrograph_matching.particle_blocks import OwnParticleOptions, ParticleStack
from cryodask.jobs.micrograph_matching.refine_config import ParticleConfig

Vector = tuple[float, float, float]


class ConstrainedOrientation(Block):
    """How the second particle may turn about an axis of the first, degrees."""

    enabled: bool = True
    rotation_axis_euler_angles: Vector = (0.0, 0.0, 0.0)
    phi_step: PositiveDegrees | None = None
    theta_step: PositiveDegrees = 2.5
    psi_step: PositiveDegrees = 1.5
    phi_min: float = 0.0
    phi_max: float = 360.0
    theta_min: float = 0.0
    theta_max: float = 180.0
    psi_min: float = 0.0
    psi_max: float = 360.0
    base_grid_method: Literal["uniform", "healpix", "roll"] = "uniform"
    search_roll_axis: bool = True
    roll_axis: tuple[float, float] | None = (0.0, 1.0)
    roll_step: PositiveDegrees = 2.0

    @field_validator("base_grid_method", mode="before")
    @classmethod
    def _no_basic(cls, value: object) -> object:
        if value == "basic":
            raise ValueError("not supported, use uniform, healpix or roll")
        return value

    @model_validator(mode="after")
    def _check_ranges(self) -> "ConstrainedOrientation":
        for name in ("phi", "theta", "psi"):
            low, high = getattr(self, f"{name}_min"), getattr(self, f"{name}_max")
            if high < low:
                raise FieldError(f"{name}_max", high, f"expected at least {name}_min = {low:g}")
        if self.base_grid_method == "roll" and not self.search_roll_axis and not any(self.roll_axis or ()):
            raise FieldError("roll_axis", self.roll_axis, "expected a direction [x, y] that is not 0")
        return self

    def angles(self) -> np.ndarray:
        """Return the angles of G, (N, 3): phi, theta, psi, degrees; the identity alone where it is off."""
        if not self.enabled:
            return np.zeros((1, 3))
        theta, psi = (self.theta_min, self.theta_max), (self.psi_min, self.psi_max)
        if self.base_grid_method == "roll":
            return roll_angles(self._rolls(), theta, self.theta_step, psi, self.psi_step)
        grid = OrientationGrid(
            psi_step=self.psi_step,
            theta_step=self.theta_step,
            symmetry=None,
            base=self.base_grid_method,
            phi=(self.phi_min, self.phi_max),
            theta=theta,
            psi=psi,
        )
        return grid.angles()

    def turns(self) -> np.ndarray:
        """Return Q G Q^T, (N, 3, 3): E of the second particle is a turn times E of the first."""
        axis = zyz_matrices(np.array([self.rotation_axis_euler_angles]))[0]
        return axis @ zyz_matrices(self.angles()) @ axis.T

    def _rolls(self) -> np.ndarray:
        if self.search_roll_axis or self.roll_axis is None:
            return np.arange(0.0, 180.0, self.roll_step)
        return np.array([np.degrees(np.arctan2(self.roll_axis[1], self.roll_axis[0]))])


class OwnConstrainedOptions(OwnParticleOptions):
    """What cryodask adds: the frame of the second template, and the sign of the beam axis."""

    template_frame: Literal["common", "own"] = "common"
    defocus_hand: Literal[1, -1] = 1


class ConstrainedConfig(ParticleConfig):
    """Search of a second particle (B) at a known place beside a first (A)."""

    center_vector: Vector = (0.0, 0.0, 0.0)
    particle_stack_reference: ParticleStack
    particle_stack_constrained: ParticleStack
    orientation_refinement_config: ConstrainedOrientation = ConstrainedOrientation()
    defocus_refinement_config: DefocusSearch = DefocusSearch()
    cryodask: OwnConstrainedOptions = OwnConstrainedOptions()

    @model_validator(mode="before")
    @classmethod
    def _either_name(cls, value: Any) -> Any:
        """Take defocus_search_config for defocus_refinement_config, as in Leopard-EM's own example."""
        if isinstance(value, Mapping) and "defocus_search_config" in value:
            if "defocus_refinement_config" in value:
                text = "given beside defocus_refinement_config; leave one out"
                raise FieldError("defocus_search_config", "...", text)
            value = dict(value)
            value["defocus_refinement_config"] = value.pop("defocus_search_config")
        return value
