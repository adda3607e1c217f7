"""The example of docs/particle-refinement.md runs as it is, and finds what it plants."""

import re
from pathlib import Path

import numpy as np

DOCUMENT = Path(__file__).parents[2] / "docs" / "particle-refinement.md"


def test_the_example_refines_a_lazy_result_of_its_own_micrograph(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example = re.search(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert example is not None
    names: dict[str, object] = {}
    exec(compile(example.group(1), str(DOCUMENT), "exec"), names)
    table, truth = names["table"], names["made"].truth
    found = table[["refined_pos_x_img", "refined_pos_y_img"]].to_numpy(float)
    planted = truth[["x", "y"]].to_numpy()
    nearest = np.linalg.norm(found[:, None] - planted, axis=2).min(axis=1)
    assert len(table) >= 3 and nearest.max() < 2.0
    assert (table["refined_scaled_mip"] > table["scaled_mip"]).all()
    sizes = names["sizes"]
    assert abs(sizes.pixel_size - 6.0) < 2 * sizes.uncertainty < 0.4
