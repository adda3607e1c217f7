"""Small micrographs with particles at known poses, as the files that a match would leave."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial.transform import Rotation

from cryodask.geometry.zyz import zyz_angles, zyz_matrices
from cryodask.io.image import write_image
from cryodask.io.leopard_em import write_leopard_em
from cryodask.io.volume import write_volume
from cryodask.kernels.slices import extract_slices, project, slice_axes, template_spectrum, unit_energy
from cryodask.optics.ctf_image import ImageCtf, ctf_image
from cryodask.picking.image_peaks import image_peaks
from cryodask.simulate.micrograph import simulate_micrograph
from cryodask.simulate.placement import rotations_of
from cryodask.simulate.structure import GaussianStructure

OPTICS = {
    "defocus_u": 5200.0,
    "defocus_v": 4950.0,
    "astigmatism_angle": 25.0,
    "pixel_size": 1.5,
    "voltage": 300.0,
    "spherical_aberration": 2.7,
    "amplitude_contrast_ratio": 0.07,
    "phase_shift": 0.0,
    "ctf_B_factor": 60.0,
}
NO_WHITENING = {"whitening_filter": {"enabled": False}}


def blobs(edge: int, seed: int = 0, count: int = 40) -> np.ndarray:
    """Return a template of random blobs within a third of its box, (z, y, x) float32."""
    rng = np.random.default_rng(seed)
    axis = np.arange(edge) - edge // 2
    places = rng.normal(size=(count, 3)) * edge * 0.09
    volume = np.zeros((edge,) * 3, np.float32)
    for z, y, x in places:
        spread = [np.exp(-0.5 * ((axis - c) / 1.4) ** 2) for c in (z, y, x)]
        volume += np.einsum("i,j,k->ijk", *spread).astype(np.float32)
    return volume


def optics(**changes: Any) -> ImageCtf:
    """Return the microscope of `OPTICS`."""
    values = OPTICS | changes
    return ImageCtf(
        values["pixel_size"],
        values["defocus_u"],
        values["defocus_v"],
        values["astigmatism_angle"],
        b_factor=values["ctf_B_factor"],
    )


def projection(template: np.ndarray, angles: Any, defocus: float = 0.0, scale: float = 1.0) -> np.ndarray:
    """Return the dark projection of unit energy at ZYZ angles (3,), relative defocus and voxel over pixel."""
    n = template.shape[0]
    spectrum = template_spectrum(template, padding=2, gridding="sinc2")
    axes = slice_axes(zyz_matrices(np.atleast_2d(np.asarray(angles, float))), scale=scale)
    ctf = ctf_image((n, n), optics(pixel_size=OPTICS["pixel_size"] / scale), defocus_offset=defocus)
    return unit_energy(project(extract_slices(spectrum, axes, n), ctf))[0]


@dataclass(frozen=True)
class Planted:
    """A folder with a micrograph, its maps, its template and the table of its particles."""

    folder: Path
    template: np.ndarray
    truth: pd.DataFrame

    def table(self, **changes: Any) -> pd.DataFrame:
        """Return the table of the truth with some columns changed."""
        return table_of(self.folder, self.truth.assign(**changes), self.template.shape[0])

    def write(self, name: str = "particles.csv", **changes: Any) -> str:
        """Write the table and return its path."""
        path = self.folder / name
        write_leopard_em(path, self.table(**changes), overwrite=True)
        return str(path)


def plant(
    folder: Path,
    truth: pd.DataFrame,
    *,
    template: np.ndarray | None = None,
    shape: tuple[int, int] = (96, 112),
    signal: float = 20.0,
    noise: float = 0.0,
    scale: float = 1.0,
    seed: int = 3,
) -> Planted:
    """Write a micrograph with particles, flat maps of mean 0 and standard deviation 1, and the template.

    Parameters
    ----------
    folder
        Where to write.
    truth
        phi, theta, psi, defocus, y, x (top-left pixel) of each particle.
    template
        Edge 32, of blobs, by default.
    shape
        Of the micrograph, pixels.
    signal, noise
        Score of each particle, and standard deviation of white noise.
    scale
        Template voxel over pixel at which particles are made.
    seed
        Of the noise.
    """
    template = blobs(32) if template is None else template
    edge = template.shape[0]
    rng = np.random.default_rng(seed)
    image = noise * rng.standard_normal(shape).astype(np.float32)
    for row in truth.itertuples():
        shown = projection(template, (row.phi, row.theta, row.psi), row.defocus, scale)
        image[row.y : row.y + edge, row.x : row.x + edge] += signal * shown
    pixel_size = OPTICS["pixel_size"]
    write_image(folder / "micrograph.mrc", image, pixel_size=pixel_size)
    write_volume(folder / "template.mrc", template, voxel_size=pixel_size)
    valid = (shape[0] - edge + 1, shape[1] - edge + 1)
    write_image(folder / "mean.mrc", np.zeros(valid), pixel_size=pixel_size)
    write_image(folder / "std.mrc", np.ones(valid), pixel_size=pixel_size)
    return Planted(folder, template, truth)


def table_of(folder: Path, truth: pd.DataFrame, edge: int) -> pd.DataFrame:
    """Return the table that picking would give of the truth."""
    pixel_size, centre = OPTICS["pixel_size"], edge // 2
    columns: dict[str, Any] = {
        "particle_index": range(len(truth)),
        "mip": 20.0,
        "scaled_mip": 20.0,
        "correlation_mean": 0.0,
        "correlation_variance": 1.0,
        "total_correlations": 1,
        "relative_defocus": truth["defocus"],
        **{name: truth[name] for name in ("phi", "theta", "psi")},
        **{f"pos_{axis}": truth[axis] for axis in "xy"},
        **{f"pos_{axis}_img": truth[axis] + centre for axis in "xy"},
        **{f"pos_{axis}_img_angstrom": (truth[axis] + centre) * pixel_size for axis in "xy"},
        **OPTICS,
        "refined_pixel_size": pixel_size,
        "micrograph_path": str(folder / "micrograph.mrc"),
        "template_path": str(folder / "template.mrc"),
        "correlation_average_path": str(folder / "mean.mrc"),
        "correlation_variance_path": str(folder / "std.mrc"),
    }
    return pd.DataFrame(columns, index=pd.RangeIndex(len(truth)))


def three_particles() -> pd.DataFrame:
    """Return the truth of three particles apart from each other."""
    return pd.DataFrame(
        {
            "phi": [40.0, 200.0, 310.0],
            "theta": [70.0, 35.0, 120.0],
            "psi": [25.0, 160.0, 280.0],
            "defocus": [0.0, 60.0, -80.0],
            "y": [6, 50, 20],
            "x": [8, 30, 70],
        }
    )


def reference_particles(shared_data: Path, folder: Path, above: float) -> tuple[pd.DataFrame, np.ndarray]:
    """Write the reference micrograph with its maps; return the table of its peaks, and the template."""
    source = shared_data / "micrograph_matching" / "search_512"
    maps = np.load(source / "reference_maps.npz")
    valid = slice(0, 385)
    write_image(folder / "micrograph.mrc", np.load(source / "image.npy"), pixel_size=1.0)
    for name, stored in (("mean", "correlation_mean"), ("std", "correlation_variance")):
        write_image(folder / f"{name}.mrc", maps[stored][valid, valid], pixel_size=1.0)
    y, x = image_peaks(maps["scaled_mip"][valid, valid], above).T
    scores = ("mip", "scaled_mip", "correlation_mean", "correlation_variance")
    columns: dict[str, Any] = {
        **{name: maps[name][y, x] for name in scores},
        **{name: maps[f"best_{name}"][y, x] for name in ("phi", "theta", "psi")},
        "total_correlations": 720,
        "relative_defocus": maps["best_defocus"][y, x],
        "pos_x": x,
        "pos_y": y,
        **OPTICS,
        "pixel_size": 1.0,
        "micrograph_path": str(folder / "micrograph.mrc"),
        "correlation_average_path": str(folder / "mean.mrc"),
        "correlation_variance_path": str(folder / "std.mrc"),
    }
    return pd.DataFrame(columns), np.load(source / "template.npy")


def simulated_particles(folder: Path, *, true: float, nominal: float, seed: int) -> tuple[pd.DataFrame, Path]:
    """Write a simulated micrograph whose headers say another pixel size; return its table and the template.

    The CTF of the table is the true one in cycles per pixel, as a fit at the nominal size would have it.
    """
    edge, shape, defocus = 48, (256, 256), 5000.0
    centres = np.random.default_rng(100 + seed).normal(size=(60, 3)) * 7.0
    structure = GaussianStructure(centres - centres.mean(0), np.full(60, 2.0), np.ones(60))
    made = simulate_micrograph(
        shape, true, particles={"a": (structure, 9)}, defocus=defocus, defocus_spread=0.0, snr=0.3, seed=seed
    )
    write_image(
        folder / "micrograph.mrc", -made.image.values / made.noise_sigma, pixel_size=nominal, overwrite=True
    )
    volume = structure.density((edge,) * 3, nominal, Rotation.identity(), np.full(3, edge // 2))
    write_volume(folder / "template.mrc", volume, voxel_size=nominal, overwrite=True)
    valid = tuple(side - edge + 1 for side in shape)
    for name, value in (("mean", 0.0), ("std", 1.0)):
        write_image(folder / f"{name}.mrc", np.full(valid, value), pixel_size=nominal, overwrite=True)
    ratio = nominal / true
    angles = zyz_angles(np.swapaxes(rotations_of(made.truth).as_matrix(), 1, 2))
    columns: dict[str, Any] = {
        **dict(zip(("phi", "theta", "psi"), angles.T, strict=True)),
        "relative_defocus": 0.0,
        "pos_x": made.truth["x"].round().astype(int) - edge // 2,
        "pos_y": made.truth["y"].round().astype(int) - edge // 2,
        **OPTICS,
        "ctf_B_factor": 0.0,
        "pixel_size": nominal,
        "defocus_u": defocus * ratio**2,
        "defocus_v": defocus * ratio**2,
        "spherical_aberration": 2.7 * ratio**4,
        "micrograph_path": str(folder / "micrograph.mrc"),
        "correlation_average_path": str(folder / "mean.mrc"),
        "correlation_variance_path": str(folder / "std.mrc"),
    }
    return pd.DataFrame(columns), folder / "template.mrc"
