"""BioEM's parameter file as a configuration."""

from pathlib import Path
from typing import Any

from cryodask.errors import InputError
from cryodask.io.files import require_exists
from cryodask.jobs.messages import did_you_mean

WAVELENGTH = 0.019866  # angstrom, where the file does not say it, as BioEM 2.1
DEFAULTS = {
    "SIGMA_PRIOR_B_CTF": 100.0,
    "SIGMA_PRIOR_DEFOCUS": 2.0,
    "PRIOR_DEFOCUS_CENTER": 3.0,
    "SIGMA_PRIOR_AMP_CTF": 0.5,
    "PRIOR_AMP_CTF_CENTER": 0.0,
    "ELECTRON_WAVELENGTH": WAVELENGTH,
}
NUMBERS = {
    **dict.fromkeys(DEFAULTS, 1),
    "PIXEL_SIZE": 1,
    "NUMBER_PIXELS": 1,
    "GRIDPOINTS_ALPHA": 1,
    "GRIDPOINTS_BETA": 1,
    "DISPLACE_CENTER": 2,
    "CTF_B_ENV": 3,
    "CTF_DEFOCUS": 3,
    "CTF_AMPLITUDE": 3,
    "PRIOR_MODEL": 1,
    "WRITE_PROB_ANGLES": 1,
}
FLAGS = ("USE_QUATERNIONS", "PRIOR_ANGLES", "NO_CENTEROFMASS", "NO_MAP_NORM", "IGNORE_PDB")
REFUSED = {
    "USE_PSF": "give CTF_B_ENV, CTF_DEFOCUS and CTF_AMPLITUDE instead of PSF parameters",
    "PSF_AMPLITUDE": "give CTF_AMPLITUDE",
    "PSF_PHASE": "give CTF_DEFOCUS",
    "PSF_ENVELOPE": "give CTF_B_ENV",
    "WRITE_CTF_PARAM": "it belongs to PSF parameters; give CTF ones",
    "GRIDPOINTS_QUATERNION": "give a list of quaternions as --orientations",
    "NO_PROJECT_RADIUS": "give a text model with radii of at most a pixel",
    "IGNORE_POINTSOUT": "every point must lie inside the box",
    "SHIFT_X": "move the model instead",
    "SHIFT_Y": "move the model instead",
    "PRINT_ROTATED_MODELS": "it is for debugging BioEM",
}


def is_bioem_file(path: Path) -> bool:
    """Say whether the first word of a file is a keyword of BioEM."""
    if not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as stream:
        for line in stream:
            words = line.split()
            if words and not line.startswith("#"):
                return words[0] in NUMBERS or words[0] in FLAGS or words[0] in REFUSED
    return False


def read_bioem_parameters(path: str | Path) -> dict[str, Any]:
    """Return the configuration that a BioEM parameter file stands for, without images and structures.

    Raises
    ------
    InputError
        An unknown or unsupported keyword, a missing or wrong number, with its line.
    """
    path = require_exists(path)
    found = _keywords(path)
    for name in ("PIXEL_SIZE", "NUMBER_PIXELS", "DISPLACE_CENTER"):
        if name not in found:
            raise InputError(f"{path.name}: {name} is missing")
    largest, step = (int(v) for v in found["DISPLACE_CENTER"])
    if largest < 0 or step < 1:
        raise InputError(f"{path.name}: DISPLACE_CENTER {largest} {step}: expected >= 0 and >= 1 pixels")
    each_way = largest // step
    grid: dict[str, Any] = {
        "max_displacement_pixels": each_way * step,
        "n_displacements_x": 2 * each_way + 1,
        "n_displacements_y": 2 * each_way + 1,
        "rotations_from_file": True,
        "list_kind": "quaternion" if "USE_QUATERNIONS" in found else "euler",
    }
    if "GRIDPOINTS_ALPHA" in found or "GRIDPOINTS_BETA" in found:
        grid["viewing_distance"] = {"bioem_euler": _euler(path, found)}
    content: dict[str, Any] = {
        "compat": "bioem",
        "image_options": {"pixel_size": found["PIXEL_SIZE"][0], "box": int(found["NUMBER_PIXELS"][0])},
        "grid": grid,
        "ctf_integration": _ctf(path, found),
        "prior": found.get("PRIOR_MODEL", [1.0])[0],
    }
    if "PRIOR_ANGLES" in found:
        content["likelihood"] = {"orientation_prior": "file"}
    if "NO_CENTEROFMASS" in found:
        content["atoms"] = {"centre": "none"}
    if "WRITE_PROB_ANGLES" in found:
        content |= {
            "top": int(found["WRITE_PROB_ANGLES"][0]),
            "keep": ["best", "likelihood", "summary", "top"],
        }
    return content


def _keywords(path: Path) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        name, values = words[0], words[1:]
        place = f"{path.name} line {number}"
        if name in REFUSED:
            raise InputError(f"{place}: {name}: not supported; {REFUSED[name]}")
        if name in FLAGS:
            found[name] = []
            continue
        if name not in NUMBERS:
            raise InputError(
                f"{place}: unknown keyword {name}{did_you_mean(name, [*NUMBERS, *FLAGS, *REFUSED])}"
            )
        try:
            found[name] = [float(word) for word in values[: NUMBERS[name]]]
        except ValueError:
            found[name] = []
        if len(found[name]) != NUMBERS[name]:
            raise InputError(f"{place}: {name}: expected {NUMBERS[name]} numbers, found {' '.join(values)!r}")
    return found


def _euler(path: Path, found: dict[str, list[float]]) -> list[int]:
    for name in ("GRIDPOINTS_ALPHA", "GRIDPOINTS_BETA"):
        if name not in found:
            raise InputError(f"{path.name}: {name} is missing")
    return [int(found["GRIDPOINTS_ALPHA"][0]), int(found["GRIDPOINTS_BETA"][0])]


def _ctf(path: Path, found: dict[str, list[float]]) -> dict[str, Any]:
    value = {name: found.get(name, [default])[0] for name, default in DEFAULTS.items()}
    microns = 1e4  # to angstrom
    priors = {
        "CTF_DEFOCUS": ("defocus", microns, "PRIOR_DEFOCUS_CENTER", "SIGMA_PRIOR_DEFOCUS"),
        "CTF_B_ENV": ("b_envelope", 1.0, None, "SIGMA_PRIOR_B_CTF"),
        "CTF_AMPLITUDE": ("amplitude", 1.0, "PRIOR_AMP_CTF_CENTER", "SIGMA_PRIOR_AMP_CTF"),
    }
    grids: dict[str, Any] = {}
    for keyword, (name, unit, centre, sigma) in priors.items():
        if keyword not in found:
            raise InputError(f"{path.name}: {keyword} is missing")
        low, high, count = found[keyword]
        middle = value[centre] if centre else 0.0
        grids[name] = [low * unit, high * unit, int(count), middle * unit, value[sigma] * unit]
    return grids | {"prior_signs": "bioem", "wavelength": value["ELECTRON_WAVELENGTH"]}
