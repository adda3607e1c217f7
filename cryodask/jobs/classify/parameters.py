"""The validated parameters of a classification, under the names of ISAC's options where it has them."""

import math
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cryodask.errors import InputError
from cryodask.jobs.classify.acceptance import Rule
from cryodask.jobs.messages import Source, input_error

# What --compat isac2 takes where the user says nothing else.
ISAC2: dict[str, Any] = {
    "filter": "tanh",
    "capacity_slack": 0.0,
    "whiten_noise": False,
    "search": "exact",
    "runs": 1,
    "validate_by": "stability",
    "junk_rate": 0.0,
    "margin": "none",
    "splits": 0,
    "passes": 6,
    "iter_reali": 1,
    "maxit": 30,
}
LEAST_SHARE = 0.6  # of the images of a class: the default of its least size
Positive = Annotated[float, Field(gt=0)]


class ClassifyParameters(BaseModel):
    """Everything that decides a classification, besides the images.

    Lengths are pixels: of the input for `radius`, of the working images (where the particle has radius
    `target_radius`) for `xr`, `yr`, `ts` and `thld_err`; frequencies are cycles per working pixel.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    radius: float
    img_per_grp: int | None = None
    classes: Annotated[int, Field(ge=2)] | None = None
    ctf: Literal["flip", "none"] | None = None
    xr: Annotated[float, Field(ge=0, le=8)] = 1.0
    yr: Annotated[float, Field(ge=-1, le=8)] = -1.0
    ts: Annotated[float, Field(ge=0.25)] = 1.0
    thld_err: Positive = 0.7
    target_radius: Annotated[int, Field(ge=8, le=200)] = 29
    target_nx: int = 76
    ir: Annotated[int, Field(ge=1)] = 1
    rs: Annotated[int, Field(ge=1, le=4)] = 1
    maxit: Annotated[int, Field(ge=2, le=100)] = 10
    dst: float = 0.0
    FL: float = 0.2
    FH: float = 0.45
    FF: Annotated[float, Field(gt=0, le=1)] = 0.2
    init_iter: Annotated[int, Field(ge=1, le=50)] = 7
    generations: int = -1
    stab_ali: Annotated[int, Field(ge=2, le=20)] = 5
    minimum_grp_size: int = -1
    seed: Annotated[int, Field(ge=0)] = 0
    skip_prealignment: bool = False
    skip_ordering: bool = False
    use_origins: bool = False
    invert: bool = False
    runs: Annotated[int, Field(ge=1, le=16)] = 3
    capacity_slack: Annotated[float, Field(ge=0, le=1)] = 0.3
    junk_rate: Annotated[float, Field(ge=0, le=0.2)] = 0.005
    agreement: Annotated[float, Field(ge=0, le=1)] = 0.5
    validate_by: Rule = "auto"
    margin: float | Literal["none"] = -1.0
    filter: Literal["wiener", "tanh"] = "wiener"
    search: Literal["fast", "exact"] = "fast"
    vpp: bool = False
    center_method: Annotated[int, Field(ge=-1, le=7)] = 0
    whiten_noise: bool = True
    passes: Annotated[int, Field(ge=2, le=200)] = 12
    splits: Annotated[int, Field(ge=0, le=200)] = 20
    averages: Literal["full", "working", "none"] = "full"
    iter_reali: Annotated[int, Field(ge=0)] = 0
    compat: Literal["isac2"] | None = None
    isac_files: bool = False
    filament_width: float = -1.0
    filament_mask_ignore: bool = False

    @property
    def y_range(self) -> float:
        """Search range along y, working pixels."""
        return self.xr if self.yr == -1 else self.yr

    @property
    def rho(self) -> float:
        """Working radius over input radius."""
        return self.target_radius / self.radius

    @property
    def working_box(self) -> int:
        """Edge L of working images: even."""
        return 2 * math.ceil((self.target_nx + max(self.xr, self.y_range) - 1) / 2)

    @property
    def least_margin(self) -> float:
        """Margin that an image must reach."""
        return -np.inf if self.margin == "none" else float(self.margin)

    def class_size(self, images: int) -> int:
        """Return n_g, the images of a class."""
        if self.classes is not None:
            return images // self.classes
        return max(50, images // 200) if self.img_per_grp in (None, -1) else int(self.img_per_grp or 0)

    def least_size(self, class_size: int) -> int:
        """Return g_min, the least images of an accepted class."""
        if self.minimum_grp_size == -1:
            return max(2, int(LEAST_SHARE * class_size))
        return self.minimum_grp_size


class OptionNames(Source):
    """Messages in the words of the command line."""

    def label(self, key: str) -> str:
        """Return the option's name."""
        return {"validate_by": "validate"}.get(key, key)


