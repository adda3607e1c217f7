"""Constrained search: B is found where A says that it is, and what cannot be is refused."""

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.transform import Rotation

import cryodask as cd
from cryodask.errors import InputError
from cryodask.geometry.zyz import zyz_angles, zyz_matrices
from cryodask.io.leopard_em import write_leopard_em
from cryodask.jobs.execution import execute
from cryodask.jobs.micrograph_matching.constrained import open_constrained
from cryodask.jobs.micrograph_matching.constrained_config import ConstrainedConfig, ConstrainedOrientation
from tests.jobs.planted import NO_WHITENING, plant, three_particles

ALONG_BEAM = np.array([0.0, 0.0, 120.0])
EVERY_30 = {"enabled": True, "defocus_min": -300, "defocus_max": 300, "defocus_step": 30}


def scene(folder, row, offset, hand=1):
    """Plant B at an offset from A, (x, y, z) angstrom in the micrograph; return it, A and center_vector."""
    truth = three_particles().iloc[[row]].reset_index(drop=True)
    matrix = zyz_matrices(truth[["phi", "theta", "psi"]].to_numpy(float))[0]
    second = truth.assign(defocus=truth["defocus"] - hand * offset[2])
    planted = plant(folder, second, noise=0.0)
    first = planted.table(defocus=truth["defocus"])
    return planted, first, (matrix @ offset).tolist()


@pytest.mark.parametrize("row", range(3))
@pytest.mark.parametrize("hand", [1, -1])
def test_b_is_found_along_the_beam_at_its_defocus(tmp_path, row, hand):
    planted, first, vector = scene(tmp_path, row, ALONG_BEAM, hand)
    found = cd.constrained_search(
        first, first, planted.template, box=36, center_vector=vector, orientations={"enabled": False},
        defocus=EVERY_30, filters=NO_WHITENING, defocus_hand=hand, padding=2,
    )  # fmt: skip
    truth = planted.truth["defocus"].iloc[0]
    assert found["refined_relative_defocus"].iloc[0] == pytest.approx(truth, abs=0.5)
    assert found["refined_scaled_mip"].iloc[0] > 19.0 > found.attrs["threshold"]
    assert found["original_offset_phi"].iloc[0] == 0


def test_in_its_own_frame_the_box_moves_with_b(tmp_path):
    planted, first, vector = scene(tmp_path, 1, np.array([15.0, -21.0, 0.0]))
    moved = first.assign(pos_x=first["pos_x"] - 10, pos_y=first["pos_y"] + 14)
    found = cd.constrained_search(
        moved, moved, planted.template, box=36, center_vector=vector, orientations={"enabled": False},
        filters=NO_WHITENING, template_frame="own",
    )  # fmt: skip
    assert found["refined_pos_x"].tolist() == first["pos_x"].tolist()
    assert found["refined_pos_y"].tolist() == first["pos_y"].tolist()


def test_a_turn_about_the_given_axis_is_found_and_named(tmp_path):
    planted, first, _ = scene(tmp_path, 0, np.zeros(3))
    axis = (30.0, 50.0, 0.0)
    q = zyz_matrices(np.array([axis]))[0]
    turn = q @ Rotation.from_euler("z", 6.0, degrees=True).as_matrix() @ q.T
    truth = zyz_matrices(first[["phi", "theta", "psi"]].to_numpy(float))[0]
    start = dict(zip(("phi", "theta", "psi"), zyz_angles(turn.T @ truth)[0], strict=True))
    first = first.assign(**start)
    fixed = {"phi_min": 0, "phi_max": 0, "theta_min": 0, "theta_max": 0}
    ranges = {**fixed, "psi_min": -8, "psi_max": 8.5, "psi_step": 2}
    found = cd.constrained_search(
        first, first, planted.template, box=36, filters=NO_WHITENING,
        orientations={**ranges, "rotation_axis_euler_angles": axis},
    )  # fmt: skip
    assert found["original_offset_psi"].iloc[0] + found["original_offset_phi"].iloc[0] == pytest.approx(6.0)
    poses = zyz_matrices(found[["refined_phi", "refined_theta", "refined_psi"]].to_numpy(float))[0]
    assert np.degrees(Rotation.from_matrix(poses.T @ truth).magnitude()) < 0.05


