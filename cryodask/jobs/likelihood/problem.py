"""The search that the engine runs: positions are images, hypotheses are the templates of all structures."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from cryodask.arrays.npy import load_npy
from cryodask.geometry.polar import displacement_phases
from cryodask.geometry.views import Views
from cryodask.jobs.likelihood.images import ImagePreparation
from cryodask.jobs.likelihood.levels import FINE, fine_rows, fine_variables
from cryodask.jobs.likelihood.posterior import finish_tile, variables
from cryodask.jobs.likelihood.structures import Structure
from cryodask.jobs.likelihood.templates import TemplateMaker
from cryodask.kernels.polar_fused import FusedBlock, can_fuse, fold_template, fused_block
from cryodask.kernels.polar_fused_template import fused_template, planar_basis, planar_phases
from cryodask.kernels.polar_likelihood import (
    ImageBlock,
    TemplateFold,
    TemplateSpectra,
    fold_scores,
    inner_products,
    offset_basis,
    pose_scores,
    template_spectra,
)
from cryodask.search.aggregates import Aggregate, States, empty_states
from cryodask.search.pair_aggregates import LargestOfGroup, Rows
from cryodask.search.problem import Summary, Variable
from cryodask.search.store import replacing
from cryodask.search.tiles import Batch, Tile

BASIS_IMAGES = 512  # whose CTFs span the offset basis
BASIS_TOLERANCE = {"complex64": 2e-4, "complex128": 1e-8}
CACHED = ("phases", "_planes", "_planar_basis")  # made again by each process
# columns of the rows kept of a template: log sums with and without the prior, mean and square of P, maximum
LOG_SUM, PLAIN, MEAN, SQUARE, LARGEST = range(5)


@dataclass(frozen=True)
class LikelihoodProblem:
    """A likelihood job; small, its constants lie in a folder.

    Parameters
    ----------
    folder
        Constants: images, templates, offset basis.
    images
        Number of images.
    preparation, maker
        Make image blocks and templates.
    structures, views
        One of each structure.
    displacements : (D, 2) angstrom
    log_prior : (D,)
        Of the displacements; -inf where a displacement takes part in maxima alone.
    keep
        Levels of aggregation.
    by_posterior
        Whether the best pose is the likeliest, else that of the largest correlation.
    credible
        Probability of the credible set.
    is_raw
        View weights enter as CryoLike d209d6b has them.
    template_keys
        Names of the structures' templates among the constants.
    top
        Orientations that the level `top` keeps.
    token
        Differs from that of any other run, so that a process keeps nothing of one for another.
    """

    folder: str
    images: int
    preparation: ImagePreparation
    maker: TemplateMaker
    structures: tuple[Structure, ...]
    views: tuple[Views, ...]
    displacements: np.ndarray
    log_prior: np.ndarray
    keep: tuple[str, ...]
    by_posterior: bool
    credible: float
    is_raw: bool
    template_keys: tuple[str, ...]
    top: int = 10
    token: str = ""

    @property
    def rotations(self) -> int:
        """In-plane rotations W."""
        return self.maker.grid.rotations

    @property
    def rotation_angles(self) -> np.ndarray:
        """In-plane rotations that a result tells apart, degrees."""
        return 360.0 / self.rotations * np.arange(self.rotations)

    @property
    def log_share(self) -> float:
        """Log prior of a rotation where `pose_prior` does not hold it."""
        return -float(np.log(self.rotations))

    @property
    def has_contrast(self) -> bool:
        """Whether the best pose has a CTF and an offset of its own."""
        return False

    @property
    def pose_prior(self) -> np.ndarray:
        """Log prior of the poses of a template, that broadcasts against (D, W)."""
        return self.log_prior[:, None]

    @property
    def needs_sums(self) -> bool:
        """Whether the likelihood is integrated."""
        return self.by_posterior or bool({"likelihood", "summary", "template", *FINE} & set(self.keep))

    @property
    def aggregates(self) -> dict[str, Aggregate]:
        """The best pose of each structure, and rows of each template where they are needed."""
        found: dict[str, Aggregate] = {"best": LargestOfGroup(len(self.structures))}
        if self.needs_sums:
            found["sums"] = Rows()
        if "template" in self.keep:
            found["template"] = Rows()
        return found | {level: Rows() for level in FINE if level in self.keep}

    @property
    def offsets(self) -> np.ndarray:
        """First template of each structure among all, and their number at the end."""
        return np.concatenate([[0], np.cumsum([len(views) for views in self.views])])

    @property
    def hypotheses(self) -> int:
        """Templates of all structures."""
        return int(self.offsets[-1])

    @property
    def variables(self) -> tuple[Variable, ...]:
        """The arrays of the result."""
        sizes = len(self.structures), max(map(len, self.views))
        fine = fine_variables(*sizes, len(self.displacements), len(self.rotation_angles), self.keep, self.top)
        return variables(*sizes, self.keep, has_contrast=self.has_contrast) + fine

    def prepare(self) -> None:
        """Make the offset basis and the templates that are not there yet."""
        folder = Path(self.folder)
        self.basis()
        for structure, views, key in zip(self.structures, self.views, self.template_keys, strict=True):
            path = folder / f"templates-{key}.npy"
            if not path.exists():
                save_array(path, self.maker.templates(structure, views))

    def basis(self) -> np.ndarray | None:
        """Return the rows that span b C of the images, made once from evenly chosen images."""
        if self.preparation.form.offset != "exact":
            return None
        path = Path(self.folder) / "offset_basis.npy"
        if not path.exists():
            half = self.rotations // 2
            box = self.maker.grid.box_transform[:, :half]
            chosen = np.unique(np.linspace(0, self.images - 1, BASIS_IMAGES).astype(int))
            if not self.preparation.has_ctf:
                chosen = chosen[:1]
            rows = np.concatenate([self.preparation.contrast(i, i + 1) for i in chosen]) * box
            made = offset_basis(rows, self.maker.grid.weights, BASIS_TOLERANCE[self.maker.dtype])
            save_array(path, made.astype(np.zeros(0, self.maker.dtype).real.dtype))
        return load_array(str(path))

    @cached_property
    def phases(self) -> np.ndarray:
        """Displacement phases (D, n, W/2)."""
        return displacement_phases(self.maker.grid, self.displacements, self.maker.box_length).astype(
            self.maker.dtype
        )

    @cached_property
    def _planes(self) -> np.ndarray:
        return planar_phases(self.phases, self.maker.grid.weights)

    @cached_property
    def _planar_basis(self) -> np.ndarray | None:
        return planar_basis(self.basis(), self.maker.grid.weights)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in CACHED}

    def template(self, structure: int, view: int) -> np.ndarray:
        """Return one template of a structure."""
        return np.asarray(self.templates(structure)[view])

    def pose_scores(self, block: ImageBlock, template: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the correlation and ln L of every pose of a template: (m, D, W)."""
        return pose_scores(block, self.spectra(template), self.preparation.form)

    def measure(
        self, block: ImageBlock, image: int, template: np.ndarray, d: int, w: int
    ) -> dict[str, float]:
        """Return what is told of an image's best pose."""
        form, single = self.preparation.form, block.take(np.array([image]))
        spectra = self.spectra(template, [d])
        xy, xx, sx = (np.asarray(term, float) for term in inner_products(single, spectra))
        correlation, score = pose_scores(single, spectra, form)
        xy, xx, sx = xy[0, w, 0], xx[0, w, 0], sx[0, w % sx.shape[1], 0]
        iss, isy, iyy = single.iss[0], single.isy[0], single.iyy[0]
        a = xx if form.offset == "none" else iss * xx - sx * sx
        b = xy if form.offset == "none" else iss * xy - sx * isy
        e = iyy if form.offset == "none" else iss * iyy - isy * isy
        return {
            "cross_correlation": correlation[0, 0, w],
            "log_likelihood_best": score[0, 0, w],
            "scale": b / a,
            "correlation": b / np.sqrt(a * e),
        }

    def blocks(self, tile: Tile) -> list[ImageBlock]:
        """Return the image blocks of a tile; the last tile's are kept, since its batches follow each
        other."""
        return _blocks(self.folder, tile.start[0], tile.stop[0], ProblemKey(self))

    def spectra(self, template: np.ndarray, rows: Any = slice(None)) -> TemplateSpectra:
        """Return what the kernel needs of a template (n, W/2), for some displacements."""
        form, grid = self.preparation.form, self.maker.grid
        return template_spectra(template, self.phases[rows], grid.weights, form, self.basis())

    def templates(self, structure: int) -> np.ndarray:
        """Return the templates of a structure (S, n, W/2), mapped from their file."""
        return load_array(str(Path(self.folder) / f"templates-{self.template_keys[structure]}.npy"))

    def fold(self, tile: Tile, batch: Batch) -> States:
        """Score a batch of templates on a tile's images."""
        blocks = self.blocks(tile)
        fused = None if set(FINE) & set(self.keep) else self._fused(blocks)
        states = empty_states(self.aggregates, tile.shape)
        rows: list[np.ndarray] = []
        poses: list[np.ndarray] = []
        fine: dict[str, list[np.ndarray]] = {level: [] for level in FINE if level in self.keep}
        for structure, view in self._each(batch):
            template = self.template(structure, view)
            folds = self._fold_fine(template, blocks, fine) if fine else self._fold(template, blocks, fused)
            self._update_best(states, structure, view, folds)
            if self.needs_sums:
                rows.append(np.concatenate([_sums(fold) for fold in folds]))
            if "template" in self.keep:
                values = [np.stack([fold.correlation, fold.pose], axis=1, dtype=float) for fold in folds]
                poses.append(np.concatenate(values))
        if self.needs_sums:
            states["sums"] = Rows().update({}, np.stack(rows), batch.start)
        if "template" in self.keep:
            states["template"] = Rows().update({}, np.stack(poses), batch.start)
        for level, kept in fine.items():
            states[level] = Rows().update({}, np.stack(kept), batch.start)
        return states

    def finish(self, tile: Tile, states: States) -> tuple[dict[str, np.ndarray], Summary]:
        """Turn the states of all templates into the result of a tile's images."""
        return finish_tile(self, tile, states)

    def _each(self, batch: Batch) -> Iterator[tuple[int, int]]:
        offsets = self.offsets
        for hypothesis in range(batch.start, batch.stop):
            structure = int(np.searchsorted(offsets, hypothesis, side="right")) - 1
            yield structure, hypothesis - int(offsets[structure])

    def _fused(self, blocks: list[ImageBlock]) -> list[FusedBlock] | None:
        if not can_fuse(self.rotations, len(self.maker.grid.radii), np.dtype(self.maker.dtype)):
            return None
        return [fused_block(block) for block in blocks]

    def _fold(
        self, template: np.ndarray, blocks: list[ImageBlock], fused: list[FusedBlock] | None
    ) -> list[TemplateFold]:
        form = self.preparation.form
        prior = self.log_prior if self.needs_sums else None
        if fused is not None:
            weights = self.maker.grid.weights
            alone = replace(form, offset="none")  # correlations alone need no overlap with the box
            own = form if self.needs_sums else alone
            prepared = fused_template(template, self._planes, weights, own, self._planar_basis)
            return [fold_template(block, prepared, own, prior) for block in fused]
        spectra = self.spectra(template)
        return [fold_scores(*pose_scores(block, spectra, form), prior) for block in blocks]

    def _fold_fine(
        self, template: np.ndarray, blocks: list[ImageBlock], fine: dict[str, list[np.ndarray]]
    ) -> list[TemplateFold]:
        """Score every pose, and add what the finer levels keep of them."""
        folds: list[TemplateFold] = []
        found: dict[str, list[np.ndarray]] = {level: [] for level in fine}
        for block in blocks:
            fold, correlation, score = self._scored(template, block)
            folds.append(fold)
            for level, values in fine_rows(self.keep, correlation, score, self.log_prior, self.top).items():
                found[level].append(values)
        for level, parts in found.items():
            fine[level].append(np.concatenate(parts))
        return folds

    def _scored(self, template: np.ndarray, block: ImageBlock) -> tuple[TemplateFold, np.ndarray, np.ndarray]:
        """Return the fold of a template, and the correlation and ln L of its poses."""
        correlation, score = self.pose_scores(block, template)
        return fold_scores(correlation, score, self.log_prior), correlation, score

    def _update_best(self, states: States, structure: int, view: int, folds: list[TemplateFold]) -> None:
        if self.by_posterior:
            value = np.concatenate([fold.reference for fold in folds])
            value = value + np.log(self.views[structure].weight[view])
            pose = np.concatenate([fold.likeliest for fold in folds])
        else:
            value = np.concatenate([fold.correlation for fold in folds]).astype(np.float64)
            pose = np.concatenate([fold.pose for fold in folds])
        size = len(self.displacements) * self.rotations
        ids = pose.astype(np.uint64) + np.uint64(view * size)
        state = states["best"]
        merged = LargestOfGroup(1).merge(
            {key: state[key][structure] for key in state}, {"value": value, "id": ids}
        )
        for key, array in merged.items():
            state[key][structure] = array


