"""Tilt series as Warp and WarpTools keep them (XML)."""

import codecs
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from cryodask.errors import InputError
from cryodask.io.tilt_checks import MICROMETRE, checked_angles, checked_defocus
from cryodask.optics.tilts import TiltSeries

WORDS = {"true": True, "false": False}
HALF_TURN = 180.0


def read_warp(path: Path) -> TiltSeries:
    """Read a tilt series of Warp; tilts that are not used are left out.

    Warp counts tilt angles in the opposite sense, so their sign is changed. The defocus gradient across the
    tomogram has the sign 1 with AreAnglesInverted, else -1.

    Parameters
    ----------
    path
        XML in UTF-8 or UTF-16, whatever its first line says.

    Raises
    ------
    InputError
        No XML; another root than TiltSeries; no Angles; a table or grid that has not one value a tilt.
    """
    root = _root(path)
    angles = 0.0 - _numbers(path, root, "Angles")
    used = _used(path, root, len(angles))
    dose = _numbers(path, root, "Dose") if _text(root, "Dose") else None
    if dose is not None and len(dose) != len(angles):
        raise InputError(f"{path.name}: {len(dose)} dose values for {len(angles)} tilts")
    defocus = _grid(path, root, "GridCTF", "defocus", len(angles))
    phase = _grid(path, root, "GridCTFPhase", "phase shift", len(angles))
    # an XML from before the CTF was fitted holds zeros
    fitted = defocus is not None and defocus.any()
    return TiltSeries(
        angles=checked_angles(path, angles[used]),
        exposure=dose[used] if dose is not None and dose.any() else None,
        defocus=checked_defocus(path, MICROMETRE * defocus[used]) if defocus is not None and fitted else None,
        phase_shift=HALF_TURN * phase[used] if phase is not None and fitted else None,
        voltage=_parameter(path, root, "Voltage") or 300.0,
        cs=_or_default(_parameter(path, root, "Cs"), 2.7),
        amplitude_contrast=_or_default(_parameter(path, root, "Amplitude"), 0.07),
        pixel_size=_parameter(path, root, "PixelSize"),
        defocus_hand=1 if _truth(path, "AreAnglesInverted", root.get("AreAnglesInverted", "False")) else -1,
    )


def _root(path: Path) -> ElementTree.Element:
    try:
        # a text, so that an encoding named in the first line cannot contradict the bytes
        root = ElementTree.fromstring(_decoded(path.read_bytes()))
    except (ElementTree.ParseError, UnicodeError) as error:
        raise InputError(f"{path.name}: no readable XML ({error})") from None
    if root.tag != "TiltSeries":
        raise InputError(f"{path.name}: XML of {root.tag}, expected TiltSeries")
    return root


def _decoded(content: bytes) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    if b"\0" in content[:4]:
        return content.decode("utf-16-be" if content.startswith(b"\0") else "utf-16-le")
    return content.decode("utf-8-sig")


def _text(root: ElementTree.Element, name: str) -> str:
    return (root.findtext(name) or "").strip()


def _numbers(path: Path, root: ElementTree.Element, name: str) -> np.ndarray:
    words = _text(root, name).split()
    if not words:
        raise InputError(f"{path.name}: no {name}")
    return np.array([_number(path, name, word) for word in words])


def _number(path: Path, name: str, word: str | None) -> float:
    try:
        value = float(word or "")
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise InputError(f"{path.name}: {name} = {word}, expected a number")
    return value


def _truth(path: Path, name: str, word: str) -> bool:
    if word.lower() not in WORDS:
        raise InputError(f"{path.name}: {name} = {word}, expected True or False")
    return WORDS[word.lower()]


def _used(path: Path, root: ElementTree.Element, tilts: int) -> np.ndarray:
    words = _text(root, "UseTilt").split()
    if not words:
        return np.ones(tilts, dtype=bool)
    if len(words) != tilts:
        raise InputError(f"{path.name}: {len(words)} UseTilt values for {tilts} tilts")
    return np.array([_truth(path, "UseTilt", word) for word in words])


def _grid(path: Path, root: ElementTree.Element, name: str, label: str, tilts: int) -> np.ndarray | None:
    """Return the mean of a grid over x and y for each tilt; a grid of one layer holds for all tilts."""
    grid = root.find(name)
    if grid is None or not len(grid):
        return None
    layer = np.array([round(_number(path, f"{name} Z", node.get("Z"))) for node in grid])
    values = np.array([_number(path, name, node.get("Value")) for node in grid])
    layers = np.unique(layer)
    means = np.array([values[layer == place].mean() for place in layers])
    if len(means) == 1:
        return np.repeat(means, tilts)
    if len(means) != tilts:
        raise InputError(f"{path.name}: {len(means)} {label} values for {tilts} tilts ({name})")
    return means


def _parameter(path: Path, root: ElementTree.Element, name: str) -> float | None:
    entry = root.find(f"CTF/Param[@Name='{name}']")
    return None if entry is None else _number(path, f"CTF {name}", entry.get("Value"))


def _or_default(value: float | None, default: float) -> float:
    return default if value is None else value
