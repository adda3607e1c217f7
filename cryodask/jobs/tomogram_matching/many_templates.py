"""Several templates in one search: the problems of each side by side, and the class they compete for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from cryodask.jobs.tomogram_matching.preparation import TomogramFilter
from cryodask.jobs.tomogram_matching.problem import TomogramProblem
from cryodask.search.aggregates import NO_ID, Aggregate, States
from cryodask.search.problem import Summary, Variable
from cryodask.search.tiles import Batch, Tile

NO_CLASS = -1


@dataclass(frozen=True)
class ManyTemplates:
    """Matching with several templates: hypotheses are the rotations of the first, of the second, and so on.

    Parameters
    ----------
    parts
        The problem of each template; they share the filtered tomogram.
    class_by
        The map whose largest value decides the class of a voxel.
    """

    parts: tuple[TomogramProblem, ...]
    class_by: str

    @property
    def folder(self) -> str:
        """The run's constants."""
        return self.parts[0].folder

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x) voxels of the tomogram."""
        return self.parts[0].shape

    @property
    def box(self) -> int:
        """Edge of the box that holds every template, voxels."""
        return self.parts[0].box

    @property
    def wrap(self) -> bool:
        """Whether the tomogram wraps around."""
        return self.parts[0].wrap

    @property
    def moments(self) -> bool:
        """Whether mean and standard deviation of the scores are kept."""
        return self.parts[0].moments

    @property
    def noise_copies(self) -> int:
        """Noise templates of each template."""
        return self.parts[0].noise_copies

    @property
    def beside(self) -> int:
        """Templates scored beside each template."""
        return self.parts[0].beside

    @property
    def noise_correction(self) -> Literal["none", "ratio", "subtract"]:
        """How scores are corrected."""
        return self.parts[0].noise_correction

    @property
    def tomogram_filter(self) -> TomogramFilter:
        """How the tomogram is filtered."""
        return self.parts[0].tomogram_filter

    @property
    def hypotheses(self) -> int:
        """Rotations of all templates."""
        return sum(part.hypotheses for part in self.parts)

    @property
    def aggregates(self) -> Mapping[str, Aggregate]:
        """The aggregates of each template, its number before their names."""
        return {
            f"{part.number}:{name}": aggregate
            for part in self.parts
            for name, aggregate in part.aggregates.items()
        }

    @property
    def variables(self) -> tuple[Variable, ...]:
        """The maps of each template along the template axis, the class and its margin."""
        shared = [name for name in _names(self.parts[0]) if all(name in _names(p) for p in self.parts)]
        template = (("template", len(self.parts)),)
        maps = [
            replace(variable, leading=template if variable.leading else ())
            for variable in self.parts[0].variables
            if variable.name in shared
        ]
        best = (("long_name", f"template of largest {self.class_by}"), ("not_searched", str(NO_CLASS)))
        second = (("long_name", f"{self.class_by} of the class less that of the runner-up"), ("units", "1"))
        return (
            *maps,
            Variable("class_id", "int16", NO_CLASS, (), best),
            Variable("margin", "float32", 0.0, (), second),
        )

    def prepare(self) -> None:
        """Filter the tomogram into the run's constants."""
        self.parts[0].prepare()

    def fold(self, tile: Tile, batch: Batch) -> States:
        """Score a batch of rotations, of one template after the other, on a tile."""
        found: States = {}
        first = 0
        for part in self.parts:
            start, stop = max(batch.start - first, 0), min(batch.stop - first, part.hypotheses)
            if start < stop:
                found |= _numbered(part, part.fold(tile, Batch(start, stop)))
            first += part.hypotheses
        return found

    def finish(self, tile: Tile, states: States) -> tuple[dict[str, np.ndarray], Summary]:
        """Turn the states of all templates into maps; summaries carry the template's number."""
        maps: dict[str, list[np.ndarray]] = {}
        summary: Summary = {}
        for part, own in zip(self.parts, split_states(self, states), strict=True):
            arrays, sums = part.finish(tile, own)
            for name, array in arrays.items():
                maps.setdefault(name, []).append(array)
            summary |= {f"{part.number}:{name}": value for name, value in sums.items()}
        wanted = {variable.name for variable in self.variables}
        valid = np.minimum.reduce(maps.pop("valid"))
        joined = {name: np.concatenate(arrays) for name, arrays in maps.items() if name in wanted}
        return joined | {"valid": valid} | self._classes(joined), summary

    def _classes(self, maps: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        values = np.where(maps["orientation"] == NO_ID, -np.inf, maps[self.class_by])
        best = np.argmax(values, axis=0)
        second, first = np.partition(values, -2, axis=0)[-2:]
        searched = np.isfinite(first)
        margin = np.where(np.isfinite(second), first - np.where(np.isfinite(second), second, 0), 0)
        return {
            "class_id": np.where(searched, best, NO_CLASS).astype(np.int16),
            "margin": np.where(searched, margin, 0).astype(np.float32),
        }


def _names(part: TomogramProblem) -> list[str]:
    return [variable.name for variable in part.variables]


MatchProblem = TomogramProblem | ManyTemplates


def split_states(problem: MatchProblem, states: States) -> list[States]:
    """Return the states of each template of a problem, as the template's own problem names them."""
    if not isinstance(problem, ManyTemplates):
        return [states]
    return [
        {
            name.partition(":")[2]: state
            for name, state in states.items()
            if name.startswith(f"{part.number}:")
        }
        for part in problem.parts
    ]


def join_states(problem: MatchProblem, states: Sequence[States]) -> States:
    """Return the states of all templates as the problem names them: the inverse of `split_states`."""
    if not isinstance(problem, ManyTemplates):
        return states[0]
    found: States = {}
    for part, own in zip(problem.parts, states, strict=True):
        found |= _numbered(part, own)
    return found


def _numbered(part: TomogramProblem, states: States) -> States:
    return {f"{part.number}:{name}": state for name, state in states.items()}
