"""A simulated project on disk: tomogram, template, mask, truth and the parameter files that match them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial.transform import Rotation

from cryodask.io.convert import convert_volume
from cryodask.io.particles import write_particles
from cryodask.io.star import write_star
from cryodask.io.volume import write_volume
from cryodask.optics.masks import sphere_mask
from cryodask.simulate.shapes import make_structure
from cryodask.simulate.tomogram import SimulatedTomogram, simulate_tomogram

WANTED, OTHER = "ribosome", "proteasome"
TOMOGRAM = "tomogram"
TILTS = np.arange(-60.0, 61.0, 3.0)
BINNING = 4
DEFOCUS = 30_000.0
SNR = 0.1
# Of the mean diameter: no two particles lie within one mask, which is how near picks may be.
SPACING = 1.15


@dataclass(frozen=True)
class ProjectSize:
    """How large a project is, and how finely it is searched.

    Parameters
    ----------
    shape : (z, y, x), voxels
    voxel_size, lowpass, highpass : angstrom
    box, mask_radius, mask_edge : voxels, of the template
    step : degrees between rotations
    wanted, others : particles of either kind
    """

    shape: tuple[int, int, int]
    voxel_size: float
    box: int
    mask_radius: float
    mask_edge: float
    lowpass: float
    highpass: float
    step: float
    wanted: int
    others: int

    @property
    def box_length(self) -> float:
        """Edge of the template box, angstrom: a length d is the Fourier radius box_length / d."""
        return self.box * self.voxel_size


SIZES = {
    "small": ProjectSize((60, 160, 160), 15.0, 28, 10.0, 2.0, 42.0, 280.0, 15.0, 24, 10),
    "large": ProjectSize((96, 288, 288), 12.0, 35, 12.5, 2.5, 36.0, 280.0, 12.0, 60, 30),
}


def write_project(
    folder: Path, size: ProjectSize, *, seed: int, overwrite: bool = False
) -> SimulatedTomogram:
    """Simulate a tomogram with two kinds of particles and write everything a match of it needs.

    Written are ``tomogram.mrc`` and ``.zarr``, ``ribosome.mrc``, ``mask.mrc``, ``wedge_list.star``,
    ``truth.csv`` and ``.star`` (the wanted kind), ``others.csv``, and ``params.star`` and ``params.yaml``,
    which ask for the same search.

    Parameters
    ----------
    folder : Path
        Made if missing; the STAR names it as it is given, the YAML is relative to itself.
    size : ProjectSize
    seed : int >= 0
    overwrite : bool
        Replace files of the same names.

    Returns
    -------
    SimulatedTomogram

    Raises
    ------
    InputError
        A file exists.
    """
    folder.mkdir(parents=True, exist_ok=True)
    simulated = _simulate(size, seed)
    volume = folder / f"{TOMOGRAM}.mrc"
    write_volume(volume, simulated.volume, voxel_size=size.voxel_size, overwrite=overwrite)
    convert_volume(volume, volume.with_suffix(".zarr"), overwrite=overwrite)
    _write_template(folder, size, overwrite=overwrite)
    _write_truth(folder, simulated.truth, overwrite=overwrite)
    wedges, parameters = {"stopgap_wedgelist": _wedge_list(size)}, {"tm_params": _star_row(folder, size)}
    write_star(folder / "wedge_list.star", wedges, column_numbers="", overwrite=overwrite)
    write_star(folder / "params.star", parameters, overwrite=overwrite)
    (folder / "params.yaml").write_text(_yaml_text(size), encoding="utf-8")
    return simulated


def _simulate(size: ProjectSize, seed: int) -> SimulatedTomogram:
    return simulate_tomogram(
        size.shape,
        size.voxel_size,
        particles={
            WANTED: (make_structure(WANTED), size.wanted),
            OTHER: (make_structure(OTHER), size.others),
        },
        tilt_range=(float(TILTS[0]), float(TILTS[-1])),
        defocus=DEFOCUS,
        snr=SNR,
        # picks need the whole mask inside the tomogram
        margin=(size.box / 2 + 1) * size.voxel_size,
        spacing=SPACING,
        seed=seed,
        tomo_name=TOMOGRAM,
    )


def _write_template(folder: Path, size: ProjectSize, *, overwrite: bool) -> None:
    box, centre = (size.box,) * 3, np.full(3, size.box // 2)
    template = make_structure(WANTED).density(box, size.voxel_size, Rotation.identity(), centre)
    mask = sphere_mask(size.box, size.mask_radius, size.mask_edge)
    write_volume(folder / f"{WANTED}.mrc", template, voxel_size=size.voxel_size, overwrite=overwrite)
    write_volume(folder / "mask.mrc", mask, voxel_size=size.voxel_size, overwrite=overwrite)


def _write_truth(folder: Path, truth: pd.DataFrame, *, overwrite: bool) -> None:
    wanted = truth[truth["template"] == WANTED].reset_index(drop=True)
    others = truth[truth["template"] == OTHER].reset_index(drop=True)
    write_particles(wanted, folder / "truth.csv", overwrite=overwrite)
    write_particles(wanted, folder / "truth.star", overwrite=overwrite)
    write_particles(others, folder / "others.csv", overwrite=overwrite)


def _wedge_list(size: ProjectSize) -> pd.DataFrame:
    """Return STOPGAP's wedge list, one row a tilt."""
    z, y, x = (n * BINNING for n in size.shape)
    columns = {
        "tomo_num": 1,
        "pixelsize": size.voxel_size / BINNING,
        "tomo_x": x,
        "tomo_y": y,
        "tomo_z": z,
        "z_shift": 0.0,
        "tilt_angle": TILTS,
        "defocus": DEFOCUS / 1e4,
        "voltage": 300.0,
        "amp_contrast": 0.07,
        "cs": 2.7,
    }
    return pd.DataFrame(columns)


def _star_row(folder: Path, size: ProjectSize) -> pd.DataFrame:
    """Return the row of a GAPSTOP parameter file."""
    row = {
        "rootdir": f"{folder}/",
        "outputdir": "rerun_star/",
        "vol_ext": ".mrc",
        "tomo_name": f"{TOMOGRAM}.mrc",
        "tomo_num": 1,
        "wedgelist_name": "wedge_list.star",
        "tmpl_name": f"{WANTED}.mrc",
        "mask_name": "mask.mrc",
        "symmetry": "C1",
        "angincr": size.step,
        "smap_name": "scores",
        "omap_name": "angles",
        "lp_rad": size.box_length / size.lowpass,
        "hp_rad": size.box_length / size.highpass,
        "binning": BINNING,
        "noise_corr": False,
        "fourier_crop": False,
    }
    return pd.DataFrame([row])


def _yaml_text(size: ProjectSize) -> str:
    """Return native parameters that ask for the same search as the STAR."""
    return f"""\
# Lengths in angstrom, angles in degrees; names are relative to this file.
tomogram: {TOMOGRAM}.mrc
tomo_num: 1
tilts: wedge_list.star
binning: {BINNING}
template: {WANTED}.mrc
mask: mask.mrc
symmetry: C1
angles: {{step: {size.step:g}, method: golden}}
lowpass: {size.lowpass:g}
highpass: {size.highpass:g}
# the two settings that GAPSTOP has no columns for, as it has them
interpolation: linear
statistics_grid: exact
output: rerun_yaml
formats: [zarr, mrc]
"""
