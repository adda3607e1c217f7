"""Leopard-EM's configuration: read as it is, wrong values named in one line."""

import copy
from typing import Any

import numpy as np
import pytest
import yaml

from cryodask.errors import ClusterError, InputError
from cryodask.jobs.messages import Source
from cryodask.jobs.micrograph_matching.computing_block import ComputationalConfig
from cryodask.jobs.micrograph_matching.config import MatchConfig

EXAMPLE = """\
template_volume_path: /some/path/to/template.mrc
micrograph_path: /some/path/to/micrograph.mrc
match_template_result:
  allow_file_overwrite: true
  mip_path: output_mip.mrc
  scaled_mip_path: output_scaled_mip.mrc
  orientation_psi_path: output_orientation_psi.mrc
  orientation_theta_path: output_orientation_theta.mrc
  orientation_phi_path: output_orientation_phi.mrc
  relative_defocus_path: output_relative_defocus.mrc
  correlation_average_path: output_correlation_average.mrc
  correlation_variance_path: output_correlation_variance.mrc
optics_group:
  label: some_label
  voltage: 300.0
  pixel_size: 1.06
  defocus_u: 5200.0
  defocus_v: 4950.0
  astigmatism_angle: 25.0
  spherical_aberration: 2.7
  amplitude_contrast_ratio: 0.07
  phase_shift: 0.0
  ctf_B_factor: 60.0
defocus_search_config: {defocus_max: 1200.0, defocus_min: -1200.0, defocus_step: 200.0, enabled: true}
orientation_search_config: {base_grid_method: uniform, psi_step: 1.5, theta_step: 2.5, symmetry: C1}
preprocessing_filters:
  whitening_filter: {enabled: true, do_power_spectrum: true, max_freq: 0.5, num_freq_bins: null}
  bandpass_filter: {enabled: false, falloff: null, high_freq_cutoff: null, low_freq_cutoff: null}
computational_config: {gpu_ids: [0], num_cpus: 1}
"""


def with_value(key: str, value: Any) -> dict[str, Any]:
    mapping = copy.deepcopy(yaml.safe_load(EXAMPLE))
    at = mapping
    *parents, last = key.split(".")
    for parent in parents:
        at = at.setdefault(parent, {})
    at[last] = value
    return mapping


def test_a_configuration_of_leopard_em_is_read_as_it_is(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(EXAMPLE)
    config = MatchConfig.from_yaml(path)
    assert len(config.orientation_search_config.angles()) == 1_584_480
    np.testing.assert_allclose(config.defocus_search_config.values(), np.arange(-1200, 1201, 200))
    assert config.match_template_result is not None
    assert config.match_template_result.paths["mip_path"] == "output_mip.mrc"
    assert (config.micrograph_name, config.template_name) == ("micrograph", "template")


OWN = "preprocessing_filters"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "defocus_search_config.defocus_stp",
            1,
            r"unknown key defocus_search_config.defocus_stp \(did you mean defocus_step\?\)",
        ),
        (
            "orientation_search_config.phi_max",
            90,
            "symmetry = C1: given beside phi_max = 90; give one, set the other to null",
        ),
        ("orientation_search_config.symmetry", "X3", r"symmetry = X3: expected C<n>, D<n>, T, O or I"),
        ("orientation_search_config.symmetry", "C0", r"symmetry = C0: expected C<n>, D<n>, T, O or I"),
        ("orientation_search_config.theta_step", 0, "theta_step = 0: expected more than 0 degrees"),
        ("orientation_search_config.psi_step", "a", "psi_step = a: expected a number"),
        ("orientation_search_config.base_grid_method", "basic", "basic: not supported, use uniform"),
        ("defocus_search_config.defocus_step", -5, "defocus_step = -5: expected more than 0 angstrom"),
        (
            "defocus_search_config.defocus_max",
            -2000,
            "defocus_max = -2000.0: expected at least defocus_min = -1200",
        ),
        ("optics_group.voltage", 300000, "voltage = 300000: expected 60 to 1000 kV"),
        ("optics_group.spherical_aberration", 27000, "spherical_aberration = 27000: expected 0 to 10 mm"),
        ("optics_group.amplitude_contrast_ratio", 7, "= 7: expected a fraction, 0 <= w < 1"),
        ("optics_group.amplitude_contrast_ratio", 1, "= 1: expected a fraction, 0 <= w < 1"),
        ("optics_group.beam_tilt_x", 0.3, "beam_tilt_x = 0.3: not supported, use odd_zernikes"),
        ("optics_group.mag_matrix", [1, 1, 1, 1], "expected a matrix that can be inverted"),
        ("movie_config", {"enabled": True}, "movie_config = .*: not supported, align the movie first"),
        ("match_template_result.hdf5_path", "a.h5", "hdf5_path = a.h5: not supported, the Zarr result"),
        (f"{OWN}.random_fourier_dropout", {"enabled": True}, "enabled = True: not supported"),
        (
            f"{OWN}.bandpass_filter",
            {"enabled": True, "low_freq_cutoff": 0.4, "high_freq_cutoff": 0.2},
            "low_freq_cutoff = 0.4: expected less than high_freq_cutoff = 0.2",
        ),
        (
            f"{OWN}.arbitrary_curve_filter",
            {"enabled": True, "frequencies": [0.2, 0.1], "amplitudes": [1, 1]},
            "frequencies = .*: expected strictly rising",
        ),
        (
            f"{OWN}.arbitrary_curve_filter",
            {"enabled": True, "frequencies": [0.1, 0.2], "amplitudes": [1]},
            "amplitudes = 1 values: expected one for each of 2 frequencies",
        ),
        (
            f"{OWN}.phase_randomization_filter",
            {"enabled": True},
            "cuton = None: expected more than 0 cycles per pixel when enabled",
        ),
        ("computational_config.gpu_ids", "x", "gpu_ids = x: expected a device number"),
        ("cryodask.spectra", "half", "spectra = half: not supported, spectra are of single precision"),
        ("cryodask.padding", 3, "cryodask.padding = 3: expected 1 or 2"),
        ("cryodask.gridding", "sinc", "cryodask.gridding = sinc: expected none or sinc2"),
        ("cryodask", {"bin_to": 4.0, "crop": "same"}, "cryodask.crop = same: not supported beside bin_to"),
        ("optics_group", None, "optics_group is required"),
    ],
)
def test_a_wrong_value_is_one_line(key, value, message):
    with pytest.raises(InputError, match=rf"config\.yaml: .*{message}"):
        MatchConfig.from_mapping(with_value(key, value), source=Source("config.yaml"))


