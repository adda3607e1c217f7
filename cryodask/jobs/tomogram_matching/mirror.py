"""The mirrored template: a decoy that noise fits as well as the template, and particles do not."""

import functools
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.fft
from scipy.spatial.transform import Rotation

from cryodask.arrays.module import array_module
from cryodask.geometry.euler import rotation_from_euler
from cryodask.geometry.grids import rotation_grid
from cryodask.jobs.tomogram_matching.particle import Particle
from cryodask.kernels.rotation import rotate, rotation_coefficients
from cryodask.optics.bandpass import BandPass
from cryodask.optics.frequency import half_frequencies

if TYPE_CHECKING:
    from cryodask.jobs.tomogram_matching.inputs import MatchInputs

MOST_ALIKE = 0.95
STEP = 20.0  # degrees between the orientations that are tried, before the best are refined
REFINED = 4
ROUNDS = (8.0, 4.0, 2.0)
TURNS = np.array(list(itertools.product((-1, 0, 1), repeat=3)), float)


def mirrored(volume: Any) -> Any:
    """Return a box with x -> -x about its centre voxel n//2; of an even edge voxel 0 keeps its place."""
    xp, edge = array_module(volume), volume.shape[-1]
    return xp.ascontiguousarray(volume[..., (2 * (edge // 2) - xp.arange(edge)) % edge])


def check_handed(inputs: "MatchInputs") -> None:
    """Refuse a template that is much like its mirror image in the band of the search.

    Raises
    ------
    InputError
        With their correlation under the mask.
    """
    if inputs.parameters.decoy != "mirror":
        return
    likeness = mirror_likeness(inputs.particle, inputs.band, inputs.parameters.symmetry)
    if likeness > MOST_ALIKE:
        text = (
            f"{inputs.name} correlates {likeness:.2f} with its mirror image in the band of the search, "
            f"expected {MOST_ALIKE:g} or less"
        )
        raise inputs.parameters.source.wrong("decoy", "mirror", text)


def mirror_likeness(particle: Particle, band: BandPass | None, symmetry: str) -> float:
    """Return the largest correlation of a template with its mirror image over all rotations.

    Parameters
    ----------
    particle
        Template and mask.
    band
        Frequencies that are compared; all where it is none.
    symmetry
        Of the template, which saves rotations.
    """
    volume = _in_band(particle, band)
    return _likeness(volume.tobytes(), len(volume), symmetry)


@functools.lru_cache(maxsize=8)
def _likeness(content: bytes, box: int, symmetry: str) -> float:
    """Return the likeness of a volume to its mirror image; kept, since many tomograms share a template."""
    volume = np.frombuffer(content, np.float32).reshape((box,) * 3)
    image = rotation_coefficients(mirrored(volume), "linear")
    grid = rotation_from_euler(rotation_grid(STEP, symmetry=symmetry)).as_matrix()
    best = _ranked(volume, image, grid)[:REFINED]
    for step in ROUNDS:
        turns = Rotation.from_rotvec(TURNS * step, degrees=True).as_matrix()
        best = [_ranked(volume, image, turns @ matrix)[0] for _, matrix in best]
    return max(score for score, _ in best)


def _ranked(volume: np.ndarray, image: np.ndarray, matrices: np.ndarray) -> list[tuple[float, np.ndarray]]:
    """Return the correlation of a volume with every rotation of an image, the largest first."""
    found = []
    for matrix in matrices:
        rotated = rotate(image, matrix, "linear")
        lengths = float(np.linalg.norm(volume) * np.linalg.norm(rotated))
        found.append((float(np.vdot(volume, rotated)) / max(lengths, 1e-30), matrix))
    return sorted(found, key=lambda pair: -pair[0])


def _in_band(particle: Particle, band: BandPass | None) -> np.ndarray:
    """Return the masked template as the search sees it, without mean."""
    mask, box = particle.mask.astype(np.float64), particle.box
    mean = (mask * particle.template).sum() / mask.sum()
    volume = mask * (particle.template - mean)
    if band is None:
        return volume.astype(np.float32)
    kz, ky, kx = half_frequencies((box,) * 3, 1.0)
    curve = band.curve(box * np.sqrt(kz**2 + ky**2 + kx**2), box)
    return np.asarray(
        scipy.fft.irfftn(scipy.fft.rfftn(volume) * curve, volume.shape) * (mask > 0), np.float32
    )
