"""The configuration of template optimisation: Leopard-EM's YAML, and our own block."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from cryodask.jobs.block import Block, PositiveAngstrom, limited, refuse
from cryodask.jobs.messages import FieldError
from cryodask.jobs.micrograph_matching.optics_block import PixelSizeSearch
from cryodask.jobs.micrograph_matching.particle_blocks import ParticleStack
from cryodask.jobs.micrograph_matching.refine_config import ParticleConfig

NO_DETECTOR = "templates are made without a detector; use ttsim3d and give its map as template_volume_path"


class SimulatorConfig(Block):
    """How a template is made of an atomic model: dose in electrons per square angstrom, voltage in kV."""

    voltage: Annotated[float, limited(lambda v: 60 <= v <= 1000, "60 to 1000 kV")] = 300.0
    apply_dose_weighting: bool = True
    dose_start: Annotated[float, Field(ge=0)] = 0.0
    dose_end: Annotated[float, Field(gt=0)] = 30.0
    dose_filter_modify_signal: Literal["None", "sqrt", "rel_diff"] = "None"
    upsampling: int = -1
    apply_dqe: bool = False
    mtf_reference: str | None = None
    crit_exposure_bfactor: Annotated[float | None, refuse("leave crit_exposure_bfactor out", None, -1)] = -1
    leaf_size: Annotated[float | None, refuse("leave leaf_size out", None)] = None
    store_volume_gpu: bool = False

    @model_validator(mode="after")
    def _check_dose(self) -> "SimulatorConfig":
        if self.dose_end <= self.dose_start:
            raise FieldError(
                "dose_end", self.dose_end, f"expected more than dose_start = {self.dose_start:g}"
            )
        return self


class Simulator(Block):
    """The atomic model, and the volume that it becomes."""

    pdb_filepath: str
    volume_shape: tuple[int, int, int]
    pixel_spacing: PositiveAngstrom
    simulator_config: SimulatorConfig = SimulatorConfig()
    b_factor_scaling: Annotated[float, Field(ge=0)] = 1.0
    additional_b_factor: float = 0.0
    center_atoms: Annotated[bool, refuse("atoms are centred", True)] = True
    remove_hydrogens: bool = True

    @model_validator(mode="after")
    def _check_cube(self) -> "Simulator":
        if len(set(self.volume_shape)) != 1 or self.volume_shape[0] % 2 or self.volume_shape[0] <= 0:
            raise FieldError("volume_shape", list(self.volume_shape), "expected a cube of even edge")
        return self


class CoarseSearch(PixelSizeSearch):
    """Template voxel sizes relative to the given one, angstrom."""

    enabled: bool = True


class FineSearch(PixelSizeSearch):
    """Template voxel sizes relative to the best of the coarse search, angstrom."""

    enabled: bool = True
    pixel_size_min: float = -0.005
    pixel_size_max: float = 0.005
    pixel_size_step: PositiveAngstrom = 0.001


class OptimizeConfig(ParticleConfig):
    """The voxel size at which a template fits the particles best."""

    template_volume_path: str | None = None  # type: ignore[assignment]
    simulator: Simulator | None = None
    particle_stack: ParticleStack
    pixel_size_coarse_search: CoarseSearch = CoarseSearch()
    pixel_size_fine_search: FineSearch = FineSearch()
    apply_global_filtering: bool = True

    @model_validator(mode="after")
    def _one_template(self) -> "OptimizeConfig":
        if (self.simulator is None) == (self.template_volume_path is None):
            raise FieldError("simulator", "...", "expected one of simulator and template_volume_path")
        return self
