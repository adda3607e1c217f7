"""Stacks of particles that cannot be classified: what the user reads, and that nothing is written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cryodask.cli.main import run
from cryodask.io.image_stacks import write_stack
from cryodask.io.star import write_star

COUNT, BOX = 60, 40
OPTIONS = {"radius": 15, "target_radius": 15, "target_nx": 40, "img_per_grp": 20, "runs": 1, "passes": 4}
FLAGS = ["--splits", "0", *(word for key, value in OPTIONS.items() for word in (f"--{key}", str(value)))]


def optics(**columns: Any) -> pd.DataFrame:
    values = {
        "rlnOpticsGroup": 1,
        "rlnVoltage": 300.0,
        "rlnSphericalAberration": 2.7,
        "rlnAmplitudeContrast": 0.1,
        "rlnImagePixelSize": 1.4,
    }
    return pd.DataFrame([values | columns])


def particles(count: int = COUNT, file: str = "s.mrcs", **columns: Any) -> pd.DataFrame:
    names = [f"{i + 1:06d}@{file}" for i in range(count)]
    values = {"rlnOpticsGroup": 1, "rlnDefocusU": 1e4, "rlnDefocusV": 1e4, "rlnDefocusAngle": 0.0}
    return pd.DataFrame({"rlnImageName": names, **(values | columns)})


def write(folder: Path, table: pd.DataFrame | None = None, groups: pd.DataFrame | None = None) -> None:
    blocks = {
        "optics": optics() if groups is None else groups,
        "particles": particles() if table is None else table,
    }
    write_star(folder / "p.star", blocks)


def images(folder: Path, pixel_size: float = 1.4, count: int = COUNT, box: int = BOX) -> np.ndarray:
    made = np.random.default_rng(2).standard_normal((count, box, box)).astype(np.float32)
    write_stack(folder / "s.mrcs", made, pixel_size=pixel_size, overwrite=True)
    return made


def no_stack(folder: Path) -> None:
    write(folder)


def beyond(folder: Path) -> None:
    images(folder, count=50)
    write(folder)


def other_pixel_size(folder: Path) -> None:
    images(folder, pixel_size=2.0)
    write(folder)


def oblong(folder: Path) -> None:
    import mrcfile

    with mrcfile.new(folder / "s.mrcs") as file:
        file.set_data(np.zeros((COUNT, 40, 36), np.float32))
        file.set_image_stack()
    write(folder)


def two_sizes(folder: Path) -> None:
    images(folder, count=30)
    write_stack(folder / "t.mrcs", np.zeros((30, 44, 44)), pixel_size=1.4)
    write(folder, pd.concat([particles(30), particles(30, "t.mrcs")]))


def no_group(folder: Path) -> None:
    images(folder)
    write(folder, particles(rlnOpticsGroup=[1] * 59 + [7]))


def no_voltage(folder: Path) -> None:
    images(folder)
    write(folder, groups=optics(rlnVoltage=0.0))


def no_rows(folder: Path) -> None:
    images(folder)
    write(folder)
    lines = (folder / "p.star").read_text().splitlines()
    (folder / "p.star").write_text("\n".join(line for line in lines if "@" not in line) + "\n")


def short_row(folder: Path) -> None:
    images(folder)
    write(folder)
    text = (folder / "p.star").read_text()
    row = next(line for line in text.splitlines() if line.startswith("000003@") or "000003@" in line)
    (folder / "p.star").write_text(text.replace(row, row.rsplit(maxsplit=1)[0]))


def cut_off(folder: Path) -> None:
    images(folder)
    write(folder)
    data = (folder / "s.mrcs").read_bytes()
    (folder / "s.mrcs").write_bytes(data[: len(data) // 2])


def constant(folder: Path) -> None:
    write_stack(folder / "s.mrcs", np.ones((COUNT, BOX, BOX)), pixel_size=1.4)
    write(folder)


def not_mrc(folder: Path) -> None:
    (folder / "s.mrcs").write_bytes(b"x" * 4096)
    write(folder)


CASES: list[tuple[Callable[[Path], None], str]] = [
    (no_stack, "p.star row 1: 000001@s.mrcs: no such file (looked in "),
    (beyond, "p.star row 51: 000051@s.mrcs: image 51, stack has 50 images"),
    (other_pixel_size, "pixel size 1.4 A, but 2 A in the header of s.mrcs; --pixel-size says which is right"),
    (oblong, "p.star row 1: s.mrcs: 40 x 36, expected square images"),
    (two_sizes, "p.star row 31: t.mrcs: box 44, rows before it have 40"),
    (no_group, "p.star row 60: optics group 7 is not in data_optics"),
    (no_voltage, "p.star row 1: voltage = 0, expected 10..1000 kV"),
    (no_rows, "p.star: no rows"),
    (short_row, "4 values for 5 columns"),
    (cut_off, "s.mrcs: truncated"),
    (constant, "images: all are constant around the particle"),
    (not_mrc, "s.mrcs: not an MRC file"),
]


@pytest.mark.parametrize(("make", "message"), CASES, ids=lambda value: getattr(value, "__name__", ""))
def test_bad_stacks(tmp_path: Path, capsys: Any, make: Callable[[Path], None], message: str) -> None:
    make(tmp_path)
    output = tmp_path / "out"
    assert run(["classify", str(tmp_path / "p.star"), str(output), *FLAGS, "--cluster", "threads"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error and error.startswith("cryodask: error: ")
    assert not output.exists()


def test_a_given_pixel_size_settles_the_conflict(tmp_path: Path, capsys: Any) -> None:
    other_pixel_size(tmp_path)
    words = ["classify", str(tmp_path / "p.star"), str(tmp_path / "out"), *FLAGS, "--dry-run"]
    assert run([*words, "--pixel-size", "1.4"]) == 0


def test_bdb_names_the_way_out(tmp_path: Path, capsys: Any) -> None:
    assert run(["classify", "bdb:stack", str(tmp_path / "out"), *FLAGS]) == 2
    assert "bdb is not readable; export to HDF or STAR with your EMAN2 tools" in capsys.readouterr().err


def test_constant_images_go_to_junk_and_noise_makes_no_class(tmp_path: Path, capsys: Any) -> None:
    made = images(tmp_path)
    made[[4, 9]] = 3.0
    write_stack(tmp_path / "s.mrcs", made, pixel_size=1.4, overwrite=True)
    write(tmp_path)
    words = ["classify", str(tmp_path / "p.star"), str(tmp_path / "out"), *FLAGS, "--cluster", "threads"]
    assert run(words) == 0
    said = capsys.readouterr().err
    assert "2 images go to junk" in said and "(rows 5, 10)" in said and "no class was accepted" in said


def test_a_changed_stack_is_not_resumed(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = images(tmp_path)
    write(tmp_path)
    words = ["classify", str(tmp_path / "p.star"), str(tmp_path / "out"), *FLAGS, "--cluster", "threads"]
    with monkeypatch.context() as patch:
        patch.setattr("cryodask.jobs.classify.job._pictures", _full_disk)
        assert run(words) == 3
    said = capsys.readouterr().err
    assert "No space left on device" in said and "--resume" in said
    assert run(words) == 2
    assert "unfinished run" in capsys.readouterr().err
    write_stack(tmp_path / "s.mrcs", made + 1, pixel_size=1.4, overwrite=True)
    assert run([*words, "--resume"]) == 2
    said = capsys.readouterr().err
    assert "s.mrcs sha256 " in said and " -> sha256 " in said
    write_stack(tmp_path / "s.mrcs", made, pixel_size=1.4, overwrite=True)


def _full_disk(*_: Any) -> None:
    raise OSError(28, "No space left on device", "out/work/references.npy")
