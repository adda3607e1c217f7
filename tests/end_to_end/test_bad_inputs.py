"""A mistake costs one line that says where it is and what was expected, and leaves nothing behind."""

import shutil
import subprocess
import sys
import warnings

import mrcfile
import numpy as np
import pytest
import yaml

from cryodask.cli.main import run
from cryodask.jobs.tomogram_matching.parameters import read_parameters
from cryodask.jobs.tomogram_matching.planning import Resources
from cryodask.jobs.tomogram_matching.runs import execute, open_runs
from cryodask.optics.bandpass import BandPass
from cryodask.optics.frequency import half_frequencies
from cryodask.optics.tilts import TiltSeries
from cryodask.optics.tomogram_filter import tomogram_filter

BOX, SHAPE, VOXEL = 24, (40, 48, 44), 8.704
CELLS = {
    "rootdir": None,
    "outputdir": "out/",
    "vol_ext": ".mrc",
    "tomo_name": "tomogram.mrc",
    "tomo_num": "17",
    "tomo_mask_name": "none",
    "wedgelist_name": "wedge.star",
    "tmpl_name": "template.mrc",
    "mask_name": "mask.mrc",
    "symmetry": "C1",
    "anglist_name": "angles.csv",
    "anglist_order": "zxz",
    "lp_rad": "10",
    "hp_rad": "1",
    "binning": "4",
    "calc_ctf": "False",
    "noise_corr": "False",
}
THREADS = ("--cluster", "threads", "--workers", "1")


class Project:
    """A small job on disk that is right until a test breaks it."""

    def __init__(self, folder):
        self.folder = folder
        self.cells = {**CELLS, "rootdir": str(folder)}
        generator = np.random.default_rng(5)
        self.volume("tomogram.mrc", generator.standard_normal(SHAPE))
        z, y, x = np.ogrid[-12:12, -12:12, -12:12]
        distance = np.sqrt(z**2 + y**2 + x**2)
        self.volume("template.mrc", np.exp(-((z - 2) ** 2 + 2 * y**2 + (x + 1) ** 2) / 18))
        self.volume("mask.mrc", np.clip(10 - distance, 0, 1))
        self.wedge()
        self.text("angles.csv", "0,0,0\n30,60,90\n")

    def volume(self, name, array, voxel_size=VOXEL):
        path, voxels = self.folder / name, np.asarray(array, np.float32)
        with (
            warnings.catch_warnings(action="ignore"),  # of mrcfile, for values that are not finite
            mrcfile.new(path, voxels, overwrite=True) as file,
        ):
            file.voxel_size = voxel_size

    def text(self, name, content):
        path = self.folder / name
        path.write_text(content)
        return path

    def wedge(self, tilts=range(-54, 60, 4), **columns):
        columns = {"tomo_num": "17", "pixelsize": "2.176", **columns}
        names = [*columns, "tilt_angle", "voltage", "amp_contrast", "cs"]
        rows = [" ".join([*columns.values(), str(tilt), "300", "0.07", "2.7"]) for tilt in tilts]
        rows.append(" ".join(["18", *list(columns.values())[1:], "0", "300", "0.07", "2.7"]))
        header = "\n".join(f"_{name}" for name in names)
        self.text("wedge.star", f"data_stopgap_wedgelist\n\nloop_\n{header}\n" + "\n".join(rows) + "\n")

    def star(self, **changes):
        cells = {k: v for k, v in {**self.cells, **changes}.items() if v is not None}
        header = "\n".join(f"_{column} #{k}" for k, column in enumerate(cells, 1))
        return self.text("params.star", f"data_\n\nloop_\n{header}\n\n{' '.join(cells.values())}\n")

    def yaml(self, text):
        native = {"tomogram": "tomogram.mrc", "template": "template.mrc", "mask": "mask.mrc"}
        native |= {"angles": "angles.csv", **yaml.safe_load(f"{{{text}}}")}
        return self.text("params.yaml", yaml.safe_dump(native))


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


@pytest.fixture
def refused(project, capsys):
    """Run a parameter file that must be refused; nothing may be written then."""

    def command(path, *options, status=2):
        before = set(project.folder.rglob("*"))
        capsys.readouterr()
        found = run(["match-tomogram", str(path), *options])
        captured = capsys.readouterr()
        lines = captured.err.splitlines()
        errors = [line for line in lines if line.startswith("cryodask: error: ")]
        assert found == status, captured.err
        assert captured.out == ""
        assert len(errors) == 1
        assert lines[-1] == errors[0]
        assert set(project.folder.rglob("*")) == before
        return errors[0].removeprefix("cryodask: error: ")

    return command