def test_ranges_need_no_symmetry_and_several_grids_are_concatenated():
    ranges = {"phi_min": 0, "phi_max": 90, "psi_step": 30, "theta_step": 30, "symmetry": None}
    one = MatchConfig.from_mapping(with_value("orientation_search_config", ranges))
    rows = one.orientation_search_config.angles()
    assert rows[:, 0].max() <= 90 and one.orientation_search_config.groups == ()
    two = {"orientation_configs": [ranges, {"psi_step": 90, "theta_step": 90}]}
    both = MatchConfig.from_mapping(with_value("orientation_search_config", two))
    found = both.orientation_search_config.angles()
    np.testing.assert_array_equal(found[: len(rows)], rows)
    assert len(found) == len(rows) + 24
    assert both.orientation_search_config.groups == ("C1",)


def test_compat_restores_the_sign_of_astigmatism_and_the_overshooting_lists():
    config = MatchConfig.from_mapping(with_value("optics_group.defocus_u", 4000.0))
    ours, theirs = config.optics_group.ctf(), config.optics_group.ctf(compat="leopard-em-1.2")
    assert (ours.defocus_u, ours.defocus_v) == (4000, 4950)
    assert (theirs.defocus_u, theirs.defocus_v) == (4950, 4000)
    wide = {"pixel_size_search_config": {"enabled": True}}
    own = MatchConfig.from_mapping(with_value("cryodask", wide)).cryodask.pixel_size_search_config
    assert len(own.values()) == 11 and len(own.values("leopard-em-1.2")) == 12


def test_devices_named_in_the_configuration():
    def option(gpu_ids, present):
        return ComputationalConfig(gpu_ids=gpu_ids).device_option(present)

    assert option(None, 0) == ("cpu", None)
    assert option([0], 0) == ("cpu", "gpu_ids = (0,): no CUDA device here, CPU workers")
    assert option("cpu", 2) == ("cpu", None)
    assert option("all", 2) == ("cuda", None)
    assert option(["cuda:1", "cuda:0"], 2) == ("cuda:1,0", None)
    with pytest.raises(ClusterError, match=r"gpu_ids = 3: 1 CUDA device\(s\) found; use gpu_ids: cpu or"):
        option(3, 1)


def test_a_file_that_is_no_mapping_is_refused(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("- 1\n- 2\n")
    with pytest.raises(InputError, match=r"config\.yaml: expected a mapping of keys, found list"):
        MatchConfig.from_yaml(path)
    with pytest.raises(InputError, match=r"none\.yaml: no such file"):
        MatchConfig.from_yaml(tmp_path / "none.yaml")
