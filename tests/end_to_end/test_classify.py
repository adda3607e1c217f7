"""`cryodask classify` and `cryodask select` as a user runs them, on a small stack of known views."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
import xarray as xr

import cryodask
from benchmarks.metrics import Truth, summary
from cryodask.cli.main import run
from cryodask.cluster import open_cluster
from cryodask.io.particle_stack import open_particles
from cryodask.jobs.classify.averages import laid_on_reference
from cryodask.jobs.classify.job import plan_classification, run_classification
from cryodask.jobs.classify.parameters import make_parameters
from cryodask.simulate.class_works import ClassWork, WorkSettings, simulate_work, write_work

OPTIONS: dict[str, Any] = {
    "radius": 28,
    "target_radius": 28,
    "target_nx": 64,
    "skip_prealignment": True,
    "img_per_grp": 50,
    "runs": 2,
    "splits": 2,
    "passes": 6,
    "isac_files": True,
}
FLAGS = [
    word
    for key, value in OPTIONS.items()
    for word in ([f"--{key}"] if value is True else [f"--{key}", str(value)])
]


@dataclass(frozen=True)
class Small:
    """A small stack on disk, and its classification by the command."""

    star: Path
    work: ClassWork
    output: Path
    talk: str


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Small:
    folder = tmp_path_factory.mktemp("stack")
    volume = mrcfile.read(shared_data / "stacks" / "clean70SRibosome_vol_65p.mrc")
    work = simulate_work(volume, 64, WorkSettings(200, views=4, snr=0.3, seed=4))
    star = write_work(folder, "small", work)
    output = folder / "classes"
    with pytest.MonkeyPatch.context() as patch, (folder / "talk.txt").open("w+") as talk:
        patch.setattr("sys.stderr", talk)
        assert run(["classify", str(star), str(output), *FLAGS, "--cluster", "threads"]) == 0
        talk.seek(0)
        return Small(star, work, output, talk.read())


def classified(
    small: Small, output: Path, client: Any = None, listen: Any = lambda event: None, **how: Any
) -> Path:
    stack = open_particles(small.star)
    job = plan_classification(stack, make_parameters(OPTIONS), output, tell=lambda notice: None, **how)
    run_classification(job, client=client, listen=listen)
    return output


def same_results(first: Path, second: Path) -> bool:
    """Say whether two results hold the same bytes, but for the times that files are marked with."""
    one, other = (xr.open_zarr(path / "result.zarr", consolidated=False).load() for path in (first, second))
    xr.testing.assert_identical(one.drop_attrs(), other.drop_attrs())
    assert (first / "classes.csv").read_bytes() == (second / "classes.csv").read_bytes()
    for name in ("particles_accounted.star", "particles_unaccounted.star"):
        texts = [
            (path / name).read_text().splitlines()[1:] for path in (first, second) if (path / name).exists()
        ]
        assert len(texts) != 1 and (not texts or texts[0] == texts[1])
    for name in ("class_averages", "ordered_class_averages", "working_averages"):
        pictures = [mrcfile.read(path / f"{name}.mrcs") for path in (first, second)]
        assert (pictures[0] == pictures[1]).all()
    return True


def rows(path: Path) -> pd.DataFrame:
    return starfile.read(path, always_dict=True)["particles"]


def test_the_views_are_found(small: Small) -> None:
    ds = cryodask.open_result(small.output)
    truth = Truth(small.work.rotations[:, 2], small.work.view, small.work.noise)
    found = summary(truth, ds["class_id"].values)
    assert found["accounted"] >= 0.95
    assert found["ari_accounted"] >= 0.98
    assert found["views_found"] == 4


def test_every_row_is_in_one_of_the_outputs(small: Small) -> None:
    given = rows(small.star)
    accounted, rest = rows(small.output / "particles_accounted.star"), []
    if (small.output / "particles_unaccounted.star").exists():
        table = rows(small.output / "particles_unaccounted.star")
        assert (table["rlnClassNumber"] == 0).all() and table["cryodaskReason"].ne("accounted").all()
        rest = list(table["rlnImageName"])
    names = [*accounted["rlnImageName"], *rest]
    assert sorted(names) == sorted(given["rlnImageName"])
    assert accounted["rlnImageName"].is_monotonic_increasing
    merged = accounted.merge(given, on="rlnImageName", suffixes=("", "_given"))
    for column in given.columns.drop("rlnImageName"):
        assert (merged[column] == merged[f"{column}_given"]).all()
    summary_file = json.loads((small.output / "run.json").read_text())
    assert summary_file["accounted"] == len(accounted)
    assert sum(summary_file["reasons"].values()) == 200


def test_files_fit_each_other(small: Small) -> None:
    classes = pd.read_csv(small.output / "classes.csv")
    table = starfile.read(small.output / "classes.star")
    accounted = rows(small.output / "particles_accounted.star")
    sizes = accounted["rlnClassNumber"].value_counts().sort_index()
    assert classes["class"].tolist() == table["class"].tolist() == sizes.index.tolist()
    assert classes["size"].tolist() == sizes.tolist()
    with mrcfile.open(small.output / "class_averages.mrcs") as file:
        assert file.data.shape == (len(classes), 64, 64) and file.is_image_stack()
        assert file.voxel_size.x == pytest.approx(5.0)
    assert sorted(classes["order"]) == classes["class"].tolist()
    assert (classes["resolution"] < 40).all() and (classes["resolution"] >= 10).all()
    assert not (small.output / "work").exists()
    assert "Class averages" in (small.output / "report.html").read_text()


def test_every_pass_and_stage_is_told(small: Small) -> None:
    assert "gen 1 run 2/2 pass 6 | K 4 | score" in small.talk
    assert "gen 1: " in small.talk and "accounted in 4 classes" in small.talk
    stage = small.output / "generation_01" / "run_01" / "stage_01.png"
    assert stage.read_bytes().startswith(b"\x89PNG") and stage.name in small.talk
    event = json.loads((stage.parent / "pass_006.json").read_text())
    assert event["classes"] == 4 and event["score"] > 5


def test_the_pose_of_relion_lays_the_average_on_the_image(small: Small) -> None:
    """psi and origins, read as RELION reads them, give the view in the image; mirrored ones likewise."""
    averages, clean = mrcfile.read(small.output / "class_averages.mrcs"), simulate_clean(small)
    table = rows(small.output / "particles_accounted.star")
    number = table["rlnImageName"].str.split("@").str[0].astype(int).to_numpy() - 1
    for mirrored in (0, 1):
        fits, wrong = [], []
        for row, i in zip(table.to_dict("records"), number, strict=True):
            if row["cryodaskMirror"] != mirrored:
                continue
            average = averages[row["rlnClassNumber"] - 1]
            if mirrored:
                average = np.roll(average[::-1], 1, axis=0)
            # the image turned by psi about its origin lies on the average
            centre = -np.array([row["rlnOriginXAngst"], row["rlnOriginYAngst"]]) / 5.0
            phi = -np.radians(row["rlnAnglePsi"])
            fits.append(correlation(laid_on_reference(clean[i], centre, phi, False), average))
            wrong.append(correlation(laid_on_reference(clean[i], centre, -phi, False), average))
        assert len(fits) > 20
        assert np.median(fits) > 0.9 > 1.5 * np.median(wrong)


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    axis = np.arange(64) - 32
    inside = np.hypot(axis[:, None], axis) < 26
    return float(np.corrcoef(first[inside], second[inside])[0, 1])


def test_averages_show_the_views(small: Small) -> None:
    """Phases of the CTF undone: the average of a class correlates with every projection of its view."""
    ds = cryodask.open_result(small.output)
    clean = simulate_clean(small)
    for k in range(ds.sizes["class"]):
        members = np.flatnonzero(ds["class_id"].values == k)[:5]
        shift = ds["shift"].values / 5.0
        for i in members:
            lying = laid_on_reference(
                clean[i], shift[i], np.radians(ds["angle"].values[i]), bool(ds["mirror"].values[i])
            )
            assert correlation(lying, ds["class_average"].values[k]) > 0.85


def simulate_clean(small: Small) -> np.ndarray:
    """Projections without CTF and noise, shifted as the images are."""
    import scipy.fft

    from cryodask.simulate.class_works import cropped_spectrum, exact_projections

    root = Path(os.environ.get("CRYODASK_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
    volume = mrcfile.read(root / "stacks" / "clean70SRibosome_vol_65p.mrc")
    clean = exact_projections(cropped_spectrum(volume, 64), small.work.rotations)
    ky, kx = scipy.fft.fftfreq(64)[:, None], scipy.fft.rfftfreq(64)
    x, y = small.work.shift.T[:, :, None, None]
    return scipy.fft.irfft2(scipy.fft.rfft2(clean) * np.exp(-2j * np.pi * (kx * x + ky * y)), s=(64, 64))


def test_same_results_for_any_workers_even_if_one_dies(small: Small, tmp_path: Path) -> None:
    killed = []

    def kill(event: dict[str, Any]) -> None:
        if event["event"] == "pass" and event["pass"] == 5 and not killed:
            killed.append(client.run(os.getpid))
            os.kill(next(iter(killed[0].values())), signal.SIGKILL)

    with open_cluster(workers=2) as client:
        classified(small, tmp_path / "two", client, kill)
    assert killed
    assert same_results(small.output, tmp_path / "two")


@pytest.fixture
def interrupted(small: Small, tmp_path: Path) -> Path:
    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "pass" and event["pass"] == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        classified(small, tmp_path / "out", listen=stop)
    return tmp_path / "out"


def test_an_interrupted_run_resumes_to_the_same_results(small: Small, interrupted: Path) -> None:
    events: list[dict[str, Any]] = []
    with pytest.raises(cryodask.InputError, match=r"unfinished run \(generation 1, run \d, pass \d+\)"):
        classified(small, interrupted)
    classified(small, interrupted, listen=events.append, resume=True)
    assert same_results(small.output, interrupted)
    assert min(e["pass"] for e in events if e["event"] == "pass") > 5


def test_a_resumed_run_must_be_the_same(small: Small, interrupted: Path, capsys: Any) -> None:
    words = ["classify", str(small.star), str(interrupted), *FLAGS, "--resume", "--cluster", "threads"]
    assert run([*words, "--restart", "5"]) == 2
    assert "restart = 5: expected 0..0" in capsys.readouterr().err
    words[words.index("--radius") + 1] = "27"
    assert run(words) == 2
    assert "differs from the unfinished run: radius 28" in capsys.readouterr().err


def test_generations_after_a_restart_are_put_aside(small: Small, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(small.output, again)
    classified(small, again, restart=0)
    assert same_results(small.output, again)
    assert (again / "discarded_1" / "generation_01" / "outcome.npz").exists()


def test_python_gives_what_the_command_gives(small: Small) -> None:
    options = {key: value for key, value in OPTIONS.items() if key not in ("img_per_grp", "target_nx")}
    optics = pd.DataFrame(
        {"defocus_u": small.work.defocus.round(2), "defocus_v": small.work.defocus.round(2)}
    ).assign(defocus_angle=0.0, voltage=300.0, cs=2.7, amplitude_contrast=0.1)
    ds = cryodask.classify(
        small.work.images, pixel_size=5.0, optics=optics, images_per_class=50, target_box=64, **options
    )
    expected = cryodask.open_result(small.output)
    assert (ds["class_id"].values == expected["class_id"].values).all()
    assert ds.cryo.montage().get_axes()
    assert len(ds.cryo.select(min_size=2)) == int((ds["class_id"] >= 0).sum())


def test_selection_adds_up_and_recentres(small: Small, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "good.star"
    assert run(["select", str(small.output), "-o", str(out), "--classes", "1,3-4", "--json"]) == 0
    counts = [each["particles"] for each in json.loads(capsys.readouterr().out)]
    chosen, rest = rows(out), rows(tmp_path / "good_rest.star")
    assert counts == [len(chosen), len(rest)] and sum(counts) == 200
    assert set(chosen["rlnClassNumber"]) == {1, 3, 4}
    before = (
        rows(small.output / "particles_accounted.star").set_index("rlnImageName").loc[chosen["rlnImageName"]]
    )
    for axis in "XY":
        origin = chosen[f"rlnOrigin{axis}Angst"].to_numpy()
        assert (np.abs(origin) <= 2.5 + 1e-6).all()
        place = chosen[f"rlnCoordinate{axis}"].to_numpy() * 5 - origin
        expected = (before[f"rlnCoordinate{axis}"] * 5 - before[f"rlnOrigin{axis}Angst"]).to_numpy()
        np.testing.assert_allclose(place, expected, atol=1e-3)
    assert (
        open_particles(out, root=small.star.parent).table["name"].tolist() == chosen["rlnImageName"].tolist()
    )


def test_mirrors_are_split_and_the_best_of_duplicates_kept(small: Small) -> None:
    table = cryodask.select(small.output, split_mirrors=True)
    assert (table["rlnClassNumber"] > 4).equals(table["cryodaskMirror"] == 1)
    single = cryodask.select(small.output, duplicates=1e5)
    per_micrograph = table.groupby("rlnMicrographName")["cryodaskScore"].max()
    assert single.set_index("rlnMicrographName")["cryodaskScore"].sort_index().equals(per_micrograph)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--classes", "25"], "classes: expected 1..4"),
        (["--classes", "a"], "classes = a: expected numbers such as 1,3-7"),
        (
            ["--min-resolution", "3", "--min-size", "2"],
            "nothing is left: min-resolution removed most, 4 of 4",
        ),
    ],
)
def test_bad_selections(small: Small, tmp_path: Path, capsys: Any, words: list[str], message: str) -> None:
    assert run(["select", str(small.output), "-o", str(tmp_path / "o.star"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_records_of_cryosparc_need_a_cryosparc_file(small: Small, tmp_path: Path, capsys: Any) -> None:
    words = ["select", str(small.output), "-o", str(tmp_path / "o.cs"), "--format", "cs-passthrough"]
    assert run(words) == 2
    assert "small.star was classified, expected a cryoSPARC .cs file" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_isac_files_hold_the_members_of_each_class(small: Small) -> None:
    import h5py

    ds = cryodask.open_result(small.output)
    with h5py.File(small.output / "ordered_class_averages.hdf") as file:
        images = file["MDF/images"]
        seen = []
        for number, k in enumerate(ds["order"].values.argsort()):
            own = images[str(number)]
            members = own.attrs["EMAN.members"]
            assert (members == np.flatnonzero(ds["class_id"].values == k)).all()
            assert own.attrs["EMAN.n_objects"] == len(members)
            seen.extend(members)
    lists = [np.loadtxt(small.output / f"{name}processed_images.txt", dtype=int) for name in ("", "not_")]
    assert sorted(seen) == lists[0].tolist()
    assert sorted([*lists[0], *np.atleast_1d(lists[1])]) == list(range(200))
    lines = (small.output / "README_shrink_ratio.txt").read_text().splitlines()
    assert (float(lines[5]), float(lines[6])) == (1.0, 28.0)


@pytest.mark.parametrize("form", ["relion31", "relion30", "csv"])
def test_selections_in_every_format_hold_every_row(small: Small, tmp_path: Path, form: str) -> None:
    out = tmp_path / ("good.csv" if form == "csv" else "good.star")
    words = ["select", str(small.output), "-o", str(out), "--exclude", "2", "--format", form, "--no-recentre"]
    assert run(words) == 0
    rest = out.with_name(f"good_rest{out.suffix}")
    if form == "csv":
        names = [name for path in (out, rest) for name in pd.read_csv(path)["rlnImageName"]]
    else:
        stacks = [open_particles(path, root=small.star.parent) for path in (out, rest)]
        names = [name for stack in stacks for name in stack.table["name"]]
        before = cryodask.select(small.output, exclude=[2], recentre=False)
        np.testing.assert_allclose(stacks[0].table["origin_x"], before["rlnOriginXAngst"], atol=1e-4)
        assert stacks[0].pixel_size == pytest.approx(5.0)
        assert (stacks[0].table["voltage"] == 300).all() and stacks[0].has_defocus
    assert sorted(names) == sorted(rows(small.star)["rlnImageName"])


def test_a_dataset_selects_and_writes_its_particles(small: Small, tmp_path: Path) -> None:
    ds = cryodask.open_result(small.output)
    table = ds.cryo.select(classes=[1, 2])
    assert table.equals(cryodask.select(ds, classes="1-2"))
    assert set(table["rlnClassNumber"]) == {1, 2}
    path = ds.cryo.write_star(tmp_path / "accounted.star", form="relion30")
    assert len(starfile.read(path)) == int((ds["class_id"] >= 0).sum())
    with pytest.raises(cryodask.InputError, match="which = all: expected accounted or unaccounted"):
        ds.cryo.write_star(tmp_path / "b.star", which="all")
    with pytest.raises(cryodask.InputError, match="unknown condition min_resolutoin"):
        ds.cryo.select(min_resolutoin=3)
    with pytest.raises(cryodask.InputError, match="as classify or open_result returned it"):
        xr.Dataset().cryo.select()


def bad_inputs() -> Iterator[tuple[list[str], str]]:
    yield ["--radius", "40"], "radius = 40: expected 1 < radius <= 31 (box 64)"
    yield (
        ["--radius", "28", "--img_per_grp", "101"],
        "200 images make fewer than 2 classes of 101; at most 100",
    )
    yield (
        ["--radius", "28", "--img_per_grp", "50", "--minimum_grp_size", "60"],
        "minimum_grp_size = 60: expected 2..50 (img_per_grp)",
    )
    yield ["--radius", "28", "--classes", "4", "--img_per_grp", "50"], "give one of --classes, --img_per_grp"
    yield ["--radius", "28", "--target_nx", "50"], "target_nx = 50: expected >= 62 = 2 (29 + 1 + 1)"
    yield ["--radius", "28", "--FL", "0.5", "--FH", "0.3"], "FL = 0.5, FH = 0.3: expected 0 < FL <= FH <= 0.5"
    yield ["--radius", "28", "--thld_err", "0"], "thld_err = 0.0: expected a number > 0"
    yield ["--radius", "28", "--stab-ali", "1"], "stab_ali = 1: expected 2 <= stab_ali <= 20"
    yield ["--radius", "28", "--xr", "1.5"], "xr = 1.5: expected a multiple of ts = 1"
    yield ["--radius", "28", "--img_per_group", "50"], "--img_per_grp"
    yield ["--radius", "28", "--validate", "members", "--runs", "1"], "members needs --runs >= 2"
    yield ["--radius", "28", "--restart", "5"], "nothing to resume there"
    yield ["--radius", "28", "--memory", "1MB"], "raise --memory"
    yield ["--radius", "28", "--VPP", "--CTF"], "give one of --CTF, --VPP"
    yield ["--radius", "28", "--center_method", "8"], "center_method = 8: expected -1 <= center_method <= 7"
    yield ["--radius", "28", "--iter_reali", "-1"], "iter_reali = -1: expected"
    yield ["--radius", "28", "--compat", "isac3"], "isac2"
    yield ["--radius", "28", "--device", "cuda"], "no CUDA device found"
    yield ["--radius", "28", "--gpu_memory_use", "1.5"], "gpu_memory_use = 1.5: expected 0 < x <= 1, or bytes"
    yield ["--radius", "0"], "radius = 0: expected 1 < radius <= 31 (box 64)"
    yield ["--radius", "28", "--FH", "0.7"], "FL = 0.2, FH = 0.7: expected 0 < FL <= FH <= 0.5"
    yield ["--radius", "28", "--ts", "0"], "ts = 0.0: expected"
    yield [], "--radius is required"


@pytest.mark.parametrize(
    ("words", "message"), list(bad_inputs()), ids=lambda v: v if isinstance(v, str) else ""
)
def test_bad_options(small: Small, tmp_path: Path, capsys: Any, words: list[str], message: str) -> None:
    output = tmp_path / "out"
    assert run(["classify", str(small.star), str(output), *words]) in (2, 3, 4)
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error and error.startswith("cryodask: error: ")
    assert not output.exists()


def test_ctf_needs_defocus_and_images_must_be_numbers(small: Small, tmp_path: Path, capsys: Any) -> None:
    images = small.work.images.copy()
    images[3, 5, 6] = np.nan
    np.save(tmp_path / "bare.npy", images)
    words = ["classify", str(tmp_path / "bare.npy"), str(tmp_path / "out"), "--radius", "28"]
    assert run([*words, "--CTF"]) == 2
    assert "--CTF needs rlnDefocusU" in capsys.readouterr().err
    assert run([*words, "--cluster", "threads"]) == 2
    assert "1 NaN or infinite pixels, first at (image 4, y 5, x 6)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"vpp": True},
        {"search": "exact", "splits": 0},
        {"filter": "tanh"},
        {"whiten_noise": False},
        {"iter_reali": 1},
    ],
)
def test_other_ways_find_the_views_too(small: Small, options: dict[str, Any]) -> None:
    with pytest.warns(UserWarning, match="not tested"):
        ds = cryodask.classify(small.star, **OPTIONS | {"runs": 1} | options)
    truth = Truth(small.work.rotations[:, 2], small.work.view, small.work.noise)
    figures = summary(truth, ds["class_id"].values)
    assert figures["ari_accounted"] > 0.9
    assert figures["accounted"] > 0.8


def test_isac2_classifies_as_it_did(small: Small) -> None:
    """Strictly equal classes accepted by stability alone; other options keep the user's value."""
    options = {k: v for k, v in OPTIONS.items() if k not in ("runs", "splits", "passes")}
    with pytest.warns(UserWarning, match="not tested"):
        ds = cryodask.classify(small.star, **options, compat="isac2", maxit=10, init_iter=4)
    settings = json.loads(ds.attrs["parameters"])
    assert (settings["maxit"], settings["filter"], settings["iter_reali"]) == (10, "tanh", 1)
    assert np.isnan(ds["agreement"]).all() and set(np.unique(ds["reason"])) <= {0, 2, 5}
    sizes = np.bincount(ds["run_class"].values[0])
    assert (sizes == 50).all()
    truth = Truth(small.work.rotations[:, 2], small.work.view, small.work.noise)
    assert summary(truth, ds["class_id"].values)["ari_accounted"] > 0.6


