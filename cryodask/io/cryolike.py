"""CryoLike's folders: templates, particle stacks and their descriptors.

Angles are radians in its files and degrees here. Arrays are [axis 0, axis 1] of its images, which are (y, x)
of the MRC file; angles of polar grids run from axis 0 to axis 1.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cryodask.arrays.npy import load_npy
from cryodask.errors import InputError
from cryodask.io.particle_columns import NUMBERS

TEMPLATE_LIST = "template_file_list.npy"
FOURIER = "fft/particles_fourier_stack_{:06d}"
PHYSICAL = "phys/particles_phys_stack_{:06d}.pt"
STACK = 1024  # images of a stack that is written

LENS = {
    "defocus_u": "defocusU",
    "defocus_v": "defocusV",
    "defocus_angle": "defocusAngle",
    "phase_shift": "phaseShift",
    "cs": "sphericalAberration",
    "voltage": "voltage",
    "amplitude_contrast": "amplitudeContrast",
    "rot": "angleRotation",
    "tilt": "angleTilt",
    "psi": "anglePsi",
    "b_factor": "ctfBfactor",
    "origin_x": "originXAngst",
    "origin_y": "originYAngst",
}
RADIANS = ("defocus_angle", "phase_shift")


@dataclass(frozen=True)
class Descriptor:
    """The grids of CryoLike's files.

    Parameters
    ----------
    box, pixel_size
        Pixels and angstrom.
    radius
        Outermost frequency R, cycles per half box.
    rotations
        W.
    viewing_distance
        Radians, None where not said.
    precision
        single or double.
    """

    box: int
    pixel_size: float
    radius: float
    rotations: int
    viewing_distance: float | None
    precision: str

    @property
    def resolution_factor(self) -> float:
        """F = 4 R / N."""
        return 4 * self.radius / self.box


def is_particle_folder(path: Path) -> bool:
    """Say whether a folder holds particle stacks of CryoLike."""
    return path.is_dir() and (path / "fft").is_dir()


def is_template_folder(path: Path) -> bool:
    """Say whether a folder holds templates of CryoLike."""
    return path.is_dir() and (
        (path / TEMPLATE_LIST).exists() or (path / "templates" / TEMPLATE_LIST).exists()
    )


def read_descriptor(path: Path) -> Descriptor:
    """Read the grids of a parameters.npz or of a stack's .npz.

    Raises
    ------
    InputError
        A missing value, by name.
    """
    values = _read_npz(path)
    for name in ("n_pixels", "pixel_size", "radius_max", "n_inplanes"):
        if name not in values:
            raise InputError(f"{path.name}: {name} is missing, expected parameters of CryoLike")
    box, pixel = (np.ravel(values[name]) for name in ("n_pixels", "pixel_size"))
    if np.ptp(box) or np.ptp(pixel):
        raise InputError(f"{path.name}: n_pixels {box}, pixel_size {pixel}: expected square images")
    distance = values.get("viewing_distance")
    return Descriptor(
        int(box[0]),
        float(pixel[0]),
        float(values["radius_max"]),
        int(values["n_inplanes"]),
        None if distance is None else float(distance),
        str(values.get("precision", "single")),
    )


def descriptor_arrays(descriptor: Descriptor) -> dict[str, Any]:
    """Return a descriptor's values under CryoLike's names."""
    return {
        "n_pixels": np.full(2, descriptor.box),
        "pixel_size": np.full(2, descriptor.pixel_size),
        "radius_max": descriptor.radius,
        "dist_radii": 0.25,
        "n_inplanes": descriptor.rotations,
        "precision": descriptor.precision,
        "viewing_distance": descriptor.viewing_distance,
        "viewing_angles": None,
    }


def read_template_list(folder: Path) -> list[Path]:
    """Return the template files that a folder lists; names are relative to it or to the working folder.

    Raises
    ------
    InputError
        "no template_file_list.npy"; a listed file that is missing.
    """
    places = [folder / TEMPLATE_LIST, folder / "templates" / TEMPLATE_LIST]
    listed = next((place for place in places if place.exists()), None)
    if listed is None:
        raise InputError(f"{folder.name}: no {TEMPLATE_LIST}")
    found = []
    for name in np.ravel(load_npy(listed)).astype(str):
        options = (listed.parent / name, folder / name, Path(name))
        place = next((option for option in options if option.exists()), None)
        if place is None:
            raise InputError(f"{listed.name}: {name}: no such file (looked in {listed.parent})")
        found.append(place)
    return found


def template_parameters(folder: Path) -> Descriptor:
    """Read parameters.npz of a folder of templates, which lies in it or beside it.

    Raises
    ------
    InputError
        "no parameters.npz".
    """
    places = [
        folder / "parameters.npz",
        folder / "templates" / "parameters.npz",
        folder.parent / "parameters.npz",
    ]
    place = next((each for each in places if each.exists()), None)
    if place is None:
        raise InputError(f"{folder.name}: no parameters.npz beside {TEMPLATE_LIST}")
    return read_descriptor(place)


def particle_stacks(folder: Path) -> list[Path]:
    """Return the .npz descriptions of a folder's stacks, in order.

    Raises
    ------
    InputError
        No stacks; "stack 3 has no .npz".
    """
    stacks: list[Path] = []
    while (folder / f"{FOURIER.format(len(stacks))}.pt").exists():
        place = folder / f"{FOURIER.format(len(stacks))}.npz"
        if not place.exists():
            raise InputError(f"{folder.name}: stack {len(stacks)} has no .npz")
        stacks.append(place)
    if not stacks:
        raise InputError(f"{folder.name}: no {FOURIER.format(0)}.pt")
    return stacks


def physical_stack(folder: Path, number: int) -> Path:
    """Return the name of a stack of images in real space."""
    return folder / PHYSICAL.format(number)


def read_lens(path: Path, count: int) -> pd.DataFrame:
    """Read the optics and poses of a stack's images into the house's columns; NaN where not known."""
    values = _read_npz(path)
    table = pd.DataFrame(np.nan, index=range(count), columns=list(NUMBERS)).assign(origin_x=0.0, origin_y=0.0)
    for house, name in LENS.items():
        value = values.get(name)
        if value is None or not np.size(value):
            continue
        numbers = np.asarray(value, float).ravel()
        if numbers.size not in (1, count):
            raise InputError(f"{path.name}: {name} has {numbers.size} values, the stack {count} images")
        numbers = np.degrees(numbers) if house in RADIANS else numbers
        table[house] = np.broadcast_to(numbers, count)
    return table


def lens_arrays(table: pd.DataFrame) -> dict[str, Any]:
    """Return the optics of images under CryoLike's names.

    Raises
    ------
    InputError
        More than one voltage, Cs or contrast, of which CryoLike keeps one a stack.
    """
    found: dict[str, Any] = {}
    for house, name in LENS.items():
        values = table[house].to_numpy(float)
        known = bool(np.isfinite(values).all())
        if house in ("cs", "voltage", "amplitude_contrast"):
            if known and np.ptp(values) > 1e-6:
                raise InputError(
                    f"{house} differs between images: CryoLike keeps one a stack; split the file"
                )
            found[name] = float(values[0]) if known else 0.1
        else:
            filled = np.radians(values) if house in RADIANS else values
            default = None if house in ("rot", "tilt", "psi") else np.zeros(len(table))
            found[name] = filled if known else default
    return found


def _read_npz(path: Path) -> dict[str, Any]:
    """Read plain arrays; what CryoLike pickles (absent values) is left out."""
    found: dict[str, Any] = {}
    with np.load(path, allow_pickle=False) as stored:
        for name in stored.files:
            try:
                value = stored[name]
            except ValueError:
                continue
            found[name] = value.item() if value.shape == () else value
    return found
