"""Which job a configuration of particles is for; checking, counting and converting it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from cryodask.errors import InputError
from cryodask.io.files import written_whole
from cryodask.jobs.micrograph_matching.constrained import open_constrained
from cryodask.jobs.micrograph_matching.constrained_config import ConstrainedConfig
from cryodask.jobs.micrograph_matching.optimize import open_optimization
from cryodask.jobs.micrograph_matching.optimize_config import OptimizeConfig
from cryodask.jobs.micrograph_matching.refine import open_refinement
from cryodask.jobs.micrograph_matching.refine_config import ParticleConfig, RefineConfig
from cryodask.jobs.yaml_file import read_mapping

# Keys by which a configuration is told; the first that fits.
MARKS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("constrained-search", ("particle_stack_reference", "particle_stack_constrained")),
    ("optimize-template", ("simulator", "pixel_size_coarse_search", "pixel_size_fine_search")),
    ("refine-particles", ("particle_stack",)),
)
MODELS: dict[str, type[ParticleConfig]] = {
    "refine-particles": RefineConfig,
    "constrained-search": ConstrainedConfig,
    "optimize-template": OptimizeConfig,
}
NOWHERE = Path("nowhere.csv")


def job_of(path: Path) -> str | None:
    """Return the verb that a YAML or JSON file is for, None where it is of no job on particles."""
    if path.suffix.lower() not in (".yaml", ".yml", ".json") or not path.is_file():
        return None
    try:
        mapping = read_mapping(path)
    except InputError:
        return None
    return next((job for job, keys in MARKS if any(key in mapping for key in keys)), None)


def read_configuration(path: Path, job: str) -> ParticleConfig:
    """Read a file of a job."""
    return MODELS[job].from_yaml(path)


def counts(config: ParticleConfig, tell: Callable[[str], None]) -> dict[str, Any]:
    """Check the files that a configuration names, and return the size of its search.

    Raises
    ------
    InputError
        A wrong or missing file.
    """
    if isinstance(config, OptimizeConfig):
        work = open_optimization(config, tell=tell)
        return {"particles": len(work.start), "voxel_sizes": len(work.coarse) + len(work.fine(0.0))}
    if isinstance(config, ConstrainedConfig):
        run = open_constrained(config, NOWHERE, overwrite=True, memory=float("inf"), tell=tell)[0]
    elif isinstance(config, RefineConfig):
        run = open_refinement(config, NOWHERE, overwrite=True, memory=float("inf"), tell=tell)
    settings = run.problem.settings
    sizes = {"n_o": run.problem.hypotheses, "n_d": len(settings.defocus), "n_p": len(settings.pixel_sizes)}
    total = sizes["n_o"] * sizes["n_d"] * sizes["n_p"]
    return {"particles": run.plan.shape[0], **sizes, "M": total, "shifts": (2 * settings.reach + 1) ** 2}


def convert_configuration(path: Path, output: Path, *, to: str, overwrite: bool) -> list[str]:
    """Write a configuration with all values, for Leopard-EM or for cryodask.

    Parameters
    ----------
    path, output
        YAML or JSON to read, YAML to write.
    to
        ``leopard-em`` drops the `cryodask` block; ``cryodask`` keeps it.
    overwrite
        Replace an existing file.

    Returns
    -------
    list of str
        The keys that were dropped though they were set.

    Raises
    ------
    InputError
        A wrong configuration; a file that exists.
    """
    job = job_of(path)
    if job is None:
        raise InputError(f"{path.name}: no configuration of a job on particles")
    given = read_mapping(path)
    values = MODELS[job].from_yaml(path).model_dump(mode="json")
    dropped = []
    if to == "leopard-em":
        values.pop("cryodask")
        dropped = [f"cryodask.{key}" for key in (given.get("cryodask") or {})]
    with written_whole(output, overwrite=overwrite) as temporary:
        temporary.write_text(yaml.safe_dump(_without_none(values), sort_keys=False), encoding="utf-8")
    return dropped


def template_text(job: str, *, defaults: bool) -> str:
    """Return a configuration to fill in as YAML; `REQUIRED` stands where a value must be given."""
    return yaml.safe_dump(_template(MODELS[job], defaults), sort_keys=False)


def _template(model: Any, defaults: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, item in model.model_fields.items():
        nested = _nested(item.annotation)
        if item.is_required():
            found[name] = _template(nested, defaults) if nested else "REQUIRED"
        elif defaults and item.default is not None:
            default = item.default
            value = default.model_dump(mode="json") if hasattr(default, "model_dump") else default
            found[name] = _without_none(value) if isinstance(value, dict) else _plain(value)
    if model is OptimizeConfig:
        found["template_volume_path"] = "REQUIRED"
    return found


def _nested(annotation: Any) -> Any:
    """Return the model of a field, if its value is one."""
    options = [annotation, *getattr(annotation, "__args__", ())]
    return next((option for option in options if hasattr(option, "model_fields")), None)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping without keys that are None, which is their default."""
    found = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found[key] = _without_none(value)
        elif value is not None:
            found[key] = value
    return found
