import itertools

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from cryodask.errors import InputError
from cryodask.geometry.euler import rotation_from_euler
from cryodask.geometry.symmetry import symmetry_group
from cryodask.io.particle_table import COLUMNS
from cryodask.picking import regions as regions_module
from cryodask.picking.exclusion import greedy_peaks
from cryodask.picking.pick import pick

PEAKS = [(8, 9, 10, 0.9, 3), (15, 20, 25, 0.7, 7), (18, 8, 22, 0.8, 11)]


def places(table):
    return [tuple(row) for row in table[["z", "y", "x"]].round().astype(int).to_numpy().tolist()]


def test_every_peak_is_found_with_its_row_and_angles_by_falling_score(make_result):
    result = make_result(PEAKS)
    table = pick(result)
    assert list(table.columns) == list(COLUMNS)
    assert places(table) == [(8, 9, 10), (18, 8, 22), (15, 20, 25)]
    assert table.angle_row.tolist() == [3, 11, 7]
    euler = result.euler.values[0, [3, 11, 7]]
    np.testing.assert_allclose(table[["phi", "theta", "psi"]], euler)
    turned = rotation_from_euler(euler).as_quat(canonical=True)
    np.testing.assert_allclose(table[["qx", "qy", "qz", "qw"]], turned)


def test_positions_are_sub_voxel_and_in_angstrom_from_the_origin(make_result):
    result = make_result([(8.3, 9.0, 10.2, 0.9, 3)], origin=(300.0, 200.0, 100.0), width=2.5)
    row = pick(result).iloc[0]
    np.testing.assert_allclose(row[["x", "y", "z"]].astype(float), [10.2, 9.0, 8.3], atol=0.03)
    np.testing.assert_allclose(row.x_a, row.x * 10 + 100)
    np.testing.assert_allclose(row.z_a, row.z * 10 + 300)
    assert pick(result, refine="none").iloc[0][["x", "y", "z"]].tolist() == [10, 9, 8]


@pytest.mark.parametrize("edge", [5, 8, 13])
def test_regions_do_not_change_the_table(make_result, monkeypatch, edge):
    result = make_result(PEAKS, sigma=0.2)
    options = {"threshold": 0.25, "min_distance": 25, "cluster_size": 2}
    whole = pick(result, **options)
    monkeypatch.setattr(regions_module.regions, "__defaults__", (edge,))
    assert len(whole) > 20
    assert pick(result, **options).equals(whole)


def test_a_stored_result_is_read_region_by_region(make_result, tmp_path, monkeypatch):
    result = make_result(PEAKS)
    result.chunk(z=8, y=7, x=16).to_zarr(tmp_path / "a.zarr", zarr_format=3, consolidated=False)
    monkeypatch.setattr(regions_module.regions, "__defaults__", (8,))
    from_memory = pick(result)
    monkeypatch.setattr(regions_module.Block, "__getitem__", _watch(regions_module.Block, sizes := []))
    assert pick(tmp_path / "a.zarr").equals(from_memory)
    assert max(sizes) <= (8 + 2) * (7 + 2) * (16 + 2)


def _watch(block, sizes):
    original = block.__getitem__

    def read(self, name):
        values = original(self, name)
        sizes.append(values.size)
        return values

    return read


def test_ties_go_to_the_lowest_index_and_a_peak_at_the_distance_is_excluded():
    grid = np.array(list(itertools.product([0, 2], [0, 2], [0, 2])))[::-1]
    kept = greedy_peaks(grid, np.ones(8), 2.0)
    assert grid[kept].tolist() == [[0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0]]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.floats(0.5, 6))
def test_greedy_peaks_keep_their_distance_and_leave_out_only_neighbours_of_better_ones(seed, distance):
    rng = np.random.default_rng(seed)
    points, scores = rng.integers(0, 12, (60, 3)).astype(float), rng.integers(0, 20, 60) / 20
    kept = greedy_peaks(points, scores, distance)
    between = cdist(points[kept], points[kept])[np.triu_indices(len(kept), 1)]
    assert (between > distance).all()
    for left_out in set(range(60)) - set(kept.tolist()):
        near = cdist(points[[left_out]], points[kept])[0] <= distance
        assert (scores[kept][near] >= scores[left_out]).any()


