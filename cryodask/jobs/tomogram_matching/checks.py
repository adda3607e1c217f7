"""Checks of parameters against each other, against their files, and against what this release does."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryodask.jobs.tomogram_matching.row_source import RowSource
from cryodask.jobs.tomogram_matching.settings import is_unset

if TYPE_CHECKING:
    from cryodask.jobs.tomogram_matching.parameters import MatchParameters
    from cryodask.optics.tilts import TiltSeries

log = logging.getLogger("cryodask")

INCREMENTS = ("step", "cone", "inplane_step", "inplane_range", "diameter", "resolution")


def prefer_list(mapping: dict[str, Any], source: RowSource) -> None:
    """Leave the increments out of `mapping["angles"]` where a list is given too, with a warning."""
    angles = mapping.get("angles")
    if not isinstance(angles, Mapping) or is_unset(angles.get("file")):
        return
    given = [name for name in INCREMENTS if not is_unset(angles.get(name))]
    if given:
        listed = source.label("angles.file")
        log.warning(
            "row %d: %s and %s given, using %s",
            source.row,
            listed,
            source.label(f"angles.{given[0]}"),
            listed,
        )
        mapping["angles"] = {key: value for key, value in angles.items() if key not in INCREMENTS}


def check_together(parameters: "MatchParameters") -> None:
    """Check values that depend on each other.

    Raises
    ------
    InputError
        Naming both fields.
    """
    _check_filters(parameters)
    _check_angles(parameters)
    _check_wedge(parameters)
    _check_optics(parameters)
    _check_orientations(parameters)
    _check_strategy(parameters)


def _check_strategy(parameters: "MatchParameters") -> None:
    """Refuse what a coarse-to-fine search cannot do, and its settings without it."""
    source = parameters.source
    if parameters.strategy == "exhaustive":
        for key in ("miss_rate", "false_positives"):
            if key in parameters.model_fields_set:
                text = "is of strategy: coarse_to_fine alone"
                raise source.wrong(key, f"{getattr(parameters, key):g}", text)
        return
    refused = {
        "noise_correction": parameters.noise_correction != "none",
        "search_grid": parameters.search_grid != "auto",
        "orientations": parameters.orientations is not None,
    }
    for key, is_given in refused.items():
        if is_given:
            value = getattr(parameters, key)
            other = source.label(key) + (f" = {value}" if isinstance(value, str | float) else "")
            raise source.wrong("strategy", parameters.strategy, f"does not go with {other}")


def _check_orientations(parameters: "MatchParameters") -> None:
    """Refuse seeds that restrict nothing, and what does not go with them."""
    prior, source = parameters.orientations, parameters.source
    if prior is None:
        return
    if prior.cone is None and prior.inplane_range is None and prior.reach is None:
        text = "restricts nothing without cone, inplane_range or reach"
        raise source.wrong("orientations.near", prior.near, text)


def _check_filters(parameters: "MatchParameters") -> None:
    source, written = parameters.source, parameters.model_fields_set
    if parameters.noise_copies > 1 and parameters.noise_correction == "none":
        raise source.wrong(
            "noise_copies", parameters.noise_copies, "needs noise_correction ratio or subtract"
        )
    for pixels, angstrom in (
        ("lp_rad", "lowpass"),
        ("hp_rad", "highpass"),
        ("lp_sigma", "lowpass_sigma"),
        ("hp_sigma", "highpass_sigma"),
    ):
        if {pixels, angstrom} <= written:
            raise source.error(f"{pixels} and {angstrom} given, choose one")
    low, high = parameters.lp_rad, parameters.hp_rad
    if low is not None and high is not None and high >= low:
        raise source.wrong("hp_rad", f"{high:g}", f"expected less than lp_rad = {low:g}")
    if parameters.lowpass and parameters.highpass and parameters.highpass <= parameters.lowpass:
        raise source.wrong(
            "highpass", f"{parameters.highpass:g}", f"expected more than lowpass = {parameters.lowpass:g}"
        )


def _check_angles(parameters: "MatchParameters") -> None:
    source, angles = parameters.source, parameters.angles
    if angles.file is None and angles.step is None and angles.diameter is None:
        if source.dialect == "star":
            raise source.error("anglist_name or angincr is required")
        raise source.error("angles: one of file, step and diameter is required")
    if angles.step is not None and angles.diameter is not None:
        raise source.error(f"{source.label('angles.step')} and angles.diameter given, choose one")


def _check_wedge(parameters: "MatchParameters") -> None:
    source, tilts = parameters.source, parameters.tilts
    if isinstance(tilts, tuple) and not -90 <= tilts[0] < tilts[1] <= 90:
        raise source.wrong("tilts", list(tilts), "expected [min, max] with -90 <= min < max <= 90")
    if parameters.wedge == "slices" and not isinstance(tilts, str):
        raise source.wrong("wedge", "slices", f"needs every tilt's angle, a file in {source.label('tilts')}")
    for key in ("defocus_file", "dose_file", "tilt_com"):
        if getattr(parameters, key) and not isinstance(tilts, str):
            name = getattr(parameters, key)
            raise source.wrong(key, name, f"needs the tilts it belongs to, a file in {source.label('tilts')}")


def _check_optics(parameters: "MatchParameters") -> None:
    """Refuse settings of filters that are off, which would change nothing."""
    source = parameters.source
    if parameters.critical_dose is not None and parameters.dose != "grant":
        raise source.wrong("critical_dose", list(parameters.critical_dose), "needs dose = grant")
    if parameters.defocus_hand != 0 and parameters.ctf == "none":
        raise source.wrong("defocus_hand", parameters.defocus_hand, f"needs {source.label('ctf')}")


def check_band(parameters: "MatchParameters", box: int, voxel_size: float | None = None) -> None:
    """Check the filter radii against the template box.

    Parameters
    ----------
    box
        Edge of the template box, voxels.
    voxel_size
        Angstrom a voxel; without it lengths in angstrom are not checked.

    Raises
    ------
    InputError
        E.g. `lp_rad = 40: expected 0 < lp_rad <= 24`.
    """
    source, low = parameters.source, parameters.lp_rad
    if low is not None and low > box / 2:
        raise source.wrong("lp_rad", f"{low:g}", f"expected 0 < lp_rad <= {box / 2:g}")
    if voxel_size is None:
        return
    length = parameters.lowpass
    # 1e-6: a voxel size from a float32 header must not refuse its own Nyquist length
    if length is not None and length < 2 * voxel_size * (1 - 1e-6):
        raise source.wrong("lowpass", f"{length:g}", f"expected at least two voxels, {2 * voxel_size:g}")


def check_supported(rows: Iterable["MatchParameters"]) -> None:
    """Refuse what needs several templates where there is one.

    Raises
    ------
    InputError
        Naming the field.
    """
    for parameters in rows:
        source = parameters.source
        if parameters.class_by is not None and not parameters.templates:
            raise source.wrong("class_by", parameters.class_by, "needs several templates")


def check_tilts(parameters: "MatchParameters", tilts: "TiltSeries | None") -> None:
    """Check that the tilt series has the columns which the switched-on filters need.

    Raises
    ------
    InputError
        E.g. `calc_ctf = True needs column defocus`.
    """
    source = parameters.source
    for key, column in (("ctf", "defocus"), ("dose", "exposure")):
        value = getattr(parameters, key)
        if value == "none":
            continue
        is_switch = source.label(key) != key
        shown = "True" if is_switch else value
        if tilts is None or getattr(tilts, column) is None:
            raise source.error(f"{source.label(key)} = {shown} needs column {column}")
    if parameters.tilt_weight != "none" and (tilts is None or tilts.is_range):
        needed = f"needs every tilt's angle, a file in {source.label('tilts')}"
        raise source.wrong("tilt_weight", parameters.tilt_weight, needed)
    if parameters.defocus_hand == "file" and (tilts is None or tilts.defocus_hand is None):
        raise source.wrong("defocus_hand", "file", f"{source.label('tilts')} gives no hand, expected 1 or -1")


def check_files(parameters: "MatchParameters") -> None:
    """Check that the root and every input file exist.

    Raises
    ------
    InputError
        E.g. `tomo_name = t9.mrc: no such file (looked in /data)`.
    """
    source = parameters.source
    root = Path(parameters.root).expanduser().absolute()
    if not root.is_dir():
        raise source.wrong("root", parameters.root, "no such directory")
    names = {
        "tomogram": parameters.tomogram,
        "tomogram_mask": parameters.tomogram_mask,
        "tilts": parameters.tilts,
        "defocus_file": parameters.defocus_file,
        "dose_file": parameters.dose_file,
        "tilt_com": parameters.tilt_com,
        "template": parameters.template,
        "mask": parameters.mask,
        "angles.file": parameters.angles.file,
    }
    if parameters.orientations is not None:
        names["orientations.near"] = parameters.orientations.near
    for number, entry in enumerate(parameters.templates):
        names |= {f"templates.{number}.template": entry.template, f"templates.{number}.mask": entry.mask}
    for key, name in names.items():
        if not isinstance(name, str) or "://" in name:
            continue
        path = Path(parameters.locate(name))
        if not path.exists():
            folder = path.parent if Path(name).is_absolute() else root
            raise source.wrong(key, name, f"no such file (looked in {folder})")
