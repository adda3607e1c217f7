import numpy as np
import pytest
from scipy.stats import norm

from cryodask.errors import InputError
from cryodask.picking import regions as regions_module
from cryodask.picking.thresholds import choose_threshold, false_positive_threshold, map_moments


def test_one_false_positive_in_the_search_of_the_specification_is_at_7_sigma():
    assert false_positive_threshold(1.0, 57.5e6 * 15192, 1.0) == pytest.approx(7.0156, abs=5e-5)


def test_false_positive_threshold_is_the_normal_quantile():
    assert false_positive_threshold(0.3, 1e9, 0.5) == pytest.approx(0.3 * norm.isf(0.5 / 1e9), rel=1e-9)


def two_templates(one):
    return one.assign(
        n_rotations=("template", [50, 50]),
        n_voxels=("template", [1000, 1000]),
        sigma=("template", [0.1, 0.2]),
        score=(one.score.dims, np.repeat(one.score.values, 2, 0)),
        **{
            name: (one[name].dims, np.repeat(one[name].values, 2, 0))
            for name in ("score_raw", "orientation", "euler")
        },
    )


def test_false_positives_count_all_templates_and_use_the_sigma_of_each(make_result):
    low, high = choose_threshold(two_templates(make_result()), false_positives=1).values
    assert high == pytest.approx(2 * low)
    assert low == pytest.approx(false_positive_threshold(0.1, 100_000))


def test_a_threshold_is_one_for_all_templates_or_one_for_each(make_result):
    two = two_templates(make_result())
    assert choose_threshold(two, threshold=0.3).values == (0.3, 0.3)
    assert choose_threshold(two, threshold=(0.3, 0.4)).values == (0.3, 0.4)
    with pytest.raises(InputError, match=r"--threshold = 0.3, 0.4, 0.5: .* one for each of 2 templates"):
        choose_threshold(two, threshold=(0.3, 0.4, 0.5))


def test_z_scores_have_unit_sigma(make_result):
    result = make_result()
    result["zscore"] = result.score / 0.02
    chosen = choose_threshold(result, score="zscore")
    assert chosen.name == "zscore"
    assert chosen.values[0] == pytest.approx(false_positive_threshold(1.0, 24 * 28 * 32 * 50))


@pytest.mark.parametrize("edge", [7, 16, 256])
def test_sigma_is_mean_and_deviation_of_the_searched_voxels(make_result, monkeypatch, edge):
    monkeypatch.setattr(regions_module.regions, "__defaults__", (edge,))
    result = make_result([(10, 10, 10, 0.9, 1)])
    result.orientation[0, :3] = regions_module.NOT_SEARCHED
    searched = result.score.values[0, 3:].astype(float)
    expected = searched.mean() + 4 * searched.std()
    assert choose_threshold(result, sigma=4).values[0] == pytest.approx(expected, rel=1e-9)
    assert map_moments(result, "score", 0).count == searched.size


def test_triangle_is_the_score_farthest_below_the_chord(make_result):
    result = make_result([(10, 10, 10, 0.9, 1), (15, 20, 25, 0.8, 2)])
    ranked = np.sort(result.score.values[result.score.values > 0].astype(float))
    chord = np.linspace(0, ranked[-1], len(ranked))
    expected = ranked[np.argmax(chord - ranked)]
    assert choose_threshold(result, triangle=True).values[0] == pytest.approx(expected, abs=2e-6)


def test_a_result_without_moments_says_which_rules_remain(make_result):
    with pytest.raises(InputError, match="needs sigma in the result; use --threshold"):
        choose_threshold(make_result().drop_vars("sigma"))


def test_impossible_false_positives_are_refused(make_result):
    with pytest.raises(InputError, match="expected a number above 0 and below"):
        choose_threshold(make_result(), false_positives=1e9)
