"""A small micrograph with planted particles, drawn from Gaussians without the kernels under test."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
import yaml
from scipy.spatial.transform import Rotation

from cryodask.geometry.zyz import zyz_rotations
from cryodask.io.image import write_image
from cryodask.io.volume import write_volume
from cryodask.optics.ctf_image import ImageCtf, ctf_image
from cryodask.simulate.structure import GaussianStructure

BOX, PIXEL = 32, 2.0
OPTICS = {
    "label": "test",
    "pixel_size": PIXEL,
    "voltage": 300.0,
    "defocus_u": 8200.0,
    "defocus_v": 7800.0,
    "astigmatism_angle": 30.0,
    "spherical_aberration": 2.7,
    "amplitude_contrast_ratio": 0.07,
    "ctf_B_factor": 20.0,
}


def asymmetric_structure() -> GaussianStructure:
    rng = np.random.default_rng(11)
    # long and curved: its views differ, so that a view's own score stands out of all others
    along = np.linspace(-22, 22, 24)
    centres = np.stack([along, 8 * np.cos(along / 9), 6 * np.sin(along / 6)], axis=1)
    return GaussianStructure(centres, np.full(24, 1.6), rng.uniform(0.2, 1.8, 24))


@dataclass(frozen=True)
class Planted:
    """A particle: top-left position (y, x), ZYZ angles, relative defocus."""

    y: int
    x: int
    angles: tuple[float, float, float]
    defocus: float = 0.0


@dataclass
class Scene:
    """Image and template, and the configuration that matches them."""

    image: np.ndarray
    template: np.ndarray
    planted: list[Planted] = field(default_factory=list)

    def write(self, folder: Path, **changes: Any) -> Path:
        """Write image, template and configuration; changes are dotted keys with __ for the dot."""
        write_image(folder / "micrograph.mrc", self.image, pixel_size=PIXEL, overwrite=True)
        write_volume(folder / "template.mrc", self.template, voxel_size=PIXEL, overwrite=True)
        mapping: dict[str, Any] = {
            "micrograph_path": str(folder / "micrograph.mrc"),
            "template_volume_path": str(folder / "template.mrc"),
            "optics_group": dict(OPTICS),
            "defocus_search_config": {"defocus_min": -400, "defocus_max": 400, "defocus_step": 400},
            "orientation_search_config": {"psi_step": 60, "theta_step": 60},
        }
        for key, value in changes.items():
            at, (*parents, last) = mapping, key.split("__")
            for parent in parents:
                at = at.setdefault(parent, {})
            at[last] = value
        path = folder / "config.yaml"
        path.write_text(yaml.safe_dump(mapping))
        return path


def draw_template(structure: GaussianStructure | None = None, box: int = BOX) -> np.ndarray:
    structure = structure or asymmetric_structure()
    return structure.density((box,) * 3, PIXEL, Rotation.identity(), np.full(3, box // 2))


def make_scene(
    planted: list[Planted],
    *,
    shape: tuple[int, int] = (96, 112),
    signal: float = 14.0,
    structure: GaussianStructure | None = None,
    pixel: float = PIXEL,
    seed: int = 0,
    zernikes: tuple[tuple[str, float], ...] = (),
) -> Scene:
    """Draw dark particles of a given z (in white noise) at their places, under noise."""
    structure = structure or asymmetric_structure()
    image = np.random.default_rng(seed).standard_normal(shape)
    for one in planted:
        rotation = zyz_rotations(np.array([one.angles]))[0]
        clean = structure.projection((BOX, BOX), pixel, rotation, np.full(2, BOX // 2)).astype(np.float64)
        optics = ImageCtf(
            pixel,
            OPTICS["defocus_u"] + one.defocus,
            OPTICS["defocus_v"] + one.defocus,
            OPTICS["astigmatism_angle"],
            b_factor=OPTICS["ctf_B_factor"],
            zernikes=zernikes,
        )
        seen = scipy.fft.irfft2(
            scipy.fft.rfft2(clean - clean.mean()) * ctf_image((BOX, BOX), optics), clean.shape
        )
        place = slice(one.y, one.y + BOX), slice(one.x, one.x + BOX)
        image[place] -= signal * seen / np.sqrt(np.sum(seen**2))
    return Scene(image.astype(np.float32), draw_template(structure), list(planted))
