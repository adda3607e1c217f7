"""The voxel size of a template, found by the z-scores of known particles (Leopard-EM's optimize_template)."""

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.fft

from cryodask.errors import InputError
from cryodask.io.files import require_exists
from cryodask.jobs.execution import execute
from cryodask.jobs.micrograph_matching.optimize_config import (
    NO_DETECTOR,
    OptimizeConfig,
    SimulatorConfig,
)
from cryodask.jobs.micrograph_matching.pose_problem import PoseProblem, PoseSettings
from cryodask.jobs.micrograph_matching.pose_run import Arrays, PoseRun, open_store, plan_chunks
from cryodask.jobs.micrograph_matching.refine import check_box, particle_settings
from cryodask.jobs.micrograph_matching.start_poses import StartPoses, check_files, read_start_poses
from cryodask.jobs.micrograph_matching.template import randomized_phases
from cryodask.jobs.micrograph_matching.template_input import (
    TemplateInput,
    open_template,
    read_template,
    require_scale,
)
from cryodask.kernels.slices import template_spectrum
from cryodask.optics.dose import DoseFilter
from cryodask.optics.frequency import half_frequencies

if TYPE_CHECKING:
    from distributed import Client

MIN_SNR = 8.0
SAME_SIZE = 1e-9  # angstrom


@dataclass(frozen=True)
class Optimum:
    """What the search found.

    Attributes
    ----------
    table
        pixel_size (angstrom), score (mean z), particles, stage; in the order they were tried.
    pixel_size, uncertainty
        Vertex of the parabola around the best value and its standard error, angstrom; NaN where the best is
        the end of its range.
    """

    table: pd.DataFrame
    pixel_size: float
    uncertainty: float


@dataclass(frozen=True)
class Choice:
    """Which particles count: those of z at least `min_snr`, or the `best_n`."""

    min_snr: float = MIN_SNR
    best_n: int | None = None

    def score(self, z: np.ndarray) -> tuple[float, int]:
        """Return the mean z of the particles that count, and their number; NaN where there is none."""
        z = z[np.isfinite(z)]
        chosen = np.sort(z)[::-1][: self.best_n] if self.best_n else z[z >= self.min_snr]
        return (float(chosen.mean()), len(chosen)) if len(chosen) else (math.nan, 0)


@dataclass(frozen=True, eq=False)
class Optimization:
    """A checked configuration, ready to score voxel sizes."""

    config: OptimizeConfig
    start: StartPoses
    template: TemplateInput
    settings: PoseSettings
    memory: float

    @property
    def coarse(self) -> np.ndarray:
        """Voxel sizes of the first search, angstrom."""
        return self.template.voxel_size + self.config.pixel_size_coarse_search.values()

    def fine(self, centre: float) -> np.ndarray:
        """Voxel sizes of the second search, about the best of the first."""
        return centre + self.config.pixel_size_fine_search.values()

    def scores(self, values: np.ndarray, client: "Client | None") -> np.ndarray:
        """Return the z-scores of all particles at some voxel sizes, (V, P)."""
        scratch = tempfile.TemporaryDirectory(prefix="cryodask-")
        found: dict[int, np.ndarray] = {}
        with scratch as folder:
            runs = [self._run(Path(folder), i, group, found) for i, group in enumerate(self._groups(values))]
            execute(runs, client=client)
        return np.concatenate([found[i] for i in range(len(runs))])

    def _groups(self, values: np.ndarray) -> list[np.ndarray]:
        """Return values that share one template: all of them where it is scaled instead of simulated."""
        return [values] if self.config.simulator is None else list(values[:, None])

    def _run(self, folder: Path, number: int, values: np.ndarray, found: dict[int, np.ndarray]) -> PoseRun:
        count = len(self.start)
        rows = np.tile(np.arange(count), len(values))
        start = self.start.taken(rows)
        # a template of other voxels shows its particle larger or smaller by as much on the same pixels
        scale = self.template.voxel_size / np.repeat(values, count) if self.config.simulator is None else 1.0
        start = replace(start, voxel_sizes=start.pixel_sizes * scale)
        final = folder / f"{number}.csv"
        store, _ = open_store(final, {}, resume=False)

        def write(arrays: Arrays) -> list[str]:
            found[number] = arrays["z"].reshape(len(values), count)
            return []

        return PoseRun(
            name=f"voxel sizes {values[0]:.4g} to {values[-1]:.4g}",
            final=final,
            store=store,
            problem=PoseProblem(str(store.constants), self.settings, 1),
            plan=plan_chunks(len(rows), self.settings, 1, self.memory),
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
    found = Optimization(config, start, template, settings, memory)
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
) -> Optimum:
    """Score the coarse and then the fine list of voxel sizes.

    Parameters
    ----------
    work
        From `open_optimization`.
    choice
        Which particles count; those of z >= 8 by default.
    consecutive_threshold
        Stop a list after so many falling scores in a row; None scores all of it.
    client
        Dask client; the active one, else threads of this process, by default.

    Returns
    -------
    Optimum

    Raises
    ------
    InputError
        No particle reaches `min_snr` at any voxel size.
    """
    choice = choice or Choice()
    rows: list[dict[str, float | int | str]] = []
    highest = -math.inf
    best = work.template.voxel_size
    stages = (("coarse", work.config.pixel_size_coarse_search), ("fine", work.config.pixel_size_fine_search))
    for stage, block in stages:
        if not block.enabled:
            continue
        values = work.coarse if stage == "coarse" else work.fine(best)
        tried: list[float] = []
        for some in _portions(values, consecutive_threshold):
            z = work.scores(some, client)
            highest = max(highest, float(np.nanmax(z, initial=-math.inf)))
            for value, line in zip(some.tolist(), z, strict=True):
                score, count = choice.score(line)
                rows.append({"pixel_size": value, "score": score, "particles": count, "stage": stage})
                tried.append(score)
            if consecutive_threshold and _falls(tried, consecutive_threshold):
                break
        if np.isfinite(tried).any():
            best = float(values[int(np.nanargmax(tried))])
    table = pd.DataFrame(rows, columns=["pixel_size", "score", "particles", "stage"])
    if not (table["particles"] > 0).any():
        raise InputError(f"no particle reaches min_snr = {choice.min_snr:g}, the highest z is {highest:.3f}")
    return Optimum(table, *parabola_optimum(table))


