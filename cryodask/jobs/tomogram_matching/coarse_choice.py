"""The first stage of a coarse-to-fine match: chosen from the menu before anything is computed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import scipy.fft
from scipy.spatial.transform import Rotation

from cryodask.arrays.lengths import fast_even_length
from cryodask.geometry.euler import euler_from_rotation, rotation_from_euler
from cryodask.geometry.ladder import Ladder, count_local_rows
from cryodask.geometry.neighbours import RowFinder, coarser_grid
from cryodask.io.volume import read_region
from cryodask.jobs.miss_model import MissModel
from cryodask.jobs.tomogram_matching.area import SearchArea
from cryodask.jobs.tomogram_matching.coarse_search import coarse_problem
from cryodask.jobs.tomogram_matching.coarse_tables import make_coarse_tables
from cryodask.jobs.tomogram_matching.constants import Tables
from cryodask.jobs.tomogram_matching.inputs import MatchInputs
from cryodask.jobs.tomogram_matching.many_templates import MatchProblem
from cryodask.jobs.tomogram_matching.menu import (
    LOWPASS_SIGMA,
    CoarseChoice,
    Offer,
    Rates,
    Work,
    candidate_voxels,
    choose_offers,
    coarse_choices,
    describe,
    joint_seconds,
    make_offer,
    pilot_rows,
    scaled_candidates,
)
from cryodask.jobs.tomogram_matching.miss_probability import (
    Stage,
    filtered_power,
    miss_models,
    stage_of,
)
from cryodask.jobs.tomogram_matching.planning import TRANSFORMS, make_tables
from cryodask.jobs.tomogram_matching.preparation import SpectrumFilter, TomogramFilter, radial_weights
from cryodask.jobs.tomogram_matching.problem import TomogramProblem
from cryodask.jobs.tomogram_matching.refinement import angular_step
from cryodask.jobs.tomogram_matching.search_grid import SearchGrid, band_edge, grid_of
from cryodask.optics.bandpass import BandPass
from cryodask.optics.fourier_crop import crop_axis
from cryodask.optics.frequency import half_frequencies
from cryodask.optics.whitening import (
    NoiseSpectrum,
    Region,
    Whitening,
    cube_power,
    cube_slices,
    noise_spectrum,
    whitening,
)
from cryodask.search.tiles import Tile

NOISE_CUBES = 48  # pieces of the tomogram that its noise is measured on, evenly chosen
LARGEST_SHARE = 0.5  # of the work of searching everything that a first stage may be
PILOT_EDGE = 128  # positions of the full grid that a pilot searches, on an axis


@dataclass(frozen=True, eq=False)
class TemplateStage:
    """How one template is searched first.

    Parameters
    ----------
    angles
        (row, 3) its coarse rotation list, zxz degrees.
    step, fine_step
        Of that and of the whole rotation list, degrees.
    symmetry
        Point group of the template.
    threshold
        τ on the raw coarse score.
    regression
        What a coarse score is multiplied with to be the expected fine score.
    sigma
        Standard deviation of a fine score of noise over that of a coarse one.
    miss
        Probability that a particle at the threshold of the run is missed.
    """

    angles: np.ndarray
    step: float
    fine_step: float
    symmetry: str
    threshold: float
    regression: float
    sigma: float
    miss: float


STORED = ("step", "threshold", "regression", "sigma", "miss")  # of a template


@dataclass(frozen=True, eq=False)
class ChosenStage:
    """The first stage of a coarse-to-fine match.

    Parameters
    ----------
    choice
        Step of the first template, low-pass and grid.
    grid
        Its voxels.
    lowpass
        Factor on the cropped tomogram and the coarse templates, over 1/angstrom; None for none.
    templates
        What is each template's own.
    whole
        The work of both stages in units of the first's, as priced.
    text
        For the user.
    """

    choice: CoarseChoice
    grid: SearchGrid
    lowpass: "ExtraLowpass | None"
    templates: tuple[TemplateStage, ...]
    whole: float
    text: str

    def described(self) -> dict[str, Any]:
        """Return it as plain numbers, from which `restored` makes it again."""
        return {
            "step": self.choice.step,
            "lowpass": self.choice.lowpass,
            "factor": str(self.choice.factor),
            "miss": max(each.miss for each in self.templates),
            "templates": [{name: getattr(each, name) for name in STORED} for each in self.templates],
            "whole": self.whole,
            "text": self.text,
        }


def restored(inputs: MatchInputs, problem: MatchProblem, stored: Mapping[str, Any]) -> ChosenStage:
    """Make a choice again from what `ChosenStage.described` returned."""
    choice = CoarseChoice(stored["step"], stored["lowpass"], Fraction(stored["factor"]))
    templates = tuple(
        _restored_template(each, own) for each, own in zip(inputs.every, stored["templates"], strict=True)
    )
    grid = grid_of(inputs, choice.factor)
    lowpass = _lowpass(choice, inputs, problem.box)
    return ChosenStage(choice, grid, lowpass, templates, stored["whole"], stored["text"])


def _restored_template(inputs: MatchInputs, stored: Mapping[str, Any]) -> TemplateStage:
    symmetry = inputs.parameters.symmetry
    finder = RowFinder(rotation_from_euler(inputs.angles), symmetry)
    angles = euler_from_rotation(coarser_grid(finder, stored["step"]))
    values = {name: stored[name] for name in STORED}
    return TemplateStage(angles=angles, fine_step=angular_step(inputs), symmetry=symmetry, **values)


def _lowpass(choice: CoarseChoice, inputs: MatchInputs, box: int) -> "ExtraLowpass | None":
    edge = box * inputs.voxel_size
    return None if choice.lowpass is None else ExtraLowpass(choice.lowpass, edge)


@dataclass(frozen=True)
class ExtraLowpass:
    """The low-pass of a first stage, a function of the frequency.

    Parameters
    ----------
    resolution
        Angstrom.
    edge
        Of the template box, angstrom: the fall is counted in its Fourier pixels.
    """

    resolution: float
    edge: float

    def __call__(self, frequency: np.ndarray) -> np.ndarray:
        """Return the factors at frequencies (any shape, 1/angstrom)."""
        band = BandPass(lp_rad=self.edge / self.resolution, lp_sigma=LOWPASS_SIGMA)
        # the curve of a band starts at 0; the mean is no concern of a low-pass
        return np.where(frequency > 0, band.curve(np.asarray(frequency) * self.edge, self._box), 1.0)

    @property
    def _box(self) -> int:
        """A box whose Nyquist frequency does not cut the fall."""
        return 4 * int(self.edge / self.resolution + 2 * LOWPASS_SIGMA)


def choose_first_stage(
    inputs: MatchInputs, problem: MatchProblem, area: SearchArea, *, tiles: int = 1
) -> tuple[ChosenStage | None, str]:
    """Choose how a match is searched coarsely first; None where searching everything is cheaper.

    The noise is measured on pieces of the tomogram, each first stage of the menu gets for each template the
    threshold that misses at most `miss_rate` of the particles at the threshold of the run, and the candidates
    of the cheapest are counted by a pilot search of one tile before it is taken.

    Parameters
    ----------
    inputs
        Of the match.
    problem
        The match on the full grid.
    area
        What is searched.
    tiles
        Of the second stage.

    Returns
    -------
    The stage and the text that a user reads.

    Raises
    ------
    InputError
        A rotation list without a step, or a region without signal.
    """
    noise = _measure_noise(problem.parts[0].tomogram_filter, area, problem.box)
    planners = [
        _Planner(each, part, area, noise, tiles)
        for each, part in zip(inputs.every, problem.parts, strict=True)
    ]
    first, works, rates = planners[0], [each.work for each in planners], [each.rates for each in planners]
    menu = first.menu()
    offers = [each.offers(menu, first.step) for each in planners]
    # what one template cannot be searched with, none is
    common = [choice for choice in menu if all(choice in own for own in offers)]
    chosen = choose_offers(
        [tuple(own[choice] for own in offers) for choice in common],
        works,
        rates,
        lambda number, offer: planners[number].pilot(offer),
    )
    text = describe(chosen, works, rates)
    if chosen is None:
        return None, text
    alone = [replace(offer, candidates=0.0) for offer in chosen]
    described = {
        "step": chosen[0].choice.step,
        "lowpass": chosen[0].choice.lowpass,
        "factor": str(chosen[0].choice.factor),
        "templates": [each.described(offer) for each, offer in zip(planners, chosen, strict=True)],
        "whole": joint_seconds(chosen, works, rates) / joint_seconds(alone, works, rates),
        "text": text,
    }
    return restored(inputs, problem, described), text


@dataclass(frozen=True, eq=False)
class _Option:
    """A first stage of the menu, made: its list, grid, tables and what it sees."""

    rotations: Rotation
    grid: SearchGrid
    lowpass: ExtraLowpass | None
    tables: Tables
    stage: Stage
    model: MissModel | None = None


class _Planner:
    """Makes, prices and pilots the first stages of one template."""

    def __init__(
        self, inputs: MatchInputs, problem: TomogramProblem, area: SearchArea, noise: "_Noise", tiles: int
    ) -> None:
        self.inputs, self.area, self.noise = inputs, area, noise
        # its decoy sees the same noise, and is left out of pilots
        self.problem = replace(problem, moments=False, decoy=False)
        self.symmetry, self.step = inputs.parameters.symmetry, angular_step(inputs)
        self.fine = rotation_from_euler(inputs.angles)
        self.finder = RowFinder(self.fine, self.symmetry)
        transforms = TRANSFORMS[inputs.mask_kind]
        standard = Rates()
        self.rates = replace(
            standard, search=standard.search * transforms, product=standard.product * transforms
        )
        support = int(np.count_nonzero(inputs.particle.mask))
        copies = 1 + problem.beside
        self.work = Work(area.count, len(inputs.angles), problem.box, support, tiles, copies)
        self.options: dict[CoarseChoice, _Option] = {}

    def offers(self, menu: Sequence[CoarseChoice], step: float) -> dict[CoarseChoice, Offer]:
        """Return every first stage that may be worth it, with its threshold.

        Parameters
        ----------
        menu
            For a template whose fine list has a step of `step` degrees: the steps here are as much coarser.
        step
            Degrees.
        """
        cell = len(self.problem.cells) // 2
        tables = make_tables(self.inputs, self.problem)
        fine = stage_of(
            self.problem,
            replace(tables, template_filters=self.problem.template_filter(tables, cell, self.noise.curve)),
        )
        lists: dict[float, tuple[Rotation, float]] = {}
        wanted: list[CoarseChoice] = []
        for choice in menu:
            coarse_step = choice.step / step * self.step
            if choice.step not in lists:
                coarse = coarser_grid(self.finder, coarse_step)
                ladder = Ladder(self.fine, self.step, coarse, coarse_step, self.symmetry)
                lists[choice.step] = coarse, count_local_rows(ladder, self.symmetry)
            if len(lists[choice.step][0]) * float(choice.factor) ** 3 < LARGEST_SHARE * len(self.fine):
                own = replace(choice, step=coarse_step)
                self.options[own] = self._option(own, lists[choice.step][0], cell)
                wanted.append(choice)
        power = filtered_power(self.problem.tomogram_filter, self.noise.spectrum, self.noise.curve)
        stages = [option.stage for option in self.options.values()]
        models = miss_models(fine, stages, power, symmetry=self.symmetry, seed=self.inputs.parameters.seed)
        found = {}
        for choice, (own, option), model in zip(wanted, list(self.options.items()), models, strict=True):
            self.options[own] = replace(option, model=model)
            found[choice] = self._offer(own, model, len(option.rotations), lists[choice.step][1])
        return found

    def menu(self) -> list[CoarseChoice]:
        """Return the first stages that suit the template."""
        inputs = self.inputs
        return coarse_choices(
            self.step,
            inputs.particle_diameter,
            box=self.problem.box,
            voxel_size=inputs.voxel_size,
            band_edge=band_edge(inputs.band, self.problem.box),
        )

    def _offer(self, choice: CoarseChoice, model: MissModel, rotations: int, local_rows: float) -> Offer:
        parameters = self.inputs.parameters
        return make_offer(
            choice,
            model,
            self.work,
            rotations=rotations,
            local_rows=local_rows,
            miss_rate=parameters.miss_rate,
            false_positives=parameters.false_positives,
        )

    def _option(self, choice: CoarseChoice, rotations: Rotation, cell: int) -> _Option:
        inputs, grid = self.inputs, grid_of(self.inputs, choice.factor)
        lowpass = _lowpass(choice, inputs, self.problem.box)
        coarse = self._coarse_problem(grid)
        angles = euler_from_rotation(rotations)
        tables = make_coarse_tables(replace(inputs, angles=angles), self.problem, grid, lowpass)
        tables = replace(tables, template_filters=coarse.template_filter(tables, cell, self.noise.curve))
        data = None if lowpass is None else lowpass(_frequencies(grid.coarse_box, coarse))
        stage = stage_of(coarse, tables, data_filter=data, factor=float(grid.factor))
        return _Option(rotations, grid, lowpass, tables, stage)

    def _coarse_problem(self, grid: SearchGrid) -> TomogramProblem:
        found = coarse_problem(self.problem, grid, [1.0])
        assert isinstance(found, TomogramProblem)
        return found

    def pilot(self, offer: Offer) -> float:
        """Return the candidates to expect, by a search of one tile with a twentieth of the coarse rows."""
        option = self.options[offer.choice]
        problem = self._coarse_problem(option.grid)
        block = self._pilot_block(option)
        positions = tuple(length - problem.box + 1 for length in block.shape)
        rows = pilot_rows(len(option.rotations))
        tile = Tile(0, (0, 0, 0), positions, tuple(fast_even_length(length) for length in block.shape))
        # zeros beyond the last position, so that the transforms are fast ones
        block = np.pad(block, [(0, b - a) for a, b in zip(block.shape, tile.block, strict=True)])
        score = np.full(positions, -np.inf, np.float32)
        counts: list[int] = []
        sizes: list[int] = []
        # every other row first, then the rest
        for part in (rows[::2], rows[1::2]):
            own = replace(
                option.tables,
                matrices=option.tables.matrices[part],
                directions=option.tables.directions[part],
            )
            states = problem.fold_block(block, own, tile, np.arange(len(part)))
            score = np.maximum(score, states["score"]["value"])
            counts.append(int(np.count_nonzero(candidate_voxels(score, offer.threshold))))
            sizes.append(len(part) + sum(sizes))
        return scaled_candidates(counts, sizes, score.size, offer, self.work)

    def _pilot_block(self, option: _Option) -> np.ndarray:
        """Return a piece of the middle of the searched region as the first stage sees it."""
        unit = 2 * option.grid.factor.denominator
        middle = []
        for side, size in zip(self.area.box, self.inputs.shape, strict=True):
            length = min(PILOT_EDGE + self.problem.box, size) // unit * unit
            start = min(max((side.start + side.stop - length) // 2, 0), size - length)
            middle.append(slice(start, start + length))
        settings = self.problem.tomogram_filter
        piece = _read(settings, tuple(middle)).astype(np.float32)
        shape = (piece.shape[0], piece.shape[1], piece.shape[2])
        spectrum = scipy.fft.rfftn(piece - piece.mean(dtype=np.float64))
        weights = radial_weights(settings.laplacian, self.noise.curve)
        spectrum *= SpectrumFilter(settings, weights)(*half_frequencies(shape, settings.voxel_size))
        spectrum[0, 0, 0] = 0
        small = tuple(int(length * option.grid.factor) for length in shape)
        if small != shape:
            spectrum = crop_axis(crop_axis(spectrum, small[0], 0), small[1], 1)[
                ..., : small[2] // 2 + 1
            ].copy()
            spectrum[..., -1] = 0
        if option.lowpass is not None:
            spacing = settings.voxel_size / float(option.grid.factor)
            kz, ky, kx = half_frequencies((small[0], small[1], small[2]), spacing)
            spectrum *= option.lowpass(np.sqrt(kz**2 + ky**2 + kx**2))
        values = scipy.fft.irfftn(spectrum, small)
        return np.asarray(values / values.std(), dtype=np.float32)

    def described(self, offer: Offer) -> dict[str, float]:
        """Return what a template's stage is restored from."""
        model = self.options[offer.choice].model
        assert model is not None
        return {
            "step": offer.choice.step,
            "threshold": offer.threshold,
            "regression": model.regression,
            "sigma": model.fine_sigma / model.coarse_sigma,
            "miss": offer.miss,
        }