def _sums(fold: TemplateFold) -> np.ndarray:
    """Return the five numbers kept of each image's template (m, 5)."""
    reference = fold.reference
    log_sum = reference + np.log(fold.weighted)
    mean = reference + fold.first / fold.weighted
    square = 2 * reference + np.log(fold.square)
    return np.stack([log_sum, reference + np.log(fold.plain), mean, square, reference], axis=1)


class ProblemKey:
    """Carries a problem through a cache that is keyed by its token and a range of images."""

    def __init__(self, problem: LikelihoodProblem) -> None:
        self.problem = problem

    def __hash__(self) -> int:
        return hash(self.problem.token)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ProblemKey) and other.problem.token == self.problem.token


@lru_cache(maxsize=1)
def _blocks(folder: str, start: int, stop: int, key: ProblemKey) -> list[ImageBlock]:
    return key.problem.preparation.blocks(start, stop, key.problem.basis())


def forget_blocks() -> None:
    """Give back the memory of the image blocks that are kept for the next batch of their tile."""
    _blocks.cache_clear()


def load_array(path: str) -> np.ndarray:
    """Map an array from its file, once a process and version of the file."""
    status = Path(path).stat()
    return _mapped(path, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=32)
def _mapped(path: str, modified: int, number: int) -> np.ndarray:
    return load_npy(path, "r")


def save_array(path: Path, array: np.ndarray) -> None:
    """Write an array whole or not at all."""
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, array)
