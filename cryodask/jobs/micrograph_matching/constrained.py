"""Constrained search: a second particle where the first one says that it must be (Leopard-EM)."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from cryodask.geometry.zyz import zyz_matrices
from cryodask.io.leopard_em import ORIGINAL_OFFSETS, write_leopard_em
from cryodask.jobs.micrograph_matching.constrained_config import ConstrainedConfig
from cryodask.jobs.micrograph_matching.pose_problem import PoseProblem, PoseSettings
from cryodask.jobs.micrograph_matching.pose_run import (
    Arrays,
    PoseRun,
    check_outputs,
    open_store,
    plan_chunks,
    run_marks,
)
from cryodask.jobs.micrograph_matching.refine import (
    check_box,
    open_particle_template,
    particle_files,
    particle_settings,
    particle_spectrum,
)
from cryodask.jobs.micrograph_matching.refined_table import refined_table
from cryodask.jobs.micrograph_matching.start_poses import StartPoses, check_files, read_start_poses
from cryodask.jobs.micrograph_matching.template_input import TemplateInput, require_scale
from cryodask.picking.thresholds import false_positive_threshold

Tell = Callable[[str], None]
HANDS_COMPARED = 32  # particles that are searched with the beam axis turned round, to compare
CLEARLY_BETTER = 0.05  # in mean z


@dataclass
class _Search:
    """What is searched: table of A, poses of B for one hand."""

    config: ConstrainedConfig
    table: pd.DataFrame
    template: TemplateInput
    settings: PoseSettings
    angles: np.ndarray
    threshold: float
    output: Path
    means: dict[int, dict[int, float]] = field(default_factory=dict)


def open_constrained(
    config: ConstrainedConfig,
    output: Path,
    *,
    false_positives: float = 0.005,
    device: str = "cpu",
    memory: float = 2.0 * 2**30,
    resume: bool = False,
    overwrite: bool = False,
    tell: Tell = lambda notice: None,
) -> list[PoseRun]:
    """Check a configuration and everything it names, and plan its runs; nothing is written.

    Parameters
    ----------
    config
        The configuration.
    output
        CSV of all rows; rows above the threshold and the parameters go beside it.
    false_positives
        Expected for each particle of A.
    device, memory, resume, overwrite, tell
        As in `refine.open_refinement`.

    Returns
    -------
    list of PoseRun
        The search, and one of a few particles with the beam axis turned round, for the notice that compares
        both.

    Raises
    ------
    InputError
        A wrong value or file; a micrograph of A that B never matched.
    ResourceError
        A particle does not fit the memory.
    """
    with config.source.placed("particle_stack_reference.df_path"):
        table, first = read_start_poses(config.particle_stack_reference.df_path, tell=tell)
    with config.source.placed("particle_stack_constrained.df_path"):
        _, second = read_start_poses(
            config.particle_stack_constrained.df_path,
            variance_is=config.cryodask.correlation_variance_is,
            tell=tell,
        )
    template = open_particle_template(config, float(table["pixel_size"].iloc[0]))
    check_box(config, "particle_stack_constrained", config.particle_stack_constrained, template)
    angles = config.orientation_refinement_config.angles()
    settings = replace(
        particle_settings(config, config.particle_stack_constrained, device),
        defocus=tuple(config.defocus_refinement_config.values(config.cryodask.compat).tolist()),
        side="body",
    )
    if config.orientation_refinement_config.phi_step is not None:
        tell("orientation_refinement_config.phi_step: no effect, phi follows theta_step on each ring")
    shifts = (2 * settings.reach + 1) ** 2
    scores = float(len(settings.defocus) * len(angles) * shifts)
    threshold = false_positive_threshold(1.0, scores, false_positives)
    search = _Search(config, table, template, settings, angles, threshold, output)
    with_maps = _with_maps(config, first, second)
    check_files(with_maps, config.particle_stack_constrained.df_path, template.edge)
    check_outputs(_outputs(output), with_maps, settings, resume=resume, overwrite=overwrite)
    hand = config.cryodask.defocus_hand
    main = _run(search, with_maps, hand, np.arange(len(table)), memory, resume=resume)
    main.is_finished = resume and output.exists() and not Path(main.store.path).exists()
    main.replaces = overwrite and not resume
    offsets = _offsets(config, first)
    rows = np.sort(np.argsort(-np.abs(offsets[:, 2]), kind="stable")[:HANDS_COMPARED])
    if main.is_finished or not np.any(np.abs(offsets[:, 2]) > 0):
        return [main]
    other = _run(search, with_maps, -hand, rows, memory, resume=resume)
    other.replaces = main.replaces
    return [main, other]


def _outputs(output: Path) -> tuple[Path, Path, Path]:
    """Return the files of all rows, of those above the threshold, and of the parameters."""
    return (
        output,
        output.with_name(f"{output.stem}_above_threshold.csv"),
        output.with_name(f"{output.stem}_parameters.csv"),
    )


def _with_maps(config: ConstrainedConfig, first: StartPoses, second: StartPoses) -> StartPoses:
    """Return the poses of A with the maps that B's match of the same micrograph made."""
    found: dict[str, tuple[int, int]] = {}
    for row in range(len(second)):
        name = second.micrographs[second.micrograph[row]]
        found.setdefault(name, (int(second.mean_map[row]), int(second.std_map[row])))
    missing = [name for name in first.micrographs if name not in found]
    if missing:
        raise config.source.error(
            f"particle_stack_constrained.df_path: no row of micrograph {missing[0]}; match it with the "
            "constrained template first"
        )
    maps = np.array([found[first.micrographs[number]] for number in first.micrograph])
    return replace(
        first,
        mean_maps=second.mean_maps,
        mean_map=maps[:, 0],
        std_maps=second.std_maps,
        std_map=maps[:, 1],
        meaning=second.meaning,
    )