@dataclass(frozen=True, eq=False)
class _Noise:
    """The noise of a tomogram as it was read, and the whitening of the search."""

    spectrum: NoiseSpectrum
    curve: Whitening | None


def _measure_noise(settings: TomogramFilter, area: SearchArea, box: int) -> _Noise:
    """Measure the noise on pieces of the tomogram."""
    z, y, x = ((side.start, side.stop) for side in area.box)
    region: Region = (z, y, x)
    cubes = cube_slices(region, box)
    chosen = np.unique(np.linspace(0, len(cubes) - 1, NOISE_CUBES).round().astype(int))
    sampled = settings.sampled
    powers = [cube_power(_read(settings, cubes[i]), settings.voxel_size, sampled, box) for i in chosen]
    edge = max(side.stop - side.start for side in cubes[0])
    noise = noise_spectrum(powers, settings.voxel_size, edge)
    return _Noise(noise, whitening(powers, settings.voxel_size, edge) if settings.whiten else None)


def _read(settings: TomogramFilter, region: tuple[slice, ...]) -> np.ndarray:
    return read_region(settings.path, region, level=settings.level)


def _frequencies(box: int, problem: TomogramProblem) -> np.ndarray:
    kz, ky, kx = half_frequencies((box, box, box), problem.tomogram_filter.voxel_size)
    return np.asarray(np.sqrt(kz**2 + ky**2 + kx**2))
