"""The menu of first stages: what is on it, what it costs, and which is taken."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from cryodask.geometry.euler import rotation_from_euler
from cryodask.geometry.grids import rotation_grid
from cryodask.geometry.ladder import Ladder, count_local_rows
from cryodask.geometry.neighbours import RowFinder, coarser_grid
from cryodask.jobs.miss_model import MissModel
from cryodask.jobs.tomogram_matching.menu import (
    CoarseChoice,
    Offer,
    Rates,
    Work,
    candidate_voxels,
    choose_offers,
    coarse_choices,
    describe,
    joint_seconds,
    make_offer,
    pilot_rows,
    run_threshold,
    scaled_candidates,
    whole_seconds,
)

WORK = Work(voxels=1e7, rotations=100_000, box=40, support=10_000, tiles=2)
RATES = Rates()


def offer(step: float = 15.0, rotations: int = 4600, candidates: float = 1e4) -> Offer:
    return Offer(CoarseChoice(step, 40.0, Fraction(3, 5)), rotations, 150.0, 0.2, 0.04, 0.01, candidates)


def model() -> MissModel:
    ones = np.ones(4)
    return MissModel(ones, 1 * ones, 1e-4 * ones, 0.9 * ones, ones, 1e-4 * ones, 0.9e-4 * ones)


def test_the_menu_has_the_steps_low_passes_and_coarsest_grids_that_hold_them() -> None:
    found = coarse_choices(5.0, 260.0, box=40, voxel_size=10.0, band_edge=20.2)
    assert {choice.step for choice in found} == {10.0, 15.0, 20.0, 30.0}
    for choice in found:
        edge = 20.0 if choice.lowpass is None else 400.0 / choice.lowpass + np.sqrt(2.0)
        assert choice.factor * 20 >= edge
        if choice.lowpass is not None:
            shares = choice.lowpass / (np.radians(choice.step) * 260.0)
            assert min(abs(shares - share) for share in (1 / 2, 2 / 3, 1)) < 1e-9
    # a low-pass that allows no coarser grid would lose signal for nothing
    assert not [choice for choice in found if choice.lowpass is not None and choice.factor == 1]
    assert not coarse_choices(31.0, 260.0, box=40, voxel_size=10.0, band_edge=20.2)


def test_the_threshold_keeps_the_miss_rate_at_the_threshold_of_the_run() -> None:
    found = make_offer(
        CoarseChoice(15.0, None, Fraction(1)),
        model(),
        WORK,
        rotations=4600,
        local_rows=150.0,
        miss_rate=0.02,
        false_positives=1.0,
    )
    score = run_threshold(model(), WORK, 1.0)
    assert 6.0 < score / 0.01 < 8.0
    assert model().miss_probability(found.threshold, score) == pytest.approx(0.02, rel=1e-3)
    # noise passes it, with the neighbours of each
    assert 27 <= found.candidates <= WORK.voxels


def test_the_price_is_rows_times_voxels_and_what_candidates_cost() -> None:
    none, many = offer(candidates=0.0), offer(candidates=1e6)
    assert none.seconds(WORK, RATES) == pytest.approx(4600 * 1e7 * 0.6**3 * RATES.search)
    more = many.seconds(WORK, RATES) - none.seconds(WORK, RATES)
    sums = 1e6 / 0.6**3 * 150 * 10_000 * RATES.product
    # so many candidates need every row in every tile
    rotated = 2 * 100_000 * 40**3 * RATES.rotation
    assert more == pytest.approx(sums + rotated, rel=0.01)


def test_the_cheapest_by_measured_candidates_is_taken() -> None:
    coarse, fine = offer(20.0, 1900, 1e3), offer(10.0, 15_500, 1e3)
    measured = {20.0: 1e6, 10.0: 2e3}
    asked = []

    def measure(number: int, each: Offer) -> float:
        assert number == 0
        asked.append(each.choice.step)
        return measured[each.choice.step]

    chosen = choose_offers([(fine,), (coarse,)], [WORK], [RATES], measure)
    assert asked == [20.0, 10.0]
    assert chosen == (replace(fine, candidates=2e3, is_measured=True),)
    assert choose_offers([(coarse,)], [WORK], [RATES], lambda number, each: 1e7) is None
    assert "exhaustive is used" in describe(None, [WORK], [RATES])
    assert describe(chosen, [WORK], [RATES]) == (
        "coarse_to_fine: step 10 degrees, low-pass 40 angstrom, grid 3/5, 15500 of 100000 rotations; "
        "candidates from 5.00 sigma, which misses at most 1 % of the particles at the threshold of the run; "
        "about 2e+03 candidate voxels; 1/26 of the work of exhaustive"
    )


def test_a_candidate_of_one_template_is_scored_with_each_and_a_decoy_finds_its_own() -> None:
    quiet, busy = offer(candidates=0.0), offer(candidates=1e5)
    works, rates = [WORK, WORK], [RATES, RATES]
    alone = busy.seconds(WORK, RATES)
    assert joint_seconds((quiet, busy), works, rates) == pytest.approx(2 * alone)
    doubled = replace(WORK, copies=2)
    assert whole_seconds([doubled], [RATES]) == 2 * whole_seconds([WORK], [RATES])
    assert busy.seconds(doubled, RATES) == pytest.approx(2 * offer(candidates=2e5).seconds(WORK, RATES))


def test_a_pilot_is_scaled_as_it_grew() -> None:
    noise = scaled_candidates([10, 20], [115, 230], 1000, offer(), WORK)
    particles = scaled_candidates([20, 20], [115, 230], 1000, offer(), WORK)
    volume = 0.6**3 * WORK.voxels
    assert noise == pytest.approx(0.4 * volume)
    assert particles == pytest.approx(0.02 * volume)
    assert scaled_candidates([0, 0], [115, 230], 1000, offer(), WORK) == 0.0
    assert len(pilot_rows(4608)) == 230
    assert len(pilot_rows(5)) == 5


def test_candidates_are_what_passes_and_its_neighbours() -> None:
    score = np.zeros((6, 6, 6), np.float32)
    score[0, 3, 3] = 1.0
    found = candidate_voxels(score, 1.0)
    assert found.sum() == 18
    assert found[1, 4, 2]


def test_local_rows_are_those_that_a_climb_tries() -> None:
    fine = rotation_from_euler(rotation_grid(8.0))
    coarse = coarser_grid(RowFinder(fine), 24.0)
    assert 80 < count_local_rows(Ladder(fine, 8.0, coarse, 24.0)) < 250