def test_close_peaks_leave_the_better_one(make_result):
    result = make_result([(8, 9, 10, 0.9, 3), (8, 9, 15, 0.8, 4)])
    assert places(pick(result)) == [(8, 9, 10)]
    assert places(pick(result, min_distance=49)) == [(8, 9, 10), (8, 9, 15)]


def test_mask_valid_and_edge_drop_peaks_but_their_flanks_make_no_new_ones(make_result):
    result = make_result(PEAKS)
    inside = xr.ones_like(result.valid)
    inside[6:11, 6:11, :11] = 0
    assert places(pick(result, mask=inside)) == [(18, 8, 22), (15, 20, 25)]
    masked = result.assign(valid=inside)
    assert places(pick(masked)) == [(18, 8, 22), (15, 20, 25)]
    assert len(pick(masked, edge="none")) == 3
    assert places(pick(result, edge=80)) == [(8, 9, 10)]


def test_cluster_size_drops_single_voxels(make_result):
    result = make_result(PEAKS)
    result.score[0, 12, 14, 5] = result.score_raw[0, 12, 14, 5] = 0.95
    assert places(pick(result))[0] == (12, 14, 5)
    assert len(pick(result, cluster_size=5)) == 3
    assert places(pick(result, cluster_size=(1, 1))) == [(12, 14, 5)]


def test_max_particles_and_class(make_result):
    result = make_result(PEAKS)
    assert places(pick(result, max_particles=2)) == [(8, 9, 10), (18, 8, 22)]
    assert len(pick(result, class_id=2)) == 0
    assert len(pick(result, class_id=1)) == 3


def test_noise_corrected_peaks_need_a_positive_score_and_the_raw_threshold(make_result):
    result = make_result(PEAKS)
    result["noise"] = result.score * 0
    result["score"] = result.score - 0.75
    table = pick(result)
    assert places(table) == [(8, 9, 10), (18, 8, 22)]
    np.testing.assert_allclose(table.score_raw, [0.9, 0.8], atol=1e-6)
    np.testing.assert_allclose(table.score, [0.15, 0.05], atol=1e-6)


def test_templates_compete_and_class_says_which_won(make_result):
    one = make_result([(8, 9, 10, 0.9, 3), (18, 8, 22, 0.6, 4)])
    other = make_result([(8, 9, 11, 0.7, 5), (18, 8, 22, 0.8, 6)])
    both = xr.concat([one, other], dim="template", data_vars="minimal").assign_attrs(
        template_names=["a", "b"]
    )
    table = pick(both)
    assert table[["template", "class", "angle_row"]].to_numpy().tolist() == [["a", 1, 3], ["b", 2, 6]]
    assert pick(both, class_id=2).template.tolist() == ["b"]


def test_random_symmetry_mates_are_symmetry_mates_and_repeat(make_result):
    result = make_result(PEAKS, symmetry="D4")
    plain, turned = pick(result), pick(result, randomize_symmetry=True)
    assert turned.equals(pick(result, randomize_symmetry=True))
    angles = ["phi", "theta", "psi"]
    between = rotation_from_euler(plain[angles].to_numpy()).inv() * rotation_from_euler(
        turned[angles].to_numpy()
    )
    group = symmetry_group("D4")
    for step in between:
        assert min((step * g.inv()).magnitude() for g in group) < 1e-6
    assert between.magnitude().max() > 0.1
    assert turned.angle_row.equals(plain.angle_row)


def test_several_results_make_one_table(make_result):
    table = pick([make_result(PEAKS), make_result(PEAKS[:1], tomo_num=2, tomo_name="TS_002")])
    assert table.tomo_num.tolist() == [1, 1, 1, 2]
    assert table.tomo_name.tolist()[-1] == "TS_002"
    assert table.attrs["voxel_size"] == 10.0


