"""Parameter files to fill in: every field with its default, or `REQUIRED`."""

from typing import Literal

from cryodask.jobs.tomogram_matching.native_dialect import REQUIRED

Angles = Literal["list", "increments"]

STAR_BLOCK = "tm_parameters"

# GAPSTOP's columns in the order of its documentation, with the values of a new file.
STAR_FIELDS: dict[str, str] = {
    "rootdir": REQUIRED,
    "outputdir": "outputs/",
    "vol_ext": ".em",
    "tomo_name": REQUIRED,
    "tomo_num": REQUIRED,
    "tomo_mask_name": "none",
    "wedgelist_name": REQUIRED,
    "tmpl_name": REQUIRED,
    "mask_name": REQUIRED,
    "symmetry": "C1",
    "anglist_name": REQUIRED,
    "anglist_order": "zxz",
    "angincr": REQUIRED,
    "angiter": "none",
    "phi_angincr": "none",
    "phi_angiter": "none",
    "smap_name": "scores",
    "omap_name": "angles",
    "tmap_name": "noise",
    "lp_rad": REQUIRED,
    "lp_sigma": "3",
    "hp_rad": REQUIRED,
    "hp_sigma": "2",
    "binning": "1",
    "calc_exp": "False",
    "calc_ctf": "False",
    "apply_laplacian": "False",
    "noise_corr": "True",
    "fourier_crop": "True",
    "scoring_fcn": "flcf",
    "write_raw": "False",
}

LIST_COLUMNS = ("anglist_name", "anglist_order")
INCREMENT_COLUMNS = ("angincr", "angiter", "phi_angincr", "phi_angiter")

# Native keys with the values of a new file and what they mean; lengths in angstrom, angles in degrees.
NATIVE_FIELDS: tuple[tuple[str, str, str], ...] = (
    ("tomogram", REQUIRED, "volume to search: MRC, REC, EM, HDF5 or OME-Zarr"),
    ("level", "0", "resolution level of an OME-Zarr"),
    ("tomo_num", "none", "selects the rows of a wedge list"),
    ("tomo_name", "none", "name in tables and outputs; that of the file if none"),
    ("tomogram_mask", "none", "search only where this volume is in"),
    ("region", "none", "search only {z: [low, high], y: [..], x: [..]}, angstrom"),
    ("tilts", "none", "wedge list, tilt file or [min, max] in degrees; none: no missing wedge"),
    ("defocus_file", "none", "IMOD .defocus, Gctf STAR or CTFFIND text, a row a tilt of the tilt file"),
    ("dose_file", "none", "accumulated dose of each tilt, or an mdoc"),
    ("tilt_com", "none", "IMOD tilt.com, for the tomogram's size and shift"),
    ("tilt_sign", "1", "-1 where the tilt angles have the other sense"),
    ("template", REQUIRED, "what is searched, contrast as in the tomogram"),
    ("contrast", "same", "inverted: the template is multiplied by -1"),
    ("mask", REQUIRED, "volume of weights 0 to 1, or {sphere: radius, edge: width} in angstrom"),
    ("mask_kind", "auto", "spherical, axial or general: what turning the mask changes"),
    ("symmetry", "C1", "point group of the template: Cn, Dn, T, T3, O, I, I1, I2"),
    ("angles", "", ""),
    ("orientations", "none", "{near: table, cone: degrees, inplane_range: degrees, reach: angstrom}"),
    ("lowpass", "none", "finest detail kept, angstrom"),
    ("lowpass_sigma", "none", "its fall-off, 1/angstrom; none: 3 Fourier pixels of the template"),
    ("highpass", "none", "coarsest detail kept, angstrom"),
    ("highpass_sigma", "none", "its fall-off, 1/angstrom; none: 2 Fourier pixels of the template"),
    ("voxel_size", "none", "angstrom; none: from the tilt file or the header"),
    ("binning", "1", "voxel size over the pixel size of a wedge list"),
    ("wedge", "filled", "missing wedge: filled, slices or none"),
    ("dose", "none", "exposure filter: none, grant or bfactor"),
    ("ctf", "none", "CTF filter: none, amplitude (phase-flipped tomogram) or signed"),
    ("noise_correction", "none", "none, ratio or subtract: compare with templates of random phases"),
    ("decoy", "none", "mirror: the mirrored template too, for pick --fdr; doubles the cost"),
    ("noise_copies", "1", "such templates, 1 to 16"),
    ("normalization", "weighted", "weighted, support (cryoCAT) or product (STOPGAP)"),
    ("interpolation", "cubic", "of the rotated template: cubic or linear"),
    ("moments", "true", "mean and standard deviation over the rotations, a voxel"),
    ("statistics_grid", "auto", "auto, exact or coarse: local statistics under a general mask"),
    ("search_grid", "auto", "grid of the search: auto (as coarse as the low-pass allows), full, or a factor"),
    ("boundary", "pad", "of the tomogram: pad or wrap"),
    ("particle_diameter", "none", "angstrom; none: that of the mask"),
    ("seed", "0", "of the noise templates"),
    ("output", "outputs", "folder of the results"),
    ("formats", "[zarr]", "zarr, mrc, em"),
    ("write_raw", "false", "also raw and noise maps in MRC and EM"),
)

NATIVE_ANGLES: dict[Angles, tuple[tuple[str, str, str], ...]] = {
    "list": (
        ("file", REQUIRED, "rotations: CSV, text or PyTom EM"),
        ("order", "zxz", "zxz (phi, theta, psi), zzx (phi, psi, theta) or relion (rot, tilt, psi)"),
        ("units", "none", "degree or radian"),
    ),
    "increments": (
        ("step", REQUIRED, "degrees between neighbours; or {diameter, resolution} in angstrom"),
        ("method", "healpix", "healpix, golden (GAPSTOP) or rings (STOPGAP)"),
        ("cone", "none", "half angle of the cone of directions; none: all"),
        ("inplane_step", "none", "none: as step"),
        ("inplane_range", "none", "+- degrees; none: the full circle"),
    ),
}


def star_fields(angles: Angles, *, defaults: bool = True) -> dict[str, str]:
    """Return the columns of a new parameter STAR with their values.

    Parameters
    ----------
    angles
        Which of the two ways to give rotations the file has.
    defaults
        Whether fields that have a default are written.
    """
    other = INCREMENT_COLUMNS if angles == "list" else LIST_COLUMNS
    return {
        column: value
        for column, value in STAR_FIELDS.items()
        if column not in other and (defaults or value == REQUIRED)
    }


def native_text(angles: Angles, *, defaults: bool = True) -> str:
    """Return the text of a new YAML file, one key a line with what it means; options as in `star_fields`."""
    lines = []
    for key, value, meaning in NATIVE_FIELDS:
        if key == "angles":
            lines.append("angles:")
            inner = NATIVE_ANGLES[angles]
            lines += [f"  {_line(*field)}" for field in inner if defaults or field[1] == REQUIRED]
        elif defaults or value == REQUIRED:
            lines.append(_line(key, value, meaning))
    return "\n".join(lines) + "\n"


def _line(key: str, value: str, meaning: str) -> str:
    return f"{f'{key}: {value}':<28} # {meaning}"
