"""Steps of a classification against what they must give."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cryodask.jobs.classify.acceptance import Reason, Thresholds, reasons
from cryodask.jobs.classify.checkpoints import read_state, write_state
from cryodask.jobs.classify.evidence import junk_threshold, left_out_scores, margins, ridden_scores
from cryodask.jobs.classify.frc import first_crossing, ring_correlation
from cryodask.jobs.classify.model import offset_grid, tangent_lowpass
from cryodask.jobs.classify.ordering import open_chain
from cryodask.jobs.classify.passes import (
    Classes,
    Population,
    Shortlist,
    losses_without,
    run_pass,
    shortlisted,
)
from cryodask.jobs.classify.poses import Poses, first_poses
from cryodask.jobs.classify.reproducibility import Agreement, agreement
from cryodask.jobs.classify.run import Run, RunSettings, RunState, next_trial
from cryodask.jobs.classify.spread import gain_of_halves, split
from cryodask.jobs.classify.stability import Stability, pixel_errors
from cryodask.kernels.class_sums import aligned, sum_classes, turned_vectors
from cryodask.search.assignment import assign
from cryodask.search.rounds import Rounds, open_rounds
from tests.jobs.classify_works import make_population, pictures, write_images

OFFSETS = offset_grid(1, 1, 1)


@pytest.fixture(scope="module")
def rounds() -> Iterator[Rounds]:
    with open_rounds(threads=2) as found:
        yield found


@pytest.fixture(scope="module")
def truth() -> Poses:
    """160 images of 4 views in random poses."""
    rng = np.random.default_rng(3)
    n = 160
    return Poses(
        rng.integers(0, 4, n).astype(np.int32),
        rng.uniform(-np.pi, np.pi, n),
        rng.random(n) < 0.5,
        rng.uniform(-1, 1, (n, 2)).astype(np.float32),
        np.zeros(n, np.float32),
    )


@pytest.fixture(scope="module")
def population(tmp_path_factory: pytest.TempPathFactory, truth: Poses, rounds: Rounds) -> Population:
    clean = 2 * pictures(truth.label, truth.angle, truth.mirror, truth.centre)
    noise = np.random.default_rng(4).standard_normal(clean.shape)
    return make_population(tmp_path_factory.mktemp("work"), (clean + noise).astype(np.float32), rounds)


@pytest.fixture(scope="module")
def settings() -> RunSettings:
    return RunSettings(4, 40, 24, 0.3, 6, 4, 1, OFFSETS, (), 1, 1, 0)


@pytest.fixture(scope="module")
def final(population: Population, settings: RunSettings) -> RunState:
    return list(Run(population, settings).states())[-1]


def same(first: Classes, second: Classes) -> bool:
    pairs = zip(vars(first.poses).values(), vars(second.poses).values(), strict=True)
    return all((a == b).all() for a, b in pairs) and bool((first.averages == second.averages).all())


def test_a_run_finds_the_views(final: RunState, truth: Poses) -> None:
    shares = [np.bincount(truth.label[final.classes.poses.label == k], minlength=4).max() for k in range(4)]
    assert sum(shares) >= 158


def test_poses_are_the_planted_ones(final: RunState, truth: Poses) -> None:
    """Two images of a class: their relative pose is that of the truth, whatever the class's own frame."""
    found = final.classes.poses
    error = []
    for k in range(4):
        view = np.bincount(truth.label[found.label == k]).argmax()
        rows = np.flatnonzero((found.label == k) & (truth.label == view))
        flip = found.mirror[rows] ^ truth.mirror[rows]
        common = flip.mean() > 0.5
        assert (flip == common).mean() > 0.9
        rows, flip = rows[flip == common], flip[flip == common]
        # angle of the view's frame in that of the class: the same for every member
        turn = np.exp(1j * (truth.angle[rows] - np.where(flip, -1, 1) * found.angle[rows]))
        error.append(np.abs(np.angle(turn / turn.mean())))
    assert np.degrees(np.median(np.concatenate(error))) < 2.5
    middle = found.centre - truth.centre
    shift = np.concatenate([middle[found.label == k] for k in range(4)])
    assert np.median(np.hypot(*(shift - np.median(shift, axis=0)).T)) < 0.8


