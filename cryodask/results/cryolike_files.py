"""The result of a likelihood as CryoLike's tree of .pt files."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from cryodask.errors import InputError
from cryodask.io.cryolike import STACK
from cryodask.io.files import written_whole
from cryodask.io.torch_files import require_torch, write_pt, write_pt_pickle

POSES = {
    "optimal_template": ("best_template", 1.0),
    "optimal_displacement_x": ("displacement_x", 1.0),
    "optimal_displacement_y": ("displacement_y", 1.0),
    "optimal_inplane_rotation": ("inplane_rotation", np.pi / 180),
}
LIKELIHOODS = {
    "log_likelihood_integrated_fourier": "log_likelihood",
    "log_likelihood_optimal_fourier": "log_likelihood_best",
}


def check_cryolike(axes: str) -> None:
    """Refuse results in other axes than CryoLike's.

    Raises
    ------
    InputError
        Also without torch.
    """
    if axes != "cryolike":
        raise InputError("files of CryoLike need its axes; add --compat cryolike")
    require_torch("files: cryolike")


def write_cryolike_tree(dataset: xr.Dataset, folder: str | Path, *, overwrite: bool = False) -> None:
    """Write poses, correlations and likelihoods as CryoLike names them, stack by stack.

    Parameters
    ----------
    dataset
        A result in CryoLike's axes.
    folder
        Appears when it is complete.
    overwrite
        Replace an existing folder.
    """
    parameters = json.loads(dataset.attrs["parameters"])
    check_cryolike(parameters["likelihood"]["axes"])
    real = np.float64 if parameters["grid"]["precision"] == "double" else np.float32
    with written_whole(folder, overwrite=overwrite) as temporary:
        temporary.mkdir(parents=True)
        write_pt_pickle(temporary / "displacements_set.pt", dataset.displacement_grid.values.T.astype("f4"))
        for index in range(dataset.sizes["structure"]):
            one = dataset.isel(structure=index)
            below = temporary / f"template{int(dataset.i_template.values[index])}"
            for number, rows in enumerate(_stacks(dataset)):
                _write_stack(below, one.isel(image=rows), number, real)


def _write_stack(folder: Path, part: xr.Dataset, number: int, real: Any) -> None:
    for name in ("cross_correlation", "optimal_pose", "log_likelihood"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    ending = f"_stack_{number:06d}.pt"
    if "cross_correlation" in part:
        place = folder / "cross_correlation" / f"cross_correlation{ending}"
        write_pt(place, part.cross_correlation.values.astype(real))
        for name, (variable, unit) in POSES.items():
            values = part[variable].values
            kind = np.int64 if name == "optimal_template" else real
            write_pt(folder / "optimal_pose" / f"{name}{ending}", (values * unit).astype(kind))
    for name, variable in LIKELIHOODS.items():
        if variable in part:
            write_pt(folder / "log_likelihood" / f"{name}{ending}", part[variable].values.astype(real))
    if "cross_correlation_full" in part:
        kept = np.isfinite(part.azimuth.values)
        values = part.cross_correlation_full.isel(template=kept)
        values = values.transpose("image", "template", "displacement", "rotation").values
        place = folder / "cross_correlation" / f"cross_correlation_pose_msdw{ending}"
        write_pt_pickle(place, {"cross_correlation_msdw": values.astype(real)})


def _stacks(dataset: xr.Dataset) -> Iterator[slice]:
    """Yield the images of each stack: those of CryoLike's own stacks, else 1024."""
    files = [str(name).rpartition("@")[2] for name in dataset["name"].values]
    count = len(files)
    if all(re.fullmatch(r"particles_phys_stack_\d{6}\.pt", file) for file in files):
        starts = [0, *(i for i in range(1, count) if files[i] != files[i - 1])]
    else:
        starts = list(range(0, count, STACK))
    for start, stop in zip(starts, [*starts[1:], count], strict=True):
        yield slice(start, stop)
