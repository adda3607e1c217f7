"""Refinement of particles: the search around known poses, from a table to a table."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from cryodask.errors import InputError
from cryodask.geometry.local_grid import COARSENING, leopard_em_local_matrices
from cryodask.io.leopard_em import write_leopard_em
from cryodask.jobs.micrograph_matching.inputs import particle_radius
from cryodask.jobs.micrograph_matching.particle_blocks import ParticleStack
from cryodask.jobs.micrograph_matching.pose_problem import PoseProblem, PoseSettings, Strategy
from cryodask.jobs.micrograph_matching.pose_run import (
    PoseRun,
    check_outputs,
    open_store,
    plan_chunks,
    run_marks,
)
from cryodask.jobs.micrograph_matching.refine_config import ParticleConfig, RefineConfig
from cryodask.jobs.micrograph_matching.refined_table import refined_table
from cryodask.jobs.micrograph_matching.start_poses import StartPoses, check_files, read_start_poses
from cryodask.jobs.micrograph_matching.template import randomized_phases
from cryodask.jobs.micrograph_matching.template_input import (
    TemplateInput,
    open_template,
    read_template,
    require_scale,
)
from cryodask.kernels.slices import template_spectrum

Tell = Callable[[str], None]
PIXELS_RESOLVED = 2.0


def open_refinement(
    config: RefineConfig,
    output: Path,
    *,
    strategy: Strategy = "exhaustive",
    device: str = "cpu",
    memory: float = 2.0 * 2**30,
    resume: bool = False,
    overwrite: bool = False,
    tell: Tell = lambda notice: None,
) -> PoseRun:
    """Check a configuration and everything it names, and plan its run; nothing is written.

    Parameters
    ----------
    config
        The configuration.
    output
        CSV to write.
    strategy
        ``exhaustive``: every turn; ``coarse_to_fine``: three times the steps, then about the best.
    device, memory
        Where a task runs, and the bytes it may use.
    resume, overwrite
        Continue an unfinished run; replace the table.
    tell
        Called with notices.

    Raises
    ------
    InputError
        A wrong value or file, an existing table, a changed run.
    ResourceError
        A particle does not fit the memory.
    """
    stack = config.particle_stack
    with config.source.placed("particle_stack.df_path"):
        table, start = read_start_poses(
            stack.df_path, variance_is=config.cryodask.correlation_variance_is, tell=tell
        )
    template = open_particle_template(config, float(table["pixel_size"].iloc[0]))
    start = _with_voxels(start, template, config)
    settings = refine_settings(config, strategy, device)
    check_box(config, "particle_stack", stack, template)
    check_files(start, stack.df_path, template.edge)
    offsets = np.asarray(settings.pixel_sizes)
    require_scale(start.voxel_sizes[:, None] / (start.pixel_sizes[:, None] + offsets))
    turns = _turns(config, settings, template.path)
    if config.orientation_refinement_config.gives_phi and not settings.compat:
        tell("phi_step_coarse, phi_step_fine: no effect, the search tilts in a disc of theta")
    marks = run_marks(
        config, particle_files(config.template_volume_path, stack.df_path, start), strategy=strategy
    )
    is_finished = resume and output.exists()
    store, plan = open_store(output, marks, resume=resume)
    check_outputs([output], start, settings, resume=resume, overwrite=overwrite)
    count = len(turns) if strategy == "exhaustive" else len(settings.grid.coarse().matrices()) + 125
    return PoseRun(
        name=output.name,
        final=output,
        store=store,
        problem=PoseProblem(str(store.constants), settings, count),
        plan=plan or plan_chunks(len(start), settings, count, memory),
        marks=marks,
        make_constants=lambda: (start, particle_spectrum(config, template), turns),
        write=lambda arrays: _write(table, arrays, template.edge, output),
        is_finished=is_finished and not Path(store.path).exists(),
        replaces=overwrite and not resume,
    )


def refine_settings(config: RefineConfig, strategy: Strategy, device: str) -> PoseSettings:
    """Return what decides the scores of a refinement."""
    own = config.cryodask
    return replace(
        particle_settings(config, config.particle_stack, device),
        defocus=tuple(config.defocus_refinement_config.values(own.compat).tolist()),
        pixel_sizes=tuple(config.pixel_size_refinement_config.values(own.compat).tolist()),
        side="body" if own.compat else "image",
        filter_from="micrograph" if config.apply_global_filtering else "box",
        strategy=strategy,
        grid=config.orientation_refinement_config.grid,
    )


def particle_settings(config: ParticleConfig, stack: ParticleStack, device: str) -> PoseSettings:
    """Return what every configuration of particles decides."""
    own = config.cryodask
    return PoseSettings(
        box=stack.box,
        edge=stack.template_edge,
        defocus=(0.0,),
        pixel_sizes=(0.0,),
        side="image",
        filters=config.preprocessing_filters,
        compat=own.compat,
        batch=own.orientation_batch_size,
        zernike_radius=own.zernike_radius,
        padding=own.padding,
        device=device,
    )


def open_particle_template(config: ParticleConfig, pixel_size: float) -> TemplateInput:
    """Check the header of a configuration's template; see `open_template`."""
    with config.source.placed("template_volume_path"):
        return open_template(config.template_volume_path, pixel_size, config.cryodask.template_pixel_size)


