"""Two-dimensional MRC files: micrographs, masks and maps over a micrograph."""

import os
from pathlib import Path

import numpy as np

from cryodask.errors import InputError
from cryodask.io import volume
from cryodask.io.files import written_whole
from cryodask.io.header import VolumeHeader

PathLike = str | os.PathLike[str]


def read_image_header(path: PathLike) -> VolumeHeader:
    """Read what a file says of its image: shape (1, y, x), pixel size, origin.

    Raises
    ------
    InputError
        No such file, not an image, or several sections.
    """
    header = volume.read_header(path)
    if header.shape[0] != 1:
        sections, y, x = header.shape
        raise InputError(f"{Path(path).name}: {sections} sections of {y} x {x}, expected 2-D")
    return header


def read_image(path: PathLike) -> np.ndarray:
    """Read an image of one section, (y, x) float32.

    Raises
    ------
    InputError
        As `read_image_header`.
    """
    read_image_header(path)
    return volume.read_volume(path)[0]


def write_image(
    path: PathLike,
    image: np.ndarray,
    *,
    pixel_size: float,
    origin: tuple[float, float] = (0.0, 0.0),
    label: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write an image as MRC mode 2.

    Parameters
    ----------
    path
        The file; it has its name only when it is complete.
    image
        (y, x).
    pixel_size
        Angstrom.
    origin
        Position (y, x) of the first pixel, angstrom.
    label
        What the values are, put beside the program's name.
    overwrite
        Replace an existing file.

    Raises
    ------
    InputError
        "NAME exists; use --overwrite".
    """
    import mrcfile

    with (
        written_whole(path, overwrite=overwrite) as temporary,
        mrcfile.new(temporary, overwrite=True) as file,
    ):
        file.set_data(np.asarray(image, np.float32))
        file.voxel_size = pixel_size
        file.header.origin.y, file.header.origin.x = origin
        file.add_label("Written by cryodask" + (f": {label}" if label else ""))