def parabola_optimum(table: pd.DataFrame) -> tuple[float, float]:
    """Return the voxel size of best score and its standard error, by a parabola around the best value.

    It is fitted to all scores between the values of the first list on either side: those of the second list
    alone lie so close that noise would bend it. The z-score of a particle has unit noise, and N particles of
    mean z the log-likelihood N z^2/2, so that the error is 1/sqrt(N z |z''|).

    Parameters
    ----------
    table
        pixel_size, score, particles, stage.
    """
    known = table[np.isfinite(table["score"])]
    if known.empty:
        return math.nan, math.nan
    best = known.loc[known["score"].idxmax()]
    centre, coarse = (
        float(best["pixel_size"]),
        table.loc[table["stage"] == table["stage"].iloc[0], "pixel_size"],
    )
    below, above = coarse[coarse < centre - SAME_SIZE], coarse[coarse > centre + SAME_SIZE]
    if below.empty or above.empty:
        return centre, math.nan
    low, high = float(below.max()), float(above.min())
    near = known[known["pixel_size"].between(low - SAME_SIZE, high + SAME_SIZE)]
    if near["pixel_size"].nunique() < 3:
        return centre, math.nan
    a, b, _ = np.polyfit(near["pixel_size"] - centre, near["score"], 2)
    if not a < 0:
        return centre, math.nan
    vertex = min(max(centre - b / (2 * a), low), high)
    return float(vertex), 1.0 / math.sqrt(int(best["particles"]) * float(best["score"]) * 2 * abs(a))


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


def _check_detector(config: OptimizeConfig, settings: SimulatorConfig) -> None:
    """Refuse what only another engine can do."""
    for name, value in (("apply_dqe", settings.apply_dqe), ("mtf_reference", settings.mtf_reference)):
        if value:
            key = f"simulator.simulator_config.{name}"
            raise config.source.wrong(key, value, f"not supported here, {NO_DETECTOR}")


def _portions(values: np.ndarray, threshold: int | None) -> Iterator[np.ndarray]:
    """Yield what is scored before anything is decided: all values, or one after the other."""
    yield from [values] if threshold is None else values[:, None]


def _falls(scores: Sequence[float], times: int) -> bool:
    """Say whether the last scores fell so many times in a row."""
    last = np.nan_to_num(np.array(scores[-times - 1 :]), nan=-math.inf)
    return len(last) == times + 1 and bool((last[1:] < last[:-1]).all())
