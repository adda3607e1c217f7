"""The configuration of a likelihood job: images, structures, grid, likelihood, what to keep."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from cryodask.errors import InputError
from cryodask.geometry.symmetry import symmetry_group
from cryodask.jobs.block import Block
from cryodask.jobs.likelihood.bioem import is_bioem_file, read_bioem_parameters
from cryodask.jobs.likelihood.contrast_points import CtfIntegration
from cryodask.jobs.messages import FieldError, Source, input_error
from cryodask.jobs.yaml_file import read_mapping

Level = Literal["best", "likelihood", "summary", "template", "rotation", "displacement", "full", "top"]
Files = Literal["zarr", "star", "csv", "png", "matrix", "cryolike", "bioem"]

COMPATIBLE: dict[str, dict[str, Any]] = {
    "cryolike": {
        "likelihood": {
            "effective_samples": "pixels",
            "offset": "template",
            "scale": "free",
            "axes": "cryolike",
            "astigmatism": "absolute",
            "zero_weight": "equal",
            "ctf_bfactor": "ignored",
        },
        "image_options": {"downsample_method": "mean"},
        "atoms": {"weight": "shape", "template_offset": "gaussian"},
    },
    "bioem": {
        "image_options": {"optics": "none"},
        "likelihood": {
            "effective_samples": "pixels",
            "noise_prior": "sigma",
            "scale": "free",
            "axes": "bioem",
            "zero_weight": "never",
        },
        "grid": {"rotations_from_file": True},
        "atoms": {
            "model": "residue_sphere",
            "projection": "pixels",
            "template_offset": "none",
            "centre": "mass",
        },
    },
}


class ImageOptions(Block):
    """How images are read."""

    root: str | None = None
    pixel_size: Annotated[float, Field(gt=0)] | None = None
    box: Annotated[int, Field(ge=8)] | None = None
    select: str = "all"
    contrast: Literal["white", "dark"] = "white"
    n_stacks: Literal["all"] | Annotated[int, Field(ge=1)] = "all"
    downsample: Annotated[int, Field(ge=1)] = 1
    downsample_method: Literal["crop", "mean", "max"] = "crop"
    optics: Literal["file", "none"] | dict[str, float] = "file"

    @field_validator("downsample")
    @classmethod
    def _even(cls, value: int) -> int:
        if value != 1 and value % 2:
            raise ValueError("expected 1 or an even factor")
        return value


class StructureSettings(Block):
    """One structure, or the models of one file."""

    name: str | None = None
    path: str
    kind: Literal["map", "atoms", "text", "templates"] | None = None
    models: Literal["first", "all"] | str = "first"
    i_template: Literal["all"] | int | tuple[int, ...] = "all"
    select: str | None = None
    voxel_size: Annotated[float, Field(gt=0)] | None = None
    symmetry: str = "C1"
    prior: Annotated[float, Field(gt=0)] = 1.0

    @field_validator("symmetry")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            symmetry_group(value)
        except InputError as error:
            raise ValueError(str(error)) from None
        return value


class Healpix(Block):
    """Views at HEALPix centres."""

    healpix: Annotated[int, Field(ge=1, le=64)]


class Step(Block):
    """Views at a step in degrees."""

    step: Annotated[float, Field(ge=1.2, le=115)]


class Listed(Block):
    """Views, or orientations, of a file."""

    file: str


class BioemEuler(Block):
    """BioEM's grid of Euler angles: points of alpha and gamma, points of cos beta."""

    bioem_euler: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]


