"""The benchmark workload equals the reference one, number by number."""

import subprocess
import sys
from pathlib import Path

import numpy as np

WORKLOAD = Path(__file__).parents[2] / "benchmarks" / "workload.py"
NAMES = ["tomo", "template", "mask_sphere", "mask_tight", "rotations"]


def test_same_seed_gives_the_reference_workload(shared_data, tmp_path):
    words = ["--shape", "96,120,110", "--nrot", "20", "--nplant", "4", "--seed", "7"]
    scripts = {"ours": WORKLOAD, "reference": shared_data / "tomogram_matching" / "make_workload.py"}
    for name, script in scripts.items():
        command = [sys.executable, "-W", "ignore", str(script), "--out", str(tmp_path / name), *words]
        subprocess.run(command, check=True, capture_output=True)
    for name in NAMES:
        ours, reference = (np.load(tmp_path / side / f"{name}.npy") for side in scripts)
        np.testing.assert_array_equal(ours, reference)
    for name in ("angles_zxz_deg.csv", "planted.csv"):
        ours, reference = ((tmp_path / side / name).read_text() for side in scripts)
        assert ours == reference