def make_parameters(values: dict[str, Any]) -> ClassifyParameters:
    """Return validated parameters; keys that are None take their default.

    Raises
    ------
    InputError
        A value of the wrong type or out of its range, or values that do not fit together.
    """
    given = {key: value for key, value in values.items() if value is not None}
    if given.get("compat") == "isac2":
        given = ISAC2 | given
    try:
        parameters = ClassifyParameters(**given)
    except ValidationError as error:
        raise input_error(error, ClassifyParameters, OptionNames()) from None
    _check_search(parameters)
    _check_filter(parameters)
    _check_filament(parameters)
    if parameters.vpp and parameters.ctf == "flip":
        raise InputError("give one of --CTF, --VPP")
    if parameters.classes is not None and parameters.img_per_grp not in (None, -1):
        raise InputError("give one of --classes, --img_per_grp")
    if parameters.runs == 1 and parameters.validate_by in ("members", "views"):
        raise InputError(f"{parameters.validate_by} needs --runs >= 2")
    if parameters.generations != -1 and parameters.generations < 1:
        raise InputError(f"generations = {parameters.generations}: expected -1 (no limit) or >= 1")
    return parameters


def _check_search(p: ClassifyParameters) -> None:
    if p.yr < 0 and p.yr != -1:
        raise InputError(f"yr = {p.yr:g}: expected 0 <= yr <= 8, or -1 for that of xr")
    for name, value in (("xr", p.xr), ("yr", p.y_range)):
        if abs(value / p.ts - round(value / p.ts)) > 1e-6:
            raise InputError(f"{name} = {value:g}: expected a multiple of ts = {p.ts:g}")
    if p.ts > max(p.xr, p.y_range, 0.25):
        raise InputError(f"ts = {p.ts:g}: expected 0.25 <= ts <= xr = {p.xr:g}")
    least = 2 * (p.target_radius + math.ceil(max(p.xr, p.y_range)) + 1)
    if p.target_nx < least:
        reason = f"2 ({p.target_radius} + {max(p.xr, p.y_range):g} + 1)"
        raise InputError(f"target_nx = {p.target_nx}: expected >= {least} = {reason}")
    if p.ir >= p.target_radius:
        raise InputError(f"ir = {p.ir}: expected 1 <= ir < target_radius = {p.target_radius}")
    if p.dst and (p.dst < 0 or abs(360 / p.dst - round(360 / p.dst)) > 1e-9):
        raise InputError(f"dst = {p.dst:g}: expected 0 or a divisor of 360")


def _check_filament(p: ClassifyParameters) -> None:
    if p.filament_width != -1 and not 2 <= p.filament_width <= 2 * p.radius:
        raise InputError(
            f"filament_width = {p.filament_width:g}: expected 2..{2 * p.radius:g} (2 radius, radius = "
            f"{p.radius:g}), or -1 for particles"
        )
    if p.filament_mask_ignore and p.filament_width == -1:
        raise InputError("filament_mask_ignore needs --filament_width")


def _check_filter(p: ClassifyParameters) -> None:
    if not 0 < p.FL <= p.FH <= 0.5:
        raise InputError(f"FL = {p.FL:g}, FH = {p.FH:g}: expected 0 < FL <= FH <= 0.5")


def check_against_images(
    p: ClassifyParameters, *, count: int, box: int, has_defocus: bool, columns: str
) -> None:
    """Check parameters that depend on the stack.

    Parameters
    ----------
    p : ClassifyParameters
    count, box : int
        Images, and pixels along their edges.
    has_defocus : bool
    columns : str
        Columns found, for the message.

    Raises
    ------
    InputError
    """
    most = box / 2 - 1
    if not 1 < p.radius <= most:
        raise InputError(f"radius = {p.radius:g}: expected 1 < radius <= {most:g} (box {box})")
    if p.ctf == "flip" and not has_defocus:
        raise InputError(f"--CTF needs rlnDefocusU (columns found: {columns})")
    size = p.class_size(count)
    if p.img_per_grp not in (None, -1) and size < 2:
        raise InputError(f"img_per_grp = {p.img_per_grp}: expected 2 <= img_per_grp <= {count // 2}")
    if size < 2 or count < 2 * size:
        raise InputError(f"{count} images make fewer than 2 classes of {size}; at most {count // 2}")
    if p.minimum_grp_size != -1 and not 2 <= p.minimum_grp_size <= size:
        raise InputError(f"minimum_grp_size = {p.minimum_grp_size}: expected 2..{size} (img_per_grp)")