ROW = "params.star line {line} (row 0): "


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tomo_name": "t9.mrc"}, "tomo_name = t9.mrc: no such file (looked in {root})"),
        ({"mask_name": "m.mrc"}, "mask_name = m.mrc: no such file (looked in {root})"),
        ({"rootdir": "/no/where"}, "rootdir = /no/where: no such directory"),
        ({"tomo_num": "9"}, "wedgelist_name: wedge.star: no rows for tomo_num 9 (has 17, 18)"),
        ({"tomo_num": "18"}, "wedgelist_name: wedge.star: 1 tilt, expected 2 or more"),
        ({"tomo_num": "1.5"}, "tomo_num = 1.5: expected an integer >= 0"),
        ({"calc_ctf": "True"}, "calc_ctf = True needs column defocus"),
        ({"calc_exp": "True"}, "calc_exp = True needs column exposure"),
        ({"defocus_hand": "-1"}, "defocus_hand = -1: needs calc_ctf"),
        ({"lp_rad": "40"}, "lp_rad = 40: expected 0 < lp_rad <= 12"),
        ({"lp_rad": "16", "hp_rad": "20"}, "hp_rad = 20: expected less than lp_rad = 16"),
        ({"anglist_name": "none"}, "anglist_name or angincr is required"),
        ({"anglist_order": "zyz"}, "anglist_order = zyz: expected zxz or zzx"),
        ({"symmetry": "X5"}, "symmetry = X5: expected Cn, Dn, T, T3, O, I, I1, I2"),
        ({"scoring_fcn": "scf"}, "scoring_fcn = scf: only flcf is supported"),
        ({"lp_radius": "3"}, "unknown column lp_radius (did you mean lp_rad?)"),
        ({"tmpl_name": "REQUIRED"}, "tmpl_name is still REQUIRED"),
        ({"tmpl_name": "none"}, "tmpl_name is required"),
        ({"noise_corr": "17"}, "noise_corr = 17: expected true, false or 1 to 16 copies"),
        ({"vol_ext": ".tif"}, "vol_ext = .tif: expected .em or .mrc"),
        ({"smap_name": "angles"}, "expected three different names"),
    ],
)
def test_a_wrong_cell_is_named_with_file_line_and_row(project, refused, changes, message):
    path = project.star(**changes)
    line = len(path.read_text().splitlines())
    assert refused(path).startswith(ROW.format(line=line))
    assert message.format(root=project.folder) in refused(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search_grid": "0.2"}, "search_grid = 0.2: needs a low-pass that leaves frequencies out"),
        (
            {"strategy": "coarse_to_fine", "noise_corr": "True"},
            "strategy = coarse_to_fine: does not go with noise_corr = ratio",
        ),
        ({"class_by": "score"}, "class_by = score: needs several templates"),
        ({"orientations": '\'{"near": "seeds.csv"}\''}, "restricts nothing without cone"),
    ],
)
def test_a_feature_of_a_later_release_is_refused_by_name(project, refused, changes, message):
    assert message in refused(project.star(**changes))


def test_native_parameters_speak_of_native_keys(project, refused):
    both = "[{template: template.mrc, mask: mask.mrc}, {template: template.mrc, mask: mask.mrc}]"
    path = project.text(
        "several.yaml", f"{{tomogram: tomogram.mrc, templates: {both}, angles: {{step: 30}}}}"
    )
    assert "several.yaml row 0: templates: two are named template, give them" in refused(path)
    for setting, text in {
        "ctf: amplitude": "ctf = amplitude needs column defocus",
        "tilts: [-60, 60], tilt_weight: cos": "tilt_weight = cos: needs every tilt's angle, a file in tilts",
        "orientations: {near: seeds.csv}": "orientations.near = seeds.csv: restricts",
        "lowpas: 30": "unknown key lowpas (did you mean lowpass?)",
        "lowpass: 10": "lowpass = 10: expected at least two voxels, 17.408",
        "region: {z: [5000, 6000]}": "region: selects no voxel",
        "region: [1, 2]": "region = [1, 2]: expected a mapping of z, y, x",
        "angles: [30]": "angles = [30]: expected a mapping of file, units, order, step",
        "mask: 12": "mask = 12: expected a name or a mapping of sphere, edge",
    }.items():
        assert f"params.yaml row 0: {text}" in refused(project.yaml(setting))


