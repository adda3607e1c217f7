"""A whole refinement of Leopard-EM 1.2 (refine_template, CPU), reproduced number by number."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import cryodask as cd
from cryodask.geometry.zyz import zyz_matrices
from tests.jobs.planted import reference_particles

# refined_mip, refined_scaled_mip, refined_phi, _theta, _psi, _relative_defocus, _pos_x, _pos_y
LEOPARD_EM = np.array([
    (16.85846, 10.69143, 246.2308, 156.4602, 65.21429, -240, 342, 162),
    (14.95429, 9.58224, 15.76726, 76.23138, 157.3043, 0, 36, 297),
    (14.45965, 8.544305, 314.491, 99.67648, 49.57901, -360, 68, 8),
    (14.21944, 8.595761, 123.7703, 39.69278, 339.1524, -240, 288, 3),
    (5.721918, 5.827257, 17.0892, 81.25301, 271.9615, -360, 140, 211),
    (16.0696, 9.258692, 262.3872, 74.80544, 13.50937, -240, 47, 134),
    (5.341098, 5.472246, 209.7394, 105.4491, 41.17247, 240, 143, 261),
    (15.3827, 9.089218, 235.5157, 108.2611, 110.4512, 60, 145, 290),
    (3.835429, 4.58859, 102.4929, 18.56961, 204.2462, 360, 306, 175),
])  # fmt: skip
AT_THE_BORDER = 3  # whose box leaves the image: Leopard-EM reflects it, here such shifts do not count
SEARCH = {
    "orientations": {"psi_step_fine": 0.15},
    "defocus": (-60.0, 60.0, 60.0),
}


def test_compat_gives_every_number_of_leopard_em(shared_data, tmp_path):
    table, template = reference_particles(shared_data, tmp_path, above=5.3)
    found = cd.refine_particles(
        table, template, box=136, compat="leopard-em-1.2", orientation_batch_size=8, **SEARCH
    )
    scores = found[["refined_mip", "refined_scaled_mip"]].to_numpy()
    inside = np.arange(9) != AT_THE_BORDER
    np.testing.assert_allclose(scores[inside], LEOPARD_EM[inside, :2], rtol=2e-6)
    np.testing.assert_allclose(scores[~inside], LEOPARD_EM[~inside, :2], rtol=2e-4)
    poses = zyz_matrices(found[["refined_phi", "refined_theta", "refined_psi"]].to_numpy(float))
    theirs = zyz_matrices(LEOPARD_EM[:, 2:5])
    apart = Rotation.from_matrix(np.swapaxes(poses, 1, 2) @ theirs).magnitude()
    assert np.degrees(apart).max() < 2e-4
    places = found[["refined_relative_defocus", "refined_pos_x", "refined_pos_y"]].to_numpy(float)
    np.testing.assert_array_equal(places, LEOPARD_EM[:, 5:])


@pytest.mark.acceptance
def test_the_search_of_all_turns_finds_no_less(shared_data, tmp_path):
    table, template = reference_particles(shared_data, tmp_path, above=5.3)
    found = cd.refine_particles(table, template, box=136, **SEARCH)
    spread = table["correlation_variance"].to_numpy()
    theirs = (LEOPARD_EM[:, 0] - table["correlation_mean"].to_numpy()) / spread
    assert (found["refined_scaled_mip"] >= theirs - 0.01).all()
    assert (found["refined_scaled_mip"] >= table["scaled_mip"] - 0.1).all()