def test_both_hands_and_three_tables(tmp_path):
    planted, first, vector = scene(tmp_path, 2, ALONG_BEAM, hand=-1)
    config, told = configured(planted, first, center_vector=vector), []
    runs = open_constrained(config, tmp_path / "found.csv")
    execute(runs, tell=told.append)
    assert any("with defocus_hand 1" in text and "the other hand fits better" in text for text in told)
    assert len(pd.read_csv(tmp_path / "found.csv")) == 1
    parameters = pd.read_csv(tmp_path / "found_parameters.csv", index_col="parameter")["value"]
    above = pd.read_csv(tmp_path / "found_above_threshold.csv")
    assert len(above) == parameters["particles_above_threshold"]
    assert not list(tmp_path.glob("*.partial.zarr")) and not (tmp_path / "found_other_hand.csv").exists()


def configured(planted, first, **changes):
    path = planted.folder / "a.csv"
    write_leopard_em(path, first, overwrite=True)
    stack = {"df_path": str(path), "extracted_box_size": [36, 36], "original_template_size": [32, 32]}
    return ConstrainedConfig.from_mapping(
        {
            "template_volume_path": str(planted.folder / "template.mrc"),
            "particle_stack_reference": stack,
            "particle_stack_constrained": stack,
            "orientation_refinement_config": {"enabled": False},
            "defocus_search_config": {"enabled": False},
            "preprocessing_filters": NO_WHITENING,
            **changes,
        }
    )


def test_a_micrograph_that_b_never_matched_is_named(tmp_path):
    planted, first, _ = scene(tmp_path, 0, ALONG_BEAM)
    (tmp_path / "other.mrc").write_bytes((tmp_path / "micrograph.mrc").read_bytes())
    other = tmp_path / "b.csv"
    write_leopard_em(other, first.assign(micrograph_path=str(tmp_path / "other.mrc")))
    config = configured(planted, first)
    stack = config.particle_stack_constrained.model_copy(update={"df_path": str(other)})
    with pytest.raises(InputError, match=r"no row of micrograph .*micrograph.mrc; match it with"):
        open_constrained(config.model_copy(update={"particle_stack_constrained": stack}), tmp_path / "f.csv")


@pytest.mark.parametrize(
    ("block", "text"),
    [
        ({"base_grid_method": "basic"}, "not supported, use uniform, healpix or roll"),
        ({"theta_max": -1}, "theta_max = -1.0: expected at least theta_min = 0"),
        ({"psi_step": 0}, "psi_step = 0: expected more than 0 degrees"),
        (
            {"base_grid_method": "roll", "search_roll_axis": False, "roll_axis": [0, 0]},
            "expected a direction",
        ),
    ],
)
def test_wrong_ranges_are_named(tmp_path, block, text):
    planted, first, _ = scene(tmp_path, 0, ALONG_BEAM)
    with pytest.raises(InputError, match=text):
        configured(planted, first, orientation_refinement_config=block)


def test_a_fixed_roll_axis_leaves_one_direction():
    block = {"base_grid_method": "roll", "search_roll_axis": False, "roll_axis": (0.0, 1.0)}
    limits = {"theta_min": -2.0, "theta_max": 2.0, "theta_step": 1.0, "psi_min": 0.0, "psi_max": 0.0}
    angles = ConstrainedOrientation(**block, **limits).angles()
    assert angles[:, 0].tolist() == [90.0] * 5 and angles[:, 1].tolist() == [-2.0, -1.0, 0.0, 1.0, 2.0]