def test_a_key_that_stands_twice_is_refused(project, refused):
    text = "tomogram: tomogram.mrc\ntemplate: template.mrc\nlowpass: 30\nangles: {step: 30}\nlowpass: 20\n"
    path = project.text("twice.yaml", text)
    assert refused(path) == "twice.yaml line 3: expected YAML, lowpass stands 2 times in one mapping"


def test_a_step_so_fine_that_no_list_could_be_held(project, refused):
    text = refused(project.yaml("angles: {step: 0.001}, tilts: [-60, 60]"))
    assert "angular step = 0.001: about 1e+16 rotations, expected at most 1e+08" in text


def test_short_rows_and_missing_rows(project, refused):
    path = project.star()
    text = path.read_text().rstrip("\n")
    line = len(text.splitlines())
    path.write_text(text.rsplit(" ", 1)[0] + "\n")
    assert refused(path) == f"params.star line {line}: 16 values for 17 columns"
    path.write_text(text.rsplit("\n", 1)[0])
    assert refused(path) == "params.star: no rows"
    assert refused(project.folder / "params2.star") == f"{project.folder / 'params2.star'}: no such file"
    assert "no row 3 (has rows 0 to 0)" in refused(project.star(), "--rows", "3")


def test_rotation_lists(project, refused):
    project.text("angles.csv", "0,0,0\n0,0,10\n0,0,20\n0,30\n")
    assert "anglist_name: angles.csv line 4: expected 3 numbers, found 2" in refused(project.star())
    rows = np.random.default_rng(0).uniform(0, 3, (60, 3))
    np.savetxt(project.folder / "angles.csv", rows, delimiter=",")
    assert "looks like radians, set units" in refused(project.star())
    project.text("angles.csv", "phi,theta,psi\n")
    assert "angles.csv" in refused(project.star())


def test_templates(project, refused):
    project.volume("template.mrc", np.full((BOX,) * 3, 3.0))
    assert "tmpl_name = template.mrc: template is constant" in refused(project.star())
    hole = np.random.default_rng(1).standard_normal((BOX,) * 3)
    hole[3, 4, 5] = np.inf
    project.volume("template.mrc", hole)
    text = "tmpl_name = template.mrc: 1 non-finite voxels, first at (z,y,x) = (3,4,5)"
    assert text in refused(project.star())
    project.volume("template.mrc", np.arange(6 * BOX**2).reshape(6, BOX, BOX))
    assert "shape 6,24,24, expected edges of 8 voxels or more" in refused(project.star())


def test_a_template_without_its_symmetry(project, refused):
    project.volume("template.mrc", np.random.default_rng(1).standard_normal((BOX,) * 3))
    assert "template correlates 0." in (text := refused(project.star(symmetry="D2")))
    assert text.endswith("with its D2 average")


def test_masks(project, refused):
    project.volume("mask.mrc", np.ones((32,) * 3))
    assert "mask_name: shape 32,32,32, expected 24,24,24 (template)" in refused(project.star())
    tiny = np.zeros((BOX,) * 3)
    tiny[12, 12, 10:14], tiny[12, 13, 12] = 1, 0.2
    project.volume("mask.mrc", tiny)
    assert "mask_name: mask covers 4.2 voxels, expected 30 or more" in refused(project.star())
    project.volume("mask.mrc", np.full((BOX,) * 3, 1.5))
    assert "mask_name: values from 1.5 to 1.5, expected 0 to 1" in refused(project.star())


def test_tomogram_masks(project, refused):
    path = project.star(tomo_mask_name="area.mrc")
    project.volume("area.mrc", np.ones((8, 8, 8)))
    assert "tomo_mask_name: shape 8,8,8, expected 40,48,44 (tomogram)" in refused(path)
    project.volume("area.mrc", np.zeros(SHAPE))
    assert "tomo_mask_name: selects no voxel" in refused(path)


