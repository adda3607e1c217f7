"""Metadata of SerialEM (``.mdoc``): stage angles and dose of each tilt."""

import logging
import re
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np

from cryodask.errors import InputError
from cryodask.io.files import require_exists
from cryodask.io.tilt_checks import checked_angles
from cryodask.optics.tilts import TiltSeries

log = logging.getLogger(__name__)

SECTION = re.compile(r"\[\s*(\w+)\s*=")
DATES = ("%d-%b-%y %H:%M:%S", "%d-%b-%Y %H:%M:%S", "%Y-%b-%d %H:%M:%S")


@dataclass
class _Section:
    line: int
    entries: dict[str, tuple[int, str]] = field(default_factory=dict)


def read_mdoc(path: Path) -> TiltSeries:
    """Read the tilts of an mdoc file, sorted by angle, each with its dose.

    The dose by the end of a tilt is PriorRecordDose + ExposureDose; where the former is missing, ExposureDose
    summed in the order of DateTime.

    Raises
    ------
    InputError
        No ZValue section; a section without TiltAngle; a value that is no number; no DateTime where needed.
    """
    heading, tilts = _sections(path)
    if not tilts:
        raise InputError(f"{path.name}: no [ZValue] section")
    angles = np.array([_number(path, tilt, "TiltAngle") for tilt in tilts])
    order = np.argsort(angles, kind="stable")
    exposure = _exposure(path, tilts)
    voltage = {"voltage": _number(path, heading, "Voltage")} if "Voltage" in heading.entries else {}
    return TiltSeries(
        angles=checked_angles(path, angles[order]),
        exposure=None if exposure is None else exposure[order],
        voltage=voltage.get("voltage", 300.0),
    )


def _sections(path: Path) -> tuple[_Section, list[_Section]]:
    """Return what stands before the first section, and the sections of tilts."""
    current = heading = _Section(1)
    tilts: list[_Section] = []
    text = require_exists(path).read_text(encoding="utf-8-sig", errors="replace")
    for number, line in enumerate(text.splitlines(), start=1):
        section = SECTION.match(line.strip())
        if section and section.group(1) == "ZValue":
            current = _Section(number)
            tilts.append(current)
        elif section and section.group(1) != "T":
            # montage pieces and the like are no tilts
            current = _Section(number)
        elif not section and "=" in line:
            key, _, value = line.partition("=")
            current.entries[key.strip()] = (number, value.strip())
    return heading, tilts


def _exposure(path: Path, tilts: list[_Section]) -> np.ndarray | None:
    if not any("ExposureDose" in tilt.entries for tilt in tilts):
        log.info("%s: no ExposureDose, so no dose", path.name)
        return None
    dose = np.array([_number(path, tilt, "ExposureDose") for tilt in tilts])
    if not dose.any():
        log.info("%s: ExposureDose is 0 at every tilt, so no dose", path.name)
        return None
    if all("PriorRecordDose" in tilt.entries for tilt in tilts):
        prior = np.array([_number(path, tilt, "PriorRecordDose") for tilt in tilts])
        # SerialEM writes 0 everywhere where it did not count
        if prior.any():
            return prior + dose
    order = np.argsort(np.array([_time(path, tilt) for tilt in tilts]), kind="stable")
    total = np.empty_like(dose)
    total[order] = np.cumsum(dose[order])
    return total


def _entry(path: Path, section: _Section, name: str) -> tuple[int, str]:
    if name not in section.entries:
        raise InputError(f"{path.name} line {section.line}: no {name} in this section")
    return section.entries[name]


def _number(path: Path, section: _Section, name: str) -> float:
    line, text = _entry(path, section, name)
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{path.name} line {line}: {name} = {text}, expected a number") from None


def _time(path: Path, section: _Section) -> datetime:
    line, text = _entry(path, section, "DateTime")
    for form in DATES:
        try:
            return datetime.strptime(" ".join(text.split()), form)
        except ValueError:
            continue
    raise InputError(f"{path.name} line {line}: DateTime = {text}, expected such as 06-Jun-23 23:19:46")