def test_no_peak_gives_an_empty_table_with_all_columns(make_result):
    table = pick(make_result(), threshold=0.99)
    assert len(table) == 0
    assert list(table.columns) == list(COLUMNS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"threshold": 0.1, "sigma": 6},
            "choose one of --threshold, --sigma, --false-positives, --triangle, --fdr",
        ),
        ({"threshold": 0.0, "triangle": True}, "choose one of --threshold, "),
        ({"fdr": 0.05}, "--fdr needs a map of decoys; match with decoy: mirror"),
        ({"fdr": 1.5}, "--fdr 1.5: expected a number above 0 and below 1"),
        ({"fdr": 0.1, "score": "zscore"}, "--score zscore cannot rank with it"),
        ({"fdr": 0.1, "cluster_size": 2}, "--cluster-size counts voxels above a threshold"),
        ({"top_hat": 5}, "--top-hat 5: expected 8 bins or more"),
        ({"refine": "orientation"}, "--refine orientation: needs the job that made the result"),
        ({"refine": "twice"}, "--refine twice: expected none, position, orientation, both"),
        ({"independent": "effective"}, "--independent effective: needs the job that made the result"),
        ({"independent": "effective", "sigma": 5}, "changes --false-positives alone, not --sigma"),
        ({"score": "mip"}, "--score mip: expected score, score_raw, zscore"),
        ({"score": "zscore"}, "--score zscore: no such map in the result"),
        ({"sigma": -1}, "--sigma -1: expected a number above 0"),
        ({"edge": "far"}, "--edge far: expected valid, none or a distance in angstrom"),
        ({"cluster_size": (5, 2)}, "--cluster-size 5,2: expected 1 <= MIN <= MAX"),
        ({"symmetry": "X5"}, "expected Cn, Dn, T, T3, O, I, I1, I2"),
        ({"angles": "a.mrc", "angle_list": "l.csv"}, "are for bare score maps"),
        ({"mask": xr.DataArray(np.ones((4, 4, 4)))}, "--mask: shape 4,4,4, expected 24,28,32"),
    ],
)
def test_wrong_options_are_named(make_result, options, message):
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        pick(make_result(PEAKS), **options)


def test_a_shorter_list_than_the_angle_map_is_refused(make_result):
    result = make_result(PEAKS)
    result.orientation[0, 20, 20, 20] = 2087
    with pytest.raises(InputError, match="angle map has row 2087, list has 50 rows"):
        pick(result)


def test_a_missing_distance_is_refused(make_result):
    result = make_result(PEAKS)
    del result.attrs["particle_diameter"]
    with pytest.raises(InputError, match="--particle-diameter or --min-distance is required"):
        pick(result)


def test_missing_and_unfinished_results_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"no\.zarr: no such file"):
        pick(tmp_path / "no.zarr")
    (tmp_path / "a.partial.zarr").mkdir()
    with pytest.raises(InputError, match="an unfinished run; finish it with --resume"):
        pick(tmp_path / "a.partial.zarr")


def test_peaks_that_only_a_coarse_stage_scored_are_no_particles(make_result):
    peaks = [(8, 9, 10, 0.5, 3), (16, 20, 22, 0.6, 4)]
    result = make_result(peaks, coarse_to_fine="{}")
    exact = np.zeros(result.valid.shape, np.uint8)
    exact[5:12, 6:13, 7:14] = 1
    result["rescored"] = (("z", "y", "x"), exact)
    found = pick(result, threshold=0.3, refine="none")
    assert found[["z", "y", "x"]].to_numpy().tolist() == [[8, 9, 10]]
    # an exhaustive search on a coarser grid has scored everything
    assert len(pick(result.drop_attrs().assign_attrs(make_result(peaks).attrs), threshold=0.3)) == 2