class Grid(Block):
    """Frequencies, rotations, displacements, views."""

    resolution_factor: Annotated[float, Field(gt=0, le=1)] | None = None
    resolution: Annotated[float, Field(gt=0)] | None = None
    n_inplanes: int | None = None
    precision: Literal["single", "double"] = "single"
    max_displacement_pixels: Annotated[float, Field(ge=0)] = 8.0
    n_displacements_x: int = 17
    n_displacements_y: int = 17
    viewing_distance: float | Step | Healpix | Listed | BioemEuler | None = None
    rotations_from_file: bool = False
    list_kind: Literal["auto", "quaternion", "euler"] = "auto"

    @field_validator("resolution_factor", mode="before")
    @classmethod
    def _factor(cls, value: Any) -> Any:
        if isinstance(value, int | float) and not 0 < value <= 1:
            raise ValueError("expected 0 < resolution_factor <= 1")
        return value

    @field_validator("n_inplanes")
    @classmethod
    def _even(cls, value: int | None) -> int | None:
        if value is not None and (value < 8 or value % 2):
            raise ValueError("expected an even number >= 8")
        return value

    @field_validator("viewing_distance", mode="before")
    @classmethod
    def _radians(cls, value: Any) -> Any:
        if isinstance(value, int | float) and not 0.02 <= value <= 1:
            raise ValueError("expected 0.02..1")
        if isinstance(value, Mapping):
            kinds: dict[str, type[Block]] = {"healpix": Healpix, "file": Listed, "bioem_euler": BioemEuler}
            kind = next((kinds[key] for key in kinds if key in value), Step)
            return kind.model_validate(value)
        return value

    @model_validator(mode="after")
    def _one_limit(self) -> "Grid":
        if self.resolution is not None and self.resolution_factor is not None:
            raise FieldError("resolution", self.resolution, "give resolution or resolution_factor, not both")
        return self


class Atoms(Block):
    """How atoms become templates."""

    model: Literal["residue_gaussian", "residue_sphere", "atom_gaussian", "atom_sphere", "scattering"] = (
        "residue_gaussian"
    )
    radius: Literal["table"] | Annotated[float, Field(gt=0)] | dict[str, float] = "table"
    selection: str = "name CA"
    weight: Literal["electrons", "shape"] = "electrons"
    b_factor: Annotated[float, Field(ge=0)] = 0.0
    hydrogens: bool = False
    centre: Literal["mean", "mass", "none"] = "mean"
    template_offset: Literal["all", "gaussian", "none"] = "all"
    projection: Literal["slices", "pixels"] = "slices"


class Gaussian(Block):
    """A Gaussian prior of the displacements, standard deviation in angstrom."""

    gaussian: Annotated[float, Field(gt=0)]


class LikelihoodOptions(Block):
    """What the likelihood is."""

    score: Literal["cc", "posterior"] = "cc"
    scale: Literal["positive", "free"] = "positive"
    offset: Literal["exact", "template", "none"] = "exact"
    effective_samples: Literal["disc", "pixels"] | Annotated[float, Field(ge=8)] = "disc"
    noise_prior: Literal["variance", "sigma", "jeffreys"] = "variance"
    noise: Literal["white"] = "white"
    credible: Annotated[float, Field(ge=0.5, le=0.999)] = 0.95
    displacement_prior: Literal["uniform"] | Gaussian = "uniform"
    displacement_centre: Literal["box", "star"] = "box"
    zero_weight: Literal["zero", "equal", "never"] = "zero"
    view_weights: Literal["log", "raw"] = "log"
    axes: Literal["relion", "cryolike", "bioem"] = "relion"
    orientation_prior: Literal["quadrature", "file"] = "quadrature"
    astigmatism: Literal["signed", "absolute"] = "signed"
    ctf_bfactor: Literal["applied", "ignored"] = "applied"


