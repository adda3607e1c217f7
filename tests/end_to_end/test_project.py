"""A RELION 5 project searched as one job, every row of its star a tomogram."""

import shutil

import numpy as np
import pandas as pd

import cryodask as cd
from cryodask.io.star import write_star

from .conftest import STEP, TILTS, VOXEL


def test_every_tomogram_of_a_star_is_searched_in_one_schedule(project, run_cli):
    folder = project.folder / "relion"
    for name in ("TS_01", "TS_02"):
        series = pd.DataFrame({"rlnTomoYTilt": np.arange(TILTS[0], TILTS[1] + 1, 3.0)})
        (folder / "tilt_series").mkdir(parents=True, exist_ok=True)
        write_star(folder / "tilt_series" / f"{name}.star", {name: series})
        shutil.copy(project.folder / "tomogram.mrc", folder / f"rec_{name}.mrc")
    names = ["TS_01", "TS_02"]
    table = pd.DataFrame(
        {
            "rlnTomoName": names,
            "rlnTomoTiltSeriesStarFile": [f"tilt_series/{name}.star" for name in names],
            "rlnTomoReconstructedTomogram": [f"rec_{name}.mrc" for name in names],
            "rlnTomoTiltSeriesPixelSize": VOXEL / 4,
            "rlnTomoTomogramBinning": 4.0,
        }
    )
    write_star(folder / "tomograms.star", {"global": table})
    params = project.yaml(
        "relion.yaml",
        tomogram=None,
        tomo_num=None,
        tilts="relion/tomograms.star",
        angles={"step": 3 * STEP},
        noise_correction=None,
        output="all",
    )
    status, output, _ = run_cli("match-tomogram", params, "--cluster", "threads")
    assert status == 0
    assert [line.rsplit("/", 1)[-1] for line in output.split()] == ["TS_01.zarr", "TS_02.zarr"]
    first, second = (cd.open_result(project.folder / "all" / f"{name}.zarr") for name in names)
    assert (first.attrs["tomo_num"], second.attrs["tomo_num"]) == (1, 2)
    np.testing.assert_array_equal(first.score_raw, second.score_raw)
