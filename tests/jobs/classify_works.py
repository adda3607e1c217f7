"""A small classification without files of its own: working images, model, population."""

from pathlib import Path

import numpy as np

from cryodask.jobs.classify.model import Model
from cryodask.jobs.classify.passes import Population
from cryodask.jobs.classify.randomness import normal_images
from cryodask.jobs.classify.shards import Images
from cryodask.kernels.class_sums import turned_vectors
from cryodask.kernels.polar import PolarGrid
from cryodask.kernels.polar_correlation import AngleTable
from cryodask.kernels.steerable import covariance_sum, make_basis
from cryodask.search.rounds import Rounds

BOX, RADIUS = 40, 17


def pictures(
    view: np.ndarray, angle: np.ndarray, mirror: np.ndarray, centre: np.ndarray, box: int = BOX
) -> np.ndarray:
    """Asymmetric pictures of numbered views, turned by their angle, mirrored, and moved to their centres."""
    axis = np.arange(box) - box // 2
    drawn = []
    for number, phi, flip, place in zip(view, angle, mirror, centre, strict=True):
        blobs = np.random.default_rng(number).uniform(-10, 10, (5, 2))
        x, y = (turned_vectors(blobs, np.full(5, phi), np.full(5, flip)) + place).T[:, :, None, None]
        drawn.append(
            np.exp(-((axis[None, None, :] - x) ** 2 + (axis[None, :, None] - y) ** 2) / 12).sum(axis=0)
        )
    return np.array(drawn, np.float32)


def write_images(folder: Path, name: str, images: np.ndarray, chunk: int) -> Images:
    found = Images(str(folder), name, len(images), chunk)
    for k in range(found.chunks):
        found.write(k, images[k * chunk : (k + 1) * chunk])
    found.publish("scale", np.ones(len(images), np.float32))
    return found


def write_model(folder: Path, signal: np.ndarray) -> Model:
    grid = PolarGrid(1, RADIUS, 1, 128, 24)
    noise = normal_images(400, BOX, 1)
    middle = np.zeros((max(len(signal), 400), 2))
    covariances = [
        covariance_sum(grid.coefficients(images, middle[: len(images)])) / len(images)
        for images in (signal, noise)
    ]
    basis = make_basis(*covariances, len(signal))
    model = Model(grid, basis, AngleTable(48, 24), BOX, 0.45, 0.2)
    model.write(folder / "model.npz")
    return model


def make_population(
    folder: Path, images: np.ndarray, rounds: Rounds, *, chunk: int = 64, owner: str = "run"
) -> Population:
    """Working images of a folder as a population; the model is made of them."""
    folder.mkdir(parents=True, exist_ok=True)
    write_model(folder, images)
    stored = write_images(folder, "particles", images, chunk)
    return Population(stored, np.arange(len(images)), np.zeros((len(images), 2), np.float32), owner, rounds)