class LikelihoodParameters(Block):
    """Everything that decides a likelihood result. Lengths in angstrom, angles in degrees unless a key says
    radians.

    Make one with `read_likelihood` or `from_mapping`, whose errors are one line.
    """

    images: str | tuple[str, ...]
    image_options: ImageOptions = ImageOptions()
    structures: Annotated[tuple[StructureSettings, ...], Field(min_length=1)]
    grid: Grid = Grid()
    atoms: Atoms = Atoms()
    likelihood: LikelihoodOptions = LikelihoodOptions()
    ctf_integration: CtfIntegration | None = None
    keep: tuple[Level, ...] = ("best", "likelihood", "summary")
    top: Annotated[int, Field(ge=1, le=1000)] = 10
    output: str | None = None
    files: tuple[Files, ...] = ("zarr",)
    ignore_aberrations: bool = False

    _source: Source = PrivateAttr(default_factory=Source)

    @field_validator("structures", mode="before")
    @classmethod
    def _mapping(cls, value: Any) -> Any:
        """Accept {name: path} beside a list."""
        if isinstance(value, Mapping):
            return [{"name": str(name), "path": str(path)} for name, path in value.items()]
        return value

    @field_validator("keep", mode="before")
    @classmethod
    def _levels(cls, value: Any) -> Any:
        words = [value] if isinstance(value, str) else list(value)
        for word in words:
            if word not in get_args(Level):
                raise ValueError(f"expected {', '.join(get_args(Level))}")
        return words

    @property
    def image_paths(self) -> tuple[str, ...]:
        """The stacks, one or more."""
        return (self.images,) if isinstance(self.images, str) else self.images

    @property
    def source(self) -> Source:
        """Where the configuration was written."""
        return self._source

    @classmethod
    def from_mapping(
        cls, content: Mapping[str, Any], *, file: str = "", compat: str | None = None
    ) -> "LikelihoodParameters":
        """Validate a configuration; explicit values win over those of `compat`.

        Raises
        ------
        InputError
            One line with file, field, value and expectation.
        """
        source = Source(file)
        merged = {key: value for key, value in content.items() if key != "compat"}
        name = compat or content.get("compat")
        if name is not None:
            if name not in COMPATIBLE:
                raise source.wrong("compat", name, f"expected {', '.join(COMPATIBLE)}")
            for block, values in COMPATIBLE[name].items():
                merged[block] = values | dict(merged.get(block) or {})
        try:
            parameters = cls.model_validate(merged)
        except ValidationError as error:
            raise input_error(error, cls, source) from None
        parameters._source = source
        return parameters


def read_likelihood(
    path: str | Path, *, overrides: Mapping[str, Any] | None = None, compat: str | None = None
) -> LikelihoodParameters:
    """Read a YAML configuration; paths in it are relative to its folder.

    Raises
    ------
    InputError
        A wrong value or key, on one line.
    """
    path = Path(path)
    content = read_bioem_parameters(path) if is_bioem_file(path) else read_mapping(path)
    content = _overridden(content, dict(overrides or {}))
    parameters = LikelihoodParameters.from_mapping(content, file=path.name, compat=compat)
    folder = path.absolute().parent
    found = parameters.model_copy(
        update={
            "images": tuple(str(folder / path) for path in parameters.image_paths),
            "structures": tuple(
                each.model_copy(update={"path": str(folder / each.path)}) for each in parameters.structures
            ),
            "output": str(folder / parameters.output) if parameters.output else None,
            "grid": _placed(parameters.grid, folder),
        }
    )
    found._source = Source(path.name)
    return found


def _overridden(content: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with values of the command line, which may name parts of a block.

    `prior` is that of every structure, as in BioEM's files.
    """
    merged = dict(content)
    prior = merged.pop("prior", None)
    for key, value in overrides.items():
        own = merged.get(key)
        merged[key] = own | value if isinstance(own, dict) and isinstance(value, dict) else value
    if prior is not None:
        merged["structures"] = [{"prior": prior} | dict(each) for each in merged.get("structures", [])]
    return merged


def _placed(grid: Grid, folder: Path) -> Grid:
    """Return a grid whose file is relative to a folder."""
    listed = grid.viewing_distance
    if not isinstance(listed, Listed):
        return grid
    return grid.model_copy(update={"viewing_distance": Listed(file=str(folder / listed.file))})