def test_a_template_larger_than_the_tomogram(project, refused):
    project.volume("template.mrc", np.random.default_rng(1).standard_normal((64,) * 3))
    project.volume("mask.mrc", np.pad(np.ones((8,) * 3), 28))
    assert "template box 64 exceeds tomogram z = 40" in refused(project.star())
    project.volume("template.mrc", np.random.default_rng(1).standard_normal((32,) * 3))
    project.volume("mask.mrc", np.ones((32,) * 3))
    assert "template box 58 exceeds tomogram z = 40 (the box grew from 32 for the mask)" in refused(
        project.star()
    )


def test_voxel_sizes_that_contradict(project, refused):
    project.volume("tomogram.mrc", np.random.default_rng(5).standard_normal(SHAPE), voxel_size=10)
    text = "10.000 (header) contradicts 8.704 (pixelsize x binning)"
    assert text in refused(project.star())
    project.volume("tomogram.mrc", np.random.default_rng(5).standard_normal(SHAPE), voxel_size=1)
    text = "params.yaml row 0: tomogram.mrc: voxel size unknown (header 0 or 1), set voxel_size"
    assert refused(project.yaml("tomo_num: 17")) == text
    project.volume("tomogram.mrc", np.random.default_rng(5).standard_normal(SHAPE), voxel_size=(4, 5, 6))
    text = "tomogram.mrc: voxels are not cubic (6, 5, 4 angstrom in z, y, x), set voxel_size"
    assert text in refused(project.yaml("tomo_num: 17"))


def test_a_template_of_another_sampling(project, refused):
    voxels = np.random.default_rng(1).standard_normal((BOX,) * 3)
    project.volume("template.mrc", voxels, voxel_size=13.48)
    text = "voxel size 13.480 (header of template.mrc) contradicts 8.704 (tomogram); resample the template to"
    assert text in (found := refused(project.star()))
    assert found.endswith("8.704, or set voxel_size where the header is wrong")
    project.volume("template.mrc", voxels, voxel_size=(4, 5, 6))
    assert "template.mrc: voxels are not cubic (6, 5, 4 angstrom" in refused(project.star())


def test_tomograms_that_hold_no_search(project, refused):
    voxels = np.random.default_rng(5).standard_normal(SHAPE)
    voxels[3, 17, 40:44] = voxels[5, 1, 2:10] = np.nan
    project.volume("tomogram.mrc", voxels)
    text = "tomo_name = tomogram.mrc: 12 non-finite voxels, first at (z,y,x) = (3,17,40)"
    assert text in refused(project.star(), *THREADS)
    project.volume("tomogram.mrc", np.full(SHAPE, 2.5))
    text = "tomo_name = tomogram.mrc: tomogram is constant (2.5 everywhere)"
    assert text in refused(project.star(), *THREADS)


def test_inverted_tilts(project, refused):
    noise = np.random.default_rng(2).standard_normal((48,) * 3)
    frequencies = half_frequencies(noise.shape, VOXEL)
    series, band = TiltSeries(angles=[-40.0, 66.0], is_range=True), BandPass(lp_rad=12)
    wedge = tomogram_filter(*frequencies, BOX, VOXEL, series, band)
    project.volume("tomogram.mrc", np.fft.irfftn(np.fft.rfftn(noise) * wedge))
    project.wedge(tilts=range(-66, 42, 2))
    text = refused(project.star(), *THREADS)
    assert "params.star line" in text
    assert "tomo_name = tomogram.mrc: tilt angles look inverted (power ratio 0." in text
    assert text.endswith("set tilt_sign: -1")


def test_what_does_not_fit_is_refused_with_the_figures(project, refused, monkeypatch):
    text = refused(project.star(), "--memory", "1MiB", status=3)
    assert text.startswith("smallest tile needs 0.0")
    assert "GiB, a worker has 0.000977 GiB" in text
    usage = shutil.disk_usage(project.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2**20))
    assert "0.000977 GiB are free" in refused(project.star(), status=3)


def test_impossible_tilings(project, refused):
    assert "ntiles = 997: no grid of tiles has exactly that many" in refused(project.star(), "-n", "997")
    assert "tile shape 16: expected an even length above 23 (box - 1)" in refused(
        project.star(), "--tile-shape", "16,64,64"
    )
    assert "--tile-shape 64: expected three lengths Z,Y,X" in refused(project.star(), "--tile-shape", "64")


