"""The two stages of a coarse-to-fine match: what each searches, and what the run keeps of the choice."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryodask.jobs.micrograph_matching import constants
from cryodask.jobs.micrograph_matching.coarse_choice import (
    CoarseChoice,
    choose_first_stage,
    on_first_stage,
    restored,
)
from cryodask.jobs.micrograph_matching.inputs import MatchInputs
from cryodask.jobs.micrograph_matching.planning import (
    Resources,
    make_plan,
    make_problem,
    run_threshold,
    write_constants,
)
from cryodask.jobs.micrograph_matching.problem import MicrographProblem
from cryodask.jobs.micrograph_matching.rescoring import Rescoring
from cryodask.kernels.window_search import COLUMN_BYTES
from cryodask.search.plan import plan_shards
from cryodask.search.store import RunStore, write_json
from cryodask.search.tiles import TilePlan

log = logging.getLogger("cryodask")
COARSE = "coarse"  # folder of the first stage, in that of the run
SHARD = 256  # positions of a task of the second stage, on an axis

# What was chosen for micrographs of one kind, as `CoarseChoice.described`; None for everything at once.
Choices = dict[str, dict[str, Any] | None]


@dataclass(frozen=True, eq=False)
class FirstStage:
    """The coarse search of a match.

    Parameters
    ----------
    inputs, problem, plan, store
        What is searched, its tiles, and where its maps go.
    chosen
        Its orientations and binning.
    """

    inputs: MatchInputs
    problem: MicrographProblem
    plan: TilePlan
    store: RunStore
    chosen: CoarseChoice

    def second(self, inputs: MatchInputs, full: MicrographProblem) -> Rescoring:
        """Return the search problem of the second stage.

        Parameters
        ----------
        inputs, full
            The match at full size.
        """
        own, chosen = inputs.config.cryodask, self.chosen
        return Rescoring(
            full=full,
            coarse=self.problem,
            store=self.store,
            threshold=run_threshold(inputs),
            miss_rate=own.miss_rate,
            step=chosen.fine_step,
            coarse_step=chosen.step,
            symmetry=chosen.symmetry,
            seed=own.seed,
        )

    def begin(self) -> None:
        """Create the store and write what the tasks read, unless it is resumed."""
        if not self.store.exists():
            self.store.create(self.plan, self.problem.variables, ("y", "x"), {})
            write_json(_choice_file(self.store), self.chosen.described())
        if not constants.has_tables(Path(self.problem.folder)):
            write_constants(self.inputs, self.problem)

    def attributes(self, second: Rescoring) -> dict[str, Any]:
        """Return what a result says of it."""
        return {
            "coarse_to_fine": json.dumps(self.chosen.described() | second.record()),
            "searched_pixel_size": self.inputs.config.optics_group.pixel_size / second.binning.ratio,
        }


def make_first_stage(
    inputs: MatchInputs, resources: Resources, folder: Path, choices: Choices
) -> FirstStage | None:
    """Plan the coarse search of a match; None where everything is searched at full size.

    Parameters
    ----------
    inputs
        At full size.
    resources
        Of the run.
    folder
        Where its maps go; a choice that is stored there is taken again.
    choices
        Of the micrographs before: those of one template take what the first of them chose.

    Raises
    ------
    InputError
        An image that cannot be used.
    ResourceError
        Where no tile fits the memory.
    """
    if inputs.config.cryodask.strategy != "coarse_to_fine":
        return None
    store = RunStore(str(folder))
    if _choice_file(store).is_file():
        stored = json.loads(_choice_file(store).read_text())
    else:
        config = inputs.config
        key = repr((config.template_volume_path, config.template_name, config.cryodask, inputs.image_shape))
        if key not in choices:
            chosen, text = choose_first_stage(inputs, resources)
            choices[key] = None if chosen is None else chosen.described()
            if chosen is None:
                log.warning("%s%s", config.source.place, text)
        stored = choices[key]
    if stored is None:
        return None
    chosen = restored(inputs, stored)
    coarse = on_first_stage(inputs, chosen.binning, chosen.angles)
    problem = make_problem(coarse, store.constants, resources)
    plan = store.read_plan()[0] if store.exists() else make_plan(coarse, problem, resources)
    return FirstStage(coarse, problem, plan, store, chosen)


def second_plan(full: MicrographProblem) -> TilePlan:
    """Return the tiles of the second stage."""
    return plan_shards(full.shape, SHARD)


def second_working_set(full: MicrographProblem, padding: int) -> float:
    """Return the bytes of a task of the second stage, at most."""
    spectrum = 4.0 * (padding * full.box) ** 3
    filters = 8.0 * full.scores_each * full.box**2 / 2
    return spectrum + filters + 3.0 * COLUMN_BYTES + 100.0 * SHARD**2


def _choice_file(store: RunStore) -> Path:
    return store.run_folder / "choice.json"
