"""The columns of a GAPSTOP parameter STAR and the native key of each."""

# Columns whose text becomes the value of one native key unchanged, in the order of a template file.
PLAIN_COLUMNS: dict[str, str] = {
    "rootdir": "root",
    "outputdir": "output",
    "tomo_name": "tomogram",
    "tomo_num": "tomo_num",
    "tomo_mask_name": "tomogram_mask",
    "wedgelist_name": "tilts",
    "tmpl_name": "template",
    "mask_name": "mask",
    "symmetry": "symmetry",
    "anglist_name": "angles.file",
    "anglist_order": "angles.order",
    "angincr": "angles.step",
    "phi_angincr": "angles.inplane_step",
    "smap_name": "names.score",
    "omap_name": "names.angles",
    "tmap_name": "names.noise",
    "lp_rad": "lp_rad",
    "lp_sigma": "lp_sigma",
    "hp_rad": "hp_rad",
    "hp_sigma": "hp_sigma",
    "binning": "binning",
    "apply_laplacian": "laplacian",
    "scoring_fcn": "score",
    "write_raw": "write_raw",
}

# Columns that need a word of translation, and the native key they set.
TRANSLATED_COLUMNS: dict[str, str] = {
    "vol_ext": "formats",
    "angiter": "angles.cone",
    "phi_angiter": "angles.inplane_range",
    "calc_exp": "dose",
    "calc_ctf": "ctf",
    "noise_corr": "noise_correction",
    "fourier_crop": "search_grid",
}

IGNORED_COLUMNS = ("tiling", "tilelist_name", "tilesize")

COLUMN_OF_KEY: dict[str, str] = {
    key: column for table in (PLAIN_COLUMNS, TRANSLATED_COLUMNS) for column, key in table.items()
}

REQUIRED_COLUMNS: tuple[str, ...] = (
    "rootdir",
    "tomo_name",
    "tomo_num",
    "wedgelist_name",
    "tmpl_name",
    "mask_name",
    "lp_rad",
    "hp_rad",
)

# The native key that may stand in for a required column.
STAND_INS: dict[str, tuple[str, ...]] = {
    "tmpl_name": ("templates", "template"),
    "mask_name": ("mask", "templates"),
    "lp_rad": ("lowpass",),
    "hp_rad": ("highpass",),
    "wedgelist_name": ("tilts",),
    "tomo_name": ("tomogram",),
    "rootdir": ("root",),
}