def check_box(config: ParticleConfig, field: str, stack: ParticleStack, template: TemplateInput) -> None:
    """Refuse a template of another edge than the stack says."""
    if template.edge != stack.template_edge:
        raise config.source.wrong(
            f"{field}.original_template_size",
            list(stack.original_template_size),
            f"expected [{template.edge}, {template.edge}], the edge of {template.path}",
        )


def _with_voxels(start: StartPoses, template: TemplateInput, config: RefineConfig) -> StartPoses:
    """Return the poses with the template's voxel size, which `same` leaves at each particle's pixel size."""
    if config.cryodask.template_pixel_size in ("same", "ignore_header"):
        return start
    return replace(start, voxel_sizes=np.full(len(start), template.voxel_size))


def _turns(config: RefineConfig, settings: PoseSettings, template: str) -> np.ndarray:
    """Return the turns to try, (N, 3, 3)."""
    blocks = config.orientation_refinement_config
    if settings.strategy == "coarse_to_fine":
        _check_coarse(settings, template)
        return settings.grid.coarse().matrices()
    if settings.compat and blocks.enabled:
        return leopard_em_local_matrices(
            blocks.theta_step_coarse, blocks.theta_step_fine, blocks.psi_step_coarse, blocks.psi_step_fine
        )
    return settings.grid.matrices()


def _check_coarse(settings: PoseSettings, template: str) -> None:
    """Refuse coarse steps at which the rim of the particle moves by more than what is resolved."""
    if settings.compat:
        raise InputError(
            "--strategy coarse_to_fine: not with compat leopard-em-1.2, which searches its own grid"
        )
    diameter = 2.0 * particle_radius(read_template(template))
    step = np.radians(COARSENING * settings.grid.theta_step)
    if step * diameter > PIXELS_RESOLVED:
        most = np.degrees(PIXELS_RESOLVED / diameter) / COARSENING
        raise InputError(
            f"--strategy coarse_to_fine: theta_step_fine = {settings.grid.theta_step:g} is too coarse for a "
            f"particle of {diameter:.0f} px, expected at most {most:.3g} degrees (or exhaustive)"
        )


def particle_files(template: str, table: str, start: StartPoses) -> dict[str, str]:
    """Return the files that must not change while a run is resumed, by the name a message gives them."""
    files = {"particle table": table, "template_volume_path (file)": template}
    for name in ("micrographs", "mean_maps", "std_maps"):
        files |= {path: path for path in getattr(start, name)}
    return files


def particle_spectrum(config: ParticleConfig, template: TemplateInput) -> np.ndarray:
    """Return the spectrum of a configuration's template, phases randomised where that is on."""
    own = config.cryodask
    gridding = "none" if own.compat else own.gridding
    volume = read_template(template.path)
    phases = config.preprocessing_filters.phase_randomization_filter
    if phases.enabled and phases.cuton and not own.compat:
        volume = randomized_phases(volume, phases.cuton, own.seed)
    return np.asarray(template_spectrum(volume, padding=own.padding, gridding=gridding))


def _write(table: pd.DataFrame, arrays: dict[str, np.ndarray], edge: int, output: Path) -> list[str]:
    refined = refined_table(table, arrays, edge)
    write_leopard_em(output, refined, overwrite=True)
    lost = int(np.isnan(arrays["z"]).sum())
    return [f"{lost} of {len(table)} particles have no position inside the image, NaN"] if lost else []
