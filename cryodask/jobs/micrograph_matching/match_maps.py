"""The maps of matched micrographs to pick from: a folder of Leopard-EM's maps, or a result store."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from cryodask.errors import InputError
from cryodask.io.leopard_em import Meaning
from cryodask.io.map_files import map_shape, read_map
from cryodask.jobs.micrograph_matching.config import MatchConfig
from cryodask.jobs.micrograph_matching.optics_block import OpticsGroup
from cryodask.jobs.micrograph_matching.result import FULL_MEAN, FULL_STD, LOCAL, MAP_FILES, RESCORED
from cryodask.picking.image_picks import MatchMaps
from cryodask.results.orientation_maps import NOT_SEARCHED

# Of each map: its key in the configuration, and its column in the table.
MAP_KEYS = {
    "mip": ("mip_path", "mip_path"),
    "scaled_mip": ("scaled_mip_path", "scaled_mip_path"),
    "mean": ("correlation_average_path", "correlation_average_path"),
    "std": ("correlation_variance_path", "correlation_variance_path"),
    "phi": ("orientation_phi_path", "phi_path"),
    "theta": ("orientation_theta_path", "theta_path"),
    "psi": ("orientation_psi_path", "psi_path"),
    "defocus": ("relative_defocus_path", "defocus_path"),
}


def map_folder(path: str, *, variance_is: Meaning = "std") -> MatchMaps:
    """Read the maps that a match_template configuration names.

    Parameters
    ----------
    path
        YAML or JSON of Leopard-EM or cryodask, whose maps are written.
    variance_is
        What the map of correlation_variance holds; Leopard-EM writes the standard deviation there.

    Raises
    ------
    InputError
        A wrong configuration; a missing map; maps of another shape than micrograph - template + 1.
    """
    config = MatchConfig.from_yaml(path)
    if config.match_template_result is None:
        raise config.source.error("match_template_result is required, to say where the maps are")
    files = {name: getattr(config.match_template_result, key) for name, (key, _) in MAP_KEYS.items()}
    edge, valid = _expected(config)
    for name, file in files.items():
        label = f"{config.source.place}match_template_result.{MAP_KEYS[name][0]}"
        found = map_shape(file, label)
        if found != valid:
            raise InputError(
                f"{label} = {file}: {found[0]} x {found[1]}, expected {valid[0]} x {valid[1]} "
                f"(micrograph less a template of {edge} px, plus 1)"
            )
    maps = {name: read_map(file) for name, file in files.items()}
    maps["std"] = np.sqrt(maps["std"]) if variance_is == "variance" else maps["std"]
    columns = {column: str(files[name]) for name, (_, column) in MAP_KEYS.items()}
    return MatchMaps(
        **maps,
        hypotheses=count_hypotheses(config),
        edge=edge,
        facts={**optics_facts(config.optics_group), **_places(config), **columns},
        source=Path(path).name,
    )


def store_maps(path: str) -> list[MatchMaps]:
    """Read the maps of a result store, one for each micrograph and template.

    Raises
    ------
    InputError
        An unfinished run, or a store without such maps.
    """
    place = Path(path)
    if place.name.endswith(".partial.zarr"):
        raise InputError(f"{path}: an unfinished run; finish it with --resume")
    groups = sorted(found.parent.parent for found in place.glob("**/scaled_mip/zarr.json"))
    if not groups:
        raise InputError(f"{path}: no result of match-micrograph, it has no scaled_mip")
    return [dataset_maps(xr.open_zarr(group, consolidated=False), str(group)) for group in groups]


def dataset_maps(dataset: xr.Dataset, source: str | None = None) -> MatchMaps:
    """Return the maps of a result of match-micrograph.

    Parameters
    ----------
    dataset
        Stored or lazy.
    source
        Path of the store, which tables then name for maps that are no files.
    """
    facts = dataset.attrs
    names = ("mip", "scaled_mip", "score_mean", "score_std", "defocus", "orientation")
    wanted = [*names, *(name for name in (LOCAL, "hypothesis", "pixel_size", RESCORED) if name in dataset)]
    maps = {name: dataset[name].values for name in wanted}
    searched = maps["orientation"] != NOT_SEARCHED
    angles = dataset["euler"].values[np.where(searched, maps["orientation"], 0)].astype(np.float32)
    optics = OpticsGroup.model_validate_json(facts["optics"])
    return MatchMaps(
        mip=maps["mip"],
        scaled_mip=np.where(searched, maps["scaled_mip"], np.float32(np.nan)),
        mean=maps["score_mean"],
        std=maps["score_std"],
        phi=angles[..., 0],
        theta=angles[..., 1],
        psi=angles[..., 2],
        defocus=maps["defocus"],
        hypotheses=int(facts["total_projections"]),
        edge=int(facts["template_box"]),
        pixel_size=maps.get("pixel_size"),
        local=maps.get(LOCAL),
        hypothesis=maps.get("hypothesis"),
        exact=maps[RESCORED] > 0 if RESCORED in maps else None,
        rows=dataset["y_index"].values,
        columns=dataset["x_index"].values,
        facts={**optics_facts(optics), **_stored_places(dataset, source)},
        source=source or str(facts["micrograph_name"]),
    )


def _stored_places(dataset: xr.Dataset, source: str | None) -> dict[str, str]:
    """Return the paths of a result's table: map files where they are, else variables of the store."""
    keys = ("micrograph_path", "template_path", "micrograph_name", "template_name")
    places = {key: str(dataset.attrs[key]) for key in keys}
    files = json.loads(dataset.attrs.get("map_files", "{}"))
    for key, column in MAP_KEYS.values():
        file = files.get(key, "")
        stored = f"{source}/{MAP_FILES[key]}" if source and MAP_FILES[key] in dataset else ""
        places[column] = file if file and Path(file).exists() else stored
    full = {"correlation_average_path": FULL_MEAN, "correlation_variance_path": FULL_STD}
    if source and FULL_MEAN in dataset:  # a refinement looks at full-size positions
        places |= {column: f"{source}/{name}" for column, name in full.items()}
    return places


