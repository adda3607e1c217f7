"""The result of a classification as an xarray dataset."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from cryodask.jobs.classify.acceptance import Reason
from cryodask.jobs.classify.assembled import Assembled
from cryodask.jobs.classify.checkpoints import Outcome
from cryodask.jobs.classify.outputs import Pictures

ANGSTROM = {"units": "angstrom"}


def result_dataset(
    found: Assembled,
    pictures: Pictures,
    table: pd.DataFrame,
    outcomes: list[Outcome],
    *,
    pixel_size: float,
    working_pixel: float,
    box: int,
    attributes: dict[str, Any],
) -> xr.Dataset:
    """Return the result.

    Parameters
    ----------
    found, pictures, table, outcomes
        The classification, its pictures, its class table, and its generations.
    pixel_size, working_pixel : angstrom
    box : int
        Edge of the full-size averages.
    attributes
        Configuration, inputs, cost, thresholds.
    """
    count = len(table)
    working_box = pictures.working.shape[-1]
    full = pictures.full
    shells = box // 2 + 1
    shown = np.array([a.image for a in full or []], np.float32).reshape(-1, box, box)
    frc = np.array([a.frc for a in full or []], np.float32).reshape(-1, shells)
    variables: dict[str, Any] = {
        "working_average": (("class", "v", "u"), pictures.working.reshape(count, working_box, working_box)),
        **_image_variables(found, working_pixel),
        "run_class": (("run", "image"), found.run_class),
        "run_objective": (("generation", "run"), np.array([o.objective for o in outcomes])),
        "size": ("class", table["size"].to_numpy(np.int32)),
        "order": ("class", table["order"].to_numpy(np.int32)),
    }
    for name in ("resolution", "jaccard", "mirror_stable", "spread_ratio"):
        variables[name] = ("class", table[name].to_numpy(np.float32))
    if full is not None:
        variables["class_average"] = (("class", "y", "x"), shown)
        variables["frc"] = (("class", "shell"), frc)
    coordinates = {
        "image": np.arange(len(found.images)),
        **_axis("vu", working_box, working_pixel),
        **(_axis("yx", box, pixel_size) if full is not None else {}),
    }
    return xr.Dataset(variables, coords=coordinates, attrs=attributes)


def _axis(names: str, length: int, step: float) -> dict[str, Any]:
    values = (np.arange(length) - length // 2) * step
    return {name: (name, values, ANGSTROM) for name in names}


def _image_variables(found: Assembled, working_pixel: float) -> dict[str, Any]:
    images = found.images
    meanings = " ".join(f"{int(r)}:{r.word}" for r in Reason)
    shift = images[["centre_x", "centre_y"]].to_numpy() * working_pixel
    angle = np.degrees(images["angle"].to_numpy()).astype(np.float32)
    variables: dict[str, Any] = {
        "class_id": ("image", images["class_id"].to_numpy(np.int32)),
        "reason": ("image", images["reason"].to_numpy(np.uint8), {"meanings": meanings}),
        "generation_of": ("image", images["generation"].to_numpy(np.int32)),
        "angle": ("image", angle, {"units": "degree"}),
        "shift": (("image", "xy"), shift.astype(np.float32), ANGSTROM),
        "mirror": ("image", images["mirror"].to_numpy(bool)),
    }
    for name in ("score", "margin", "pixel_error", "vote", "agreement"):
        variables[name] = ("image", images[name].to_numpy(np.float32))
    return variables


def write_dataset(path: Path, dataset: xr.Dataset) -> None:
    """Write the result as a Zarr store, in the place of an older one."""
    from cryodask.io.files import written_whole

    with written_whole(path, overwrite=True) as temporary:
        dataset.to_zarr(temporary, mode="w", zarr_format=3, consolidated=False)
