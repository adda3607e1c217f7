"""A run over particles: planned in chunks of the table, computed as one queue of tasks, resumable."""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from pydantic import BaseModel

from cryodask.errors import InputError, ResourceError
from cryodask.io.files import require_new
from cryodask.io.map_files import map_shape
from cryodask.jobs.disk import check_disk, nearest_folder
from cryodask.jobs.input_files import file_identity
from cryodask.jobs.micrograph_matching import pose_constants as constants
from cryodask.jobs.micrograph_matching.outputs import check_writable
from cryodask.jobs.micrograph_matching.pose_problem import PoseProblem, PoseSettings
from cryodask.jobs.micrograph_matching.start_poses import StartPoses
from cryodask.kernels.pose_search import COLUMN_BYTES
from cryodask.search.driver import Progress
from cryodask.search.store import RunStore, check_same_run
from cryodask.search.tiles import TilePlan

MOST_PARTICLES = 16  # of a task
CHUNK_SECONDS = 30.0  # that the particles of a task may take together
# By rule of thumb, of one core: a frequency of a slice, a multiplication of the product.
SLICE_SECONDS, PRODUCT_SECONDS = 2e-8, 3e-11

Arrays = dict[str, np.ndarray]


@dataclass
class PoseRun:
    """What is planned of a table: `write` turns the arrays of the result into its files.

    Parameters
    ----------
    name, final
        For messages, and the result.
    store
        The unfinished result.
    problem, plan
        The search and its chunks.
    marks
        What must be the same when a run is resumed.
    make_constants
        Returns start poses, template spectrum and turns.
    write
        Given the arrays over particles; returns notices.
    """

    name: str
    final: Path
    store: RunStore
    problem: PoseProblem
    plan: TilePlan
    marks: Mapping[str, Any]
    make_constants: Callable[[], tuple[StartPoses, np.ndarray, np.ndarray]]
    write: Callable[[Arrays], list[str]]
    is_finished: bool = False
    replaces: bool = False
    notices: list[str] = field(default_factory=list)

    @property
    def seconds_each(self) -> float:
        """CPU seconds of one turn on one chunk, by a rule of thumb."""
        return self.plan.core[0] * particle_seconds(self.problem.settings)

    @property
    def batch(self) -> int | None:
        """Turns of a task where they must not be split, else None."""
        settings = self.problem.settings
        whole = settings.strategy == "coarse_to_fine" or settings.compat is not None
        return self.problem.hypotheses if whole else None

    @property
    def core_seconds(self) -> float:
        """CPU seconds of it all, by a rule of thumb."""
        return particle_seconds(self.problem.settings) * self.problem.hypotheses * self.plan.shape[0]

    @property
    def working_set(self) -> float:
        """Bytes of a task."""
        return working_set(self.problem.settings)

    def begin(self) -> None:
        """Create the store and its constants, unless it is resumed."""
        folder = Path(self.problem.folder)
        if not self.store.exists():
            shutil.rmtree(self.store.path, ignore_errors=True)
            self.final.parent.mkdir(parents=True, exist_ok=True)
            self.store.create(self.plan, self.problem.variables, ("particle",), self.marks)
        if not (folder / constants.MATRICES).exists():
            start, spectrum, turns = self.make_constants()
            start.save(folder / constants.POSES)
            constants.write_array(folder / constants.SPECTRUM, spectrum)
            constants.write_array(folder / constants.MATRICES, turns)

    def forget(self) -> None:
        """Remove what was begun and has nothing to resume."""
        if not self.store.progress():
            shutil.rmtree(self.store.path, ignore_errors=True)

    def complete(self, progress: Progress, *, keep_run: bool) -> list[str]:
        """Write the result and remove the store; return what should be told."""
        group = zarr.open_group(self.store.path, mode="r")
        arrays = {variable.name: np.asarray(group[variable.name]) for variable in self.problem.variables}
        notices = self.write(arrays)
        if not keep_run:
            shutil.rmtree(self.store.path, ignore_errors=True)
        return [f"{self.name}: {notice}" for notice in notices]