def test_a_run_continues_from_any_state_with_the_same_bits(
    tmp_path: Path, population: Population, settings: RunSettings, final: RunState
) -> None:
    run = Run(replace(population, owner="again"), settings)
    for count, state in enumerate(run.states(), start=1):
        write_state(tmp_path, "g01_r01", state)
        if count == 9:
            break
    stored = read_state(tmp_path, "g01_r01")
    assert stored is not None and stored.passes == 9
    assert len(list(tmp_path.iterdir())) == 2
    rest = list(Run(replace(population, owner="resumed"), settings).states(stored))
    assert same(rest[-1].classes, final.classes)


def test_chunks_and_kept_coefficients_change_nothing_but_rounding(
    tmp_path: Path,
    population: Population,
    settings: RunSettings,
    final: RunState,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = population.images.read(population.indices)
    other = make_population(tmp_path / "whole", images, population.rounds, chunk=160)
    found = list(Run(other, settings).states())[-1]
    assert (found.classes.poses.label == final.classes.poses.label).mean() > 0.98
    monkeypatch.setattr("cryodask.jobs.classify.shards._KEPT.budget", 0)
    forgetful = list(Run(replace(population, owner="forgetful"), settings).states())[-1]
    assert same(forgetful.classes, final.classes)


def test_no_class_is_above_capacity_nor_empty(final: RunState, settings: RunSettings) -> None:
    sizes = final.classes.sizes
    assert sizes.max() <= 52 and sizes.min() >= settings.least / 2


def test_a_mixed_class_and_a_cut_view_are_repaired(population: Population, truth: Poses) -> None:
    label = np.where(truth.label == 1, 0, truth.label)  # views 0 and 1 in one class, view 2 in two
    label = np.where((truth.label == 2) & (np.arange(160) % 2 == 0), 1, label).astype(np.int32)
    model = population.images.model
    rings = model.grid.coefficients(population.images.read(population.indices), truth.centre)
    means = sum_classes(rings, label, truth.angle, truth.mirror, 4) / np.bincount(label)[:, None, None]
    begun = Classes(truth.replaced(label=label), means.astype(np.complex64), np.zeros(4), np.zeros(4))
    run = Run(replace(population, owner="repair"), RunSettings(4, 40, 24, 0.3, 6, 3, 1, OFFSETS, (), 1, 1, 0))
    state = list(run.states(RunState(begun, block="settling", passes=6)))[-1]
    assert state.accepted >= 1
    shares = [np.bincount(truth.label[state.classes.poses.label == k], minlength=4).max() for k in range(4)]
    assert sum(shares) >= 155


def test_scores_without_the_image_equal_means_made_anew(population: Population, final: RunState) -> None:
    own, images = replace(population, owner="left out"), population.images
    classes = run_pass(own, final.classes, offsets=OFFSETS, capacity=52, number=0)
    model, poses = images.model, classes.poses
    found = left_out_scores(own, classes)
    rings = model.grid.coefficients(images.read(population.indices), poses.centre)
    lying = aligned(rings, np.arange(24), poses.angle, poses.mirror)
    for i in (0, 17, 100):
        others = (poses.label == poses.label[i]) & (np.arange(160) != i)
        reference = model.weighted(lying[others].mean(axis=0)[None])
        own = model.basis.project(lying[i : i + 1])
        expected = model.basis.dot(own, reference) / model.basis.norm(reference)
        assert found[i] == pytest.approx(expected[0], rel=2e-3)


def test_decoys_score_like_noise_and_particles_do_not(
    tmp_path: Path, population: Population, final: RunState, rounds: Rounds
) -> None:
    from cryodask.jobs.classify.randomness import normal_images

    folder = Path(population.images.folder)
    decoys = write_images(folder, "decoys", normal_images(400, 40, 9), 128)
    noise = Population(decoys, np.arange(400), np.zeros((400, 2), np.float32), "decoys", rounds)
    scores = ridden_scores(noise, final.classes.averages, OFFSETS)
    limit = junk_threshold(scores, 0.01)
    fresh = write_images(folder, "fresh", normal_images(1000, 40, 10), 256)
    more = ridden_scores(
        Population(fresh, np.arange(1000), np.zeros((1000, 2), np.float32), "fresh", rounds),
        final.classes.averages,
        OFFSETS,
    )
    assert abs((more >= limit.value).mean() - 0.01) < 3 * np.sqrt(0.01 * (1 / 400 + 1 / 1000))
    assert (left_out_scores(replace(population, owner="real"), final.classes) > limit.value).mean() > 0.99


def test_a_tail_too_thin_is_extrapolated() -> None:
    scores = np.random.default_rng(1).gumbel(4, 0.4, 400)
    assert junk_threshold(scores, 0.0).value == -np.inf
    assert junk_threshold(scores, 0.001).value == pytest.approx(4 + 0.4 * -np.log(-np.log(0.999)), abs=0.4)


def test_a_run_agrees_with_itself_under_any_numbers_and_frames(
    population: Population, final: RunState
) -> None:
    classes, own = final.classes, replace(population, owner="agree")
    found = agreement(own, classes, [classes])
    assert (found.vote == 1).all() and (found.jaccard == 1).all()
    assert found.views.min() > 0.999
    order = np.array([2, 0, 3, 1])
    turn, move = 0.9, np.array([1.0, 0.0])
    model = population.images.model
    shown = model.grid.images(classes.averages, model.box)
    moved = model.grid.coefficients(shown, np.tile(move, (4, 1)))
    turned = (moved * np.exp(1j * np.arange(24) * turn))[np.argsort(order)]
    poses = classes.poses
    # the reference about d, turned: the image's centre moves by M^mu Rot(phi) d, its angle by the turn
    centre = poses.centre + turned_vectors(np.tile(move, (160, 1)), poses.angle, poses.mirror)
    other = Classes(
        poses.replaced(
            label=order[poses.label].astype(np.int32),
            centre=centre.astype(np.float32),
            angle=poses.angle + turn,
        ),
        turned.astype(np.complex64),
        classes.prices,
        classes.losses,
    )
    found = agreement(own, classes, [other])
    assert (found.vote == 1).all()
    assert np.median(found.views) > 0.95


def test_pixel_error_of_known_poses_has_its_closed_form() -> None:
    rng = np.random.default_rng(1)
    n, runs = 400, 60

    def restarts(turn: float, move: float, flip: bool = False) -> list[Poses]:
        found = []
        for j in range(runs):
            angle = rng.normal(0, np.radians(turn), n) + rng.uniform(-3, 3)
            mirror = np.full(n, bool(flip and j % 2))
            centre = rng.normal(0, move, (n, 2))
            vectors = turned_vectors(centre, angle, mirror)
            sign = np.where(mirror, -1, 1)
            found.append(Poses(np.zeros(n, int), sign * angle * sign, mirror, vectors, np.zeros(n)))
        return found

    assert np.median(pixel_errors(restarts(2.0, 0.0), 29, 0.7)) == pytest.approx(0.72, abs=0.02)
    assert np.median(pixel_errors(restarts(0.0, 0.5), 29, 0.7)) == pytest.approx(0.71, abs=0.02)
    assert np.median(pixel_errors(restarts(2.0, 0.0, flip=True), 29, 0.7)) == pytest.approx(0.72, abs=0.02)
    one = restarts(1.0, 0.1)
    one[3].mirror[7] = True
    assert np.flatnonzero(np.isinf(pixel_errors(one, 29, 0.7))).tolist() == [7]


def test_the_first_rule_that_fails_is_the_reason() -> None:
    stability = Stability(np.array([0.1, np.inf, 0.1, 0.1, 0.1, 0.1, 0.1]), np.ones(2), np.ones(2))
    found = Agreement(np.array([1, 0, 1, 0, 1, 1, 1.0]), np.array([0.9, 0.9]), np.array([4, 1]), np.ones(7))
    label, score = np.array([0, 0, 0, 0, 0, 0, 1]), np.array([9, 1, 9, 9, 9, 9, 9.0])
    margin = np.array([0, 0, -2, 0, 0, 0, 0.0])
    limits = Thresholds(5, 0.7, -1, 0.5, "auto", 3)
    words = [Reason(r).word for r in reasons(label, score, margin, stability, found, limits)]
    assert words == ["accounted", "junk", "margin", "unreproducible", "accounted", "accounted", "small_class"]
    views = replace(limits, rule="views")
    assert reasons(label, score, margin, stability, found, views)[3] == Reason.ACCOUNTED


def test_margin_counts_classes_that_are_not_alike() -> None:
    scores = Shortlist(np.array([[0, 1, 2]]), np.array([[8.0, 9.0, 5.0]]), np.zeros((1, 3), int))
    alike = np.array([[-1, 0.95, 0.1], [0.95, -1, 0.1], [0.1, 0.1, -1]])
    assert margins(scores, np.array([0]), alike)[0] == 3
    assert margins(scores, np.array([0]), np.zeros((3, 3)))[0] == -1


def test_a_shortlist_holds_the_best_classes_in_rising_order() -> None:
    score = np.random.default_rng(1).standard_normal((5, 40)).astype(np.float32)
    ids, kept, _ = shortlisted(score, np.zeros((5, 40), np.int32))
    assert (np.diff(ids, axis=1) > 0).all()
    assert (np.sort(kept, axis=1) == np.sort(score, axis=1)[:, -16:]).all()


def test_a_pass_of_many_classes_keeps_their_capacity(population: Population) -> None:
    own = replace(population, owner="many")
    rings = population.images.model.grid.coefficients(
        population.images.read(np.arange(40)), np.zeros((40, 2))
    )
    begun = Classes(first_poses(own.origins), rings, np.zeros(40), np.zeros(40))
    found = run_pass(own, begun, offsets=OFFSETS, capacity=4, number=0)
    assert (found.sizes == 4).all()


def test_two_clouds_are_split_and_one_is_not() -> None:
    rng = np.random.default_rng(1)
    cloud = rng.standard_normal((60, 300)) + 1j * rng.standard_normal((60, 300))
    ratio, _ = split(cloud, np.ones(300))
    assert ratio < 3
    mixed = cloud + np.where(np.arange(60) < 25, 0.7, -0.7)[:, None]
    ratio, upper = split(mixed, np.ones(300))
    assert ratio > 12
    assert len(set(upper[:25])) == len(set(upper[25:])) == 1 and upper[0] != upper[-1]


def test_trials_come_by_what_they_promise_and_none_twice() -> None:
    gains, losses = [1.0, 2.0, 30.0, -4.0], np.array([20.0, 9.0, 5.0, 40.0])
    tried: list[tuple[int, int]] = []
    while (pick := next_trial(gains, losses, set(tried))) is not None:
        assert pick not in tried
        tried.append(pick)
    assert tried[:3] == [(2, 1), (2, 0), (1, 2)]  # 30 - 9, 30 - 20, 2 - 5
    assert len(tried) == 9 and all(k != b and k != 3 for k, b in tried)


def test_halves_promise_more_where_there_are_two_views(population: Population, truth: Poses) -> None:
    images = population.images
    rings = images.model.grid.coefficients(images.read(population.indices), truth.centre)
    basis = images.model.basis
    lying = basis.project(aligned(rings, np.arange(24), truth.angle, truth.mirror))
    one, two = lying[truth.label == 0], lying[truth.label <= 1]
    alone = gain_of_halves(one, np.arange(len(one)) % 2 == 0, basis)
    mixed = gain_of_halves(two, truth.label[truth.label <= 1] == 0, basis)
    assert mixed > 0.5 * len(two) > alone


def test_what_a_class_is_worth_is_what_its_members_lose_elsewhere() -> None:
    scores = np.array([[9.0, 5.0, 4.0], [8.0, 7.0, 1.0], [2.0, 3.0, 9.0]], np.float32)
    listed = Shortlist(np.tile(np.arange(3, dtype=np.int32), (3, 1)), scores, np.zeros((3, 3), np.int32))
    chosen = assign(scores, listed.ids, 3, capacity=2)
    np.testing.assert_allclose(losses_without(listed, chosen), [4 + 1, 0, 6])


def test_a_ring_of_pictures_comes_back_in_ring_order() -> None:
    order = np.random.default_rng(1).permutation(40)
    place = np.argsort(order)
    distance = np.abs(place[:, None] - place)
    similarity = -np.minimum(distance, 40 - distance).astype(float)
    chain = place[open_chain(similarity)]
    assert set(np.diff(chain) % 40) <= {1, 39} and len(set(np.diff(chain) % 40)) == 1


def test_the_tangent_filter_is_a_half_at_its_cutoff() -> None:
    assert tangent_lowpass(np.array([0.2]), 0.2, 0.2)[0] == pytest.approx(0.5, abs=1e-3)
    assert tangent_lowpass(np.array([0.0]), 0.2, 0.2)[0] == pytest.approx(1.0, abs=1e-3)


def test_ring_correlation_of_equal_and_of_unrelated_images() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((2, 64, 64))
    np.testing.assert_allclose(ring_correlation(a, a), 1)
    rings = np.arange(4, 32)
    assert (np.abs(ring_correlation(a, b)[rings]) < 4.5 / np.sqrt(2 * np.pi * rings / 2)).all()
    assert first_crossing(np.array([1.0, 1.0, 0.75, 0.25, 0.6]), 0.5) == 2.5
