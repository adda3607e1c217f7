"""Writing a particle stack's STAR file back with new columns, all others as they were."""

import os
from collections.abc import Mapping
from typing import Any

import pandas as pd

from cryodask.io.particle_columns import RELION
from cryodask.io.particle_stack import ParticleStack
from cryodask.io.relion_stack import GROUP, IMAGE_NAME, PIXEL_SIZE
from cryodask.io.star import write_star

OPTICS = {"voltage", "cs", "amplitude_contrast"}


def particle_blocks(stack: ParticleStack, columns: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Return the blocks of a stack's STAR file with columns set; for other sources, blocks of RELION 3.1.

    Parameters
    ----------
    stack
        The particles.
    columns
        RELION's name to one value an image; an existing column is replaced in its place.
    """
    blocks = dict(stack.blocks) if stack.block else _new_blocks(stack)
    name = stack.block or "particles"
    frame = blocks[name].copy()
    for column, values in columns.items():
        frame[column] = values
    blocks[name] = frame
    return blocks


def origin_columns(stack: ParticleStack, x: Any, y: Any) -> dict[str, Any]:
    """Return origins (angstrom) under the names and in the units of the stack's STAR dialect."""
    if stack.block and "optics" not in stack.blocks:
        if stack.pixel_size is None:
            raise ValueError("origins in pixels need a pixel size")
        return {"rlnOriginX": x / stack.pixel_size, "rlnOriginY": y / stack.pixel_size}
    return {"rlnOriginXAngst": x, "rlnOriginYAngst": y}


def write_particles(
    path: str | os.PathLike[str],
    stack: ParticleStack,
    columns: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> None:
    """Write `particle_blocks` as a STAR file."""
    write_star(path, particle_blocks(stack, columns), overwrite=overwrite)


def _new_blocks(stack: ParticleStack) -> dict[str, pd.DataFrame]:
    table = stack.table
    known = {house: name for house, name in RELION.items() if table[house].notna().all()}
    shared = [column for column in known if column in OPTICS]
    optics = table.groupby("optics_group", sort=True).first()[shared].rename(columns=known).reset_index()
    optics = optics.rename(columns={"optics_group": GROUP})
    optics[PIXEL_SIZE] = stack.pixel_size
    optics["rlnImageSize"], optics["rlnImageDimensionality"] = stack.box, 2
    particles = table[[column for column in known if column not in OPTICS]].rename(columns=known)
    particles.insert(0, IMAGE_NAME, table["name"])
    particles[GROUP] = table["optics_group"]
    return {"optics": optics, "particles": particles}
