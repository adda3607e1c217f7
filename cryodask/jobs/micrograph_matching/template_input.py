"""The template of a job on micrographs: read, checked, its voxel size settled."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from cryodask.errors import InputError
from cryodask.io import volume
from cryodask.io.header import VolumeHeader
from cryodask.jobs.micrograph_matching.template import HEADER_TOLERANCE, check_template

PixelSizeChoice = Literal["same", "ignore_header"] | float
SCALES = (0.8, 1.25)


@dataclass(frozen=True)
class TemplateInput:
    """A template's file, its edge in voxels and its voxel size in angstrom."""

    path: str
    edge: int
    voxel_size: float


def open_template(path: str, pixel_size: float, choice: PixelSizeChoice = "same") -> TemplateInput:
    """Check a template's header.

    Parameters
    ----------
    path
        MRC and other volumes.
    pixel_size
        Of the image, angstrom.
    choice
        ``same``: the voxel is a pixel, and a header that says otherwise is refused; ``ignore_header``; or the
        voxel size in angstrom.

    Raises
    ------
    InputError
        No such file, no cube, an odd edge, a voxel size that differs from the pixel size.
    """
    if not Path(path).exists():
        raise InputError(f"{path}: no such file")
    header = volume.read_header(path)
    edge = header.shape[0]
    if len(set(header.shape)) != 1:
        raise InputError(f"{path}: {' x '.join(map(str, header.shape))} voxels, expected a cube")
    if edge % 2:
        raise InputError(f"{path}: edge {edge}, expected an even edge")
    return TemplateInput(path, edge, _voxel_size(path, header, pixel_size, choice))


def read_template(path: str) -> np.ndarray:
    """Read a template, (z, y, x) float32.

    Raises
    ------
    InputError
        Voxels that are no numbers, or a volume of one value.
    """
    template = volume.read_volume(path)
    check_template(path, template)
    return template


def require_scale(scales: np.ndarray) -> None:
    """Refuse pixel sizes at which the template voxel over the pixel, any shape, is too far from 1."""
    low, high = float(scales.min()), float(scales.max())
    if low < SCALES[0] or high > SCALES[1]:
        raise InputError(
            f"pixel-size search: template voxel over pixel size is {low:.4g} to {high:.4g}, "
            f"expected {SCALES[0]:g} to {SCALES[1]:g}"
        )


def _voxel_size(path: str, header: VolumeHeader, pixel_size: float, choice: PixelSizeChoice) -> float:
    if isinstance(choice, float | int):
        return float(choice)
    stored = header.voxel_size
    if choice == "same" and stored and abs(stored - pixel_size) > HEADER_TOLERANCE * pixel_size:
        raise InputError(
            f"{path}: header voxel size {stored:g} A, the image's pixel size is {pixel_size:g} A; "
            "set cryodask.template_pixel_size to the voxel size, or to ignore_header"
        )
    return pixel_size
