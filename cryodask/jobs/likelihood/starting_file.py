"""The commented configuration that `cryodask config init likelihood` writes."""

from pathlib import Path
from typing import Any

import yaml

from cryodask.jobs.likelihood.parameters import LikelihoodParameters

# block, key, value, comment; a value of None is written as a comment
REQUIRED = """\
# Likelihood of structures given particle images: cryodask likelihood FILE
# Lengths in angstrom, angles in degrees unless a comment says radians; paths relative to this file.
images: REQUIRED              # STAR, .cs, MRC, .npy, EMAN HDF, Zarr, CryoLike's folder; or a list
structures:                   # maps, PDB, mmCIF, text models (.txt), templates of cryodask make-templates
  - {name: first, path: REQUIRED}
  - {name: second, path: REQUIRED}
  # more keys of an entry: kind: map|atoms|text|templates, models: first|all|"1-18", select: "name CA",
  # voxel_size (map without one), symmetry: C1, prior: 1 (relative weight), i_template: all or a place
output: likelihood.zarr       # or -o
"""
DEFAULTS = """\
image_options:
  select: all                 # rows from 0 "0-999,1500", or a condition: "rlnClassNumber == 2"
  n_stacks: all               # only the first so many files of images
  contrast: white             # white or dark particles
  downsample: 1               # even factor
  downsample_method: crop     # crop the spectrum; mean or max pool pixels, as CryoLike
  optics: file                # none, or {voltage: 300, cs: 2.7, amplitude_contrast: 0.1, defocus_u: 12000}
  # root: FOLDER              # of the images that a STAR or .cs file names
  # pixel_size: 1.0           # angstrom, instead of that of the files
grid:
  resolution_factor: 1.0      # highest frequency over Nyquist; or resolution: angstrom
  # n_inplanes: 256           # in-plane rotations, even; twice the box if left out
  precision: single           # or double
  max_displacement_pixels: 8
  n_displacements_x: 17
  n_displacements_y: 17
  # viewing_distance: 0.08    # radians; 1/(4 pi resolution_factor) if unset; {step: deg}; {healpix: nside}
atoms:
  model: residue_gaussian     # residue_sphere, atom_gaussian, atom_sphere, scattering
  radius: table               # or angstrom
  selection: name CA
  weight: electrons           # or shape
  b_factor: 0.0               # added, angstrom^2 (scattering)
  hydrogens: false
  centre: mean                # mass, none
likelihood:
  score: cc                   # the best pose: largest correlation, or posterior
  scale: positive             # free: contrast-inverted poses count
  offset: exact               # template, none
  effective_samples: disc     # calibrated; pixels as CryoLike, or a number
  noise_prior: variance       # sigma, jeffreys
  credible: 0.95
  displacement_prior: uniform # or {gaussian: angstrom}
  displacement_centre: box    # star: about the origins of the file
keep: [best, likelihood, summary]  # template, rotation, displacement, full, top
top: 10
files: [zarr]                 # star, csv, png, matrix, cryolike (extra torch)
"""


def starting_text(*, defaults: bool) -> str:
    """Return the configuration to fill in, every key with its default and meaning.

    Parameters
    ----------
    defaults
        False: only keys without a default.
    """
    return REQUIRED + DEFAULTS if defaults else REQUIRED


def is_likelihood_file(path: Path) -> bool:
    """Say whether a YAML file is a configuration of a likelihood: it has images and structures."""
    if path.suffix.lower() not in (".yaml", ".yml", ".json") or not path.is_file():
        return False
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return False
    return isinstance(content, dict) and {"images", "structures"} <= set(content)


def count_likelihood(parameters: LikelihoodParameters) -> dict[str, Any]:
    """Open everything that a configuration names and return the size of its search."""
    from cryodask.jobs.disk import scratch_folder
    from cryodask.jobs.likelihood.job import load_inputs
    from cryodask.jobs.likelihood.planning import make_problem

    problem = make_problem(load_inputs(parameters), scratch_folder())
    return {
        "images": problem.images,
        "templates": problem.hypotheses,
        "displacements": len(problem.displacements),
        "rotations": problem.rotations,
    }