def count_hypotheses(config: MatchConfig) -> int:
    """Return M: orientations x defoci x pixel sizes of a configuration."""
    own = config.cryodask
    defoci = config.defocus_search_config.values(own.compat)
    sizes = own.pixel_size_search_config.values(own.compat)
    return len(config.orientation_search_config.angles()) * len(defoci) * len(sizes)


def optics_facts(optics: OpticsGroup) -> dict[str, Any]:
    """Return the columns of the particle table that describe the microscope."""
    values = optics.model_dump(exclude={"label"})
    names = (
        *("defocus_u", "defocus_v", "astigmatism_angle", "pixel_size", "voltage", "spherical_aberration"),
        *("amplitude_contrast_ratio", "phase_shift", "ctf_B_factor"),
    )
    settings = {name: values[name] for name in ("even_zernikes", "odd_zernikes", "mag_matrix")}
    texts = {name: "" if value is None else json.dumps(value) for name, value in settings.items()}
    return {name: values[name] for name in names} | texts


def _places(config: MatchConfig) -> Mapping[str, str]:
    return {
        "micrograph_path": config.micrograph_path,
        "template_path": config.template_volume_path,
        "micrograph_name": config.micrograph_name,
        "template_name": config.template_name,
    }


def _expected(config: MatchConfig) -> tuple[int, tuple[int, int]]:
    """Return the template's edge and the shape of the valid region."""
    from cryodask.jobs.micrograph_matching.template_input import open_template

    own = config.cryodask.template_model
    if own is not None:
        edge = own.box
    else:
        with config.source.placed("template_volume_path"):
            edge = open_template(config.template_volume_path, 1.0, "ignore_header").edge
    height, width = map_shape(config.micrograph_path, f"{config.source.place}micrograph_path")
    shape = (height - edge + 1, width - edge + 1)
    return edge, (height, width) if config.cryodask.crop == "same" else shape
