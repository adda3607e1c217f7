"""Ensemble reweighting against cryoER's matrix, populations with known truth, and wrong matrices."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import cryodask as cd
from cryodask.cli.main import run


@pytest.mark.parametrize(("tol", "steps", "value"), [(1e-3, 268, -3.893274), (1e-4, 738, -3.893103)])
def test_matrix_of_cryoer(shared_data: Path, tol: float, steps: int, value: float) -> None:
    found = cd.reweight(shared_data / "likelihood" / "cryoer_LogLikeMat_1000x50.txt", tol=tol)
    assert abs(found.attrs["iterations"] - steps) <= 1
    assert found.attrs["mean_log_likelihood"] == pytest.approx(value, abs=1e-6)
    assert found.attrs["gap"] < tol
    if tol == 1e-4:
        heaviest = found.sort_values("weight", ascending=False).head(3)
        assert list(heaviest["structure"]) == ["42", "21", "28"]
        assert list(heaviest["weight"]) == pytest.approx([0.1591, 0.0880, 0.0878], abs=1e-4)


def populations(count: int = 10_000) -> np.ndarray:
    """Calibrated log-likelihood ratios of standard deviation 3, of images of which 70 % show the first
    structure."""
    rng = np.random.default_rng(1)
    sign = np.where(rng.random(count) < 0.7, 1, -1)
    return np.column_stack([sign * 4.5 + 3 * rng.normal(size=count), np.zeros(count)])


def test_populations_are_recovered_with_their_uncertainty() -> None:
    found = cd.reweight(populations(), samples=200)
    assert found["weight"][0] == pytest.approx(0.70, abs=0.03)
    assert found["mean"][0] == pytest.approx(0.70, abs=0.03)
    assert abs(found["mean"][0] - found["weight"][0]) < 2 * found["std"][0] + 1e-3
    np.testing.assert_allclose(cd.reweight(populations() + 7.0)["weight"], found["weight"])


def test_equal_columns_keep_equal_weights_and_a_strong_prior_evens_out() -> None:
    matrix = populations(500)
    twice = np.column_stack([matrix[:, 0], matrix])
    weights = cd.reweight(twice)["weight"]
    assert weights[0] == pytest.approx(weights[1])
    assert list(cd.reweight(matrix, dirichlet=1e6)["weight"]) == pytest.approx([0.5, 0.5], abs=1e-3)
    sized = cd.reweight(matrix, dirichlet=1e6, sizes=[1.0, 3.0])["weight"]
    assert list(sized) == pytest.approx([0.25, 0.75], abs=1e-3)


def test_command_writes_a_table(tmp_path: Path, capsys: Any) -> None:
    np.savetxt(tmp_path / "m.txt", -populations(300))
    assert run(["reweight", str(tmp_path / "m.txt"), "-o", str(tmp_path / "w.csv"), "--negative"]) == 0
    assert "gap" in capsys.readouterr().err
    assert pd.read_csv(tmp_path / "w.csv")["weight"].sum() == pytest.approx(1)
    assert run(["reweight", str(tmp_path / "m.txt"), "-o", str(tmp_path / "w.csv")]) == 2
    assert "w.csv exists; use --overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3\n4 5 6\n7 8\n", "m.txt line 3: 2 values, expected 3"),
        ("1\n2\n", "needs at least 2 structures"),
        ("1 2\n3 x\n", "m.txt line 2: expected numbers"),
    ],
)
def test_wrong_matrix(tmp_path: Path, capsys: Any, text: str, message: str) -> None:
    (tmp_path / "m.txt").write_text(text)
    assert run(["reweight", str(tmp_path / "m.txt"), "-o", str(tmp_path / "w.csv")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "w.csv").exists()
