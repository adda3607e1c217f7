"""The configuration of matching one micrograph with one template: Leopard-EM's keys, and our own block."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from cryodask.jobs.block import Block, Configuration, PositiveAngstrom, limited, refuse
from cryodask.jobs.messages import FieldError
from cryodask.jobs.micrograph_matching.computing_block import ComputationalConfig
from cryodask.jobs.micrograph_matching.filter_block import PreprocessingFilters
from cryodask.jobs.micrograph_matching.optics_block import Compat, DefocusSearch, OpticsGroup, PixelSizeSearch
from cryodask.jobs.micrograph_matching.orientation_block import OrientationSearch, OrientationSearches

USE_ZARR = "the Zarr result (-o) holds every map"


class MatchTemplateResult(Block):
    """Map files to write, MRC mode 2."""

    allow_file_overwrite: bool = False
    mip_path: str
    scaled_mip_path: str
    correlation_average_path: str
    correlation_variance_path: str
    orientation_psi_path: str
    orientation_theta_path: str
    orientation_phi_path: str
    relative_defocus_path: str
    total_projections: int = 0
    total_orientations: int = 0
    total_defocus: int = 0
    hdf5_path: Annotated[str | None, refuse(USE_ZARR, None)] = None
    compress: Annotated[bool | None, refuse(USE_ZARR, None)] = None
    correlation_table_path: Annotated[str | None, refuse(USE_ZARR, None)] = None

    @property
    def paths(self) -> dict[str, str]:
        """The map files, by key."""
        return {key: value for key, value in self if key.endswith("_path") and value is not None}


class TemplateModel(Block):
    """How a template is made of an atomic model."""

    box: Annotated[int, limited(lambda v: v > 0 and v % 2 == 0, "an even edge in voxels")]
    b_factor_scaling: Annotated[float, Field(ge=0)] = 1.0
    additional_b_factor: float = 0.0


class OwnOptions(Block):
    """What cryodask adds to Leopard-EM's configuration."""

    template_pixel_size: Literal["same", "ignore_header"] | PositiveAngstrom = "same"
    pixel_size_search_config: PixelSizeSearch = PixelSizeSearch()
    padding: Literal[1, 2] = 1
    gridding: Literal["none", "sinc2"] = "none"
    template_model: TemplateModel | None = None
    statistics: Literal["moments", "local"] = "moments"
    histogram: bool = False
    crop: Literal["valid", "same"] = "valid"
    bin_to: PositiveAngstrom | None = None
    strategy: Literal["exhaustive", "coarse_to_fine"] = "exhaustive"
    miss_rate: Annotated[float, limited(lambda v: 0 < v < 1, "a probability between 0 and 1")] = 0.01
    clip_sigma: Annotated[float, limited(lambda v: v > 0, "more than 0")] | None = None
    mask_path: str | None = None
    orientation_batch_size: Annotated[int, Field(ge=1)] | None = None
    tile: Annotated[int, limited(lambda v: v > 0 and v % 2 == 0, "an even edge in pixels")] | None = None
    spectra: Annotated[Literal["single", "half"], refuse("spectra are of single precision", "single")] = (
        "single"
    )
    seed: Annotated[int, Field(ge=0)] = 0
    assume_symmetry: bool = False
    zernike_radius: Literal["corner", "inverse_angstrom"] = "corner"
    compat: Compat | None = None
    name: str | None = None
    template_name: str | None = None


class MatchConfig(Configuration):
    """Matching of one micrograph with one template.

    A Leopard-EM ``match_template`` YAML is valid as it is; the `cryodask` block holds what it lacks. Paths
    are relative to the working folder, as there. Make one with `from_yaml` or `from_mapping`, whose errors
    are one line with file, field, value and expectation.
    """

    template_volume_path: str
    micrograph_path: str
    match_template_result: MatchTemplateResult | None = None
    optics_group: OpticsGroup
    defocus_search_config: DefocusSearch = DefocusSearch()
    orientation_search_config: OrientationSearch | OrientationSearches = OrientationSearch()
    preprocessing_filters: PreprocessingFilters = PreprocessingFilters()
    computational_config: ComputationalConfig = ComputationalConfig()
    movie_config: dict[str, Any] | None = None
    cryodask: OwnOptions = OwnOptions()

    @field_validator("orientation_search_config", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        """Choose the model by its keys, so that a wrong value is reported for the right one."""
        if isinstance(value, Mapping):
            model = OrientationSearches if "orientation_configs" in value else OrientationSearch
            return model.model_validate(value)
        return value

    @field_validator("movie_config")
    @classmethod
    def _no_movies(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value and value.get("enabled"):
            raise ValueError("not supported, align the movie first and leave movie_config out")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> "MatchConfig":
        if self.cryodask.bin_to is not None and self.cryodask.crop == "same":
            text = "not supported beside bin_to, which pads the image; use crop: valid"
            raise FieldError("cryodask.crop", "same", text)
        if self.cryodask.strategy == "coarse_to_fine":
            self._check_coarse_to_fine()
        limits = self.cryodask.pixel_size_search_config
        if limits.enabled and self.optics_group.pixel_size + limits.pixel_size_min <= 0:
            text = f"expected more than -{self.optics_group.pixel_size:g}, the pixel size"
            raise FieldError("cryodask.pixel_size_search_config.pixel_size_min", limits.pixel_size_min, text)
        return self

    def _check_coarse_to_fine(self) -> None:
        """Refuse what two stages do not make."""
        own = self.cryodask
        others = {"crop": own.crop == "same", "histogram": own.histogram, "compat": own.compat is not None}
        for name, given in others.items():
            if given:
                text = "not supported beside strategy: coarse_to_fine, use strategy: exhaustive"
                raise FieldError(f"cryodask.{name}", getattr(own, name), text)

    def run(self, output: str | Path | None = None, *, resume: bool = False, overwrite: bool = False) -> Path:
        """Search, store the result and write its maps, on the active Dask cluster or on threads.

        Parameters
        ----------
        output
            The result, ending in ``.zarr``; beside the maps by default.
        resume, overwrite
            Continue an unfinished result; replace one of that name.

        Returns
        -------
        pathlib.Path
            The result, for `cryodask.open_result`.
        """
        from cryodask.jobs.micrograph_matching.planning import Resources
        from cryodask.jobs.micrograph_matching.runs import execute, open_runs

        resources = Resources(batch=self.cryodask.orientation_batch_size)
        target = None if output is None else Path(output)
        runs = open_runs([self], resources, output=target, resume=resume, overwrite=overwrite)
        return execute(runs, resources=resources)[0]

    @property
    def micrograph_name(self) -> str:
        """The micrograph's name in results and tables: the stem of its file unless given."""
        return self.cryodask.name or Path(self.micrograph_path).stem

    @property
    def template_name(self) -> str:
        """The template's name: the stem of its file unless given."""
        return self.cryodask.template_name or Path(self.template_volume_path).name.split(".")[0]
