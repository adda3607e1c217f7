"""The blocks that the jobs on particles share."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from cryodask.geometry.local_grid import LocalGrid
from cryodask.jobs.block import Block, PositiveAngstrom, PositiveDegrees, limited, refuse
from cryodask.jobs.messages import FieldError
from cryodask.jobs.micrograph_matching.config import USE_ZARR
from cryodask.jobs.micrograph_matching.optics_block import Compat, PixelSizeSearch

NonNegativeDegrees = Annotated[float, limited(lambda v: v >= 0, "at least 0 degrees")]
Edges = tuple[int, int]


class ParticleStack(Block):
    """A table of particles, and the box in the micrograph that each is compared in."""

    df_path: str
    extracted_box_size: Edges
    original_template_size: Edges
    hdf5_path: Annotated[str | None, refuse(USE_ZARR, None)] = None

    @model_validator(mode="after")
    def _check_box(self) -> "ParticleStack":
        height, width = self.extracted_box_size
        if height != width or height % 2 or height <= 0:
            raise FieldError("extracted_box_size", [height, width], "expected an even, square box")
        edge = max(self.original_template_size)
        if self.original_template_size != (edge, edge):
            expected = f"expected the template's edge twice, such as [{edge}, {edge}]"
            raise FieldError("original_template_size", list(self.original_template_size), expected)
        if height <= edge:
            expected = f"expected more than the template's edge of {edge} px (4 to 24 px more)"
            raise FieldError("extracted_box_size", [height, width], expected)
        return self

    @property
    def box(self) -> int:
        """Edge of the box, pixels."""
        return self.extracted_box_size[0]

    @property
    def template_edge(self) -> int:
        """Edge of the template, pixels."""
        return self.original_template_size[0]


class OrientationRefinement(Block):
    """Turns around the known orientation: ranges (coarse) and steps (fine), degrees."""

    enabled: bool = True
    theta_step_coarse: NonNegativeDegrees = 2.5
    theta_step_fine: PositiveDegrees = 0.25
    psi_step_coarse: NonNegativeDegrees = 1.5
    psi_step_fine: PositiveDegrees = 0.1
    phi_step_coarse: NonNegativeDegrees = 2.5
    phi_step_fine: NonNegativeDegrees = 0.25
    base_grid_method: Literal["uniform"] = "uniform"

    @field_validator("base_grid_method", mode="before")
    @classmethod
    def _uniform_only(cls, value: object) -> object:
        if value in ("healpix", "basic"):
            raise ValueError("not supported, use uniform")
        return value

    @property
    def grid(self) -> LocalGrid:
        """The local grid; the pose alone where it is off."""
        if not self.enabled:
            return LocalGrid(0.0, 1.0, 0.0, 1.0)
        return LocalGrid(
            self.theta_step_coarse, self.theta_step_fine, self.psi_step_coarse, self.psi_step_fine
        )

    @property
    def gives_phi(self) -> bool:
        """Whether steps of phi are written, which have no effect."""
        return bool({"phi_step_coarse", "phi_step_fine"} & self.model_fields_set)


class PixelSizeRefinement(PixelSizeSearch):
    """Pixel sizes relative to the particle's own, angstrom."""

    pixel_size_min: float = -0.005
    pixel_size_max: float = 0.005
    pixel_size_step: PositiveAngstrom = 0.001


class OwnParticleOptions(Block):
    """What cryodask adds to the jobs on particles."""

    template_pixel_size: Literal["same", "ignore_header"] | PositiveAngstrom = "same"
    padding: Literal[1, 2] = 1
    gridding: Literal["none", "sinc2"] = "sinc2"
    orientation_batch_size: Annotated[int, Field(ge=1)] = 64
    seed: Annotated[int, Field(ge=0)] = 0
    zernike_radius: Literal["corner", "inverse_angstrom"] = "corner"
    correlation_variance_is: Literal["std", "variance"] | None = None
    compat: Compat | None = None


def no_movies(value: dict[str, Any] | None) -> dict[str, Any] | None:
    """Refuse movies; a block that is off or absent is nothing."""
    if value and value.get("enabled"):
        raise ValueError("not supported, align the movie first and leave movie_config out")
    return value
