"""Several particle stacks as one, folders of CryoLike, and choosing particles."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cryodask.errors import InputError
from cryodask.io.cryolike import (
    is_particle_folder,
    particle_stacks,
    physical_stack,
    read_descriptor,
    read_lens,
)
from cryodask.io.files import require_exists
from cryodask.io.image_stacks import ImagePlaces
from cryodask.io.particle_stack import (
    PIXEL_SIZE_TOLERANCE,
    ParticleStack,
    open_particles,
    particles_from_array,
)
from cryodask.io.relion_stack import GROUP
from cryodask.io.torch_files import read_pt


def open_particle_list(
    paths: Sequence[str | Path],
    *,
    root: str | Path | None = None,
    pixel_size: float | None = None,
    n_stacks: int | None = None,
) -> ParticleStack:
    """Open particle stacks as one, in the order given.

    Parameters
    ----------
    paths
        Files as `open_particles` reads them, or folders of CryoLike's particles.
    root, pixel_size
        As of `open_particles`.
    n_stacks
        Only the first so many files of images, as CryoLike counts.

    Raises
    ------
    InputError
        What a file is wrong in; stacks of unlike boxes or pixel sizes; fewer stacks than asked for.
    """
    stacks = []
    for each in paths:
        path = require_exists(each)
        if is_particle_folder(path):
            stacks.append(open_cryolike_particles(path, n_stacks=n_stacks if len(paths) == 1 else None))
        else:
            stacks.append(open_particles(path, root=root, pixel_size=pixel_size))
    if n_stacks is not None and not is_particle_folder(Path(paths[0])):
        stacks = _first_stacks(stacks, n_stacks)
    elif n_stacks is not None and len(paths) > 1:
        raise InputError(f"n_stacks = {n_stacks}: expected one folder of CryoLike, found {len(paths)} paths")
    return stacks[0] if len(stacks) == 1 else _joined(stacks)


def open_cryolike_particles(folder: Path, *, n_stacks: int | None = None) -> ParticleStack:
    """Open the stacks of a folder of CryoLike, its images in real space with their optics.

    Raises
    ------
    InputError
        Without torch; "stack 3 has no .npz"; "n_stacks = 9: folder has 4"; no images in real space.
    """
    known = particle_stacks(folder)
    if n_stacks is not None and n_stacks > len(known):
        raise InputError(f"n_stacks = {n_stacks}: folder has {len(known)}")
    images, tables, size = [], [], 0.0
    for number, place in enumerate(known[:n_stacks]):
        made = read_descriptor(place)
        physical = physical_stack(folder, number)
        if not physical.exists():
            raise InputError(
                f"{folder.name}: stack {number} has no phys/{physical.name}, expected images in real space"
            )
        block = read_pt(physical)
        if block.ndim != 3 or block.shape[1:] != (made.box, made.box):
            raise InputError(
                f"{physical.name}: shape {block.shape}, {place.name} says {made.box} x {made.box} pixels"
            )
        if size and abs(made.pixel_size / size - 1) > PIXEL_SIZE_TOLERANCE:
            raise InputError(f"{place.name}: pixel size {made.pixel_size:g} A, stacks before it {size:g} A")
        size = size or made.pixel_size
        table = read_lens(place, len(block))
        names = [f"{i + 1:06d}@{physical.name}" for i in range(len(block))]
        images.append(block.astype(np.float32))
        tables.append(table.assign(name=names, file=str(physical.absolute()), optics_group=1))
    joined = pd.concat(tables, ignore_index=True)
    stack = particles_from_array(np.concatenate(images), pixel_size=size)
    table = stack.table.assign(**{str(column): joined[column] for column in joined})
    return replace(stack, source=str(folder.absolute()), table=table)


def select_rows(stack: ParticleStack, text: str) -> np.ndarray:
    """Return the rows that a text chooses.

    Parameters
    ----------
    stack
        The particles.
    text
        "all"; rows from 0 such as "0-999,1500"; or an expression of columns of the STAR file, with those of
        its optics groups, or of the particle table: "rlnClassNumber == 2 and rlnDefocusU < 20000".

    Raises
    ------
    InputError
        A row beyond the end, an unknown column, an expression that is none, or that no particle meets.
    """
    if text == "all":
        return np.arange(len(stack))
    if re.fullmatch(r"[\d\s,-]+", text):
        return _numbered(text, len(stack))
    frame = _columns(stack)
    try:
        if "@" in text or "__" in text:
            raise ValueError("names of columns alone are allowed")
        chosen = frame.eval(text, engine="python")
    except Exception as error:
        reason = str(error).split("\n")[0]
        raise InputError(
            f'select = {text}: expected rows such as "0-999,1500" or a condition of STAR columns ({reason})'
        ) from None
    chosen = np.asarray(chosen)
    if chosen.dtype != bool or chosen.shape != (len(stack),):
        raise InputError(f'select = {text}: expected a condition such as "rlnClassNumber == 2"')
    if not chosen.any():
        raise InputError(f"select = {text}: no particle of {len(stack)} meets it")
    return np.flatnonzero(chosen)


def _numbered(text: str, count: int) -> np.ndarray:
    rows: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if not first.isdigit() or (last and not last.isdigit()):
            raise InputError(f'select = {text}: expected rows such as "0-999,1500"')
        rows += range(int(first), int(last or first) + 1)
    if not rows or max(rows) >= count:
        raise InputError(f"select = {text}: the stack has {count} images")
    return np.array(rows)


def _columns(stack: ParticleStack) -> pd.DataFrame:
    """Return the STAR file's columns, those of its optics groups and the house's, in this order."""
    if not stack.block:
        return stack.table
    frame = stack.blocks[stack.block].reset_index(drop=True)
    optics = stack.blocks.get("optics")
    if optics is not None and GROUP in optics and GROUP in frame:
        known = optics.drop_duplicates(GROUP).set_index(GROUP)
        frame = frame.join(known[[c for c in known if c not in frame]], on=GROUP)
    return frame.join(stack.table[[c for c in stack.table if c not in frame]])


def _first_stacks(stacks: list[ParticleStack], count: int) -> list[ParticleStack]:
    """Keep the images of the first files."""
    found: list[ParticleStack] = []
    left = count
    for stack in stacks:
        if left == 0:
            break
        if stack.places is None:
            found, left = [*found, stack], left - 1
            continue
        kept = min(left, len(stack.places.files))
        found.append(stack.take(np.flatnonzero(stack.places.file_number < kept)))
        left -= kept
    if left:
        raise InputError(f"n_stacks = {count}: found {count - left}")
    return found


def _joined(stacks: list[ParticleStack]) -> ParticleStack:
    import xarray

    first = stacks[0]
    for other in stacks[1:]:
        sizes = [s.pixel_size for s in (first, other)]
        if other.box != first.box:
            raise InputError(f"{_name(other)}: box {other.box}, {_name(first)} has {first.box}")
        if None not in sizes and abs(sizes[1] / sizes[0] - 1) > PIXEL_SIZE_TOLERANCE:  # type: ignore[operator]
            raise InputError(f"{_name(other)}: pixel size {sizes[1]:g} A, {_name(first)} has {sizes[0]:g} A")
    table = pd.concat([each.table for each in stacks], ignore_index=True)
    table["optics_group"] = _groups(stacks)
    images = xarray.concat([each.images for each in stacks], "particle", combine_attrs="override")
    places = None
    if all(each.places is not None for each in stacks):
        files: list[str] = []
        numbers: list[Any] = []
        for each in stacks:
            assert each.places is not None
            numbers.append(each.places.file_number + len(files))
            files += each.places.files
        image_number = np.concatenate([each.places.image_number for each in stacks if each.places])
        places = ImagePlaces(tuple(files), np.concatenate(numbers), image_number)
    return ParticleStack(first.source, images, table, places)


def _groups(stacks: list[ParticleStack]) -> np.ndarray:
    """Number the optics groups of all stacks through: those of different files may differ."""
    found, most = [], 0
    for stack in stacks:
        numbers = stack.table["optics_group"].to_numpy(np.int64) + most
        found.append(numbers)
        most = int(numbers.max())
    return np.concatenate(found)


def _name(stack: ParticleStack) -> str:
    return Path(stack.source).name
