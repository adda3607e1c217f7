"""A crowded tomogram: ribosomes among other proteins around a membrane, and a tomogram of noise alone.

The particles are protein densities at 10 angstrom, the negative control is a heart.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml
from scipy import ndimage
from scipy.spatial import cKDTree

import cryodask as cd
from cryodask.cli.main import run
from cryodask.io.star import write_star
from cryodask.io.volume import read_volume, write_volume
from cryodask.picking.compare import compare
from cryodask.simulate import DensityMap, Vesicle, simulate_tomogram

pytestmark = pytest.mark.timeout(3600)

VOXEL, BOX, DEFOCUS = 10.0, 40, 30_000.0
TILTS = np.arange(-60.0, 61.0, 3.0)
KINDS = {"ribosome": "5mrc", "rubisco": "1bxn", "p97": "3cf3"}
NEAR = 4.0  # voxels: less than an eighth of the particle
MASK = {"sphere": 170, "edge": 20}


@dataclass(frozen=True)
class Scene:
    """How large a scene is and how finely it is searched."""

    shape: tuple[int, int, int]
    counts: tuple[int, int, int]
    vesicle: float  # radius, angstrom
    step: float
    snr: float


SMALL = Scene((56, 144, 144), (4, 4, 3), 100.0, 30.0, 0.1)
LARGE = Scene((96, 256, 256), (24, 40, 40), 500.0, 15.0, 0.05)
SIZES = [pytest.param(SMALL, id="small"), pytest.param(LARGE, id="large", marks=pytest.mark.acceptance)]


def write_tilts(folder: Path, shape: tuple[int, int, int]) -> None:
    z, y, x = (4 * n for n in shape)
    columns = {"tomo_num": 1, "pixelsize": VOXEL / 4, "tomo_x": x, "tomo_y": y, "tomo_z": z, "z_shift": 0.0}
    optics = {"defocus": DEFOCUS / 1e4, "voltage": 300.0, "amp_contrast": 0.07, "cs": 2.7}
    table = pd.DataFrame(columns | {"tilt_angle": TILTS} | optics)
    write_star(folder / "wedge_list.star", {"stopgap_wedgelist": table})


def write_templates(folder: Path, maps: dict[str, np.ndarray], control: Path) -> None:
    """Write the ribosome and the heart, both in the same box and at the tomogram's voxel size."""
    centre = len(maps["ribosome"]) // 2
    cut = (slice(centre - BOX // 2, centre + BOX // 2),) * 3
    write_volume(folder / "ribosome.mrc", maps["ribosome"][cut], voxel_size=VOXEL)
    heart, scale = read_volume(control), VOXEL / 13.481
    offset = len(heart) // 2 - scale * (BOX // 2)
    resampled = ndimage.affine_transform(heart, np.full(3, scale), offset, (BOX,) * 3, order=1)
    write_volume(folder / "heart.mrc", resampled, voxel_size=VOXEL)


def match(folder: Path, name: str, step: float, **changes: object) -> xr.Dataset:
    """Match the folder's tomogram by the command line."""
    given = {
        "tomogram": "tomogram.mrc",
        "tomo_num": 1,
        "tilts": "wedge_list.star",
        "binning": 4,
        "lowpass": 35,
        "highpass": 400,
        "ctf": "amplitude",
        "angles": {"step": step},
        "noise_correction": "ratio",
        "output": name,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(given | changes))
    assert run(["match-tomogram", str(path), "--cluster", "threads"]) == 0
    return cd.open_result(folder / name / "tomogram.zarr")


@pytest.fixture(scope="module", params=SIZES)
def crowd(request, shared_data, tmp_path_factory):
    """A scene, its folder, and the truth of its ribosomes."""
    scene, folder = request.param, tmp_path_factory.mktemp("crowd")
    source = shared_data / "tomogram_matching"
    maps = {kind: read_volume(source / "templates_10A" / f"{name}.mrc") for kind, name in KINDS.items()}
    middle = (np.array(scene.shape[::-1]) - 1) * VOXEL / 2
    simulated = simulate_tomogram(
        scene.shape,
        VOXEL,
        particles={
            k: (DensityMap(v, VOXEL), n) for (k, v), n in zip(maps.items(), scene.counts, strict=True)
        },
        defocus=DEFOCUS,
        snr=scene.snr,
        vesicles=[Vesicle(tuple(middle), scene.vesicle, density=100.0)],
        margin=(BOX / 2 + 1) * VOXEL,
        seed=4,
    )
    write_volume(folder / "tomogram.mrc", simulated.volume, voxel_size=VOXEL)
    write_tilts(folder, scene.shape)
    write_templates(folder, maps, source / "maps" / "negative_control_heart.mrc")
    truth = simulated.truth
    return scene, folder, truth[truth["template"] == "ribosome"].reset_index(drop=True)


def test_ribosomes_are_found_where_they_are_and_as_they_lie(crowd):
    scene, folder, truth = crowd
    result = match(folder, "alone", scene.step, template="ribosome.mrc", mask=MASK)
    picks = cd.pick(result, false_positives=1, min_distance=250.0)
    found = compare(picks, truth).summary()
    assert found["recall"] >= 0.95 and found["precision"] >= 0.9
    assert found["median_position_error_angstrom"] < VOXEL * scene.step / 20
    assert found["median_angular_error_deg"] < 0.6 * scene.step


def test_ribosomes_beside_a_negative_control_get_their_own_class(crowd):
    scene, folder, truth = crowd
    templates = [{"name": name, "template": f"{name}.mrc", "mask": MASK} for name in ("ribosome", "heart")]
    result = match(folder, "both", max(scene.step, 20.0), templates=templates)
    picks = cd.pick(result, false_positives=1, min_distance=250.0)
    near, which = cKDTree(picks[["z", "y", "x"]]).query(truth[["z", "y", "x"]])
    assert np.mean(near <= NEAR) >= 0.95
    classes = picks["template"].to_numpy()[which[near <= NEAR]]
    assert np.mean(classes == "ribosome") >= 0.95


@pytest.mark.parametrize(
    ("shape", "step", "seeds"),
    [
        pytest.param((48, 96, 96), 30.0, 1, id="small"),
        pytest.param((96, 256, 256), 15.0, 2, id="large", marks=pytest.mark.acceptance),
    ],
)
def test_a_tomogram_without_particles_gives_at_most_one_peak(shape, step, seeds, shared_data, tmp_path):
    source = shared_data / "tomogram_matching"
    maps = {"ribosome": read_volume(source / "templates_10A" / "5mrc.mrc")}
    for seed in range(seeds):
        folder = tmp_path / str(seed)
        folder.mkdir()
        empty = simulate_tomogram(shape, VOXEL, particles={}, defocus=DEFOCUS, seed=seed)
        write_volume(folder / "tomogram.mrc", empty.volume, voxel_size=VOXEL)
        write_tilts(folder, shape)
        write_templates(folder, maps, source / "maps" / "negative_control_heart.mrc")
        none = {"noise_correction": "none", "template": "ribosome.mrc", "mask": MASK}
        result = match(folder, "empty", step, **none)
        assert float(result.sigma[0]) > 0
        assert len(cd.pick(result, false_positives=1)) <= 1