def _offsets(config: ConstrainedConfig, poses: StartPoses) -> np.ndarray:
    """Return where the centre of B lies from that of A in the micrograph's frame, (P, 3) x, y, z angstrom."""
    rotations = np.swapaxes(zyz_matrices(poses.angles), 1, 2)
    return rotations @ np.asarray(config.center_vector)


def _placed(search: _Search, poses: StartPoses, hand: int) -> StartPoses:
    """Return the poses that B would have: its defocus, and its place unless both share one frame."""
    offsets = _offsets(search.config, poses)
    half = search.config.particle_stack_reference.template_edge // 2
    positions = poses.positions + half - search.template.edge // 2
    if search.config.cryodask.template_frame == "own":
        moved = offsets[:, [1, 0]] / poses.pixel_sizes[:, None]
        positions = positions + np.rint(moved).astype(np.int64)
    if not isinstance(search.config.cryodask.template_pixel_size, str):
        poses = replace(poses, voxel_sizes=np.full(len(poses), search.template.voxel_size))
    return replace(poses, defocus=poses.defocus - hand * offsets[:, 2], positions=positions)


def _run(
    search: _Search, poses: StartPoses, hand: int, rows: np.ndarray, memory: float, *, resume: bool
) -> PoseRun:
    """Plan the search of some particles with one hand."""
    config, settings = search.config, search.settings
    start = _placed(search, poses, hand)
    require_scale(start.voxel_sizes / start.pixel_sizes)
    is_main = hand == config.cryodask.defocus_hand
    final = search.output if is_main else search.output.with_name(f"{search.output.stem}_other_hand.csv")
    files = particle_files(config.template_volume_path, config.particle_stack_reference.df_path, start)
    files |= {"particle_stack_constrained.df_path (file)": config.particle_stack_constrained.df_path}
    marks = run_marks(config, files, threshold=search.threshold)
    store, plan = open_store(final, marks, resume=resume)
    turns = config.orientation_refinement_config.turns()

    def write(arrays: Arrays) -> list[str]:
        search.means[hand] = dict(zip(rows.tolist(), arrays["z"].tolist(), strict=True))
        notices = _write(search, poses, arrays) if is_main else []
        return notices + _compare_hands(search)

    return PoseRun(
        name=final.name,
        final=final,
        store=store,
        problem=PoseProblem(str(store.constants), settings, len(turns)),
        plan=plan or plan_chunks(len(rows), settings, len(turns), memory),
        marks=marks,
        make_constants=lambda: (start.taken(rows), particle_spectrum(config, search.template), turns),
        write=write,
    )


def _write(search: _Search, poses: StartPoses, arrays: Arrays) -> list[str]:
    """Write the three tables."""
    edge = search.template.edge
    found = np.where(np.isnan(arrays["z"]), 0, arrays["hypothesis"]) % len(search.angles)
    offsets = np.where(np.isnan(arrays["z"])[:, None], np.nan, search.angles[found.astype(int)])
    table = search.table.assign(
        template_path=search.config.template_volume_path,
        correlation_average_path=[poses.mean_maps[number] for number in poses.mean_map],
        correlation_variance_path=[poses.std_maps[number] for number in poses.std_map],
        **dict(zip(ORIGINAL_OFFSETS, offsets.T, strict=True)),
    )
    table = refined_table(table, arrays, edge)
    above = table[arrays["z"] > search.threshold]
    everything, chosen, parameters = _outputs(search.output)
    write_leopard_em(everything, table, overwrite=True)
    write_leopard_em(chosen, above, overwrite=True)
    values = {
        "false_positive_threshold": search.threshold,
        "orientations": len(search.angles),
        "defoci": len(search.settings.defocus),
        "shifts": (2 * search.settings.reach + 1) ** 2,
        "particles": len(table),
        "particles_above_threshold": len(above),
        "defocus_hand": search.config.cryodask.defocus_hand,
    }
    pd.DataFrame({"parameter": list(values), "value": list(values.values())}).to_csv(parameters, index=False)
    return [f"{len(above)} of {len(table)} particles above z = {search.threshold:.3f}"]


def _compare_hands(search: _Search) -> list[str]:
    """Return the notice that compares both signs of the beam axis, once both are known."""
    if len(search.means) < 2:
        return []
    hand = search.config.cryodask.defocus_hand
    rows = sorted(set(search.means[1]) & set(search.means[-1]))
    mean = {h: float(np.nanmean([search.means[h][row] for row in rows])) for h in (1, -1)}
    other = " (the other hand fits better)" if mean[-hand] > mean[hand] + CLEARLY_BETTER else ""
    return [
        f"mean z of {len(rows)} particles: {mean[1]:.3f} with defocus_hand 1, {mean[-1]:.3f} with -1{other}"
    ]
