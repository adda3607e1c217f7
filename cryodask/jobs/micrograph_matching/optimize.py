"""The voxel size of a template, found by the z-scores of known particles (Leopard-EM's optimize_template)."""

import json
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.fft

from cryodask.arrays.npy import load_npy
from cryodask.errors import InputError
from cryodask.io.files import require_exists
from cryodask.io.map_files import map_shape
from cryodask.jobs.execution import execute
from cryodask.jobs.micrograph_matching.optimize_config import (
    NO_DETECTOR,
    OptimizeConfig,
    SimulatorConfig,
)
from cryodask.jobs.micrograph_matching.pose_constants import write_array
from cryodask.jobs.micrograph_matching.pose_problem import PoseProblem, PoseSettings
from cryodask.jobs.micrograph_matching.pose_run import (
    Arrays,
    PoseRun,
    check_outputs,
    open_store,
    plan_chunks,
    run_marks,
    unfinished,
)
from cryodask.jobs.micrograph_matching.refine import check_box, particle_files, particle_settings
from cryodask.jobs.micrograph_matching.start_poses import StartPoses, check_files, read_start_poses
from cryodask.jobs.micrograph_matching.template import randomized_phases
from cryodask.jobs.micrograph_matching.template_input import (
    TemplateInput,
    open_template,
    read_template,
    require_scale,
)
from cryodask.jobs.micrograph_matching.voxel_optimum import Choice, Optimum, optimum
from cryodask.kernels.slices import template_spectrum
from cryodask.optics.dose import DoseFilter
from cryodask.optics.frequency import half_frequencies
from cryodask.picking.thresholds import false_positive_threshold
from cryodask.search.store import check_same_run, write_json

if TYPE_CHECKING:
    from distributed import Client


@dataclass(frozen=True, eq=False)
class Optimization:
    """A checked configuration, ready to score voxel sizes.

    `folder` keeps what is scored, so that a search that was interrupted goes on from there.
    """

    config: OptimizeConfig
    start: StartPoses
    template: TemplateInput
    settings: PoseSettings
    memory: float
    known_z: np.ndarray
    noise_limits: np.ndarray
    folder: Path | None = None

    @property
    def marks(self) -> dict[str, Any]:
        """What must be the same when an unfinished search is resumed."""
        stack, config = self.config.particle_stack, self.config
        template = config.template_volume_path or (config.simulator.pdb_filepath if config.simulator else "")
        return run_marks(config, particle_files(template, stack.df_path, self.start))

    @property
    def coarse(self) -> np.ndarray:
        """Voxel sizes of the first search, angstrom."""
        return self.template.voxel_size + self.config.pixel_size_coarse_search.values()

    def fine(self, centre: float) -> np.ndarray:
        """Voxel sizes of the second search, about the best of the first."""
        return centre + self.config.pixel_size_fine_search.values()

    def scores(self, values: np.ndarray, client: "Client | None") -> np.ndarray:
        """Return the z-scores of all particles at some voxel sizes, (V, P)."""
        with (
            nullcontext(self.folder)
            if self.folder
            else tempfile.TemporaryDirectory(prefix="cryodask-") as name
        ):
            groups = {Path(name) / _file_of(group): group for group in self._groups(values)}
            runs = [self._run(file, group) for file, group in groups.items() if not file.exists()]
            execute(runs, client=client)
            return np.concatenate([load_npy(file) for file in groups])

    def _groups(self, values: np.ndarray) -> list[np.ndarray]:
        """Return values that share one template: all of them where it is scaled instead of simulated."""
        return [values] if self.config.simulator is None else list(values[:, None])

    def _run(self, final: Path, values: np.ndarray) -> PoseRun:
        count = len(self.start)
        rows = np.tile(np.arange(count), len(values))
        start = self.start.taken(rows)
        # a template of other voxels shows its particle larger or smaller by as much on the same pixels
        scale = self.template.voxel_size / np.repeat(values, count) if self.config.simulator is None else 1.0
        start = replace(start, voxel_sizes=start.pixel_sizes * scale)
        store, plan = open_store(final, {}, resume=True)

        def write(arrays: Arrays) -> list[str]:
            write_array(final, arrays["z"].reshape(len(values), count))
            return []

        return PoseRun(
            name=f"voxel sizes {values[0]:.4g} to {values[-1]:.4g}",
            final=final,
            store=store,
            problem=PoseProblem(str(store.constants), self.settings, 1),
            plan=plan or plan_chunks(len(rows), self.settings, 1, self.memory),
            marks={},
            make_constants=lambda: (start, self._spectrum(float(values[0])), np.eye(3)[None]),
            write=write,
        )

    def _spectrum(self, voxel_size: float) -> np.ndarray:
        config, own = self.config, self.config.cryodask
        if config.simulator is None:
            volume = read_template(self.template.path)
        else:
            volume = simulated_template(config, voxel_size)
        phases = config.preprocessing_filters.phase_randomization_filter
        if phases.enabled and phases.cuton:
            volume = randomized_phases(volume, phases.cuton, own.seed)
        return np.asarray(template_spectrum(volume, padding=own.padding, gridding=own.gridding))


