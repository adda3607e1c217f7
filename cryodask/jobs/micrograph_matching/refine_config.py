"""The configuration of particle refinement: Leopard-EM's ``refine_template`` YAML, and our own block."""

from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator

from cryodask.jobs.block import Configuration
from cryodask.jobs.micrograph_matching.computing_block import ComputationalConfig
from cryodask.jobs.micrograph_matching.filter_block import PreprocessingFilters
from cryodask.jobs.micrograph_matching.optics_block import DefocusSearch
from cryodask.jobs.micrograph_matching.particle_blocks import (
    OrientationRefinement,
    OwnParticleOptions,
    ParticleStack,
    PixelSizeRefinement,
    no_movies,
)

C = TypeVar("C", bound="ParticleConfig")


class ParticleConfig(Configuration):
    """What the configurations of the jobs on particles have in common.

    Paths are relative to the working folder, as in Leopard-EM. Make one with `from_yaml` or `from_mapping`,
    whose errors are one line with file, field, value and expectation.
    """

    template_volume_path: str
    preprocessing_filters: PreprocessingFilters = PreprocessingFilters()
    computational_config: ComputationalConfig = ComputationalConfig()
    cryodask: OwnParticleOptions = OwnParticleOptions()

    def with_own(self: C, **options: Any) -> C:
        """Return the configuration with options of the `cryodask` block set; None leaves what is written."""
        given = {name: value for name, value in options.items() if value is not None}
        changed = self.model_copy(update={"cryodask": self.cryodask.model_copy(update=given)})
        changed._source = self._source
        return changed


class RefineConfig(ParticleConfig):
    """Refinement of known particles: orientation, defocus, pixel size and position."""

    particle_stack: ParticleStack
    defocus_refinement_config: DefocusSearch = DefocusSearch()
    orientation_refinement_config: OrientationRefinement = OrientationRefinement()
    pixel_size_refinement_config: PixelSizeRefinement = PixelSizeRefinement()
    apply_global_filtering: bool = True
    movie_config: Annotated[dict[str, Any] | None, AfterValidator(no_movies)] = None