@pytest.mark.parametrize("name", ["scores_0_17.mrc", "angles_0_17.csv", "scores_0_17.zarr"])
def test_results_are_not_replaced_unasked(project, refused, name):
    (project.folder / "out").mkdir()
    project.text(f"out/{name}", "precious")
    assert refused(project.star()) == f"{name} exists; use --overwrite"
    assert (project.folder / "out" / name).read_text() == "precious"


def test_rows_that_write_the_same_result(project, refused):
    native = "{tomogram: tomogram.mrc, template: template.mrc, mask: mask.mrc, angles: {step: 60}}"
    path = project.text("params.yaml", f"- {native}\n- {native}\n")
    assert "tomogram.zarr: 2 rows write this result; give them different names" in refused(path)


def stop(progress):
    raise KeyboardInterrupt


def test_an_unfinished_run_is_continued_only_as_it_was_begun(project, refused):
    runs = open_runs(read_parameters(project.star()), Resources())
    with pytest.raises(KeyboardInterrupt):
        execute(runs, listen=stop)
    assert runs[0].store.exists()
    text = refused(project.star())
    assert text == "scores_0_17.partial.zarr is unfinished; use --resume or --overwrite"
    text = refused(project.star(lp_rad="11"), "--resume")
    assert "differs from the unfinished run: lp_rad 10 -> 11" in text
    project.text("angles.csv", "0,0,0\n30,60,90\n60,60,60\n")
    assert "differs from the unfinished run: " in refused(project.star(), "--resume")
    assert "anglist_name" in refused(project.star(), "--resume")


def test_a_finished_run_is_skipped_only_as_it_was(project, refused, capsys):
    execute(open_runs(read_parameters(project.star()), Resources()))
    assert refused(project.star()) == "scores_0_17.zarr exists; use --overwrite"
    text = refused(project.star(lp_rad="11"), "--resume")
    assert text == "differs from the finished scores_0_17.zarr: lp_rad 10 -> 11"
    assert run(["match-tomogram", str(project.star()), "--resume", *THREADS]) == 0
    assert "scores_0_17.zarr is finished, skipped" in capsys.readouterr().err
    assert run(["match-tomogram", str(project.star(lp_rad="11")), "--overwrite", *THREADS]) == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"not a volume", "truncated, expected a header of 1024 bytes, found 12"), (b"\0" * 2000, "")],
)
@pytest.mark.parametrize(
    ("column", "name"),
    [("tomo_name", "tomogram.mrc"), ("tmpl_name", "template.mrc"), ("mask_name", "mask.mrc")],
)
def test_files_that_are_no_volumes(project, refused, column, name, content, message):
    (project.folder / name).write_bytes(content)
    assert f"(row 0): {column}: {name}: {message}" in refused(project.star())


def test_folders_in_the_place_of_files_and_the_reverse(project, refused):
    assert "tmpl_name: " in refused(project.star(tmpl_name="."))
    for name in ("angles.csv", "angles.csv/deeper"):
        text = refused(project.star(outputdir=name))
        assert f"outputdir = {project.folder / name}: {project.folder / 'angles.csv'} is no directory" in text


def test_a_row_of_bad_voxels_is_found_before_the_rows_before_it_are_searched(project, refused):
    voxels = np.random.default_rng(5).standard_normal(SHAPE)
    voxels[3, 17, 40] = np.nan
    project.volume("broken.mrc", voxels)
    native = "template: template.mrc, mask: mask.mrc, angles: angles.csv, output: out"
    rows = "".join(f"- {{tomogram: {name}.mrc, {native}}}\n" for name in ("tomogram", "broken"))
    text = "params.yaml row 1: tomogram = broken.mrc: 1 non-finite voxels, first at (z,y,x) = (3,17,40)"
    assert text in refused(project.text("params.yaml", rows))
    assert not (project.folder / "out").exists()


def test_a_dry_run_writes_nothing(project, capsys):
    path = project.star()
    before = set(project.folder.rglob("*"))
    assert run(["match-tomogram", str(path), "--dry-run"]) == 0
    assert "2 rotations x 1 tiles" in capsys.readouterr().out
    assert set(project.folder.rglob("*")) == before


def test_the_process_leaves_with_the_status(project):
    start = "import sys; from cryodask.cli.main import main; main(sys.argv[1:])"
    words = [sys.executable, "-c", start, "match-tomogram", str(project.star(lp_rad="40"))]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("lp_rad = 40: expected 0 < lp_rad <= 12")
    assert "Traceback" not in done.stderr
