"""The validated parameters of one tomogram match, and where they are read from."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PrivateAttr, ValidationError, field_validator

from cryodask.jobs.messages import input_error
from cryodask.jobs.tomogram_matching.row_source import RowSource
from cryodask.jobs.tomogram_matching.settings import (
    AngleSettings,
    Interval,
    MapNames,
    OrientationPrior,
    Positive,
    Region,
    Settings,
    SphereMask,
    TemplateSettings,
    check_symmetry,
    split_formats,
)

if TYPE_CHECKING:
    from cryodask.optics.bandpass import BandPass

COMPATIBLE: dict[str, dict[str, Any]] = {
    "stopgap": {
        "normalization": "product",
        "bandpass_interpolation": "pchip",
        "filter_average": "product",
        "interpolation": "linear",
        "statistics_grid": "exact",
        "angle_base": 1,
    },
    "cryocat": {"normalization": "support", "interpolation": "linear", "statistics_grid": "exact"},
}


class MatchParameters(Settings):
    """Everything that decides the result of matching one tomogram.

    Lengths are in angstrom, angles in degrees, `lp_rad`, `lp_sigma`, `hp_rad` and `hp_sigma` in Fourier
    pixels of the template box. The defaults are those of native parameters; a STAR file has some of its own.
    Make one with `from_native` or `read_parameters`, which check the values against each other.
    """

    tomogram: str
    level: Annotated[int, Field(ge=0)] = 0
    tomo_num: Annotated[int, Field(ge=0)] | None = None
    tomo_name: str | None = None
    tomogram_mask: str | None = None
    tilts: str | Interval | None = None
    tilt_column: Annotated[int, Field(ge=1)] | None = None
    defocus_file: str | None = None
    dose_file: str | None = None
    tilt_com: str | None = None
    template: str
    templates: tuple[TemplateSettings, ...] = ()
    mask: str | SphereMask
    symmetry: str = "C1"
    angles: AngleSettings
    names: MapNames = MapNames()

    lowpass: Positive | None = None
    lowpass_sigma: Positive | None = None
    highpass: Positive | None = None
    highpass_sigma: Positive | None = None
    lp_rad: Positive | None = None
    lp_sigma: Positive = 3.0
    hp_rad: Annotated[float, Field(ge=0)] | None = None
    hp_sigma: Positive = 2.0
    voxel_size: Positive | None = None
    binning: Positive = 1.0

    dose: Literal["none", "grant", "bfactor"] = "none"
    critical_dose: tuple[float, float, float] | None = None
    ctf: Literal["none", "amplitude", "signed"] = "none"
    defocus_hand: Literal[0, 1, -1, "file"] = 0
    laplacian: bool = False
    whiten: bool = False
    wedge: Literal["filled", "slices", "none"] = "filled"
    tilt_sign: Literal[1, -1] = 1
    tilt_weight: Literal["none", "cos"] = "none"
    bandpass_interpolation: Literal["formula", "pchip"] = "formula"
    filter_average: Literal["joint", "product"] = "joint"

    noise_correction: Literal["none", "ratio", "subtract"] = "none"
    noise_copies: Annotated[int, Field(ge=1, le=16)] = 1
    search_grid: Literal["auto", "full"] | Annotated[float, Field(gt=0, le=1)] = "auto"
    score: Literal["flcf"] = "flcf"
    region: Region | None = None
    contrast: Literal["same", "inverted"] = "same"
    normalization: Literal["weighted", "support", "product"] = "weighted"
    interpolation: Literal["cubic", "linear"] = "cubic"
    moments: bool = True
    boundary: Literal["pad", "wrap"] = "pad"
    mask_kind: Literal["auto", "spherical", "axial", "general"] = "auto"
    angle_base: Literal[0, 1] = 0
    particle_diameter: Positive | None = None
    class_by: Literal["score", "score_raw", "zscore"] | None = None
    decoy: Literal["none", "mirror"] = "none"
    statistics_grid: Literal["auto", "exact", "coarse"] = "auto"
    strategy: Literal["exhaustive", "coarse_to_fine"] = "exhaustive"
    miss_rate: Annotated[float, Field(gt=0, lt=1)] = 0.01
    false_positives: Positive = 1.0
    orientations: OrientationPrior | None = None

    compat: Literal["stopgap", "cryocat"] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    output: str = "outputs"
    formats: tuple[Literal["zarr", "mrc", "em"], ...] = ("zarr",)
    write_raw: bool = False
    root: str = "."

    _source: RowSource = PrivateAttr(default_factory=RowSource)

    _symmetry = field_validator("symmetry")(check_symmetry)
    _formats = field_validator("formats", mode="before")(split_formats)

    @field_validator("score", mode="before")
    @classmethod
    def _only_flcf(cls, value: Any) -> Any:
        if value != "flcf":
            raise ValueError("only flcf is supported")
        return value

    @field_validator("defocus_hand", "tilt_sign", "angle_base", mode="before")
    @classmethod
    def _number_from_text(cls, value: Any) -> Any:
        return int(value) if isinstance(value, str) and value.strip().lstrip("+-").isdigit() else value

    @field_validator("angles", mode="before")
    @classmethod
    def _file_or_step(cls, value: Any) -> Any:
        if isinstance(value, str | Path):
            return {"file": str(value)}
        return {"step": value} if isinstance(value, int | float) else value

    @classmethod
    def from_native(
        cls,
        mapping: Mapping[str, Any],
        *,
        defaults: Mapping[str, Any] | None = None,
        compat: str | None = None,
        source: RowSource | None = None,
    ) -> "MatchParameters":
        """Validate a mapping of native keys.

        Parameters
        ----------
        mapping
            Native keys and values, as in a YAML file. `templates` with one entry stands for `template`.
        defaults
            Values that the dialect of the file sets where the mapping does not.
        compat
            Settings of another program, `stopgap` or `cryocat`; replaces the key of that name. Explicit
            values win.
        source
            Where the mapping was written, for messages.

        Raises
        ------
        InputError
            Naming the file, the field, its value and what was expected.
        """
        from cryodask.jobs.tomogram_matching.checks import check_together, prefer_list

        source = source or RowSource()
        given = _one_template({key: _plain(value) for key, value in mapping.items()}, source)
        if compat is not None:
            given["compat"] = compat
        merged = {**(defaults or {}), **COMPATIBLE.get(str(given.get("compat")), {}), **given}
        for nested in ("angles", "names"):
            if isinstance(given.get(nested), Mapping) and defaults and nested in defaults:
                merged[nested] = {**defaults[nested], **given[nested]}
        prefer_list(merged, source)
        try:
            parameters = cls.model_validate(merged)
        except ValidationError as error:
            raise input_error(error, cls, source) from None
        parameters._source = source
        check_together(parameters)
        return parameters

    @property
    def source(self) -> RowSource:
        """Where these parameters were written."""
        return self._source

    @property
    def display_name(self) -> str:
        """The tomogram's name in tables and of native results: `tomo_name`, else the stem of its file."""
        return self.tomo_name or Path(self.tomogram).name.split(".")[0]

    def locate(self, name: str) -> str:
        """Return the absolute path (or the URL) of a name that is relative to `root`."""
        return name if "://" in name else str(Path(self.root, name).expanduser().absolute())

    def band(self, box: int, voxel_size: float) -> "BandPass | None":
        """Return the band-pass in Fourier pixels of the template box, or None where both sides are off.

        Parameters
        ----------
        box
            Edge of the template box, voxels.
        voxel_size
            Angstrom a voxel.

        Raises
        ------
        InputError
            If a radius lies outside the box.
        """
        from cryodask.jobs.tomogram_matching.checks import check_band
        from cryodask.optics.bandpass import BandPass

        check_band(self, box, voxel_size)
        if self.lowpass is None and self.highpass is None and self.lp_rad is None and self.hp_rad is None:
            return None
        edge = box * voxel_size
        low = self.lp_rad or (edge / self.lowpass if self.lowpass else math.inf)
        high = self.hp_rad if self.hp_rad is not None else (edge / self.highpass if self.highpass else 0.0)
        return BandPass(
            lp_rad=low,
            lp_sigma=self.lowpass_sigma * edge if self.lowpass_sigma else self.lp_sigma,
            hp_rad=high,
            hp_sigma=self.highpass_sigma * edge if self.highpass_sigma else self.hp_sigma,
            interpolation=self.bandpass_interpolation,
        )


