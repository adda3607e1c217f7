"""The configuration of particle refinement: Leopard-EM's ``refine_template`` YAML, and our own block."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, PrivateAttr, ValidationError

from cryodask.jobs.messages import Source, input_error
from cryodask.jobs.micrograph_matching.block import Block
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


class ParticleConfig(Block):
    """What the configurations of the jobs on particles have in common.

    Paths are relative to the working folder, as in Leopard-EM. Make one with `from_yaml` or `from_mapping`,
    whose errors are one line with file, field, value and expectation.
    """

    template_volume_path: str
    preprocessing_filters: PreprocessingFilters = PreprocessingFilters()
    computational_config: ComputationalConfig = ComputationalConfig()
    cryodask: OwnParticleOptions = OwnParticleOptions()

    _source: Source = PrivateAttr(default_factory=Source)

    @classmethod
    def from_mapping(cls: type[C], mapping: Mapping[str, Any], *, source: Source | None = None) -> C:
        """Validate a mapping of keys.

        Raises
        ------
        InputError
            Naming the file, the field, its value and what was expected.
        """
        source = source or Source()
        try:
            config = cls.model_validate(dict(mapping))
        except ValidationError as error:
            raise input_error(error, cls, source) from None
        config._source = source
        return config

    @classmethod
    def from_yaml(cls: type[C], path: str | Path) -> C:
        """Read a YAML or JSON file.

        Raises
        ------
        InputError
            No such file, no mapping, or a wrong value.
        """
        from cryodask.jobs.yaml_file import read_mapping

        return cls.from_mapping(read_mapping(path), source=Source(Path(path).name))

    def with_own(self: C, **options: Any) -> C:
        """Return the configuration with options of the `cryodask` block set; None leaves what is written."""
        given = {name: value for name, value in options.items() if value is not None}
        changed = self.model_copy(update={"cryodask": self.cryodask.model_copy(update=given)})
        changed._source = self._source
        return changed

    @property
    def source(self) -> Source:
        """Where this configuration was written."""
        return self._source


class RefineConfig(ParticleConfig):
    """Refinement of known particles: orientation, defocus, pixel size and position."""

    particle_stack: ParticleStack
    defocus_refinement_config: DefocusSearch = DefocusSearch()
    orientation_refinement_config: OrientationRefinement = OrientationRefinement()
    pixel_size_refinement_config: PixelSizeRefinement = PixelSizeRefinement()
    apply_global_filtering: bool = True
    movie_config: Annotated[dict[str, Any] | None, AfterValidator(no_movies)] = None
