"""Searches of cryo-EM and cryo-ET data on Dask."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cryodask.errors import CryodaskError, InputError
    from cryodask.geometry.grids import rotation_grid as generate_angles
    from cryodask.geometry.zyz_grids import OrientationGrid
    from cryodask.io.volume import open_volume
    from cryodask.jobs.classify.api import classify, select
    from cryodask.jobs.likelihood.at_poses import likelihood_at
    from cryodask.jobs.likelihood.job import likelihood
    from cryodask.jobs.likelihood.make_templates import make_templates
    from cryodask.jobs.likelihood.reweight import reweight
    from cryodask.jobs.micrograph_matching.config import MatchConfig
    from cryodask.jobs.micrograph_matching.match import DefocusRange, Filters, match_micrograph
    from cryodask.jobs.micrograph_matching.particle_functions import (
        constrained_search,
        optimize_template,
        refine_particles,
    )
    from cryodask.jobs.micrograph_matching.spectra import match_spectra
    from cryodask.jobs.picks import pick
    from cryodask.jobs.tomogram_matching.job import match_tomogram
    from cryodask.jobs.tomogram_matching.parameters import read_parameters
    from cryodask.results.accessor import open_result

# loaded when first used, so that importing cryodask costs nothing
_PUBLIC = {
    "CryodaskError": ("cryodask.errors", "CryodaskError"),
    "DefocusRange": ("cryodask.jobs.micrograph_matching.match", "DefocusRange"),
    "Filters": ("cryodask.jobs.micrograph_matching.match", "Filters"),
    "InputError": ("cryodask.errors", "InputError"),
    "MatchConfig": ("cryodask.jobs.micrograph_matching.config", "MatchConfig"),
    "OrientationGrid": ("cryodask.geometry.zyz_grids", "OrientationGrid"),
    "constrained_search": ("cryodask.jobs.micrograph_matching.particle_functions", "constrained_search"),
    "classify": ("cryodask.jobs.classify.api", "classify"),
    "generate_angles": ("cryodask.geometry.grids", "rotation_grid"),
    "likelihood": ("cryodask.jobs.likelihood.job", "likelihood"),
    "likelihood_at": ("cryodask.jobs.likelihood.at_poses", "likelihood_at"),
    "make_templates": ("cryodask.jobs.likelihood.make_templates", "make_templates"),
    "match_micrograph": ("cryodask.jobs.micrograph_matching.match", "match_micrograph"),
    "match_spectra": ("cryodask.jobs.micrograph_matching.spectra", "match_spectra"),
    "match_tomogram": ("cryodask.jobs.tomogram_matching.job", "match_tomogram"),
    "open_result": ("cryodask.results.accessor", "open_result"),
    "open_volume": ("cryodask.io.volume", "open_volume"),
    "optimize_template": ("cryodask.jobs.micrograph_matching.particle_functions", "optimize_template"),
    "pick": ("cryodask.jobs.picks", "pick"),
    "read_parameters": ("cryodask.jobs.tomogram_matching.parameters", "read_parameters"),
    "refine_particles": ("cryodask.jobs.micrograph_matching.particle_functions", "refine_particles"),
    "reweight": ("cryodask.jobs.likelihood.reweight", "reweight"),
    "select": ("cryodask.jobs.classify.api", "select"),
}

__all__ = [
    "CryodaskError",
    "DefocusRange",
    "Filters",
    "InputError",
    "MatchConfig",
    "OrientationGrid",
    "classify",
    "constrained_search",
    "generate_angles",
    "likelihood",
    "likelihood_at",
    "make_templates",
    "match_micrograph",
    "match_spectra",
    "match_tomogram",
    "open_result",
    "open_volume",
    "optimize_template",
    "pick",
    "read_parameters",
    "refine_particles",
    "reweight",
    "select",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'cryodask' has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
