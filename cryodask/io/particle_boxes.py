"""A stack of boxes cut out of micrographs."""

import os
from collections.abc import Sequence

import mrcfile
import numpy as np

from cryodask.io.files import written_whole
from cryodask.io.map_files import map_shape, read_map


def write_particle_stack(
    path: str | os.PathLike[str],
    micrographs: Sequence[str],
    centres: np.ndarray,
    box: int,
    *,
    pixel_size: float,
    overwrite: bool = False,
) -> int:
    """Cut boxes around particles into an MRC stack, the mean of their border 0 and their variance 1.

    Parameters
    ----------
    path
        Stack to write.
    micrographs
        (P,) file of each particle.
    centres
        (P, 2) whole pixels (y, x), which become pixel box//2.
    box
        Edge, pixels.
    pixel_size
        Angstrom.
    overwrite
        Replace an existing file.

    Returns
    -------
    int
        How many boxes reach beyond their micrograph; its outermost pixels are repeated there.
    """
    beyond = 0
    with (
        written_whole(path, overwrite=overwrite) as temporary,
        mrcfile.new_mmap(temporary, (len(centres), box, box), mrc_mode=2, overwrite=True) as file,
    ):
        for i, (name, centre) in enumerate(zip(micrographs, centres, strict=True)):
            image, reaches = cut_box(name, (int(centre[0]), int(centre[1])), box)
            file.data[i] = normalized_box(image)
            beyond += reaches
        file.voxel_size = pixel_size
        file.set_image_stack()
        file.update_header_stats()
    return beyond


def cut_box(path: str, centre: tuple[int, int], box: int) -> tuple[np.ndarray, bool]:
    """Return a box of a micrograph, and whether it reaches beyond."""
    shape = map_shape(path, "micrograph_path")
    starts = [c - box // 2 for c in centre]
    rows, columns = (np.clip(np.arange(s, s + box), 0, n - 1) for s, n in zip(starts, shape, strict=True))
    region = read_map(
        path, slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
    )
    reaches = any(s < 0 or s + box > n for s, n in zip(starts, shape, strict=True))
    return region[np.ix_(rows - rows[0], columns - columns[0])], reaches


def normalized_box(image: np.ndarray) -> np.ndarray:
    """Return a box whose border has mean 0 and whose variance is 1."""
    border = np.concatenate([image[[0, -1]].ravel(), image[1:-1, [0, -1]].ravel()])
    centred = image - border.mean(dtype=np.float64)
    deviation = centred.std(dtype=np.float64)
    return (centred / deviation if deviation > 0 else centred).astype(np.float32)