def open_optimization(
    config: OptimizeConfig,
    *,
    device: str = "cpu",
    memory: float = 2.0 * 2**30,
    tell: Callable[[str], None] = lambda notice: None,
) -> Optimization:
    """Check a configuration and everything it names; nothing is written.

    Raises
    ------
    InputError
        A wrong value or file; voxel sizes too far from the pixel size.
    """
    stack = config.particle_stack
    with config.source.placed("particle_stack.df_path"):
        table, start = read_start_poses(
            stack.df_path, variance_is=config.cryodask.correlation_variance_is, tell=tell
        )
    template = _template(config, float(table["pixel_size"].iloc[0]))
    check_box(config, "particle_stack", stack, template)
    check_files(start, stack.df_path, template.edge)
    settings = replace(
        particle_settings(config, stack, device),
        filter_from="micrograph" if config.apply_global_filtering else "box",
    )
    limits, known = _noise_limits(table, start), _known_z(table)
    found = Optimization(config, start, template, settings, memory, known, limits)
    ends = [found.coarse.min() + found.fine(0.0).min(), found.coarse.max() + found.fine(0.0).max()]
    if min(ends) <= 0:
        raise InputError(f"pixel_size_coarse_search: voxel sizes from {min(ends):g}, expected more than 0")
    require_scale(template.voxel_size / np.array(ends))
    return found


def optimize(
    work: Optimization,
    *,
    choice: Choice | None = None,
    consecutive_threshold: int | None = None,
    client: "Client | None" = None,
    tell: Callable[[str], None] = lambda notice: None,
) -> Optimum:
    """Score the coarse and then the fine list of voxel sizes.

    Parameters
    ----------
    work
        From `open_optimization`.
    choice
        Which particles count; those of z >= 8 by default, at the template's own voxel size.
    consecutive_threshold
        Stop a list after so many falling scores in a row; None scores all of it.
    client
        Dask client; the active one, else threads of this process, by default.
    tell
        Called with what a user should know.

    Returns
    -------
    Optimum

    Raises
    ------
    InputError
        No particle reaches `min_snr` at any voxel size.
    """
    choice = choice or Choice()
    counted = _counted(work, choice, client, tell)
    scored: list[tuple[float, str, np.ndarray]] = []
    best = work.template.voxel_size
    stages = (("coarse", work.config.pixel_size_coarse_search), ("fine", work.config.pixel_size_fine_search))
    for stage, block in stages:
        if not block.enabled:
            continue
        values = work.coarse if stage == "coarse" else work.fine(best)
        tried: list[float] = []
        for some in _portions(values, consecutive_threshold):
            z = work.scores(some, client)[:, counted]
            scored += [(value, stage, line) for value, line in zip(some.tolist(), z, strict=True)]
            tried += z.mean(axis=1).tolist()
            if consecutive_threshold and _falls(tried, consecutive_threshold):
                break
        best = float(values[int(np.argmax(tried))])
    return optimum(scored)


def _counted(
    work: Optimization, choice: Choice, client: "Client | None", tell: Callable[[str], None]
) -> np.ndarray:
    """Return which particles count, the same at every voxel size: those that do at the template's own.

    A set that changed with the voxel size would drop particles as their z falls, which lifts the mean, and
    take in peaks of noise wherever they happen to rise. For the same reason it is the lower of two z that
    counts, that of the table and that found here: noise is rarely high in both.
    """
    z = np.minimum(work.scores(np.array([work.template.voxel_size]), client)[0], work.known_z)
    counted = choice.counted(z)
    if not counted.any():
        z = np.fmax.reduce(work.scores(work.coarse, client))
        counted = choice.counted(z)
        if not counted.any():
            highest = float(np.nanmax(z, initial=-math.inf))
            raise InputError(
                f"no particle reaches min_snr = {choice.min_snr:g}, the highest z is {highest:.3f}"
            )
        tell("no particle reaches min_snr at the given voxel size; counted are those that do at another")
    doubtful = int((z[counted] < work.noise_limits[counted]).sum())
    if doubtful:
        highest = work.noise_limits[counted].max()
        tell(
            f"{doubtful} of {counted.sum()} counted particles have z below {highest:.2f}, which noise alone "
            "reaches once a micrograph; peaks of noise have no voxel size and draw the optimum aside: raise "
            "--min-snr or lower --best-n"
        )
    return counted


def simulated_template(config: OptimizeConfig, voxel_size: float) -> np.ndarray:
    """Return the template that a configuration's atomic model becomes at a voxel size, (z, y, x) float32."""
    from cryodask.io.model_map import model_map

    simulator = config.simulator
    assert simulator is not None
    volume = model_map(
        simulator.pdb_filepath,
        box=simulator.volume_shape[0],
        voxel_size=voxel_size,
        b_factor_scaling=simulator.b_factor_scaling,
        additional_b_factor=simulator.additional_b_factor,
        keep_hydrogens=not simulator.remove_hydrogens,
    )
    settings = simulator.simulator_config
    return dose_weighted(volume, voxel_size, settings) if settings.apply_dose_weighting else volume


