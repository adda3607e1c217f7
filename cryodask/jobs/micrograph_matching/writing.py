"""Configurations as YAML: one to fill in, and conversions between Leopard-EM's form and cryodask's."""

from pathlib import Path
from typing import Any

import yaml

from cryodask.io.files import written_whole
from cryodask.jobs.micrograph_matching.config import MatchConfig
from cryodask.jobs.micrograph_matching.result import MAP_FILES

# Keys that Leopard-EM 1.2 does not know.
NEWER = {"match_template_result": {"hdf5_path", "compress", "correlation_table_path"}}

TEMPLATE = """\
# Lengths in angstrom, angles in degrees; paths are relative to the working folder.
template_volume_path: REQUIRED     # MRC, or a PDB or mmCIF model (see cryodask.template_model)
micrograph_path: REQUIRED          # MRC; or `micrographs: STAR` of RELION instead, without optics_group
optics_group:
  label: REQUIRED
  pixel_size: REQUIRED
  voltage: REQUIRED                # kV
  defocus_u: REQUIRED              # underfocus is positive
  defocus_v: REQUIRED
  astigmatism_angle: REQUIRED      # of u, from x towards y
  spherical_aberration: 2.7        # mm
  amplitude_contrast_ratio: 0.07
  phase_shift: 0.0
  ctf_B_factor: 0.0                # angstrom^2
defocus_search_config: {enabled: true, defocus_min: -1000, defocus_max: 1000, defocus_step: 200}
orientation_search_config: {base_grid_method: uniform, psi_step: 1.5, theta_step: 2.5, symmetry: C1}
preprocessing_filters:             # cycles per pixel
  whitening_filter: {enabled: true, do_power_spectrum: true, max_freq: 0.5, num_freq_bins: null}
  bandpass_filter: {enabled: false, low_freq_cutoff: null, high_freq_cutoff: null, falloff: null}
cryodask:
  statistics: moments              # local adds z-scores against the surroundings, for symmetric particles
  bin_to: null                     # search at this resolution
  mask_path: null                  # where particles may lie
"""


def write_template(path: Path, *, overwrite: bool) -> None:
    """Write a configuration to fill in."""
    with written_whole(path, overwrite=overwrite) as temporary:
        temporary.write_text(TEMPLATE, encoding="utf-8")


def write_leopard_em(config: MatchConfig, path: Path, *, overwrite: bool) -> list[str]:
    """Write a configuration for Leopard-EM 1.2 and return what that program does not know and is left out.

    Leopard-EM wants all map files; those that are not named get names from the micrograph.
    """
    values = config.model_dump(mode="json")
    own = values.pop("cryodask")
    values.pop("movie_config")
    values["preprocessing_filters"].pop("random_fourier_dropout")
    if values["match_template_result"] is None:
        stem = config.micrograph_name
        files = {key: f"{stem}_{key.removesuffix('_path')}.mrc" for key in MAP_FILES}
        values["match_template_result"] = {"allow_file_overwrite": False, **files}
    for block, keys in NEWER.items():
        for key in keys:
            values[block].pop(key, None)
    _write(values, path, overwrite=overwrite)
    standard = type(config.cryodask)().model_dump(mode="json")
    return [f"cryodask.{key}" for key, value in own.items() if value != standard[key]]


def write_native(config: MatchConfig, path: Path, *, overwrite: bool) -> None:
    """Write a configuration with every value, those of the `cryodask` block included."""
    values = {key: value for key, value in config.model_dump(mode="json").items() if value is not None}
    _write(values, path, overwrite=overwrite)


def _write(values: dict[str, Any], path: Path, *, overwrite: bool) -> None:
    with written_whole(path, overwrite=overwrite) as temporary:
        temporary.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
