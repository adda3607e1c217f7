"""The coarser grid on which all rotations are searched, where the band of the search allows one."""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import scipy.fft

from cryodask.arrays.lengths import fast_even_length
from cryodask.jobs.tomogram_matching.inputs import MatchInputs

if TYPE_CHECKING:
    from cryodask.optics.bandpass import BandPass

Shape = tuple[int, int, int]

AUTOMATIC = (Fraction(1, 2), Fraction(3, 5), Fraction(2, 3), Fraction(3, 4), Fraction(4, 5))
ROOM = 1.5  # of the band's edge that a grid chosen by itself can hold: f² under the mask needs it
LARGEST_DENOMINATOR = 12


@dataclass(frozen=True)
class SearchGrid:
    """A grid whose voxels are 1/factor of those of the tomogram: full voxel x lies at factor·x.

    Parameters
    ----------
    factor
        Above 0, below 1.
    shape
        (z, y, x) voxels of the full grid.
    box
        Edge of the template box on the full grid.
    margin
        Where the data begin in the filtered tomogram, voxels of the full grid.
    extended
        (z, y, x) lengths of the filtered tomogram on the full grid.
    """

    factor: Fraction
    shape: Shape
    box: int
    margin: int
    extended: Shape

    @property
    def padded_box(self) -> int:
        """The box with zeros around it, so that it and its coarse form are even."""
        unit = 2 * self.factor.denominator
        return math.ceil(self.box / unit) * unit

    @property
    def coarse_box(self) -> int:
        """Edge of the template box on the coarse grid."""
        return int(self.padded_box * self.factor)

    @property
    def before(self) -> int:
        """Zeros before the filtered tomogram, so that its data begin on a voxel of both grids."""
        return -self.margin % self.factor.denominator

    @property
    def padded_lengths(self) -> Shape:
        """Lengths of the filtered tomogram with zeros around it, whole on both grids."""
        unit = self.factor.denominator
        fast = scipy.fft.next_fast_len if self.margin else int
        z, y, x = (unit * fast(math.ceil((size + self.before) / unit)) for size in self.extended)
        return z, y, x

    @property
    def coarse_lengths(self) -> Shape:
        """Lengths of the coarse filtered tomogram."""
        z, y, x = (int(length * self.factor) for length in self.padded_lengths)
        return z, y, x

    @property
    def coarse_margin(self) -> int:
        """Where the data begin in the coarse filtered tomogram."""
        return int((self.margin + self.before) * self.factor)

    @property
    def wraps(self) -> bool:
        """Whether the coarse grid wraps around where the tomogram does."""
        return self.margin == 0 and self.padded_lengths == self.extended

    @property
    def coarse_shape(self) -> Shape:
        """(z, y, x) positions of the coarse grid: those that interpolate every full voxel."""
        if self.margin == 0:
            return self.coarse_lengths
        z, y, x = (math.ceil((size - 1) * self.factor) + 1 for size in self.shape)
        return z, y, x

    @property
    def reach(self) -> int:
        """Voxels of the full grid around a coarse maximum that are scored again."""
        return math.ceil(1 / self.factor) + 1

    @property
    def reach_coarse(self) -> int:
        """The same in voxels of the coarse grid, rounded up."""
        return math.ceil(self.reach * self.factor)

    def around(self, start: int, stop: int, more: int = 0) -> tuple[int, int]:
        """Return the coarse voxels, first and end, between which the full ones start to stop - 1 lie.

        Parameters
        ----------
        start, stop
            Full voxels of one axis.
        more
            Further coarse voxels on each side.
        """
        first = math.floor(start * self.factor) - more
        return first, math.floor((stop - 1) * self.factor) + 2 + more


def choose_search_grid(inputs: MatchInputs) -> SearchGrid | None:
    """Return the coarse grid of a match; None where the full one is searched.

    Raises
    ------
    InputError
        A factor below what the band of the search needs.
    """
    factor = _factor(inputs)
    if factor == 1:
        return None
    return grid_of(inputs, factor)


def grid_of(inputs: MatchInputs, factor: Fraction) -> SearchGrid:
    """Return the grid of a factor."""
    box, wraps = inputs.particle.box, inputs.parameters.boundary == "wrap"
    margin = 0 if wraps else -(-box // 2)
    z, y, x = (size if wraps else fast_even_length(size + 2 * margin) for size in inputs.shape)
    return SearchGrid(factor, inputs.shape, box, margin, (z, y, x))


def band_edge(band: "BandPass | None", box: int) -> float:
    """Return the radius at which a band ends, in Fourier pixels of its box; infinite without one."""
    return math.inf if band is None or math.isinf(band.lp_rad) else min(band.edge, math.ceil(box / 2))


def automatic_factor(edge: float, box: int) -> Fraction:
    """Return the least factor whose grid has room for a band, 1 for none.

    Parameters
    ----------
    edge
        From `band_edge`.
    box
        Edge of the template box, voxels.
    """
    return next((factor for factor in AUTOMATIC if factor * box / 2 >= ROOM * edge), Fraction(1))


def _factor(inputs: MatchInputs) -> Fraction:
    parameters, box = inputs.parameters, inputs.particle.box
    wanted = parameters.search_grid
    if wanted == "full" or wanted == 1:
        return Fraction(1)
    edge = band_edge(inputs.band, box)
    if wanted == "auto":
        return automatic_factor(edge, box)
    source = parameters.source
    least = 2 * edge / box
    if wanted < least * (1 - 1e-9):
        if least >= 1:
            text = "needs a low-pass that leaves frequencies out, expected full or auto"
            raise source.wrong("search_grid", f"{wanted:g}", text)
        text = f"expected at least {math.ceil(least * 1000) / 1000:g}, which the band of the search needs"
        raise source.wrong("search_grid", f"{wanted:g}", text)
    return _ratio(wanted)


def _ratio(wanted: float) -> Fraction:
    """Return the least ratio of small numbers that is not below a factor: both grids must be whole."""
    found = (Fraction(math.ceil(wanted * q - 1e-9), q) for q in range(1, LARGEST_DENOMINATOR + 1))
    return min(found)