def dose_weighted(volume: np.ndarray, voxel_size: float, settings: SimulatorConfig) -> np.ndarray:
    """Return a volume as electrons between two doses leave it, the mean over them (Grant & Grigorieff 2015).

    Parameters
    ----------
    volume
        (z, y, x).
    voxel_size
        Angstrom.
    settings
        Doses, voltage, and what is made of the mean q: ``sqrt`` its root, ``rel_diff`` 2q/(1 + q).
    """
    kz, ky, kx = half_frequencies((volume.shape[0], volume.shape[1], volume.shape[2]), voxel_size)
    k = np.sqrt(kz**2 + ky**2 + kx**2)
    weighting = DoseFilter()
    with np.errstate(divide="ignore", invalid="ignore"):
        twice_critical = -1.0 / np.log(weighting.curve(k, 1.0, settings.voltage))
        lost = [np.exp(-dose / twice_critical) for dose in (settings.dose_start, settings.dose_end)]
        q = twice_critical * (lost[0] - lost[1]) / settings.dose_end
    q = np.where(np.isfinite(q), q, (settings.dose_end - settings.dose_start) / settings.dose_end)
    match settings.dose_filter_modify_signal:
        case "sqrt":
            q = np.sqrt(q)
        case "rel_diff":
            q = 2.0 * q / (1.0 + q)
    return scipy.fft.irfftn(scipy.fft.rfftn(volume) * q.astype(np.float32), volume.shape).astype(np.float32)


def _template(config: OptimizeConfig, pixel_size: float) -> TemplateInput:
    simulator = config.simulator
    if simulator is not None:
        _check_detector(config, simulator.simulator_config)
        with config.source.placed("simulator.pdb_filepath"):
            require_exists(simulator.pdb_filepath)
        return TemplateInput(simulator.pdb_filepath, simulator.volume_shape[0], simulator.pixel_spacing)
    path = config.template_volume_path or ""
    with config.source.placed("template_volume_path"):
        return open_template(path, pixel_size, config.cryodask.template_pixel_size)


def _known_z(table: pd.DataFrame) -> np.ndarray:
    """Return the z-scores of a table, refined where they are; infinite where there is none."""
    name = next((name for name in ("refined_scaled_mip", "scaled_mip") if name in table), None)
    if name is None:
        return np.full(len(table), np.inf)
    return pd.to_numeric(table[name], errors="coerce").fillna(np.inf).to_numpy(float)


def _noise_limits(table: pd.DataFrame, start: StartPoses) -> np.ndarray:
    """Return the z that noise is expected to reach once in each particle's micrograph; 0 where unknown."""
    if "total_correlations" not in table:
        return np.zeros(len(table))
    searched = pd.to_numeric(table["total_correlations"], errors="coerce").fillna(0.0).to_numpy(float)
    positions = np.array([math.prod(map_shape(path, "map")) for path in start.mean_maps], float)
    scores = searched * positions[start.mean_map]
    return np.array([false_positive_threshold(1.0, m) if m > 2 else 0.0 for m in scores.tolist()])


def _check_detector(config: OptimizeConfig, settings: SimulatorConfig) -> None:
    """Refuse what only another engine can do."""
    for name, value in (("apply_dqe", settings.apply_dqe), ("mtf_reference", settings.mtf_reference)):
        if value:
            key = f"simulator.simulator_config.{name}"
            raise config.source.wrong(key, value, f"not supported here, {NO_DETECTOR}")


@contextmanager
def kept_scores(
    work: Optimization, output: Path, *, resume: bool = False, overwrite: bool = False
) -> Iterator[Optimization]:
    """Yield a search that keeps its scores beside its result until it is finished.

    Parameters
    ----------
    work
        From `open_optimization`.
    output
        The table to be written.
    resume, overwrite
        An unfinished search is continued, or makes way.

    Raises
    ------
    InputError
        The result or an unfinished search is there; a changed configuration or input.
    """
    check_outputs([output], work.start, work.settings, resume=resume, overwrite=overwrite)
    folder = unfinished(output)
    if not resume:
        shutil.rmtree(folder, ignore_errors=True)
    marks = folder / "marks.json"
    if marks.exists():
        check_same_run(json.loads(marks.read_text()), work.marks)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(marks, work.marks)
    try:
        yield replace(work, folder=folder)
    except InputError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _file_of(values: np.ndarray) -> str:
    """Return the name of the file that keeps the scores of some voxel sizes."""
    return f"sizes_{values[0]:.9g}_{values[-1]:.9g}_{len(values)}.npy"


def _portions(values: np.ndarray, threshold: int | None) -> Iterator[np.ndarray]:
    """Yield what is scored before anything is decided: all values, or one after the other."""
    yield from [values] if threshold is None else values[:, None]


def _falls(scores: Sequence[float], times: int) -> bool:
    """Say whether the last scores fell so many times in a row."""
    last = np.nan_to_num(np.array(scores[-times - 1 :]), nan=-math.inf)
    return len(last) == times + 1 and bool((last[1:] < last[:-1]).all())
