"""The best pose: the reducer of the reference, pieces that change nothing, positions between pixels."""

import numpy as np
import pytest
import scipy.ndimage
from scipy.spatial.transform import Rotation

from cryodask.geometry.local_grid import LocalGrid
from cryodask.geometry.zyz import zyz_matrices
from cryodask.kernels import pose_search
from cryodask.kernels.pose_search import (
    BestPose,
    PoseHypotheses,
    Surroundings,
    batch_highest,
    best_of,
    best_pose,
    subpixel_peak,
)
from cryodask.kernels.slices import extract_slices, project, slice_axes, template_spectrum, unit_energy
from cryodask.optics.ctf_image import ImageCtf, ctf_image


def test_reducer_finds_the_reference_pose(shared_data):
    case = np.load(shared_data / "micrograph_matching" / "refine_reducer.npz")
    mean, std = case["corr_mean"].ravel(), case["corr_std"].ravel()
    best, first, highest = BestPose(), 0, []
    for name in ("cc_batch0", "cc_batch1"):
        cc = case[name]
        n_p, n_d, n_o = cc.shape[:3]
        for p in range(n_p):
            scores = cc[p].reshape(n_d, n_o, -1)
            found = best_of(scores, (scores - mean) / std, (p * n_d, first, 0), 5)
            best = found if found.beats(best) else best
        highest.append(cc.max(axis=(0, 1, 3, 4)))
        first += n_o
    rest, angle = divmod(best.pose, 5)
    p, d = divmod(rest, 3)
    assert (angle, p, d) == (int(case["expect_angle_idx"]), 1, 1)
    assert divmod(best.shift, 5) == tuple(case["expect_yx"])
    assert best.z == pytest.approx(float(case["expect_max_z"]), abs=1e-6)
    assert best.cc == pytest.approx(2.6352353, abs=1e-6)
    size = len(highest[0])
    assert batch_highest(np.concatenate(highest), angle, size) == pytest.approx(3.4028263, abs=1e-6)


def test_equal_scores_go_to_the_lowest_pose_then_shift():
    first, second = BestPose(1.0, 1.0, 3, 7), BestPose(1.0, 1.0, 3, 6)
    assert second.beats(first) and not first.beats(second)
    assert BestPose(1.0, 0.0, 2, 9).beats(second) and BestPose(1.1, 0.0, 9, 9).beats(second)


def search_case(n=24, box=28):
    rng = np.random.default_rng(4)
    spectrum = template_spectrum(rng.random((n, n, n), dtype=np.float32))
    places = np.argwhere(np.ones((box - n + 1,) * 2, bool))
    image = rng.standard_normal((box, box)).astype(np.float32)
    around = Surroundings(
        image, places, rng.normal(size=len(places)).astype("f4"), np.full(len(places), 1.5, "f4")
    )
    turns = zyz_matrices(rng.uniform(0, 180, (70, 3)))
    ctf = np.stack([ctf_image((n, n), ImageCtf(1.5, 5000.0, 4500.0), defocus_offset=d) for d in (0.0, 300.0)])
    axes = (slice_axes(turns), slice_axes(turns, scale=1.02))
    return around, PoseHypotheses(spectrum, axes, np.stack([ctf, 0.5 * ctf]).astype("f4"), 0, 70)


def test_pieces_of_windows_and_filters_change_nothing(monkeypatch):
    around, tried = search_case()
    whole = best_pose(around, tried)
    monkeypatch.setattr(pose_search, "COLUMN_BYTES", 8 * 24 * 13 * 8)
    pieces = best_pose(around, tried)
    assert (pieces.pose, pieces.shift) == (whole.pose, whole.shift)
    assert pieces.z == pytest.approx(whole.z, abs=1e-5)


def test_ranges_of_rotations_give_the_bits_of_all_at_once():
    around, tried = search_case()
    whole, parts = best_pose(around, tried), BestPose()
    for start, stop in ((0, 8), (8, 48), (48, 70)):
        some = PoseHypotheses(
            tried.spectrum, tuple(a[start:stop] for a in tried.axes), tried.filters, start, 70
        )
        found = best_pose(around, some)
        parts = found if found.beats(parts) else parts
    assert parts == whole


def test_no_shift_gives_no_pose():
    around, tried = search_case()
    empty = Surroundings(around.image, np.empty((0, 2), int), np.empty(0), np.empty(0))
    assert best_pose(empty, tried).pose == pose_search.NO_ID


def test_positions_between_pixels_are_found_to_two_hundredths():
    rng = np.random.default_rng(5)
    n, margin = 32, 8
    spot = scipy.ndimage.gaussian_filter(rng.standard_normal((n, n)), 1.5)
    spot *= np.outer(np.hanning(n), np.hanning(n))
    padded = np.pad(spot, margin)
    errors = []
    for wanted in rng.uniform(-0.7, 0.7, (24, 2)):
        moved = np.fft.ifft2(scipy.ndimage.fourier_shift(np.fft.fft2(padded), wanted)).real
        errors.append(np.subtract(subpixel_peak(moved, spot), wanted))
    assert np.sqrt(np.mean(np.square(errors))) <= 0.02


@pytest.fixture(scope="module")
def reference(shared_data):
    volume = np.load(shared_data / "micrograph_matching" / "search_512" / "template.npy")
    ctf = ctf_image((128, 128), ImageCtf(1.0, 5200.0, 4950.0, 25.0, b_factor=60.0))
    truth = zyz_matrices(np.array([[40.0, 70.0, 25.0]]))
    fine = template_spectrum(volume, padding=2, gridding="sinc2")
    image = np.zeros((136, 136), np.float32)
    image[4:132, 4:132] = unit_energy(project(extract_slices(fine, slice_axes(truth), 128), ctf))[0]
    return template_spectrum(volume, gridding="sinc2"), ctf, truth[0], image


def recovered_error(reference, turn, side, grid):
    """Return how far the best pose lies from the truth, degrees, after a start that is off by a turn."""
    spectrum, ctf, truth, image = reference
    start = truth @ turn if side == "image" else turn @ truth
    places = np.argwhere(np.ones((9, 9), bool))
    around = Surroundings(image, places, np.zeros(81, np.float32), np.ones(81, np.float32))
    delta = grid.matrices()
    best = best_pose(
        around, PoseHypotheses(spectrum, (slice_axes(start @ delta),), ctf[None, None], 0, len(delta))
    )
    assert tuple(places[best.shift]) == (4, 4)
    return np.degrees(Rotation.from_matrix((start @ delta[best.pose]).T @ truth).magnitude())


@pytest.mark.parametrize("axis", range(3))
def test_a_degree_about_a_body_axis_comes_back(reference, axis):
    turn = Rotation.from_rotvec(np.eye(3)[axis], degrees=True).as_matrix()
    # the part of the full grid that can hold the answer
    assert recovered_error(reference, turn, "body", LocalGrid(1.25, 0.25, 1.2, 0.15)) <= 0.2


@pytest.mark.acceptance
@pytest.mark.parametrize("side", ["image", "body"])
@pytest.mark.parametrize("axis", range(3))
def test_errors_about_every_axis_come_back_on_the_full_grid(reference, side, axis):
    for degrees in (1.0, -1.0, 1.37):
        turn = Rotation.from_rotvec(np.eye(3)[axis] * degrees, degrees=True).as_matrix()
        assert recovered_error(reference, turn, side, LocalGrid(psi_step=0.15)) <= 0.2
