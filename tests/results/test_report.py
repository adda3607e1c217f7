import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.image import imread
from scipy.stats import norm

from cryodask.picking.compare import compare
from cryodask.picking.pick import pick
from cryodask.results.charts import histogram, maximum_density, orientation_map
from cryodask.results.match_report import match_report
from cryodask.results.page import data_table, tiles
from cryodask.results.pictures import Picture
from cryodask.results.plots import busiest_place, orthogonal_views, particle_rings
from cryodask.results.report import write_report

SHAPE = (16, 30, 36)
PLACES = [(6, 8, 9, 0.9), (8, 20, 26, 0.8), (7, 22, 8, 0.7)]


@pytest.fixture(scope="module")
def result():
    rng = np.random.default_rng(1)
    score = np.clip(rng.normal(0, 0.02, SHAPE), -0.06, 0.06).astype(np.float32)
    for z, y, x, height in PLACES:
        score[z, y, x] = height
    maps = ("template", "z", "y", "x")
    return xr.Dataset(
        {
            "score": (maps, score[None]),
            "score_raw": (maps, score[None]),
            "orientation": (maps, rng.integers(0, 9, (1, *SHAPE)).astype(np.uint32)),
            "euler": (("template", "row", "angle"), rng.uniform(0, 180, (1, 9, 3))),
            "sigma": (("template",), [0.02]),
            "n_rotations": (("template",), [9]),
            "n_voxels": (("template",), [score.size]),
        },
        attrs={
            "voxel_size": 10.0,
            "tomo_name": "TS_<1>",
            "tomo_num": 1,
            "template_names": ["ribosome"],
            "particle_diameter": 60.0,
            "parameters": json.dumps({"lowpass": 30.0, "highpass": None, "angles": {"step": 7}}),
        },
    )


@pytest.fixture(scope="module")
def truth():
    rows = [*PLACES[:2], (3, 14, 30, 0.0)]
    return pd.DataFrame(rows, columns=["z", "y", "x", "score"]).assign(tomo_num=1)


class Reader(HTMLParser):
    """Headings, text and pictures of a page; fails on tags that are not closed."""

    VOID = ("meta", "img")

    def __init__(self):
        super().__init__()
        self.open, self.headings, self.text, self.pictures = [], [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "img":
            self.pictures.append(dict(attrs)["src"])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self.open and self.open[-1] in ("h1", "h2", "h3"):
            self.headings.append(data)


def read_page(path):
    page = Reader()
    page.feed(path.read_text(encoding="utf-8"))
    assert page.open == []
    return page


def test_a_match_report_tells_the_whole_story_in_one_file(result, truth, tmp_path):
    picks = pick(result)
    tomogram = xr.DataArray(np.random.default_rng(2).normal(size=SHAPE), dims=("z", "y", "x"))
    path = match_report(
        tmp_path / "report.html", result, picks, tomogram=tomogram, truth=truth,
        summary={"seconds": 12.345}, commands=["cryodask pick a.zarr -o b.star"],
    )  # fmt: skip
    page = read_page(path)
    assert page.headings == [
        "Particles in TS_<1>", "What was done", "Against the truth, by threshold", "Particles",
        "Pictures", "The tomogram", "The score map", "Scores against noise", "Orientations",
        "Recall and precision", "Parameters", "Next commands",
    ]  # fmt: skip
    text = " ".join(page.text)
    for shown in ("66.7", "Recall", "12.3", "angles.step", "lowpass", "cryodask pick a.zarr -o b.star"):
        assert shown in text
    assert "highpass" not in text
    for picture in page.pictures:
        kind, data = picture.split(",", 1)
        assert kind == "data:image/png;base64"
        assert imread(io.BytesIO(base64.b64decode(data))).shape[1] > 800


def test_a_report_needs_nothing_outside_itself(result, tmp_path):
    page = match_report(tmp_path / "r.html", result, pick(result)).read_text(encoding="utf-8")
    assert re.findall(r"https?://|<script|<link|url\(", page) == []


def test_a_report_of_nothing_found_is_written(result, truth, tmp_path):
    picks = pick(result, threshold=0.99)
    page = read_page(match_report(tmp_path / "r.html", result, picks, truth=truth))
    assert "Recall" in page.text
    assert "0 peaks were kept, one to a particle diameter of 60 Å." in page.text


def test_summaries_have_words_units_and_dashes():
    shown = tiles({"recall": 0.5, "median_angular_error_deg": None, "workers": 3})
    assert "50.0 <small>%</small></b><span>Recall" in shown
    assert "<b>–</b><span>Median angular error" in shown
    assert "<b>3</b><span>Workers" in shown


def test_table_text_is_escaped_and_columns_have_even_digits():
    shown = data_table(pd.DataFrame({"name": ["a<b", "c"], "score": [0.25, 0.5], "x": [1200.0, np.nan]}))
    assert "a&lt;b" in shown
    assert "<td>0.2500</td><td>1200</td>" in shown
    assert "<td>0.5000</td><td>–</td>" in shown


def test_an_empty_report_has_only_its_heading(tmp_path):
    page = read_page(write_report(tmp_path / "new" / "r.html", title="T", summary={}))
    assert page.headings == ["T"]


def test_the_noise_curve_is_the_density_of_the_largest_score():
    scores = np.linspace(-0.2, 0.3, 20001)
    density = maximum_density(scores, 0.03, 5000)
    assert np.trapezoid(density, scores) == pytest.approx(1, abs=1e-6)
    below = np.trapezoid(np.where(scores <= 0.11, density, 0), scores)
    assert below == pytest.approx(norm.cdf(0.11 / 0.03) ** 5000, abs=2e-3)


def test_the_histogram_counts_the_searched_voxels(result):
    hidden = result.copy(deep=True)
    hidden.orientation[0, :2] = 4294967295
    edges, counts = histogram(hidden, 0, "score")
    assert counts.sum() == np.prod(SHAPE) - 2 * SHAPE[1] * SHAPE[2]
    assert edges[-1] > 0.9


def test_views_go_through_the_most_particles_and_draw_each_kind(result, truth):
    picks = pick(result)
    rings = particle_rings(picks, truth, compare(picks, truth))
    assert [ring.label for ring in rings] == ["truth (3)", "picks, true (2)", "picks, false (1)"]
    volume = result.score.isel(template=0)
    assert busiest_place(volume, rings, 3)["z"] in (6, 7)
    figure = orthogonal_views(volume, voxel_size=10, rings=rings, radius=3)
    assert figure.axes[0].images[0].get_array().shape == SHAPE[1:]
    assert figure.axes[1].images[0].get_array().shape == (SHAPE[0], SHAPE[2])
    assert len(figure.axes[0].collections) == 3


def test_orientations_show_where_the_z_axis_points():
    picks = pd.DataFrame({"phi": [10.0, 0.0], "theta": [0.0, 90.0], "psi": [20.0, 90.0]})
    shown = orientation_map(picks).axes[0].collections[0].get_offsets()
    np.testing.assert_allclose(shown[0, 1], np.pi / 2)
    np.testing.assert_allclose(shown[1], [0, 0], atol=1e-12)


def test_a_picture_is_a_png():
    figure = orientation_map(pd.DataFrame(columns=["phi", "theta", "psi"], dtype=float))
    assert Picture("t", "c", figure).png().startswith(b"\x89PNG")