def test_parts_of_a_stack_add_up(small: Small, tmp_path: Path, capsys: Any) -> None:
    given = rows(small.star)
    twice = tmp_path / "twice.star"
    blocks = starfile.read(small.star, always_dict=True)
    starfile.write(blocks | {"particles": pd.concat([given, given[:3]])}, twice)
    (tmp_path / "rows.txt").write_text("\n".join(map(str, range(5, 150))))
    (tmp_path / "small.mrcs").symlink_to(small.star.parent / "small.mrcs")
    words = ["classify", str(twice), str(tmp_path / "out"), *FLAGS, "--cluster", "threads"]
    assert run(words) == 2
    assert "rows 1 and 201: the same image 000001@small.mrcs; --drop-duplicates" in capsys.readouterr().err
    words += ["--drop-duplicates", "--subset", str(tmp_path / "rows.txt"), "--limit", "120", "--splits", "0"]
    assert run([*words, "--averages", "none"]) == 0
    files = [tmp_path / "out" / f"particles_{name}.star" for name in ("accounted", "unaccounted")]
    names = [name for path in files if path.exists() for name in rows(path)["rlnImageName"]]
    assert sorted(names) == sorted(given["rlnImageName"][5:125])
    assert not (tmp_path / "out" / "class_averages.mrcs").exists()


def test_a_foreign_folder_is_left_alone(small: Small, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "thesis.txt").write_text("all of it")
    assert run(["classify", str(small.star), str(tmp_path), *FLAGS, "--overwrite"]) == 2
    assert "is not a classification of cryodask" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").exists()


def test_the_plan_starts_nothing(small: Small, tmp_path: Path, capsys: Any) -> None:
    assert run(["classify", str(small.star), str(tmp_path / "out"), *FLAGS, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["classes"], plan["runs"]) == (4, 2) and plan["core_seconds"] > 0
    assert not (tmp_path / "out").exists()
