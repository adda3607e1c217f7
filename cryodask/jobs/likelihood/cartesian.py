"""The search over listed orientations: the Cartesian kernel behind the same steps as the polar one."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import logsumexp

from cryodask.jobs.likelihood.contrast_points import ContrastPoints
from cryodask.jobs.likelihood.images import ImagePreparation
from cryodask.jobs.likelihood.problem import LikelihoodProblem, ProblemKey, load_array, save_array
from cryodask.jobs.likelihood.projections import ProjectionMaker
from cryodask.kernels.cartesian_fused import fold_projection
from cryodask.kernels.cartesian_likelihood import (
    CartesianBlock,
    Contrast,
    Search,
    cartesian_block,
    counts,
    cropped_spectrum,
    inner_products,
    make_search,
    pose_scores,
    projection_norms,
    rows_of,
)
from cryodask.kernels.polar_likelihood import BLOCK, TemplateFold, fold_scores
from cryodask.optics.ctf_image import ImageCtf
from cryodask.search.tiles import Tile

MOST_STORED = 4 * 2**30  # bytes of projections that are kept in files; more are made when they are needed


@dataclass(frozen=True)
class CartesianImages:
    """Makes the kernel's blocks of images.

    Parameters
    ----------
    preparation
        Reads images and their optics.
    points
        The contrast points.
    base
        Optics of images whose file has none, for an integral over CTFs; None for the file's.
    edge, inside
        Columns of the half plane; coefficients that count.
    """

    preparation: ImagePreparation
    points: ContrastPoints
    base: ImageCtf | None
    edge: int
    inside: np.ndarray

    def block(self, start: int, stop: int, search: Search) -> CartesianBlock:
        """Return the block of some images."""
        preparation = self.preparation
        images = preparation.read(start, stop)
        images -= images.mean(axis=(1, 2), keepdims=True)
        spectra = np.fft.rfft2(np.fft.ifftshift(images, axes=(1, 2)), norm="ortho")
        spectra = cropped_spectrum(spectra, self.edge)
        box = preparation.grid.box
        power = (np.abs(spectra) ** 2 * (counts(self.edge, box) * self.inside)).sum(axis=(1, 2))
        spectra *= (box / np.sqrt(power))[:, None, None]  # variance 1 within the resolution
        ky, kx = rows_of(self.edge, box)[:, None], np.arange(self.edge)
        if preparation.is_centred:
            spectra = spectra * preparation.shifts(start, stop, ky / 2, kx / 2)
        optics = [self._optics(i) for i in range(start, stop)]
        kinds = list(dict.fromkeys(optics))
        contrasts = [self.points.contrast(ky / box, kx / box, each) for each in kinds]
        of = np.array([kinds.index(each) for each in optics])
        weights = self.inside.astype(float)
        dtype = np.dtype(preparation.dtype)
        return cartesian_block(spectra.astype(dtype), contrasts, of, weights, search, preparation.form)

    def _optics(self, image: int) -> ImageCtf | None:
        if self.base is not None:
            return self.base
        return self.preparation.optics(image) if self.preparation.has_ctf else None


@dataclass(frozen=True)
class CartesianProblem(LikelihoodProblem):
    """A likelihood job over listed orientations; `rotations` are its contrast points.

    Parameters
    ----------
    pictures
        Makes image blocks.
    projections
        Makes the projections.
    """

    pictures: CartesianImages | None = None
    projections: ProjectionMaker | None = None

    @property
    def _pictures(self) -> CartesianImages:
        assert self.pictures is not None
        return self.pictures

    @property
    def _projections(self) -> ProjectionMaker:
        assert self.projections is not None
        return self.projections

    @property
    def rotations(self) -> int:
        """Contrast points, which stand for the rotations in the numbers of poses."""
        return len(self._pictures.points)

    @property
    def rotation_angles(self) -> np.ndarray:
        """None but 0: an orientation holds its rotation."""
        return np.zeros(1)

    @property
    def log_share(self) -> float:
        """0: the prior of the contrast points is normalised."""
        return 0.0

    @property
    def has_contrast(self) -> bool:
        """Whether the best pose has a CTF and an offset of its own."""
        return True

    @property
    def pose_prior(self) -> np.ndarray:
        """Log prior of displacement and contrast point, (D, points)."""
        return self.log_prior[:, None] + self._pictures.points.log_prior

    @cached_property
    def search(self) -> Search:
        """Frequencies and displacements of the kernel."""
        real = np.zeros(0, self.maker.dtype).real.dtype
        pixels = self.displacements / self.preparation.pixel_size
        return make_search(self.maker.grid.box, self._pictures.edge, pixels, real)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in super().__getstate__().items() if key != "search"}

    @property
    def stores_projections(self) -> bool:
        """Whether projections are kept in files."""
        rows, columns = self._pictures.inside.shape
        size = np.dtype(self.maker.dtype).itemsize
        return self.hypotheses * rows * columns * size <= MOST_STORED

    def prepare(self) -> None:
        """Make the projections, where they are kept."""
        if not self.stores_projections:
            return
        for structure, views, key in zip(self.structures, self.views, self.template_keys, strict=True):
            path = Path(self.folder) / f"projections-{key}.npy"
            if not path.exists():
                axes = views.axes
                made = [
                    self._projections.projections(structure, axes[i : i + BLOCK])
                    for i in range(0, len(views), BLOCK)
                ]
                save_array(path, np.concatenate(made).astype(self.maker.dtype))

    def template(self, structure: int, view: int) -> np.ndarray:
        """Return a projection, real and imaginary parts (2, rows, K)."""
        if self.stores_projections:
            name = f"projections-{self.template_keys[structure]}.npy"
            made = load_array(str(Path(self.folder) / name))[view]
        else:
            axes = self.views[structure].axes[view : view + 1]
            made = self._projections.projections(self.structures[structure], axes)[0]
        return np.stack([made.real, made.imag])

    def blocks(self, tile: Tile) -> list[CartesianBlock]:  # type: ignore[override]
        """Return the image block of a tile."""
        return [_block(self.folder, tile.start[0], tile.stop[0], ProblemKey(self))]

    def pose_scores(  # type: ignore[override]
        self, block: CartesianBlock, template: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the correlation and ln L of every pose of a projection: (m, D, points)."""
        return pose_scores(block, template, self.search, self.preparation.form)

    def measure(  # type: ignore[override]
        self, block: CartesianBlock, image: int, template: np.ndarray, d: int, w: int
    ) -> dict[str, float]:
        """Return what is told of a best pose; scale and offset in the image's standard deviations."""
        single = block.take(np.array([image]))
        correlation, score = pose_scores(single, template, self.search, self.preparation.form)
        xy = float(inner_products(single, template, self.search)[0, d, w])
        scale = xy / float(projection_norms(single, template)[0, w])
        points, base = self._pictures.points, self._pictures._optics(0)
        found = {
            "cross_correlation": float(correlation[0, d, w]),
            "log_likelihood_best": float(score[0, d, w]),
            "scale": scale,
            "correlation": float(correlation[0, d, w]),
            "offset": self._offset(scale, template, points, base, w),
        }
        chosen = {"defocus": points.defocus, "b_envelope": points.b_envelope, "amplitude": points.amplitude}
        return found | {f"best_{name}": float(values[w]) for name, values in chosen.items()}

    def _offset(
        self, scale: float, template: np.ndarray, points: ContrastPoints, base: ImageCtf | None, w: int
    ) -> float:
        """Return the constant that is added to the scaled model, whose images have mean 0."""
        at = np.zeros((1, 1))
        origin: Contrast = points.contrast(at, at, base)
        first, mix = origin.first[w], origin.mix[w]
        contrast = mix[0] * origin.planes[first, 0, 0]
        if points.is_paired:
            contrast += mix[1] * origin.planes[first + 1, 0, 0]
        return float(-scale * contrast * template[0, 0, 0] / self.maker.grid.box)

    def _fused(self, blocks: Any) -> None:
        return None

    def _fold(  # type: ignore[override]
        self, template: np.ndarray, blocks: list[CartesianBlock], fused: None
    ) -> list[TemplateFold]:
        prior = self.log_prior if self.needs_sums else None
        points = self._pictures.points.log_prior
        return [
            fold_projection(block, template, self.search, self.preparation.form, prior, points)
            for block in blocks
        ]

    def _scored(  # type: ignore[override]
        self, template: np.ndarray, block: CartesianBlock
    ) -> tuple[TemplateFold, np.ndarray, np.ndarray]:
        """Return the fold, and correlation and ln L of the poses, integrated over contrast points."""
        correlation, score = self.pose_scores(block, template)
        points = self._pictures.points.log_prior
        fold = fold_scores(correlation, score, self.log_prior, points)
        return fold, correlation.max(axis=2, keepdims=True), logsumexp(score + points, axis=2, keepdims=True)


@lru_cache(maxsize=1)
def _block(folder: str, start: int, stop: int, key: ProblemKey) -> CartesianBlock:
    problem = key.problem
    assert isinstance(problem, CartesianProblem)
    return problem._pictures.block(start, stop, problem.search)
