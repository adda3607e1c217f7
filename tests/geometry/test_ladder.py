import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryodask.geometry.euler import rotation_from_euler
from cryodask.geometry.grids import rotation_grid
from cryodask.geometry.ladder import Ladder, climb
from cryodask.geometry.neighbours import RowFinder, coarser_grid
from cryodask.geometry.symmetry import symmetry_group


def angles(rows: Rotation, truth: Rotation, symmetry: str) -> np.ndarray:
    group = symmetry_group(symmetry)
    return np.degrees(np.min([((truth * g).inv() * rows).magnitude() for g in group], axis=0))


@pytest.mark.parametrize("symmetry", ["C1", "D2"])
@pytest.mark.parametrize("times", [2, 3, 6])
def test_the_nearest_fine_row_is_found_trying_few(symmetry: str, times: int) -> None:
    step = 6.0
    fine = rotation_from_euler(rotation_grid(step, symmetry=symmetry))
    coarse = coarser_grid(RowFinder(fine, symmetry), times * step)
    ladder = Ladder(fine, step, coarse, times * step, symmetry)
    truth = Rotation.random(20, random_state=1)
    best = RowFinder(coarse, symmetry).nearest(truth, 3)[1]
    near = [angles(fine, one, symmetry) for one in truth]

    def score(rows: np.ndarray, places: np.ndarray) -> np.ndarray:
        return -np.array([near[place][row] for row, place in zip(rows, places, strict=True)])

    rows, places, scores = climb(ladder, best, score)
    assert len(set(zip(rows.tolist(), places.tolist(), strict=True))) == len(rows)
    assert len(rows) / len(truth) < 220
    for place, each in enumerate(near):
        assert rows[places == place][np.argmax(scores[places == place])] == np.argmin(each)


def test_a_wrong_start_is_left_behind() -> None:
    fine = rotation_from_euler(rotation_grid(10.0))
    coarse = rotation_from_euler(rotation_grid(30.0))
    ladder = Ladder(fine, 10.0, coarse, 30.0)
    truth = Rotation.from_euler("zxz", [[10.0, 40.0, 20.0]], degrees=True)
    distance, ordered = RowFinder(coarse).nearest(truth, 40)
    assert distance[0, -1] > 45.0
    rows, _, scores = climb(
        ladder, ordered[:, -1:], lambda rows, _: -np.degrees((truth.inv() * fine[rows]).magnitude())
    )
    assert rows[np.argmax(scores)] == RowFinder(fine).nearest(truth)[1][0, 0]


def test_a_place_without_rows_asks_for_none() -> None:
    fine = rotation_from_euler(rotation_grid(30.0))
    ladder = Ladder(fine, 30.0, rotation_from_euler(rotation_grid(60.0)), 60.0)
    rows, places = ladder.first(np.array([[-1, -1], [3, -1]]))
    assert set(places) == {1}
    assert len(rows) > 0
