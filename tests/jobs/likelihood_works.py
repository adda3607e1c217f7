"""Particles of GroEL chain A with known poses, for the tests of likelihoods."""

from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd

from cryodask.geometry.euler import rotation_from_euler
from cryodask.io.star import write_star
from cryodask.optics.ctf_image import ImageCtf, ctf_image

BOX, PIXEL = 32, 4.0


def simulate(
    path: Path,
    pdb: str,
    *,
    count: int = 12,
    snr: float = np.inf,
    voltages: tuple[float, ...] = (300.0,),
    seed: int = 1,
) -> Path:
    """Write a STAR and MRCS of projections made in real space with RELION's matrix; half have U below V."""
    from cryodask.io.atoms import read_models

    rng = np.random.default_rng(seed)
    atoms = read_models(pdb)["1"]
    points = atoms.take(np.flatnonzero(atoms.name == "CA")).positions
    points = points - points.mean(axis=0)
    angles = rng.uniform(-180, 180, (count, 3))
    angles[:, 1] = np.degrees(np.arccos(rng.uniform(-1, 1, count)))
    origins = rng.uniform(-6, 6, (count, 2))
    u = rng.uniform(9000, 15000, count)
    v = u + rng.choice([-1500, 1500], count)
    theta, group = rng.uniform(-90, 90, count), np.arange(count) % len(voltages)
    pixels = (np.arange(BOX) - BOX // 2) * PIXEL
    images = []
    for i, matrix in enumerate(rotation_from_euler(angles, "relion").as_matrix()):
        x, y = ((points @ matrix.T)[:, :2] - origins[i]).T
        drawn = np.exp(-(((pixels - y[:, None]) / 5) ** 2)).T @ np.exp(-(((pixels - x[:, None]) / 5) ** 2))
        optics = ImageCtf(PIXEL, u[i], v[i], theta[i], voltage=voltages[group[i]], amplitude_contrast=0.1)
        spectrum = np.fft.rfft2(np.fft.ifftshift(drawn)) * ctf_image((BOX, BOX), optics)
        images.append(np.fft.fftshift(np.fft.irfft2(spectrum, s=(BOX, BOX))))
    stack = np.array(images)
    if np.isfinite(snr):
        stack += rng.normal(size=stack.shape) * stack.std() / np.sqrt(snr)
    mrcfile.write(path.with_suffix(".mrcs"), stack.astype(np.float32), voxel_size=PIXEL)
    numbers = np.arange(1, len(voltages) + 1)
    optics_table = pd.DataFrame(
        {"rlnOpticsGroup": numbers, "rlnVoltage": voltages, "rlnImagePixelSize": PIXEL}
    )
    optics_table = optics_table.assign(rlnSphericalAberration=2.7, rlnAmplitudeContrast=0.1)
    particles = pd.DataFrame(
        {
            "rlnImageName": [f"{i + 1:06d}@{path.with_suffix('.mrcs').name}" for i in range(count)],
            "rlnOpticsGroup": group + 1,
            "rlnDefocusU": u,
            "rlnDefocusV": v,
            "rlnDefocusAngle": theta,
            **dict(zip(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), angles.T, strict=True)),
            **dict(zip(("rlnOriginXAngst", "rlnOriginYAngst"), origins.T, strict=True)),
        }
    )
    write_star(path, {"optics": optics_table, "particles": particles})
    return path


def pose_errors(found: pd.DataFrame, truth: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return angles between orientations (degrees) and distances between origins (angstrom)."""
    names = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
    a, b = (rotation_from_euler(t[names].to_numpy(float), "relion") for t in (found, truth))
    names = ["rlnOriginXAngst", "rlnOriginYAngst"]
    shift = found[names].to_numpy(float) - truth[names].to_numpy(float)
    return np.degrees((a.inv() * b).magnitude()), np.hypot(*shift.T)
