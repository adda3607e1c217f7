"""Files under ISAC's names, for programs that read its output folder."""

from pathlib import Path

import numpy as np

from cryodask.io.image_stacks import read_images, write_eman_stack
from cryodask.jobs.classify.assembled import Assembled
from cryodask.jobs.classify.ordering import Chain
from cryodask.jobs.classify.outputs import ordered

# Readers take the ratio from line 6 and the radius from line 7.
RATIO = """
Images were resampled so that the particle has the target radius.
Below: the shrink ratio, and the target radius in pixels.
Pixel size of the averages: that of the images over the ratio.
--------
{ratio:.5f}
{radius}
--------
"""


def write_isac_files(
    folder: Path,
    found: Assembled,
    working: np.ndarray,
    chain: Chain,
    *,
    pixel_size: float,
    ratio: float,
    radius: int,
) -> None:
    """Write averages with their members, lists of images (from 0), and the shrink ratio.

    Parameters
    ----------
    folder
        OUTPUT.
    found : Assembled
    working : (C, L, L)
        Averages at working size.
    chain : Chain
        Their order.
    pixel_size : angstrom
        Of the working images.
    ratio : float
        Working radius over input radius.
    radius : int
        Working radius, pixels.
    """
    if len(working):
        members = [found.members(k) for k in range(len(working))]
        rows = [{"members": m.astype(np.int32), "n_objects": np.int32(len(m))} for m in members]
        write_eman_stack(folder / "class_averages.hdf", working, pixel_size=pixel_size, attributes=rows)
        laid, own = ordered(working, chain, 1.0), [rows[k] for k in chain.order]
        write_eman_stack(folder / "ordered_class_averages.hdf", laid, pixel_size=pixel_size, attributes=own)
    accounted = found.images["class_id"].to_numpy() >= 0
    for name, rows_of in (("processed", accounted), ("not_processed", ~accounted)):
        numbers = np.flatnonzero(rows_of)
        (folder / f"{name}_images.txt").write_text("".join(f"{i}\n" for i in numbers))
    (folder / "README_shrink_ratio.txt").write_text(RATIO.format(ratio=ratio, radius=radius))
    averages = folder / "prealignment" / "averages.mrcs"
    if averages.is_file():
        _write_last(averages, folder / "2dalignment", pixel_size)


def _write_last(averages: Path, folder: Path, pixel_size: float) -> None:
    """Write the average of the last iteration of the pre-alignment as aqfinal.hdf."""
    from cryodask.io.image_stacks import read_stack_header

    folder.mkdir(exist_ok=True)
    last = read_images(averages, [read_stack_header(averages).count - 1])
    write_eman_stack(folder / "aqfinal.hdf", last, pixel_size=pixel_size)