def read_parameters(
    path: str | Path,
    rows: Iterable[int] | None = None,
    overrides: Mapping[str, Any] | None = None,
    compat: str | None = None,
) -> list[MatchParameters]:
    """Read the parameters of every row of a GAPSTOP STAR, a STOPGAP STAR or a native YAML file.

    Parameters
    ----------
    path
        A `.star`, `.yaml` or `.yml` file.
    rows
        0-based rows to keep; all by default.
    overrides
        Values that replace those of every row: STAR columns (in STAR files) or native keys, `angles.step`
        for a nested one.
    compat
        `stopgap` or `cryocat`; see `MatchParameters.from_native`.

    Raises
    ------
    InputError
        If the file, a row or a value is wrong.
    """
    from cryodask.errors import InputError

    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.suffix.lower() in (".yaml", ".yml"):
        from cryodask.jobs.tomogram_matching.native_dialect import read_rows
    else:
        from cryodask.jobs.tomogram_matching.star_dialect import read_rows
    found = read_rows(path, overrides or {})
    chosen = list(range(len(found))) if rows is None else list(rows)
    missing = [row for row in chosen if not 0 <= row < len(found)]
    if missing:
        raise InputError(f"{path.name}: no row {missing[0]} (has rows 0 to {len(found) - 1})")
    parsed = [found[row]() for row in chosen]
    return [
        MatchParameters.from_native(mapping, defaults=defaults, compat=compat, source=source)
        for mapping, defaults, source in parsed
    ]


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _one_template(mapping: dict[str, Any], source: RowSource) -> dict[str, Any]:
    """Put the first of `templates` in the place of `template`, and leave a single one out of the list."""
    templates = mapping.get("templates")
    if not isinstance(templates, list | tuple) or not templates:
        return mapping
    if "template" in mapping:
        raise source.error("template and templates given, choose one")
    first = templates[0]
    if not isinstance(first, Mapping):
        raise source.error("templates: expected a list of {name, template, mask, symmetry, angles}")
    kept = {key: value for key, value in mapping.items() if key != "templates"}
    if len(templates) > 1:
        # a template without rotations of its own takes those of the job, not those of the first template
        common = {"angles": mapping["angles"]} if "angles" in mapping else {}
        kept["templates"] = [
            common | dict(entry) if isinstance(entry, Mapping) else entry for entry in templates
        ]
    return {**kept, **{key: value for key, value in first.items() if key != "name"}}
