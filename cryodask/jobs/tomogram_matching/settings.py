"""The parts of a tomogram job's parameters: rotations, masks, regions and names of maps."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

POINT_GROUPS = "Cn, Dn, T, T3, O, I, I1, I2"
UNSET_WORDS = ("", "none", "nan", "<na>", "null")

Positive = Annotated[float, Field(gt=0)]
Degrees180 = Annotated[float, Field(gt=0, le=180)]
Degrees360 = Annotated[float, Field(gt=0, le=360)]
Interval = tuple[float, float]


def check_symmetry(name: str) -> str:
    """Return the name of a point group in its usual spelling.

    Raises
    ------
    ValueError
        If it is none of Cn, Dn (n from 1 to 99), T, T3, O, I, I1, I2.
    """
    group = name.strip().upper()
    if not re.fullmatch(r"[CD][1-9]\d?|T|T3|O|I|I1|I2", group):
        raise ValueError(f"expected {POINT_GROUPS}")
    return group


def is_unset(value: Any) -> bool:
    """Return whether a value as written means that nothing was set."""
    return value is None or (isinstance(value, str) and value.strip().lower() in UNSET_WORDS)


class Settings(BaseModel):
    """Base of all settings: unknown keys are refused, values are finite and never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _drop_unset(cls, data: Any) -> Any:
        """Leave out keys that are unset (`none`, `nan`, `<NA>`, empty) unless `none` is itself a choice."""
        if not isinstance(data, Mapping):
            return data
        kept = {key: "none" if cls.chooses_none(key, value) else value for key, value in data.items()}
        return {
            key: value for key, value in kept.items() if not is_unset(value) or cls.chooses_none(key, value)
        }

    @classmethod
    def chooses_none(cls, key: str, value: Any) -> bool:
        """Return whether `none` is one of the choices of a field and the value is that."""
        field = cls.model_fields.get(key)
        choices = get_args(field.annotation) if field and get_origin(field.annotation) is Literal else ()
        return "none" in choices and (value is None or str(value).strip().lower() == "none")


class AngleSettings(Settings):
    """Rotations to search: a list in a file, or a grid made from a step or from sizes (section of grids)."""

    file: str | None = None
    units: Literal["degree", "radian"] | None = None
    order: Literal["zxz", "zzx", "relion"] = "zxz"
    step: Degrees180 | None = None
    method: Literal["healpix", "golden", "rings"] = "healpix"
    cone: Degrees180 | None = None
    inplane_step: Degrees360 | None = None
    inplane_range: Degrees180 | None = None
    diameter: Positive | None = None
    resolution: Positive | None = None


class SphereMask(Settings):
    """A spherical mask: radius and width of its soft edge, angstrom."""

    sphere: Positive
    edge: Annotated[float, Field(ge=0)] = 0.0


class Region(Settings):
    """The part of the tomogram to search, [low, high] an axis, angstrom; unset axes are searched whole."""

    z: Interval | None = None
    y: Interval | None = None
    x: Interval | None = None

    @field_validator("z", "y", "x")
    @classmethod
    def _rising(cls, interval: Interval | None) -> Interval | None:
        if interval is not None and interval[0] >= interval[1]:
            raise ValueError("expected [low, high] with low < high")
        return interval


class MapNames(Settings):
    """Roots of the names of output maps."""

    score: str = "scores"
    angles: str = "angles"
    noise: str = "noise"

    @field_validator("score", "angles", "noise")
    @classmethod
    def _plain(cls, name: str) -> str:
        if "/" in name or "\\" in name:
            raise ValueError("expected a name without path separators")
        return name

    @model_validator(mode="after")
    def _different(self) -> "MapNames":
        names = [self.score, self.angles, self.noise]
        if len(set(names)) < len(names):
            raise ValueError(f"expected three different names, found {', '.join(names)}")
        return self


class TemplateSettings(Settings):
    """One of several templates."""

    name: str | None = None
    template: str
    mask: str | SphereMask
    symmetry: str = "C1"
    angles: AngleSettings | None = None

    _symmetry = field_validator("symmetry")(check_symmetry)


class OrientationPrior(Settings):
    """Search each voxel only near the orientation of the nearest seed of a table."""

    near: str
    cone: Degrees180 | None = None
    inplane_range: Degrees180 | None = None
    reach: Positive | None = None


def split_formats(value: Any) -> Any:
    """Return the map formats of a comma-separated text or a list, without their dots."""
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list | tuple):
        return value
    return tuple(dict.fromkeys(str(name).strip().lstrip(".").lower() for name in names))