def plan_chunks(count: int, settings: PoseSettings, turns: int, memory: float) -> TilePlan:
    """Cut a table into chunks of particles.

    Parameters
    ----------
    count
        Particles.
    settings, turns
        Of the search.
    memory
        Bytes a task may use.

    Raises
    ------
    ResourceError
        Where a single particle does not fit.
    """
    need = working_set(settings)
    if need > memory:
        raise ResourceError(
            f"a particle needs {need / 2**30:.3g} GiB, a worker has {memory / 2**30:.3g} GiB; "
            "raise --memory, or set cryodask.padding to 1"
        )
    each = particle_seconds(settings) * turns
    core = max(1, min(MOST_PARTICLES, count, int(CHUNK_SECONDS / each)))
    grid = math.ceil(count / core)
    return TilePlan((count,), (core,), (core,), (core,), (grid,), range(grid))


def particle_seconds(settings: PoseSettings) -> float:
    """Return the CPU seconds of one turn of one particle, by a rule of thumb."""
    frequencies = settings.edge * (settings.edge // 2 + 1)
    shifts = (2 * settings.reach + 1) ** 2 + 1
    product = 2 * frequencies * len(settings.defocus) * shifts * PRODUCT_SECONDS
    return len(settings.pixel_sizes) * (frequencies * SLICE_SECONDS + product)


def working_set(settings: PoseSettings) -> float:
    """Return the bytes of a task: spectrum, windows and their products, slices."""
    frequencies = settings.edge * (settings.edge // 2 + 1)
    shifts = (2 * settings.reach + 1) ** 2 + 1
    columns = min(COLUMN_BYTES, 8.0 * frequencies * len(settings.defocus) * shifts)
    spectrum = 4.0 * (settings.padding * settings.edge) ** 3
    filters = 8.0 * frequencies * len(settings.defocus) * len(settings.pixel_sizes)
    return spectrum + 3 * columns + 2 * filters + 64 * 8.0 * frequencies


def open_store(final: Path, marks: Mapping[str, Any], *, resume: bool) -> tuple[RunStore, TilePlan | None]:
    """Return the store of an unfinished result, and its plan where it is resumed.

    Raises
    ------
    InputError
        Where configuration or inputs changed since.
    """
    store = RunStore(str(unfinished(final)))
    if not (resume and store.exists()):
        return store, None
    plan, before = store.read_plan()
    check_same_run(before, marks)
    return store, plan


def check_outputs(
    outputs: Sequence[Path], start: StartPoses, settings: PoseSettings, *, resume: bool, overwrite: bool
) -> None:
    """Refuse results that are there already, folders that cannot be written, and disks without room.

    Parameters
    ----------
    outputs
        The tables that a run writes; its unfinished store lies beside the first.
    start, settings
        What the store holds: a filtered copy of every micrograph, and the template's spectrum.
    resume, overwrite
        An unfinished run is continued, or makes way.

    Raises
    ------
    InputError
        Naming the file.
    ResourceError
        The disk has no room.
    """
    final = outputs[0]
    check_writable(final, "--output")
    if not (resume or overwrite):
        for path in outputs:
            require_new(path, overwrite=False)
        store = unfinished(final)
        if store.exists():
            raise InputError(f"{store.name} is unfinished; use --resume or --overwrite")
    images = sum(4.0 * math.prod(map_shape(path, "micrograph_path")) for path in start.micrographs)
    spectrum = 4.0 * (settings.padding * settings.edge) ** 3
    check_disk(nearest_folder(final.absolute().parent), images + spectrum + 256.0 * len(start))


def unfinished(final: Path) -> Path:
    """Return the store of an unfinished result."""
    return final.with_name(f"{final.stem}.partial.zarr")


def run_marks(config: BaseModel, files: Mapping[str, str], **options: Any) -> dict[str, Any]:
    """Return what a resumed run must share: the values of a configuration by key, the state of inputs."""
    marks: dict[str, Any] = dict(flat_items(config.model_dump(mode="json")))
    marks |= {key: file_identity(path) for key, path in files.items()}
    return marks | options


def flat_items(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return the values of nested mappings with their dotted keys."""
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        found += flat_items(value, f"{name}.") if isinstance(value, Mapping) else [(name, value)]
    return found
