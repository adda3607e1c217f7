"""What a user may ask of `pick`, checked before anything is read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from cryodask.errors import InputError
from cryodask.geometry.symmetry import symmetry_group
from cryodask.io.angles import Order

RULES = ("threshold", "sigma", "false_positives", "triangle", "fdr")
SCORES = ("score", "score_raw", "zscore")
LEAST_BINS = 8
POSITIVE = (
    "sigma", "false_positives", "min_distance", "particle_diameter", "max_particles", "class_id",
    "voxel_size",
)  # fmt: skip


@dataclass(frozen=True)
class PickOptions:
    """The options of `pick`, refused on creation where they exclude each other.

    Attributes
    ----------
    threshold, sigma, false_positives, triangle, fdr
        At most one: the score itself, one or one a template; standard deviations above the mean; expected
        number of noise peaks; the bend of the sorted scores; false discovery rate, told from decoy peaks.
    score
        Map that ranks peaks: score, score_raw or zscore.
    min_distance
        Angstrom between particles; None: the particle diameter.
    particle_diameter
        Angstrom; None: from the result.
    max_particles
        Largest number of particles in each tomogram.
    cluster_size
        Least, or least and largest, number of voxels above the threshold within half the minimum distance.
    class_id
        Keep particles of this class (template number from 1).
    mask
        Map of the tomogram's shape; peaks where it is at most 0.5 are dropped.
    edge
        "valid": particles whose mask lies inside the tomogram (a bare map does not say: every searched
        voxel); "none"; or angstrom from every face.
    refine
        "position": sub-voxel by a parabola an axis; "orientation": finer than the rotation list, the place
        to whole voxels; "both"; "none".
    symmetry
        Point group; None: from the result.
    randomize_symmetry
        Turn each orientation by a random element of the point group.
    independent
        Which scores count as independent in `false_positives`: "all", or "effective", as many as the
        template tells apart.
    top_hat
        Bins of the histogram from which the least sharpness of a peak is found.
    angles, angle_list, order, angle_base, voxel_size
        For bare maps alone: angle map (one for each score map), rotation list, order of its columns, number
        the map gives to its first row, voxel size in angstrom where the header has none.
    tomo_num, tomo_name
        In place of the result's own.
    """

    threshold: float | Sequence[float] | None = None
    sigma: float | None = None
    false_positives: float | None = None
    triangle: bool = False
    fdr: float | None = None
    score: str = "score"
    min_distance: float | None = None
    particle_diameter: float | None = None
    max_particles: int | None = None
    cluster_size: int | tuple[int, int] | None = None
    class_id: int | None = None
    mask: str | Path | xr.DataArray | None = None
    edge: str | float = "valid"
    refine: str = "position"
    symmetry: str | None = None
    randomize_symmetry: bool = False
    independent: str = "all"
    top_hat: int | None = None
    angles: Any = None
    angle_list: str | Path | None = None
    order: Order = "zxz"
    angle_base: int = 0
    voxel_size: float | None = None
    tomo_num: int | None = None
    tomo_name: str | None = None

    def __post_init__(self) -> None:
        self._check_words()
        self._check_rules()
        for name in POSITIVE:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{_flag(name)} {value:g}: expected a number above 0")
        self.edge_voxels(1.0)
        if self.angle_base not in (0, 1):
            raise InputError(f"--angle-base {self.angle_base}: expected 0 or 1")
        if self.tomo_num is not None and self.tomo_num < 0:
            raise InputError(f"--tomo-num {self.tomo_num}: expected an integer >= 0")
        if self.symmetry is not None:
            symmetry_group(self.symmetry)
        low, high = self.cluster_range or (1, 1)
        if not 1 <= low <= high:
            raise InputError(f"--cluster-size {low:g},{high:g}: expected 1 <= MIN <= MAX")

    @property
    def rules(self) -> dict[str, Any]:
        """The threshold rules by name, the chosen one set."""
        return {name: getattr(self, name) for name in RULES}

    @property
    def has_rule(self) -> bool:
        """Whether a threshold rule was chosen."""
        return any(value is not None and value is not False for value in self.rules.values())

    @property
    def refines_orientation(self) -> bool:
        """Whether template and tomogram are needed again."""
        return self.refine in ("orientation", "both")

    @property
    def cluster_range(self) -> tuple[float, float] | None:
        """Least and largest cluster size, the largest infinite where it is not given."""
        size = self.cluster_size
        return (size, float("inf")) if isinstance(size, int) else size

    def edge_voxels(self, voxel_size: float) -> str | float:
        """Return "valid", "none", or the distance from the faces in voxels."""
        if self.edge in ("valid", "none"):
            return self.edge
        try:
            distance = float(self.edge)
        except ValueError:
            distance = -1.0
        if not distance >= 0:
            raise InputError(f"--edge {self.edge}: expected valid, none or a distance in angstrom")
        return distance / voxel_size

    def _check_rules(self) -> None:
        given = [n for n in RULES if getattr(self, n) is not None and getattr(self, n) is not False]
        if len(given) > 1:
            raise InputError(
                f"choose one of {', '.join(map(_flag, RULES))} (found {', '.join(map(_flag, given))})"
            )
        if self.independent == "effective" and given not in ([], ["false_positives"]):
            raise InputError(
                f"--independent effective: changes --false-positives alone, not {_flag(given[0])}"
            )
        if self.fdr is not None:
            self._check_discovery(self.fdr)

    def _check_discovery(self, rate: float) -> None:
        if not 0 < rate < 1:
            raise InputError(f"--fdr {rate:g}: expected a number above 0 and below 1")
        if self.score == "zscore":
            raise InputError("--fdr holds score_raw against noise; --score zscore cannot rank with it")
        if self.cluster_size is not None:
            raise InputError("--cluster-size counts voxels above a threshold, which --fdr does not have")

    def _check_words(self) -> None:
        _expect("score", self.score, SCORES)
        _expect("refine", self.refine, ("none", "position", "orientation", "both"))
        _expect("independent", self.independent, ("all", "effective"))
        if self.top_hat is not None and self.top_hat < LEAST_BINS:
            raise InputError(f"--top-hat {self.top_hat}: expected {LEAST_BINS} bins or more")


def _expect(name: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse an unknown word."""
    if value not in known:
        raise InputError(f"{_flag(name)} {value}: expected {', '.join(known)}")


def _flag(name: str) -> str:
    return "--class" if name == "class_id" else "--" + name.replace("_", "-")
