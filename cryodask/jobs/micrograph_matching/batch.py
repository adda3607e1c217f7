"""From one configuration to the pairs it stands for: many micrographs, many templates."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryodask.errors import InputError
from cryodask.io.image import read_image_header
from cryodask.io.relion_micrographs import read_micrographs
from cryodask.jobs.messages import Source
from cryodask.jobs.micrograph_matching.config import MatchConfig
from cryodask.jobs.yaml_file import read_mapping

PIXEL_TOLERANCE = 0.01
TEMPLATE_KEYS = {"name", "path", "symmetry", "template_pixel_size"}


def read_configs(
    path: str | Path,
    *,
    micrographs: str | Path | None = None,
    templates: Sequence[str] = (),
    compat: str | None = None,
    ignore_aberrations: bool = False,
    allow_small_defocus: bool = False,
) -> tuple[list[MatchConfig], list[str]]:
    """Read a configuration and return one for each pair of template and micrograph, template by template.

    Parameters
    ----------
    path
        YAML or JSON: that of Leopard-EM, or with `micrographs` and `templates` in the place of
        `micrograph_path` and `template_volume_path`.
    micrographs
        RELION's micrographs_ctf.star, in place of what the file says.
    templates
        ``NAME=FILE`` each, in place of what the file says.
    compat
        Conventions of another program.
    ignore_aberrations
        Take STAR files with aberrations that are not applied.
    allow_small_defocus
        Take defoci below 10 angstrom.

    Returns
    -------
    configs, notices

    Raises
    ------
    InputError
        A wrong value, file or combination.
    """
    source, mapping = Source(Path(path).name), read_mapping(path)
    if compat is not None:
        mapping["cryodask"] = {**_block(mapping, "cryodask", source), "compat": compat}
    if "micrographs" in mapping and "micrograph_path" in mapping:
        raise source.error("micrograph_path and micrographs given, choose one")
    written = mapping.pop("micrographs", None)
    star = written if micrographs is None else micrographs
    entries = _template_entries(mapping, templates, source)
    rows, notices = _micrograph_rows(mapping, star, source, ignore_aberrations)
    if len(entries) * len(rows) > 1 and mapping.pop("match_template_result", None) is not None:
        notices.append("match_template_result: no map files of several pairs; their maps are in the result")
    configs = [
        MatchConfig.from_mapping(_pair(mapping, entry, row), source=source)
        for entry in entries
        for row in rows
    ]
    if not allow_small_defocus:
        _refuse_micrometres(configs)
    return configs, notices


def _refuse_micrometres(configs: Sequence[MatchConfig]) -> None:
    for config in configs:
        optics = config.optics_group
        if optics.looks_like_micrometres:
            raise config.source.error(
                f"optics_group.defocus_u = {optics.defocus_u:g}, defocus_v = {optics.defocus_v:g}: expected "
                "angstrom; looks like micrometres (--allow-small-defocus takes them as they are)"
            )


def _block(mapping: Mapping[str, Any], key: str, source: Source) -> dict[str, Any]:
    value = mapping.get(key) or {}
    if not isinstance(value, Mapping):
        raise source.wrong(key, value, "expected a mapping")
    return dict(value)


def _template_entries(mapping: dict[str, Any], given: Sequence[str], source: Source) -> list[dict[str, Any]]:
    written = mapping.pop("templates", None)
    if given:
        return [_named(text) for text in given]
    if written is None:
        return [{}]
    if "template_volume_path" in mapping:
        raise source.error("template_volume_path and templates given, choose one")
    if not isinstance(written, list) or not written:
        raise source.wrong("templates", written, "expected a list of {name, path}")
    for number, entry in enumerate(written):
        if not isinstance(entry, Mapping) or "path" not in entry:
            raise source.wrong(f"templates.{number}", entry, "expected {name, path}")
        unknown = sorted(set(entry) - TEMPLATE_KEYS)
        if unknown:
            raise source.error(f"unknown key templates.{number}.{unknown[0]}")
    return [dict(entry) for entry in written]


def _named(text: str) -> dict[str, Any]:
    name, equals, path = text.partition("=")
    if not equals or not name or not path:
        raise InputError(f"--template {text}: expected NAME=FILE")
    return {"name": name, "path": path}


def _micrograph_rows(
    mapping: dict[str, Any], star: Any, source: Source, ignore_aberrations: bool
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the optics and path of each micrograph; one empty row where the file names one itself."""
    if star is None:
        return [{}], []
    mapping.pop("micrograph_path", None)
    table = read_micrographs(star, ignore_aberrations=ignore_aberrations)
    overrides = _block(mapping, "optics_group", source)
    rows = []
    for row in table.to_dict("records"):
        values = {str(key): value for key, value in row.items()}
        line, path = values.pop("line"), values.pop("micrograph_path")
        _check_pixel_size(Path(star).name, line, path, values["pixel_size"])
        label = Path(path).stem
        rows.append({"micrograph_path": path, "optics_group": {"label": label, **values, **overrides}})
    named = ", ".join(sorted(set(overrides) & (set(table.columns) | {"label"}) - {"label"}))
    return rows, [f"optics_group: {named} of the configuration replace those of {star}"] if named else []


def _check_pixel_size(star: str, line: int, path: str, pixel_size: float) -> None:
    stored = read_image_header(path).voxel_size
    if stored is not None and abs(stored / pixel_size - 1) > PIXEL_TOLERANCE:
        raise InputError(
            f"{star} line {line}: pixel size {pixel_size:g}, but {Path(path).name} says {stored:g} angstrom"
        )


def _pair(mapping: Mapping[str, Any], entry: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the mapping of one micrograph with one template."""
    made = {**mapping, **row}
    own = dict(made.get("cryodask") or {})
    if "path" in entry:
        made["template_volume_path"] = entry["path"]
        own["template_name"] = entry.get("name")
    if "template_pixel_size" in entry:
        own["template_pixel_size"] = entry["template_pixel_size"]
    if entry.get("symmetry") is not None:
        search = dict(made.get("orientation_search_config") or {})
        made["orientation_search_config"] = search | {"symmetry": entry["symmetry"]}
    if own:
        made["cryodask"] = own
    return made
